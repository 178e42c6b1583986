"""Freezing: folded batch normalisation computes the same, worked by hand and on whole networks."""

from __future__ import annotations

from collections import Counter

import keras
import numpy as np
import pytest
import tensorflow as tf

from detzoo.export import freeze as freeze_module
from detzoo.export.freeze import freeze
from detzoo.layers.activation import swish
from detzoo.layers.normalization import BatchNorm


def frozen_and_outputs(model, shape=(9, 7, 3)):
    """The frozen graph of a model, and what graph and model give for the same input."""
    function = tf.function(
        lambda x: {"out": model(x, training=False)}, input_signature=[tf.TensorSpec([None, *shape], tf.float32)]
    )
    frozen, num_folded = freeze(function.get_concrete_function())
    inputs = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    return frozen, num_folded, _run(frozen, inputs), model(inputs, training=False).numpy()


def _run(frozen, inputs):
    with tf.Graph().as_default():
        names = [frozen.input_name, frozen.output_names["out"]]
        given, output = tf.graph_util.import_graph_def(frozen.graph_def, return_elements=names)
        with tf.compat.v1.Session() as session:
            return session.run(output, {given: inputs})


def ops(frozen):
    return Counter(node.op for node in frozen.graph_def.node)


def randomize(model):
    generator = np.random.default_rng(1)
    for weight in model.weights:
        positive = "variance" in weight.path or "gamma" in weight.path
        weight.assign(generator.uniform(0.5, 1.5, weight.shape) if positive else generator.normal(0, 1, weight.shape))
    return model


def network(*layers):
    image = x = keras.Input((9, 7, 3))
    for layer in layers:
        x = layer(x)
    return randomize(keras.Model(image, x))


def test_one_filter_worked_by_hand():
    # The convolution gives 2 x. Batch norm has mean 3, variance 3.99 + .01 = 4, gamma 5 and beta 7, which gives
    # (2 x - 3) / 2 * 5 + 7 = 5 x - 0.5.
    image = keras.Input((9, 7, 3))
    x = keras.layers.Conv2D(1, 1, use_bias=False, name="conv")(image)
    model = keras.Model(image, BatchNorm(epsilon=0.01, name="norm")(x))
    for weight, value in zip(model.weights, (np.full((1, 1, 3, 1), 2.0), [5.0], [7.0], [3.0], [3.99])):
        weight.assign(value)
    frozen, _, found, expected = frozen_and_outputs(model)
    constants = {n.name: tf.make_ndarray(n.attr["value"].tensor) for n in frozen.graph_def.node if n.op == "Const"}
    folded = {name.rsplit("/", 1)[-1]: value for name, value in constants.items() if "folded" in name}
    np.testing.assert_allclose(folded["folded_filter"], np.full((1, 1, 3, 1), 5.0), rtol=1e-6)
    np.testing.assert_allclose(folded["folded_bias"], [-0.5], rtol=1e-5)
    assert ops(frozen)["FusedBatchNormV3"] == 0
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", ["conv", "strided", "dilated", "depthwise", "grouped_depth"])
def test_every_kind_of_convolution_folds(kind, bias):
    make = {
        "conv": lambda: keras.layers.Conv2D(4, 3, padding="same", use_bias=bias),
        "strided": lambda: keras.layers.Conv2D(4, 3, 2, padding="same", use_bias=bias),
        "dilated": lambda: keras.layers.Conv2D(4, 3, dilation_rate=2, padding="same", use_bias=bias),
        "depthwise": lambda: keras.layers.DepthwiseConv2D(3, 2, padding="same", use_bias=bias),
        "grouped_depth": lambda: keras.layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=bias),
    }[kind]
    frozen, num_folded, found, expected = frozen_and_outputs(network(make(), BatchNorm(), keras.layers.ReLU()))
    assert num_folded == 1
    assert ops(frozen)["FusedBatchNormV3"] == 0
    assert not any("Variable" in op for op in ops(frozen))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_normalisation_without_a_convolution_of_its_own_stays():
    image = keras.Input((9, 7, 3))
    x = keras.layers.Conv2D(4, 1)(image)
    model = randomize(keras.Model(image, BatchNorm()(x) + x))  # a second reader of the convolution
    frozen, num_folded, found, expected = frozen_and_outputs(model)
    assert (num_folded, ops(frozen)["FusedBatchNormV3"]) == (0, 1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    pooled = network(keras.layers.MaxPooling2D(), BatchNorm())
    assert frozen_and_outputs(pooled)[1] == 0


@pytest.mark.parametrize(("limit", "num_expected"), [(12, 2), (11, 0)])  # the filter has 1 * 1 * 3 * 4 numbers
def test_a_small_filter_that_convolutions_share_is_copied(monkeypatch, limit, num_expected):
    monkeypatch.setattr(freeze_module, "_MAX_COPIED_FILTER", limit)
    image = keras.Input((9, 7, 3))
    shared = keras.layers.Conv2D(4, 1, use_bias=False)
    model = randomize(keras.Model(image, BatchNorm()(shared(image)) + BatchNorm()(shared(image * 2.0))))
    frozen, num_folded, found, expected = frozen_and_outputs(model)
    assert (num_folded, ops(frozen)["FusedBatchNormV3"]) == (num_expected, 2 - num_expected)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_swish_is_a_sigmoid_and_a_product():
    frozen, _, found, expected = frozen_and_outputs(network(keras.layers.Activation(swish), keras.layers.ReLU()))
    found_ops = ops(frozen)
    assert (found_ops["IdentityN"], found_ops["Sigmoid"], found_ops["Mul"]) == (0, 1, 1)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_convolution_that_is_an_output_is_not_changed():
    image = keras.Input((9, 7, 3))
    x = keras.layers.Conv2D(4, 1)(image)
    model = randomize(keras.Model(image, {"raw": x, "normal": BatchNorm()(x)}))
    function = tf.function(
        lambda t: model(t, training=False), input_signature=[tf.TensorSpec([None, 9, 7, 3], tf.float32)]
    )
    assert freeze(function.get_concrete_function())[1] == 0


def test_gradients_of_our_own_are_forgotten():
    @tf.custom_gradient
    def double(x):
        return 2.0 * x, lambda upstream: 2.0 * upstream

    function = tf.function(lambda x: {"y": double(x)}, input_signature=[tf.TensorSpec([3])])
    frozen, _ = freeze(function.get_concrete_function())
    assert not any("_gradient_op_type" in node.attr for node in frozen.graph_def.node)
    functions = frozen.graph_def.library.function
    assert not any("_gradient_op_type" in node.attr for one in functions for node in one.node_def)
