"""Multiply-adds: layers counted by hand, networks against their papers, static shapes against a run."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from detzoo.benchmark.multiply_adds import count_in_function, count_in_graph_def
from detzoo.features.grouped_convolution import GroupedConv2D
from detzoo.serving.frozen import to_constants


def traced(model, shape):
    spec = tf.TensorSpec([None, *shape], tf.float32)
    return tf.function(lambda x: {"out": model(x, training=False)}, input_signature=[spec]).get_concrete_function()


def counts(layer, shape):
    function = traced(layer, shape)
    static = count_in_function(function)
    frozen = to_constants(function)
    run = count_in_graph_def(frozen.graph_def, frozen.input_name, np.zeros((1, *shape), np.float32))
    assert static == run
    return static


# Input 9 x 7 with 4 channels; 9 and 7 halved with padding are 5 and 4, without padding 3 x 3 leaves 7 x 5.
@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (keras.layers.Conv2D(6, 3, 2, padding="same"), {"convolution": 5 * 4 * 6 * 3 * 3 * 4}),
        (keras.layers.Conv2D(6, (3, 1), padding="valid"), {"convolution": 7 * 7 * 6 * 3 * 1 * 4}),
        (GroupedConv2D(6, 3, groups=2), {"convolution": 9 * 7 * 6 * 3 * 3 * 2}),
        (keras.layers.Conv2D(6, 3, dilation_rate=2, padding="same"), {"convolution": 9 * 7 * 6 * 3 * 3 * 4}),
        (keras.layers.DepthwiseConv2D(3, padding="same"), {"depthwise": 9 * 7 * 4 * 3 * 3}),
        (keras.layers.DepthwiseConv2D(3, 2, padding="same", depth_multiplier=2), {"depthwise": 5 * 4 * 8 * 3 * 3}),
        (
            keras.layers.SeparableConv2D(6, 3, padding="same"),
            {"depthwise": 9 * 7 * 4 * 9, "convolution": 9 * 7 * 6 * 4},
        ),
        (keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(5)]), {"dense": 9 * 7 * 4 * 5}),
        (keras.layers.Conv2DTranspose(6, 2, 2), {"transposed": 9 * 7 * 4 * 2 * 2 * 6}),
        (keras.layers.MaxPooling2D(), {}),
    ],
)
def test_layers_counted_by_hand(layer, expected):
    assert counts(layer, (9, 7, 4)) == expected


def test_a_batch_is_counted_as_one_image():
    layer = keras.layers.Conv2D(6, 3, padding="same")
    layer.build((None, 9, 7, 4))
    spec = tf.TensorSpec([2, 9, 7, 4], tf.float32)
    function = tf.function(lambda x: {"out": layer(x)}, input_signature=[spec]).get_concrete_function()
    assert count_in_function(function) == {"convolution": 9 * 7 * 6 * 9 * 4}


def test_shapes_that_depend_on_the_image_need_a_run():
    layer = keras.layers.Conv2D(6, 1)
    layer.build((None, None, None, 4))
    function = traced(layer, (None, None, 4))
    with pytest.raises(ValueError, match="static shape"):
        count_in_function(function)
    frozen = to_constants(function)
    assert count_in_graph_def(frozen.graph_def, frozen.input_name, np.zeros((1, 9, 7, 4), np.float32)) == {
        "convolution": 9 * 7 * 6 * 4
    }


@pytest.mark.parametrize(
    ("name", "millions", "tolerance"),
    [
        ("MobileNet", 569, 0.002),  # Howard et al., arXiv:1704.04861, table 8
        ("MobileNetV2", 300, 0.005),  # Sandler et al., arXiv:1801.04381, table 4
        ("ResNet50", 3800, 0.02),  # He et al., arXiv:1512.03385, table 1: 3.8 billion
    ],
)
def test_networks_have_the_multiply_adds_of_their_papers(name, millions, tolerance):
    network = getattr(keras.applications, name)(weights=None, input_shape=(224, 224, 3))
    assert sum(count_in_function(traced(network, (224, 224, 3))).values()) == pytest.approx(
        1e6 * millions, rel=tolerance
    )
