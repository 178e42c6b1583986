"""Tests of the layer that marks the end of the extractor: an identity for any type, with its name in the graph."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from detzoo.layers.stage_end import FEATURES, StageEnd, end_of_extractor


def test_maps_pass_unchanged_and_are_named_by_level():
    given = {5: keras.Input((2, 3, 4)), 3: keras.Input((8, 12, 4))}
    maps = end_of_extractor(given)
    assert list(maps) == [3, 5]
    model = keras.Model(list(given.values()), list(maps.values()))
    values = [np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32) for shape in ((2, 3, 4), (8, 12, 4))]
    fine, coarse = model(values)
    np.testing.assert_array_equal(fine, values[1])
    np.testing.assert_array_equal(coarse, values[0])
    graph = tf.function(lambda a, b: model([a, b])).get_concrete_function(*map(tf.constant, values)).graph
    names = {operation.name.rsplit("/", 1)[-1] for operation in graph.get_operations()}
    assert {f"{FEATURES}3", f"{FEATURES}5"} <= names


def test_low_precision_stays_low():
    layer = StageEnd(name="end", dtype="float32")
    assert layer(keras.Input((4,), dtype="bfloat16")).dtype == "bfloat16"
    assert layer(tf.ones([1, 4], tf.bfloat16)).dtype == tf.bfloat16


def test_a_gradient_passes():
    x = tf.Variable([[1.0, 2.0]])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(StageEnd(name="end")(x) ** 2)
    np.testing.assert_allclose(tape.gradient(loss, x), [[2.0, 4.0]])
