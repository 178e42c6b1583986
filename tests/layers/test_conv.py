"""Convolution blocks: what is built, under which name, and that every hyperparameter arrives."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest

from detzoo.contracts import BatchNormHyperparams, ConvHyperparams
from detzoo.layers.conv import conv_block, depthwise_block, needs_bias, separable_convolution

ONES = ConvHyperparams(kernel_initializer=keras.initializers.Ones, activation=None)
NORMALIZED = dataclasses.replace(ONES, activation="relu6", batch_norm=BatchNormHyperparams(scale=True))


def block_model(block, *args, shape=(5, 6, 2), **kwargs):
    image = keras.Input(shape)
    return keras.Model(image, block(image, *args, **kwargs))


def paths(model):
    return sorted(weight.path for weight in model.weights)


def test_block_is_a_convolution_with_bias_where_nothing_normalises():
    model = block_model(conv_block, 3, 1, ONES, "point")
    assert paths(model) == ["point_conv/bias", "point_conv/kernel"]
    outputs = model(np.full((1, 5, 6, 2), 2.0, np.float32))
    np.testing.assert_allclose(outputs, np.full((1, 5, 6, 3), 4.0))  # two channels of 2, kernel of ones


def test_block_normalises_and_activates_in_this_order_and_drops_the_bias():
    model = block_model(conv_block, 3, 3, NORMALIZED, "body", strides=2)
    names = [layer.name for layer in model.layers[1:]]
    assert names == ["body_conv", "body_batch_norm", "body_activation"]
    assert paths(model) == [
        "body_batch_norm/beta",
        "body_batch_norm/gamma",
        "body_batch_norm/moving_mean",
        "body_batch_norm/moving_variance",
        "body_conv/kernel",
    ]
    assert model.output_shape == (None, 3, 3, 3)
    assert float(np.max(model(np.full((1, 5, 6, 2), 9.0, np.float32)))) == 6.0  # ReLU6


def test_normalisation_and_activation_are_optional():
    bare = dataclasses.replace(NORMALIZED, batch_norm=None)
    model = block_model(conv_block, 3, 1, bare, "bare", use_activation=False)
    assert paths(model) == ["bare_conv/bias", "bare_conv/kernel"]
    assert float(np.max(model(np.full((1, 5, 6, 2), 9.0, np.float32)))) == 18.0


@pytest.mark.parametrize(
    ("batch_norm", "forced", "expected"),
    [
        (None, False, True),
        (BatchNormHyperparams(center=True), False, False),
        (BatchNormHyperparams(center=False), False, True),
        (BatchNormHyperparams(center=True), True, True),
    ],
)
def test_bias_follows_from_the_normalisation(batch_norm, forced, expected):
    assert needs_bias(dataclasses.replace(ONES, batch_norm=batch_norm, force_use_bias=forced)) is expected


def test_explicit_padding_centres_the_strided_kernel_on_even_maps():
    # A 4 x 6 map, 3 x 3 kernel of ones, stride 2. "same" pads (0, 1): the first window covers 3 x 3 = 9 pixels.
    # Explicit padding is (1, 1): the first window covers 2 x 2 = 4 pixels, those after it on the edge 2 x 3 = 6.
    image = np.ones((1, 4, 6, 1), np.float32)
    same = block_model(conv_block, 1, 3, ONES, "same", shape=(4, 6, 1), strides=2)(image)
    explicit = block_model(conv_block, 1, 3, ONES, "explicit", shape=(4, 6, 1), strides=2, explicit_padding=True)(image)
    np.testing.assert_allclose(same[0, :, :, 0], [[9, 9, 6], [6, 6, 4]])
    np.testing.assert_allclose(explicit[0, :, :, 0], [[4, 6, 6], [6, 9, 9]])


def test_separable_block_shares_one_normalisation():
    model = block_model(conv_block, 3, 3, NORMALIZED, "lite", depthwise=True)
    assert [path for path in paths(model) if "batch_norm" not in path] == [
        "lite_separable/depthwise_kernel",
        "lite_separable/pointwise_kernel",
    ]
    assert sum("moving_mean" in path for path in paths(model)) == 1


def test_depthwise_block_keeps_channels_apart():
    image = np.zeros((1, 5, 6, 2), np.float32)
    image[..., 1] = 1.0
    outputs = np.asarray(block_model(depthwise_block, 3, ONES, "depth")(image))
    assert outputs[..., 0].max() == 0.0
    assert outputs[0, 2, 2, 1] == 9.0


def test_regularisation_is_counted_as_configured():
    # A 1 x 1 kernel of ones from 2 to 3 channels: sum(|w|) = sum(w**2) = 6.
    hyperparams = dataclasses.replace(ONES, l1_weight=0.5, l2_weight=0.25)
    model = block_model(conv_block, 3, 1, hyperparams, "point")
    assert float(sum(model.losses)) == pytest.approx(6 * 0.5 + 6 * 0.25)


def test_depthwise_kernels_are_regularised_on_request_only():
    hyperparams = dataclasses.replace(ONES, l2_weight=0.25)
    assert block_model(depthwise_block, 3, hyperparams, "free").losses == []
    asked = dataclasses.replace(hyperparams, regularize_depthwise=True)
    assert float(sum(block_model(depthwise_block, 3, asked, "held").losses)) == pytest.approx(2 * 9 * 0.25)


@pytest.mark.parametrize("pointwise", [False, True])
def test_separable_convolution_configures_the_kernels_it_is_asked_to(pointwise):
    layer = separable_convolution(3, 3, ONES, "lite", configure_pointwise=pointwise)
    layer.build((None, 5, 6, 2))
    assert np.all(np.asarray(layer.depthwise_kernel) == 1.0)
    assert np.all(np.asarray(layer.pointwise_kernel) == 1.0) == pointwise


def test_no_two_blocks_start_alike():
    hyperparams = dataclasses.replace(ONES, kernel_initializer=keras.initializers.GlorotUniform)
    image = keras.Input((5, 6, 2))
    twice = [conv_block(image, 3, 3, hyperparams, name) for name in ("one", "two")]
    first, second = (weight for weight in keras.Model(image, twice).weights if weight.name == "kernel")
    assert not np.allclose(first, second)
