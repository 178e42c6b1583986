"""The weighted sum by hand, for each method, and what it learns."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from detzoo.layers.fusion import WeightedSum

MAPS = [np.full((1, 2, 3, 1), value, np.float32) for value in (10.0, 20.0, 40.0)]


def layer_with(method, weights):
    layer = WeightedSum(method, name="sum")
    layer.build([x.shape for x in MAPS[: len(weights)]])
    layer.combine_weights.assign(np.reshape(weights, (-1, 1)))
    return layer


@pytest.mark.parametrize(
    ("method", "weights", "expected"),
    [
        ("fast_attention", [1.0, 1.0], (10 + 20) / 2.0001),
        ("fast_attention", [3.0, 1.0, 0.5], (30 + 20 + 20) / 4.5001),
        ("fast_attention", [-2.0, 1.0], 20 / 1.0001),  # ReLU: a negative weight takes its map out
        ("fast_attention", [-2.0, -1.0], 0.0),  # and the epsilon keeps 0 / 0 away
        ("weighted_sum", [3.0, -1.0, 0.5], 30 - 20 + 20),
        ("attention", [3.0, -1.0, 0.5], 10 + 20 + 40),  # a softmax over one number each is 1
    ],
)
def test_methods(method, weights, expected):
    layer = layer_with(method, weights)
    np.testing.assert_allclose(layer(MAPS[: len(weights)]), np.full((1, 2, 3, 1), expected), rtol=1e-6)
    assert layer.compute_output_shape([x.shape for x in MAPS]) == (1, 2, 3, 1)


def test_weights_start_at_one_and_get_a_gradient():
    layer = WeightedSum("fast_attention")
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(layer(MAPS[:2]))
    np.testing.assert_array_equal(layer.combine_weights, [[1.0], [1.0]])
    # d/dw1 of 6 cells * (10 w1 + 20 w2) / (w1 + w2 + e) at (1, 1): 6 * (10 * 2.0001 - 30) / 2.0001 ** 2.
    gradient = tape.gradient(value, layer.combine_weights.value)
    np.testing.assert_allclose(gradient[0, 0], 6 * (10 * 2.0001 - 30) / 2.0001**2, rtol=1e-5)


def test_half_precision_keeps_the_weights_in_float32():
    layer = WeightedSum("fast_attention", dtype="mixed_float16")
    assert layer(MAPS[:2]).dtype == "float16"
    assert layer.combine_weights.dtype == "float32"


def test_saved_and_loaded_it_is_the_same(tmp_path):
    inputs = [keras.Input((2, 3, 1)), keras.Input((2, 3, 1))]
    model = keras.Model(inputs, WeightedSum("weighted_sum", name="sum")(inputs))
    model.get_layer("sum").combine_weights.assign([[0.5], [2.0]])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(MAPS[:2]), np.full((1, 2, 3, 1), 45.0))
