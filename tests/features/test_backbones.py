"""Tests of every backbone: they come from the table of extractors, so that a new one is tested without a change here.

The networks are built an eighth as wide, where widths are the graph's own: depth and wiring are what is tested here,
and ``test_parameters.py`` counts the published widths.
"""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from detzoo.builders.features import build_network, normalization
from detzoo.config.support import SSD_EXTRACTORS
from detzoo.features import resnet
from detzoo.features.network import Application, Network
from detzoo.features.pretrained import load_pretrained
from detzoo.features.rewrite import RegionStride, build_extractor_model, build_region_model

# Family -> its first row in the table, which is the smallest variant.
FAMILIES = {row.family: row for row in reversed(SSD_EXTRACTORS.values())}
NARROWING = 8
CROPPED, LAST = 4, 5


def has(graph, kind):
    return any(isinstance(layer, kind) for layer in graph.layers)


def small_network(row) -> Network:
    """The network of a row, narrowed, and with weights, so that its graph is also what the backbone must equal."""
    network = build_network(row, for_pyramid=True)
    is_narrowed = network.filters is Network.filters  # the default; others scale widths by themselves
    pads_itself = has(network.graph, keras.layers.ZeroPadding2D)

    def copy(layer):
        config = layer.get_config()
        if is_narrowed and "filters" in config:
            groups = config.get("groups", 1)
            config["filters"] = max(config["filters"] // NARROWING // groups, 1) * groups
        if is_narrowed and isinstance(layer, keras.layers.Reshape):  # EfficientNet's gates: (1, 1, channels)
            *sizes, channels = config["target_shape"]
            config["target_shape"] = (*sizes, max(channels // NARROWING, 1))
        if "padding" in config and not pads_itself:  # Inception's maps shrink, a detector's are padded
            config["padding"] = "same"
        if network.application is None and isinstance(layer, keras.layers.BatchNormalization):
            config["epsilon"] = network.hyperparams.batch_norm.epsilon  # our own graphs leave it open
        return type(layer).from_config(config)

    graph = keras.models.clone_model(network.graph, clone_function=copy)
    randomize(graph)
    return dataclasses.replace(network, graph=graph)


def randomize(model: keras.Model) -> None:
    """Biases and statistics away from their initial values, so that none can be forgotten unseen."""
    generator = np.random.default_rng(5)
    for weight in model.weights:
        if weight.name in ("gamma", "moving_variance"):
            weight.assign(generator.uniform(0.7, 1.3, weight.shape))
        elif weight.name in ("beta", "moving_mean", "bias"):
            weight.assign(generator.normal(0.0, 0.1, weight.shape))


@pytest.fixture(scope="module", params=FAMILIES)
def network(request):
    return small_network(FAMILIES[request.param])


@pytest.fixture(scope="module")
def model(network):
    """The backbone with the weights of the stock layers that it is rewritten from."""
    levels = sorted(network.endpoints)
    model = build_extractor_model(network, levels, (None, None), network.hyperparams, output_stride=32)
    report = load_pretrained(model, "imagenet", Application(lambda weights: network.graph))
    assert not report.missing
    return model


@pytest.fixture(scope="module")
def images(network):
    # Sizes that ``keras.applications`` pads as "same": even at every stride, but an odd map before ResNet's pooling.
    shape = (97, 65) if network.explicit_padding else (96, 64)
    return np.random.default_rng(3).uniform(-1.0, 1.0, (1, *shape, 3)).astype(np.float32)


def test_maps_are_those_of_its_twin(network, model, images):
    twin = network.graph
    outputs = {level: twin.get_layer(name).output for level, name in network.endpoints.items()}
    # EfficientNet's stock layers divide pixels by 255; without weights from ImageNet they standardize to themselves.
    pixels = 255.0 if has(twin, keras.layers.Rescaling) and has(twin, keras.layers.Normalization) else 1.0
    expected, actual = keras.Model(twin.input, outputs)(images * pixels), model(images)
    assert set(actual) == set(expected) == {2, 3, 4, 5}
    for level, x in actual.items():
        scale = np.abs(expected[level]).max()
        assert scale > 1e-6
        np.testing.assert_allclose(x / scale, expected[level] / scale, atol=1e-4)


def test_every_trainable_weight_has_a_gradient(model, images):
    with tf.GradientTape() as tape:
        maps = model(images[:, :70, :50], training=True)
        value = tf.add_n([tf.reduce_mean(x**2) for x in maps.values()])
    weights = model.trainable_variables
    gradients = tape.gradient(value, [weight.value for weight in weights])
    assert [weight.path for weight, gradient in zip(weights, gradients, strict=True) if gradient is None] == []
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_saving_and_loading_changes_nothing(model, images, tmp_path):
    model.save(tmp_path / "backbone.keras")
    loaded = keras.saving.load_model(tmp_path / "backbone.keras")
    for actual, expected in zip(loaded(images).values(), model(images).values(), strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_names_are_stable_and_start_with_the_part(model):
    paths = [weight.path for weight in model.weights]
    assert len(set(paths)) == len(paths) > 0
    assert {path.split("/")[0] for path in paths} == {"backbone"}


def test_both_halves_in_a_row_are_the_whole(network, model, images):
    cropped = model(images)[CROPPED]
    region = build_region_model(
        network, (CROPPED, LAST), tuple(cropped.shape[1:]), network.hyperparams, RegionStride.STRIDED
    )
    halves = {weight.path.split("/", 1)[1]: weight for weight in model.weights}
    for weight in region.weights:
        weight.assign(halves[weight.path.split("/", 1)[1]])
    expected = model(images)[LAST]
    np.testing.assert_allclose(region(cropped), expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("family", FAMILIES)
def test_pixels_are_normalized(family):
    pixels = np.array([[[[0.0, 127.5, 255.0]]]], np.float32)
    black, grey, white = np.ravel(normalization(FAMILIES[family])(pixels))
    assert black < grey < white


def test_every_variant_of_a_family_has_a_test():
    assert set(FAMILIES) == {row.family for row in SSD_EXTRACTORS.values()}
    assert FAMILIES["resnet"].variant == min(resnet.RESNET_BLOCKS, key=int)
