"""Pretrained weights: a model of ``keras.applications`` with random weights, and what our backbone makes of them."""

from __future__ import annotations

import logging

import keras
import numpy as np
import pytest

from detzoo.builders.features import build_feature_extractor
from detzoo.config import pb
from detzoo.errors import CheckpointError
from detzoo.features import inception, mobilenet, resnet, vgg
from detzoo.features.network import Application, symbolic
from detzoo.features.pretrained import load_pretrained
from detzoo.features.rewrite import build_extractor_model

NETWORKS = {
    "mobilenet_v1": lambda: mobilenet.mobilenet_v1(for_pyramid=True),
    "mobilenet_v2": lambda: mobilenet.mobilenet_v2(for_pyramid=True),
    "resnet50": lambda: resnet.resnet("50"),
    "vgg16": lambda: vgg.vgg16(for_pyramid=True),
}
# Sizes for which "same" padding is what keras.applications pads: even at every stride for the MobileNets and VGG, and
# an odd map (49 x 33) before ResNet's max pooling.
IMAGE_SHAPES = {"mobilenet_v1": (96, 64), "mobilenet_v2": (96, 64), "resnet50": (97, 65), "vgg16": (96, 64)}


def build_model(network, levels=(2, 3, 4), image_shape=(None, None)):
    return build_extractor_model(network, levels, image_shape, network.hyperparams, output_stride=32)


def randomize(model: keras.Model) -> keras.Model:
    """Biases and statistics away from their initial values, so that none can be forgotten unseen."""
    generator = np.random.default_rng(5)
    for weight in model.weights:
        if weight.name in ("gamma", "moving_variance"):
            weight.assign(generator.uniform(0.7, 1.3, weight.shape))
        elif weight.name in ("beta", "moving_mean", "bias"):
            weight.assign(generator.normal(0.0, 0.1, weight.shape))
    return model


def images_of(shape):
    return np.random.default_rng(3).uniform(-1.0, 1.0, (1, *shape, 3)).astype(np.float32)


def twin_maps(twin, network, levels, images):
    outputs = {level: twin.get_layer(network.endpoints[level]).output for level in levels}
    if network.application.expects_bgr:
        images = images[..., ::-1]
    return keras.Model(twin.input, outputs)(images)


@pytest.mark.parametrize(
    ("name", "suffix"),
    [*((name, ".weights.h5") for name in NETWORKS), ("mobilenet_v1", ".h5"), ("mobilenet_v1", ".keras")],
)
def test_a_file_of_keras_applications_gives_the_same_maps(tmp_path, name, suffix):
    network = NETWORKS[name]()
    levels = (2, 3, 4) if name == "vgg16" else (2, 3, 4, 5)
    twin = randomize(network.application.build(weights=None, input_shape=(None, None, 3)))
    path = str(tmp_path / f"twin{suffix}")
    twin.save_weights(path) if suffix == ".weights.h5" else twin.save(path)
    images = images_of(IMAGE_SHAPES[name])
    expected = twin_maps(twin, network, levels, images)
    model = build_model(network, levels)
    report = load_pretrained(model, path, network.application)
    assert not report.missing
    assert len(report.loaded) == len(model.weights)
    actual = model(images)
    for level in levels:
        scale = np.abs(expected[level]).max()
        assert scale > 1e-3
        np.testing.assert_allclose(actual[level] / scale, expected[level] / scale, atol=1e-4)


@pytest.mark.parametrize(
    "build_network", [inception.inception_v3, pytest.param(inception.inception_resnet_v2, marks=pytest.mark.slow)]
)
def test_inception_equals_its_twin_with_aligned_maps(build_network):
    network = build_network()
    twin = symbolic(lambda: network.application.build(weights=None))

    def aligned(layer):
        config = layer.get_config()
        return type(layer).from_config(config | {"padding": "same"} if "padding" in config else config)

    twin = randomize(keras.models.clone_model(twin, clone_function=aligned))
    levels = (3, 4, 5)
    model = build_model(network, levels)
    report = load_pretrained(model, "imagenet", Application(lambda weights: twin))
    assert not report.missing
    images = images_of((75, 101))
    expected = twin_maps(twin, network, levels, images)
    for level, actual in model(images).items():
        np.testing.assert_allclose(actual, expected[level], atol=1e-4 * np.abs(expected[level]).max())


