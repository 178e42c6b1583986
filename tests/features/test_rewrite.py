"""The rewritten graphs: the law of the output stride, grouped convolutions, saving, running as a graph."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from detzoo.features import grouped_convolution, mobilenet, resnet
from detzoo.features.grouped_convolution import GroupedConv2D
from detzoo.features.network import stable_names
from detzoo.features.rewrite import build_extractor_model


def images_of(height, width):
    return np.random.default_rng(3).normal(size=(1, height, width, 3)).astype(np.float32)


def build(network, levels, output_stride=32):
    return build_extractor_model(network, levels, (None, None), network.hyperparams, output_stride)


@pytest.mark.parametrize(
    ("network", "height", "width", "output_stride"),
    [
        # A strided 1 x 1 reads the even locations of any map.
        (lambda: resnet.resnet("50"), 66, 97, 16),
        # A strided 3 x 3 reads the even locations of odd maps: 65 -> 33 -> 17 -> 9 -> 5, 97 -> 49 -> 25 -> 13 -> 7.
        (mobilenet.mobilenet_v2, 65, 97, 8),
    ],
)
def test_a_finer_map_has_the_coarse_one_at_every_other_location(network, height, width, output_stride):
    """A stride that became 1, with what follows dilated by it, computes the same where both have a location."""
    coarse, fine = build(network(), (5,)), build(network(), (5,), output_stride)
    for ours, theirs in zip(fine.weights, coarse.weights, strict=True):
        ours.assign(theirs)
    images = images_of(height, width)
    expected = coarse(images)[5]
    (level, actual), *_ = fine(images).items()
    assert 2**level == output_stride
    step = 32 // output_stride
    np.testing.assert_allclose(actual[:, ::step, ::step], expected, atol=1e-4 * np.abs(expected).max())


def test_grouped_convolution_is_a_convolution_of_each_group():
    # 4 channels in 2 groups, 6 filters: filter 0..2 see channels 0..1, filter 3..5 channels 2..3.
    x = images_of(5, 8)[..., :1] * np.array([1.0, -2.0, 3.0, 0.5], np.float32)
    layer = GroupedConv2D(6, 3, groups=2, name="grouped")
    actual = layer(x)
    kernel = layer.kernel.numpy()
    assert kernel.shape == (3, 3, 2, 6)
    expected = np.concatenate(
        [
            tf.nn.conv2d(x[..., :2], kernel[..., :3], 1, "SAME"),
            tf.nn.conv2d(x[..., 2:], kernel[..., 3:], 1, "SAME"),
        ],
        axis=-1,
    )
    np.testing.assert_allclose(actual, expected, atol=1e-5)


@pytest.mark.parametrize(("strides", "dilation"), [(1, 1), (2, 1), (1, 2)])
@pytest.mark.parametrize("is_native", [True, False])
def test_gradient_of_a_grouped_convolution_is_that_of_its_groups(monkeypatch, is_native, strides, dilation):
    if not is_native:  # as on a CPU without oneDNN
        monkeypatch.setattr(grouped_convolution, "has_native_gradient", lambda dtype, dilation_rate: False)
    x = tf.constant(images_of(5, 8) @ np.ones((3, 4), np.float32))
    layer = GroupedConv2D(6, 3, groups=2, strides=strides, dilation_rate=dilation, name="grouped")
    layer.build(x.shape)

    def by_group(x, kernel):
        halves = zip(tf.split(x, 2, axis=-1), tf.split(kernel, 2, axis=-1), strict=True)
        return tf.concat(
            [tf.nn.convolution(part, weights, strides, "SAME", dilations=dilation) for part, weights in halves], axis=-1
        )

    kernel = tf.Variable(layer.kernel.numpy())
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        ours = tf.reduce_sum(layer(x) ** 2)
        reference = tf.reduce_sum(by_group(x, kernel) ** 2)
    np.testing.assert_allclose(
        tape.gradient(ours, layer.kernel.value), tape.gradient(reference, kernel), rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(tape.gradient(ours, x), tape.gradient(reference, x), rtol=1e-4, atol=1e-4)


def test_grouped_convolution_wants_multiples_of_its_groups():
    with pytest.raises(ValueError, match="5 channels and 6 filters must be multiples of 2 groups"):
        GroupedConv2D(6, 3, groups=2)(np.zeros((1, 4, 4, 5), np.float32))


def test_grouped_convolution_strides_and_saves():
    layer = GroupedConv2D(8, 3, groups=4, strides=2, kernel_regularizer=keras.regularizers.L2(0.1), name="grouped")
    assert layer(np.zeros((1, 5, 8, 4), np.float32)).shape == (1, 3, 4, 8)
    assert layer.compute_output_shape((None, 5, None, 4)) == (None, 3, None, 8)
    copy = GroupedConv2D.from_config(layer.get_config())
    assert (copy.groups, copy.strides, copy.kernel_regularizer.l2) == (4, 2, pytest.approx(0.1))


def test_saving_and_graph_mode_change_nothing(tmp_path):
    model = build(mobilenet.mobilenet_v1(), (2, 3))
    images = images_of(40, 70)
    expected = model(images)
    model.save(tmp_path / "backbone.keras")
    loaded = keras.saving.load_model(tmp_path / "backbone.keras")(images)
    in_graph = tf.function(model)(images)
    for number, level in enumerate(expected):
        np.testing.assert_allclose(in_graph[level], expected[level], atol=1e-5)
        np.testing.assert_allclose(list(loaded.values())[number], expected[level], atol=1e-5)


def test_automatic_names_become_numbers_in_the_order_of_creation():
    image = keras.Input((4, 4, 3))
    chosen = keras.layers.Conv2D(2, 1, name="chosen")(image)
    last = keras.layers.Conv2D(2, 1, name="conv2d_12")(chosen)
    first = keras.layers.Conv2D(2, 1, name="conv2d_9")(last)
    names = stable_names(keras.Model(image, first))
    assert (names["chosen"], names["conv2d_9"], names["conv2d_12"]) == ("chosen", "conv_0", "conv_1")


def test_activation_and_batch_norm_can_be_left_out():
    network = mobilenet.mobilenet_v1()
    plain = dataclasses.replace(network.hyperparams, activation=None, batch_norm=None)
    model = build_extractor_model(network, (2,), (40, 70), plain, output_stride=32)
    kinds = {type(layer).__name__ for layer in model.layers}
    assert kinds == {"InputLayer", "Conv2D", "DepthwiseConv2D"}
    assert model.get_layer("conv1").use_bias
