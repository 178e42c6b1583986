"""The half of a backbone after the crop: shapes and strides, and that it joins the half before the crop."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from detzoo.builders.region_features import read_region_features
from detzoo.config import pb
from detzoo.features import inception, inception_v2, mobilenet, resnet
from detzoo.features.network import symbolic
from detzoo.features.rewrite import RegionStride, build_region_model, entry_stride

SMALL = {"type": "faster_rcnn_mobilenet_v1", "depth_multiplier": 0.25, "min_depth": 8}
STRIDED = pb.FasterRcnnFeatureExtractor.STRIDED


def randomized(model):
    """Biases and statistics away from their initial values, so that none can be forgotten unseen."""
    generator = np.random.default_rng(5)
    for weight in model.weights:
        if weight.name in ("gamma", "moving_variance"):
            weight.assign(generator.uniform(0.7, 1.3, weight.shape))
        elif weight.name in ("beta", "moving_mean", "bias"):
            weight.assign(generator.normal(0.0, 0.1, weight.shape))
    return model


def region_model(network, shape, stride):
    channels = network.graph.get_layer(network.endpoints[4]).output.shape[-1]
    return build_region_model(network, (4, 5), (*shape, channels), network.hyperparams, stride)


@pytest.mark.parametrize(
    ("build_network", "expected"),
    [
        (lambda: resnet.resnet("50"), 2),  # conv5 begins with strided 1 x 1 on both branches
        (lambda: resnet.resnet("101"), 2),
        (lambda: resnet.resnext("101_32x8d"), 1),  # its stride is in the 3 x 3
        (mobilenet.mobilenet_v1, 1),
        (lambda: mobilenet.mobilenet_v2(for_pyramid=True), 1),
        (lambda: inception_v2.inception_v2(for_pyramid=True), 1),
        (inception.inception_v3, 1),
        (inception.inception_resnet_v2, 1),
    ],
)
def test_entry_stride(build_network, expected):
    assert entry_stride(build_network(), 4) == expected


@pytest.mark.parametrize(
    ("stride", "shape"),
    [(RegionStride.STRIDED, (4, 3)), (RegionStride.DENSE, (7, 6)), (RegionStride.DILATED, (7, 6))],
)
def test_shapes_of_crops(stride, shape):
    # 7 x 6 cells: half of them, rounded up, with the stride.
    model = symbolic(lambda: region_model(resnet.resnet("50"), (7, 6), stride))
    assert model.output_shape == (None, *shape, 2048)
    assert {weight.path.split("/")[0] for weight in model.weights} == {"box_backbone"}


def dilations(stride):
    network = resnet.resnet("50")
    model = symbolic(lambda: region_model(network, (7, 6), stride))
    return {
        layer.dilation_rate[0]
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D) and layer.kernel_size == (3, 3)
    }


def test_only_dilated_crops_are_dilated():
    assert [dilations(stride) for stride in RegionStride] == [{1}, {1}, {2}]


def test_every_other_cell_of_a_crop_is_enough_for_a_strided_resnet():
    network = resnet.resnet("50")
    strided = randomized(region_model(network, (7, 6), RegionStride.STRIDED))
    dense = region_model(network, (4, 3), RegionStride.DENSE)
    dense.set_weights(strided.get_weights())
    crop = np.random.default_rng(1).normal(0, 1, (1, 7, 6, 1024)).astype(np.float32)
    expected = strided(crop).numpy()
    np.testing.assert_allclose(dense(crop[:, ::2, ::2]), expected, atol=1e-5 * np.abs(expected).max())


def test_pretrained_weights_arrive_before_and_after_the_crop(tmp_path):
    # Both halves, one after the other on the whole map, are the network that the weights come from.
    twin = randomized(
        keras.applications.MobileNet(alpha=0.25, include_top=False, weights=None, input_shape=(64, 96, 3))
    )
    path = str(tmp_path / "twin.weights.h5")
    twin.save_weights(path)
    features = read_region_features(
        pb.FasterRcnnFeatureExtractor(**SMALL, pretrained_weights=path, crop_stride=STRIDED)
    )
    before = features.backbone((64, 96)).model
    after = features.after_crop((4, 6, 128), features.region_stride())
    image = np.random.default_rng(3).uniform(-1.0, 1.0, (1, 64, 96, 3)).astype(np.float32)
    maps = before(image)
    assert tuple(maps[4].shape) == (1, 4, 6, 128)
    expected = twin(image).numpy()
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(after(maps[4]), expected, atol=1e-4 * np.abs(expected).max())


def test_freezing_reaches_both_halves():
    features = read_region_features(pb.FasterRcnnFeatureExtractor(**SMALL, freeze_backbone=True))
    assert not features.backbone((64, 96)).model.trainable_weights
    assert not features.after_crop((7, 7, 128), RegionStride.DENSE).trainable_weights
    features = read_region_features(pb.FasterRcnnFeatureExtractor(**SMALL))
    assert features.backbone((64, 96)).model.trainable_weights
    assert features.after_crop((7, 7, 128), RegionStride.DENSE).trainable_weights


def test_widths_after_the_crop_follow_the_multiplier():
    # A quarter of 512 and of 1024 channels.
    features = read_region_features(pb.FasterRcnnFeatureExtractor(**SMALL))
    assert features.after_crop((7, 5, 128), RegionStride.STRIDED).output_shape == (None, 4, 3, 256)


@pytest.mark.parametrize(("suffix", "size"), [("", (8, 7)), ("_keras", (9, 8))])
def test_padding_of_inception_resnet_after_the_crop(suffix, size):
    # Kernels of 3 with stride 2 on 17 x 15 cells: (17 - 3) / 2 + 1 = 8 without padding, 17 / 2 rounded up with it.
    message = pb.FasterRcnnFeatureExtractor(type=f"faster_rcnn_inception_resnet_v2{suffix}")
    features = read_region_features(message)
    model = symbolic(lambda: features.after_crop((17, 15, 1088), RegionStride.STRIDED))
    assert model.output_shape == (None, *size, 1536)