def test_vgg_s_convolutional_fc_starts_from_scratch(caplog):
    network = vgg.vgg16()
    model = build_model(network, (3, 4))
    with caplog.at_level(logging.WARNING):
        report = load_pretrained(
            model, "imagenet", Application(lambda weights: network.application.build(weights=None))
        )
    assert report.missing == ("fc6/kernel", "fc6/bias", "fc7/kernel", "fc7/bias")
    assert "4 weights of the backbone, which start from scratch: fc6/kernel" in caplog.text


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
@pytest.mark.parametrize("name", ["mobilenet_v2", "vgg16"])
def test_a_file_of_our_own_gives_the_same_maps(tmp_path, name, suffix):
    network = NETWORKS[name]()
    saved = randomize(build_model(network, (2, 3, 4)))
    path = str(tmp_path / f"own{suffix}")
    saved.save_weights(path) if suffix == ".weights.h5" else saved.save(path)
    model = build_model(network, (2, 3))
    report = load_pretrained(model, path, network.application)
    assert not report.missing
    images = images_of((64, 96))
    for level, actual in model(images).items():
        np.testing.assert_allclose(actual, saved(images)[level], atol=1e-5)


def test_narrower_layers_are_reported_and_left_alone(tmp_path):
    network = mobilenet.mobilenet_v1()
    path = str(tmp_path / "twin.weights.h5")
    network.application.build(weights=None).save_weights(path)
    lite = mobilenet.mobilenet_v1(for_pyramid=True, is_lite=True)
    report = load_pretrained(build_model(lite, (4, 5)), path, lite.application)
    # Blocks 12 and 13: the former's 1 x 1 and batch norm, all of the latter.
    assert {name.split("/")[0] for name in report.missing} == {
        "conv_pw_12",
        "conv_pw_12_bn",
        "conv_dw_13",
        "conv_dw_13_bn",
        "conv_pw_13",
        "conv_pw_13_bn",
    }


def test_without_a_download_training_starts_from_scratch(caplog):
    def build(weights):
        raise OSError("no route to host")

    network = mobilenet.mobilenet_v1()
    model = build_model(network, (2,))
    before = model.get_layer("conv1").kernel.numpy()
    with caplog.at_level(logging.WARNING):
        report = load_pretrained(model, "imagenet", Application(build))
        assert not report.loaded
        assert "could not be downloaded (no route to host): the backbone is trained from scratch" in caplog.text
        load_pretrained(model, "imagenet", None)
        assert "keras.applications has no ImageNet weights of this backbone" in caplog.text
    np.testing.assert_array_equal(model.get_layer("conv1").kernel, before)


def test_files_that_do_not_fit_say_so(tmp_path):
    network = mobilenet.mobilenet_v1()
    model = build_model(network, (2,))
    with pytest.raises(CheckpointError, match=r"there is no file '/nowhere\.h5'"):
        load_pretrained(model, "/nowhere.h5", network.application)
    broken = tmp_path / "broken.weights.h5"
    broken.write_bytes(b"not HDF5")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_pretrained(model, str(broken), network.application)
    other = tmp_path / "other.weights.h5"
    build_model(resnet.resnet("50"), (2,)).save_weights(other)
    with pytest.raises(CheckpointError, match="has no weight whose layer and shape"):
        load_pretrained(model, str(other), network.application)


def test_the_configuration_names_the_file(tmp_path):
    path = tmp_path / "own.weights.h5"
    message = pb.SsdFeatureExtractor(type="ssd_mobilenet_v1", pretrained_weights=str(path))
    saved = build_feature_extractor(pb.SsdFeatureExtractor(type="ssd_mobilenet_v1"), levels=(2,)).model
    saved.save_weights(path)
    model = build_feature_extractor(message, levels=(2,)).model
    np.testing.assert_array_equal(model.get_layer("conv1").kernel, saved.get_layer("conv1").kernel)
