"""A pass of the BiFPN by hand, with kernels that keep a map, and its wiring, sizes and variables."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from detzoo.contracts import BatchNormHyperparams, ConvHyperparams
from detzoo.layers.activation import swish
from detzoo.layers.fusion import FAST_EPSILON
from detzoo.necks.bifpn import BifpnOptions, bidirectional_pyramid

SHAPES = {3: (7, 10, 1), 4: (4, 5, 1), 5: (2, 3, 1)}  # odd sizes, not square
PLAIN = ConvHyperparams(kernel_initializer=keras.initializers.Ones, activation=None)
NORMALIZED = dataclasses.replace(PLAIN, activation=swish, batch_norm=BatchNormHyperparams(scale=True))


def pyramid_model(options, hyperparams=PLAIN, shapes=SHAPES, max_level=5):
    inputs = {str(level): keras.Input(shape, name=str(level)) for level, shape in shapes.items()}
    maps = {int(level): x for level, x in inputs.items()}
    outputs = bidirectional_pyramid(maps, max_level, options, hyperparams)
    model = keras.Model(inputs, {str(level): x for level, x in outputs.items()})
    for layer in model.layers:
        if isinstance(layer, keras.layers.SeparableConv2D):  # the middle tap only: a map stays as it is
            kernel = np.zeros(layer.depthwise_kernel.shape, np.float32)
            kernel[1, 1] = 1.0
            layer.depthwise_kernel.assign(kernel)
    return model


def constant_maps(**values):
    return {str(level): np.full((1, *shape), values[f"c{level}"], np.float32) for level, shape in SHAPES.items()}


def test_one_pass_of_plain_sums():
    outputs = pyramid_model(BifpnOptions(1, 1, "sum"))(constant_maps(c3=1.0, c4=10.0, c5=100.0))
    # Laterals are kernels of ones on one channel, so the maps themselves; resampling keeps constant maps.
    # t4 = 10 + 100 = 110, P3 = 1 + 110 = 111, P4 = 10 + 110 + 111 = 231, P5 = 100 + 231 = 331.
    expected = {"3": 111.0, "4": 231.0, "5": 331.0}
    for level, value in expected.items():
        np.testing.assert_allclose(outputs[level], np.full((1, *SHAPES[int(level)]), value))


def test_one_pass_of_weighted_sums():
    outputs = pyramid_model(BifpnOptions(1, 1))(constant_maps(c3=1.0, c4=10.0, c5=100.0))
    two, three = 2.0 + FAST_EPSILON, 3.0 + FAST_EPSILON
    middle = (10 + 100) / two
    finest = (1 + middle) / two
    again = (10 + middle + finest) / three
    for level, value in {"3": finest, "4": again, "5": (100 + again) / two}.items():
        np.testing.assert_allclose(outputs[level], np.full((1, *SHAPES[int(level)]), value), rtol=1e-6)


def test_second_pass_reads_the_first():
    outputs = pyramid_model(BifpnOptions(2, 1, "sum"))(constant_maps(c3=1.0, c4=10.0, c5=100.0))
    # The first pass gives 111, 231, 331. In the second t4 = 231 + 331 = 562, P3 = 111 + 562, P4 = 231 + 562 + 673, and
    # P5 = 331 + 1466.
    for level, value in {"3": 673.0, "4": 1466.0, "5": 1797.0}.items():
        np.testing.assert_allclose(outputs[level], np.full((1, *SHAPES[int(level)]), value))


def test_finer_maps_are_halved_by_the_maximum_of_three_by_three():
    maps = constant_maps(c3=0.0, c4=0.0, c5=0.0)
    maps["3"][0, 6, 9] = 5.0  # the last cell of 7 x 10
    outputs = pyramid_model(BifpnOptions(1, 1, "sum"))(maps)
    # "same" pads 7 rows by one above, so rows 5, 6, 7 become row 3. It pads 10 columns by none before, so columns 8, 9,
    # 10 become column 4.
    expected = np.zeros((4, 5))
    expected[3, 4] = 5.0
    np.testing.assert_array_equal(outputs["4"][0, :, :, 0], expected)
    assert float(outputs["5"][0, 1, 2, 0]) == 5.0


def test_coarser_maps_are_doubled_by_nearest_neighbour():
    maps = constant_maps(c3=0.0, c4=0.0, c5=0.0)
    maps["5"][0, 1, 1] = 5.0
    outputs = pyramid_model(BifpnOptions(1, 1, "sum"))(maps)
    expected = np.zeros((7, 10))
    expected[4:7, 4:8] = 5.0  # rows 4 to 7 and columns 4 to 7 of 8 x 12, cut to 7 x 10
    np.testing.assert_array_equal(outputs["3"][0, :, :, 0], expected)


def test_levels_past_the_backbone_are_halvings_of_its_projected_last_map():
    maps = constant_maps(c3=0.0, c4=0.0, c5=0.0)
    maps["5"][0, 1, 2] = 5.0
    model = pyramid_model(BifpnOptions(1, 1, "sum"), max_level=7)
    outputs = model(maps)
    assert {level: tuple(x.shape[1:3]) for level, x in outputs.items()} == {
        "3": (7, 10),
        "4": (4, 5),
        "5": (2, 3),
        "6": (1, 2),
        "7": (1, 1),
    }
    # The corner cell of 5 reaches cell (0, 1) of 6 and the cell of 7: 6 = 7 = 5; t6 = 10, P7 = 5 + P6.
    assert float(outputs["7"][0, 0, 0, 0]) == 5.0 + float(tf.reduce_max(outputs["6"]))
    assert model.get_layer("bifpn_coarse_6_lateral_5_conv").kernel.shape == (1, 1, 1, 1)
    assert not any(weight.path.startswith("bifpn_coarse_7") for weight in model.weights)


def test_the_activation_stands_before_the_convolution():
    relu = dataclasses.replace(PLAIN, activation="relu")
    outputs = pyramid_model(BifpnOptions(1, 1, "sum"), relu)(constant_maps(c3=1.0, c4=-10.0, c5=3.0))
    # t4 = relu(-7) = 0, P3 = relu(1 + 0) = 1, P4 = relu(-10 + 0 + 1) = 0, P5 = relu(3 + 0) = 3. Laterals keep -10.
    assert [float(outputs[level][0, 0, 0, 0]) for level in "345"] == [1.0, 0.0, 3.0]


def test_variables_of_a_pass():
    model = pyramid_model(BifpnOptions(2, 6), NORMALIZED)
    owners = {weight.path.rsplit("/", 1)[0] for weight in model.weights}
    laterals = {owner for owner in owners if "lateral" in owner and owner.endswith("_conv")}
    # Each reader of a backbone's map has its own 1 x 1; the second pass has none.
    assert laterals == {
        "bifpn_1_down_4_lateral_4_conv",
        "bifpn_1_down_4_lateral_5_conv",
        "bifpn_1_down_3_lateral_3_conv",
        "bifpn_1_up_4_lateral_4_conv",
        "bifpn_1_up_5_lateral_5_conv",
    }
    nodes = ("down_4", "down_3", "up_4", "up_5")
    for kind in ("sum", "separable", "batch_norm"):
        assert {f"bifpn_{number}_{node}_{kind}" for number in (1, 2) for node in nodes} <= owners
    shapes = {weight.path: tuple(weight.shape) for weight in model.weights}
    assert shapes["bifpn_1_up_4_sum/bifpn_combine_weights"] == (3, 1)
    assert shapes["bifpn_1_up_5_sum/bifpn_combine_weights"] == (2, 1)
    assert shapes["bifpn_2_up_5_separable/pointwise_kernel"] == (1, 1, 6, 6)
    assert "bifpn_1_up_4_separable/bias" not in shapes  # a normalisation follows


def test_a_bias_can_be_forced():
    model = pyramid_model(BifpnOptions(1, 2), dataclasses.replace(NORMALIZED, force_use_bias=True))
    paths = {weight.path for weight in model.weights}
    assert {"bifpn_1_up_4_separable/bias", "bifpn_1_up_4_lateral_4_conv/bias"} <= paths


def test_hyperparameters_reach_both_kernels_of_a_separable_convolution():
    decayed = dataclasses.replace(NORMALIZED, l2_weight=0.5)
    layer = pyramid_model(BifpnOptions(1, 2), decayed).get_layer("bifpn_1_up_4_separable")
    assert float(layer.depthwise_regularizer(tf.ones([2, 2]))) == 2.0
    assert float(layer.pointwise_regularizer(tf.ones([2, 2]))) == 2.0


@pytest.mark.parametrize("fusion", ["fast_attention", "weighted_sum"])
def test_every_weight_gets_a_gradient(fusion):
    model = pyramid_model(BifpnOptions(1, 2, fusion), NORMALIZED, max_level=6)
    images = {level: np.random.default_rng(1).normal(size=x.shape).astype(np.float32) for level, x in ones().items()}
    with tf.GradientTape() as tape:
        value = sum(tf.reduce_sum(x**2) for x in model(images, training=True).values())
    assert all(gradient is not None for gradient in tape.gradient(value, model.trainable_weights))


def ones():
    return constant_maps(c3=1.0, c4=1.0, c5=1.0)


def test_sizes_may_be_unknown():
    model = pyramid_model(BifpnOptions(1, 1, "sum"), shapes=dict.fromkeys(SHAPES, (None, None, 1)), max_level=6)
    sizes = {level: tuple(x.shape[1:3]) for level, x in model(ones()).items()}
    assert sizes == {"3": (7, 10), "4": (4, 5), "5": (2, 3), "6": (1, 2)}
