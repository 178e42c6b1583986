"""The extra levels of SSD: sizes, channels, names, and the padding that the Object Detection API can ask for."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest

from detzoo.contracts import BatchNormHyperparams, ConvHyperparams
from detzoo.necks.ssd_levels import add_extra_levels, add_pooled_levels, normalize_levels, scaled_depth

ONES = ConvHyperparams(kernel_initializer=keras.initializers.Ones, activation=None)
NORMALIZED = dataclasses.replace(ONES, activation="relu6", batch_norm=BatchNormHyperparams(scale=True))


def levels_model(depths, hyperparams=NORMALIZED, shape=(10, 19, 6), **kwargs):
    fine, coarse = keras.Input((19, 38, 4)), keras.Input(shape)
    outputs = add_extra_levels({4: fine, 5: coarse}, depths, hyperparams, **kwargs)
    return keras.Model([fine, coarse], {str(level): x for level, x in outputs.items()})


def test_each_extra_level_halves_the_one_before():
    # SSD MobileNet on 300 x 600 pixels: 19 x 38, 10 x 19, then 5 x 10, 3 x 5, 2 x 3.
    model = levels_model((512, 256, 128))
    assert {level: x.shape[1:] for level, x in model.output.items()} == {
        "4": (19, 38, 4),
        "5": (10, 19, 6),
        "6": (5, 10, 512),
        "7": (3, 5, 256),
        "8": (2, 3, 128),
    }


def test_a_level_is_a_reduction_to_half_depth_and_a_strided_convolution():
    kernels = {weight.path: tuple(weight.shape) for weight in levels_model((8,)).weights if weight.name == "kernel"}
    assert kernels == {"extra_6_reduce_conv/kernel": (1, 1, 6, 4), "extra_6_conv/kernel": (3, 3, 4, 8)}


def test_separable_levels_normalise_twice():
    model = levels_model((8,), use_depthwise=True)
    kernels = {weight.path: tuple(weight.shape) for weight in model.weights if "kernel" in weight.name}
    assert kernels == {
        "extra_6_reduce_conv/kernel": (1, 1, 6, 4),
        "extra_6_depthwise_depthwise/kernel": (3, 3, 4, 1),
        "extra_6_conv/kernel": (1, 1, 4, 8),
    }
    assert sum(weight.name == "gamma" for weight in model.weights) == 3


@pytest.mark.parametrize(
    ("depth", "multiplier", "least", "expected"), [(512, 1.0, 16, 512), (128, 0.35, 16, 44), (64, 0.1, 16, 16)]
)
def test_depths_are_multiplied_rounded_down_and_bounded(depth, multiplier, least, expected):
    assert scaled_depth(depth, multiplier, least) == expected


def test_multiplier_and_least_depth_arrive():
    model = levels_model((64, 32), depth_multiplier=0.5, min_depth=12)
    assert [model.output[level].shape[-1] for level in ("6", "7")] == [32, 16]
    # Half of 32, times 0.5, is 8: the least depth holds for the reduction as well.
    assert next(tuple(w.shape) for w in model.weights if w.path == "extra_7_reduce_conv/kernel") == (1, 1, 32, 12)


def test_explicit_padding_reaches_the_strided_convolution():
    # A 4 x 6 map of ones with one channel: see the hand-worked windows of test_conv. The reduction sums 1 channel.
    image = np.ones((1, 4, 6, 1), np.float32)
    inputs = [np.zeros((1, 19, 38, 4), np.float32), image]
    same = levels_model((1,), ONES, shape=(4, 6, 1))(inputs)["6"]
    explicit = levels_model((1,), ONES, shape=(4, 6, 1), explicit_padding=True)(inputs)["6"]
    np.testing.assert_allclose(same[0, :, :, 0], [[9, 9, 6], [6, 6, 4]])
    np.testing.assert_allclose(explicit[0, :, :, 0], [[4, 6, 6], [6, 9, 9]])


def test_kernel_sizes_reach_the_strided_convolutions():
    model = levels_model((8, 6), kernel_sizes=(3, 2))
    kernels = {weight.path: tuple(weight.shape) for weight in model.weights if weight.name == "kernel"}
    assert (kernels["extra_6_conv/kernel"], kernels["extra_7_conv/kernel"]) == ((3, 3, 4, 8), (2, 2, 3, 6))
    separable = levels_model((8, 6), kernel_sizes=(3, 2), use_depthwise=True)
    kernels = {weight.path: tuple(weight.shape) for weight in separable.weights}
    assert kernels["extra_7_depthwise_depthwise/kernel"] == (2, 2, 3, 1)


def test_pooled_levels_keep_the_largest_of_two_by_two():
    image = np.array([[1, 2, 3], [4, 9, 6], [7, 8, -5]], np.float32)[None, :, :, None]
    outputs = add_pooled_levels({3: keras.Input((9, 9, 5)), 4: (start := keras.Input((3, 3, 1)))}, 2)
    assert list(outputs) == [3, 4, 5, 6]
    model = keras.Model(start, [outputs[5], outputs[6]])
    fine, coarse = model(image)
    # Windows at the border hold what is inside: max of {3, 6}, of {7, 8} and of {-5}.
    np.testing.assert_array_equal(fine[0, :, :, 0], [[9, 6], [8, -5]])
    np.testing.assert_array_equal(coarse[0, :, :, 0], [[9]])
    assert model.count_params() == 0


def test_only_the_named_levels_are_normalised():
    maps = {3: keras.Input((4, 5, 2)), 4: keras.Input((2, 3, 2))}
    normalized = normalize_levels(maps, (3,))
    assert normalized[4] is maps[4]
    outputs = keras.Model(maps[3], normalized[3])(np.full((1, 4, 5, 2), 7.0, np.float32))
    np.testing.assert_allclose(outputs, np.full((1, 4, 5, 2), 20 / np.sqrt(2)), rtol=1e-6)
