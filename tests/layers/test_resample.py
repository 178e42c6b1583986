"""Upsampling to the size of a finer map, resizing and padding to a multiple, for odd, non-square and unknown sizes."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from detzoo.layers.resample import PadToMultiple, ResizeBilinear, UpsampleLike


def test_upsampling_repeats_and_cuts_the_surplus_row():
    coarse = tf.reshape(tf.range(4.0), (1, 2, 2, 1))
    outputs = UpsampleLike()([coarse, tf.zeros([1, 3, 4, 5])])
    np.testing.assert_array_equal(outputs[0, :, :, 0], [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3]])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_upsampling_keeps_the_type(dtype):
    layer = UpsampleLike(dtype=dtype)
    assert layer([tf.ones([1, 2, 2, 1], dtype), tf.ones([1, 4, 4, 1], dtype)]).dtype == dtype


def test_upsampling_sends_each_gradient_home():
    coarse = tf.ones([1, 2, 2, 1])
    with tf.GradientTape() as tape:
        tape.watch(coarse)
        value = tf.reduce_sum(UpsampleLike()([coarse, tf.zeros([1, 3, 4, 1])]))
    np.testing.assert_array_equal(tape.gradient(value, coarse)[0, :, :, 0], [[4, 4], [2, 2]])


@pytest.mark.parametrize(("shape", "expected"), [((5, 8), (8, 8)), ((4, 9), (4, 12)), ((12, 16), (12, 16))])
def test_padding_reaches_the_next_multiple(shape, expected):
    outputs = PadToMultiple(4)(tf.ones([2, *shape, 3]))
    assert tuple(outputs.shape) == (2, *expected, 3)
    np.testing.assert_array_equal(outputs[:, : shape[0], : shape[1]], np.ones((2, *shape, 3)))
    assert float(tf.reduce_sum(outputs)) == 2 * 3 * shape[0] * shape[1]


def test_unknown_sizes_work_in_a_model_and_survive_saving(tmp_path):
    coarse, fine = keras.Input((None, None, 2)), keras.Input((None, None, 2))
    outputs = PadToMultiple(4, name="pad")(UpsampleLike(name="up")([coarse, fine]))
    model = keras.Model([coarse, fine], outputs)
    assert model.output_shape == (None, None, None, 2)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for network in (model, loaded):
        assert tuple(network([tf.ones([1, 3, 4, 2]), tf.ones([1, 5, 7, 2])]).shape) == (1, 8, 8, 2)


def test_resizing_aligns_the_corners():
    # Rows: 3 from 2, at 0, .5, 1. Columns: 4 from 3, at 0, 2/3, 4/3, 2, over the values 0, 3, 9 (+ 6 a row).
    inputs = tf.constant([[[[0.0], [3.0], [9.0]], [[6.0], [9.0], [15.0]]]])
    outputs = ResizeBilinear((3, 4))(inputs)[0, :, :, 0]
    np.testing.assert_allclose(outputs, [[0, 2, 5, 9], [3, 5, 8, 12], [6, 8, 11, 15]], atol=1e-5)
    np.testing.assert_allclose(ResizeBilinear((2, 3))(inputs), inputs)
    np.testing.assert_array_equal(ResizeBilinear((2, 2))(tf.ones([1, 1, 1, 3])), np.ones((1, 2, 2, 3)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_resizing_keeps_the_type(dtype):
    assert ResizeBilinear((4, 5), dtype=dtype)(tf.ones([1, 2, 2, 1], dtype)).dtype == dtype


def test_resizing_survives_saving(tmp_path):
    inputs = keras.Input((None, None, 2))
    model = keras.Model(inputs, ResizeBilinear((3, 5), name="resize")(inputs))
    assert model.output_shape == (None, 3, 5, 2)
    model.save(tmp_path / "model.keras")
    x = np.random.default_rng(1).normal(0, 1, (1, 4, 4, 2)).astype(np.float32)
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras")(x), model(x))
