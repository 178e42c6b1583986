"""EfficientNet against ``keras.applications``, its published size, and where the Object Detection API reads it."""

from __future__ import annotations

import functools
import math

import keras
import numpy as np
import pytest

from detzoo.features.efficientnet import efficientnet
from detzoo.features.network import symbolic
from detzoo.features.normalization import IMAGENET_STANDARD, standardize_imagenet
from detzoo.features.rewrite import build_extractor_model
from detzoo.layers.activation import swish

SHORTCUTS = ["2b", "3b", "4b", "4c", "5b", "5c", "6b", "6c", "6d"]  # blocks of B0 that have one
FIRST_OF_STAGE = {"2": 1, "3": 3, "4": 5, "5": 8, "6": 11}  # how many blocks come before a stage


@functools.cache
def backbone(variant, shape=(None, None)):
    network = efficientnet(variant)
    return build_extractor_model(network, (2, 3, 4, 5), shape, network.hyperparams, output_stride=32)


def test_maps_are_those_of_keras_applications():
    # Without ImageNet's weights the twin divides by 255 and standardises with mean 0 and variance 1.
    twin = keras.applications.EfficientNetB0(include_top=False, weights=None, input_shape=(64, 96, 3))
    model = backbone("b0")
    random = np.random.default_rng(1)
    for layer in model.layers:
        for weight, theirs in zip(layer.weights, twin.get_layer(layer.name).weights if layer.weights else ()):
            value = random.uniform(0.5, 1.5, weight.shape) if weight.name in ("gamma", "moving_variance") else None
            value = random.normal(0, 0.3, weight.shape) / math.sqrt(weight.shape[0]) if value is None else value
            weight.assign(value)
            theirs.assign(value)
    images = random.uniform(0, 255, (2, 64, 96, 3)).astype(np.float32)
    names = {2: "block2b_add", 3: "block3b_add", 4: "block5c_add", 5: "block7a_project_bn"}
    expected = keras.Model(twin.input, {level: twin.get_layer(name).output for level, name in names.items()})(images)
    actual = model(images / 255.0)
    assert {level: tuple(x.shape[1:]) for level, x in actual.items()} == {
        2: (16, 24, 24),
        3: (8, 12, 40),
        4: (4, 6, 112),
        5: (2, 3, 320),
    }
    for level, x in actual.items():
        scale = np.abs(expected[level]).max()
        assert scale > 1e-3
        np.testing.assert_allclose(x, expected[level], atol=1e-4 * scale)


def test_odd_sizes_are_padded_like_even_ones():
    sizes = {level: tuple(x.shape[1:3]) for level, x in backbone("b0")(np.zeros((1, 65, 97, 3), np.float32)).items()}
    assert sizes == {2: (17, 25), 3: (9, 13), 4: (5, 7), 5: (3, 4)}


def test_size_is_the_published_one():
    # keras.applications' 5,330,571 parameters, less 7 of its normalisation of pixels, 1280 classes' inputs, and the
    # last 1 x 1 with its normalisation: 320 * 1280 + 4 * 1280.
    assert backbone("b0").count_params() == 5_330_571 - 7 - 1281 * 1000 - (320 + 4) * 1280


def test_deeper_networks_are_read_where_the_smallest_ends_its_stages():
    model = symbolic(lambda: backbone.__wrapped__("b1"))
    names = {layer.name for layer in model.layers}
    assert "block3c_add" in names  # computed, because level 4 needs it; level 3 is the map before it
    assert not [name for name in names if name.startswith(("block7b", "top_"))]
    assert [x.shape[-1] for x in model.output.values()] == [24, 40, 112, 320]


def test_stochastic_depth_grows_with_depth_and_drops_whole_maps():
    rates = {layer.name: layer.rate for layer in backbone("b0").layers if isinstance(layer, keras.layers.Dropout)}
    # 0.2 * block / 16 blocks, counted from 0.
    expected = {f"block{name}_drop": 0.2 * (FIRST_OF_STAGE[name[0]] + "abcd".index(name[1])) / 16 for name in SHORTCUTS}
    assert rates == pytest.approx(expected)
    layer = backbone("b0").get_layer("block6d_drop")
    dropped = np.asarray(layer(np.ones((200, 3, 4, 2), np.float32), training=True))
    kept = dropped.reshape(200, -1)
    np.testing.assert_array_equal(kept, np.repeat(kept[:, :1], 24, axis=1))
    assert sorted(set(kept[:, 0])) == pytest.approx([0.0, 1.0 / (1.0 - layer.rate)])
    np.testing.assert_array_equal(layer(np.ones((2, 3, 4, 2), np.float32), training=False), np.ones((2, 3, 4, 2)))


def test_gates_have_their_own_activations_a_bias_and_no_normalisation():
    model = backbone("b0")
    reduce, expand = model.get_layer("block1a_se_reduce"), model.get_layer("block1a_se_expand")
    assert (reduce.activation, expand.activation) == (swish, keras.activations.sigmoid)
    assert reduce.use_bias
    assert expand.use_bias
    assert not [layer.name for layer in model.layers if "se_" in layer.name and "bn" in layer.name]
    assert reduce.kernel_regularizer is not None
    assert reduce.bias_regularizer is not None


def test_normalisation():
    pixels = np.array([[[0.0, 0.0, 0.0], [255.0, 255.0, 255.0], IMAGENET_STANDARD.zero]], np.float32)
    expected = [
        [-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225],
        [0.515 / 0.229, 0.544 / 0.224, 0.594 / 0.225],
        [0] * 3,
    ]
    np.testing.assert_allclose(standardize_imagenet(pixels)[0], expected, atol=1e-6)
    assert IMAGENET_STANDARD.colour_of((1.0, 0.0, -1.0)) == pytest.approx((182.07, 116.28, 46.155))
