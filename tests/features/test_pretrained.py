"""Pretrained weights: a model of ``keras.applications`` with random weights, and what our backbone makes of them."""

from __future__ import annotations

import dataclasses
import logging
import urllib.error

import keras
import numpy as np
import pytest

from detzoo.builders.features import build_feature_extractor
from detzoo.config import pb
from detzoo.errors import CheckpointError
from detzoo.features import mobilenet, resnet, vgg
from detzoo.features.pretrained import MissingWeightsError, load_pretrained
from detzoo.features.rewrite import build_extractor_model


def vgg16_without_classifier():
    """The convolutions of VGG-16 alone: the maps that are compared need no classifier, which takes 0.5 GB per copy."""
    network = vgg.vgg16(for_pyramid=True)
    return dataclasses.replace(network, application=dataclasses.replace(network.application, with_classifier=None))


NETWORKS = {
    "mobilenet_v1": lambda: mobilenet.mobilenet_v1(for_pyramid=True),
    "mobilenet_v2": lambda: mobilenet.mobilenet_v2(for_pyramid=True),
    "resnet50": lambda: resnet.resnet("50"),
    "vgg16": vgg16_without_classifier,
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


@pytest.fixture
def small_vgg(monkeypatch):
    """SSD's VGG-16 with fc6 and fc7 of 8 channels, and a twin whose classifier has 32 channels instead of 4096."""
    monkeypatch.setattr(vgg, "FC_DEPTH", 32)
    monkeypatch.setattr(vgg, "FC_FILTERS", 8)
    network = vgg.vgg16()
    application = network.application

    def build(weights=None):
        features = application.build(weights=None, input_shape=(224, 224, 3))
        x = keras.layers.Flatten(name="flatten")(features.output)
        for name, units in (("fc1", 32), ("fc2", 32), ("predictions", 5)):
            x = keras.layers.Dense(units, activation="relu", name=name)(x)
        return randomize(keras.Model(features.input, x))

    twin = build()
    with_classifier = dataclasses.replace(
        application.with_classifier, build=lambda weights: twin if weights == "imagenet" else build()
    )
    application = dataclasses.replace(application, with_classifier=with_classifier)
    return dataclasses.replace(network, application=application), twin


@pytest.mark.parametrize("suffix", ["imagenet", ".weights.h5", ".h5", ".keras"])
def test_ssd_s_fc6_and_fc7_are_the_subsampled_classifier(tmp_path, small_vgg, suffix):
    # On 224 x 224 pixels pool5 has 7 x 7 cells, and the centre of fc6 (3 x 3 taps, three cells apart) sees the rows and
    # columns 0, 3 and 6 of them: it is fc1 without its other taps. Every fourth of 32 channels stays.
    network, twin = small_vgg
    source = "imagenet" if suffix == "imagenet" else str(tmp_path / f"twin{suffix}")
    if suffix == ".weights.h5":
        twin.save_weights(source)
    elif suffix != "imagenet":
        twin.save(source)
    images = images_of((224, 224))
    (first, first_bias), (second, second_bias) = (twin.get_layer(name).get_weights() for name in ("fc1", "fc2"))
    keep = np.zeros((7, 7, 512, 1))
    keep[np.ix_([0, 3, 6], [0, 3, 6])] = 1.0
    pool5 = keras.Model(twin.input, twin.get_layer("block5_pool").output)(images[..., ::-1]).numpy().reshape(1, -1)
    fc6 = np.maximum(pool5 @ (first.reshape(7, 7, 512, 32) * keep).reshape(-1, 32) + first_bias, 0)[:, ::4]
    fc7 = np.maximum(fc6 @ second[::4, ::4] + second_bias[::4], 0)
    model = build_model(network, (3, 4), (224, 224))
    report = load_pretrained(model, source, network.application)
    assert not report.missing
    assert (fc7 > 0).any()
    np.testing.assert_allclose(model(images)[5][:, 3, 3], fc7, rtol=1e-3, atol=1e-4 * fc7.max())


@pytest.mark.parametrize("suffix", [".weights.h5", ".h5", ".keras"])
def test_without_a_classifier_in_the_file_fc6_and_fc7_start_from_scratch(tmp_path, caplog, small_vgg, suffix):
    network, _ = small_vgg
    twin = network.application.build(weights=None)
    path = str(tmp_path / f"twin{suffix}")
    twin.save_weights(path) if suffix == ".weights.h5" else twin.save(path)
    model = build_model(network, (3, 4))
    with caplog.at_level(logging.WARNING):
        report = load_pretrained(model, path, network.application)
    assert report.missing == ("fc6/kernel", "fc6/bias", "fc7/kernel", "fc7/bias")
    assert "4 weights of the backbone, which start from scratch: fc6/kernel" in caplog.text
    kernel = twin.get_layer("block1_conv1").kernel.numpy()[:, :, ::-1]
    np.testing.assert_array_equal(model.get_layer("block1_conv1").kernel, kernel)


def test_the_classifier_is_subsampled_from_4096_to_1024_channels():
    # fc1's value is 100 times its tap's row plus 10 times its column, plus the channel / 4096; fc2's is
    # 4096 * input + output. The third tap of fc6 is row 6, its second one column 3, its channel 5 channel 20.
    rows, columns, channels = np.meshgrid(range(7), range(7), range(4096), indexing="ij")
    fc1 = (100 * rows + 10 * columns + channels / 4096).reshape(49, 4096)
    fc2 = np.arange(4096.0)[:, np.newaxis] * 4096 + np.arange(4096.0)
    bias = np.arange(4096.0)
    weights = {"fc1": {"kernel": fc1, "bias": bias}, "fc2": {"kernel": fc2, "bias": bias}}
    vgg.subsample_classifier(weights)
    assert weights["fc6"]["kernel"].shape == (3, 3, 1, 1024)
    assert weights["fc6"]["kernel"][2, 1, 0, 5] == 600 + 30 + 20 / 4096
    assert weights["fc7"]["kernel"].shape == (1, 1, 1024, 1024)
    assert weights["fc7"]["kernel"][0, 0, 3, 7] == 12 * 4096 + 28
    assert weights["fc6"]["bias"][1023] == weights["fc7"]["bias"][1023] == 4092


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


def test_weights_that_cannot_be_downloaded_are_an_error_with_file_folder_hash_and_url(tmp_path, monkeypatch, capsys):
    def fail(url, *_):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("keras.src.backend.config.keras_home", lambda: str(tmp_path))
    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", fail)
    network = resnet.resnet("50")
    model = build_model(network, (2,))
    with pytest.raises(MissingWeightsError, match="not available: URL fetch failure on https://") as caught:
        load_pretrained(model, "imagenet", network.application)
    message = str(caught.value)
    assert "no route to host" in message
    # The hash is that of keras.applications' WEIGHTS_HASHES["resnet50"][1].
    name = "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"
    url = f"https://storage.googleapis.com/tensorflow/keras-applications/resnet/{name}"
    file = f"{name} (hash 4d473c1dd8becc155b73f8504c6f6626)"
    assert f"Put the file {file} from {url} into the folder {tmp_path}/models." in message
    assert "leave pretrained_weights empty, or train with --allow_random_weights" in message
    assert capsys.readouterr().out == "", "Keras prints the address"


def test_a_damaged_file_in_the_cache_is_an_error_that_names_it(tmp_path, monkeypatch):
    name = "mobilenet_1_0_224_tf_no_top.h5"  # Keras checks no hash of this one
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / name).write_bytes(b"half a download")
    monkeypatch.setattr("keras.src.backend.config.keras_home", lambda: str(tmp_path))
    network = mobilenet.mobilenet_v1()
    with pytest.raises(MissingWeightsError, match=f"(?s)Put the file {name} into the folder {tmp_path}/models"):
        load_pretrained(build_model(network, (2,)), "imagenet", network.application)


def test_a_network_without_imagenet_weights_is_an_error():
    model = build_model(mobilenet.mobilenet_v1(), (2,))
    with pytest.raises(MissingWeightsError, match=r"has no ImageNet weights of this backbone. Otherwise name a file"):
        load_pretrained(model, "imagenet", None)


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
