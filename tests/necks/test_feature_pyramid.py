"""The pyramid of Faster R-CNN and its ablations: which level depends on which map, and what the coarse levels are."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from detzoo.contracts import BatchNormHyperparams, ConvHyperparams
from detzoo.necks.feature_pyramid import CoarseLevels, PyramidParts, feature_pyramid

HYPERPARAMS = ConvHyperparams(
    kernel_initializer=lambda: keras.initializers.RandomNormal(stddev=0.1, seed=3),
    activation="relu6",
    batch_norm=BatchNormHyperparams(scale=True),
)
SHAPES = {3: (9, 12, 4), 4: (5, 6, 8), 5: (3, 3, 16)}
PAPER = PyramidParts()


def pyramid_model(max_level=6, depth=5, **parts):
    inputs = {level: keras.Input(shape, name=str(level)) for level, shape in SHAPES.items()}
    outputs = feature_pyramid(inputs, depth, max_level, HYPERPARAMS, dataclasses.replace(PAPER, **parts))
    return keras.Model(list(inputs.values()), outputs)


def dependencies(model):
    """Level of P to the levels of C that it depends on."""
    maps = {level: tf.random.stateless_normal([1, *shape], [1, level]) for level, shape in SHAPES.items()}
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(maps)
        sums = {level: tf.reduce_sum(x**2) for level, x in model(list(maps.values())).items()}

    def reads(value, level):
        gradient = tape.gradient(value, maps[level])
        return gradient is not None and bool(np.abs(gradient).max() > 0)

    return {level: [below for below in SHAPES if reads(value, below)] for level, value in sums.items()}


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({}, {3: [3, 4, 5], 4: [4, 5], 5: [5], 6: [5]}),
        ({"top_down": False}, {3: [3], 4: [4], 5: [5], 6: [5]}),  # table 1 (d)
        ({"lateral": False}, {3: [5], 4: [5], 5: [5], 6: [5]}),  # (e)
        ({"finest_only": True}, {3: [3, 4, 5]}),  # (f)
    ],
)
def test_what_each_level_depends_on(parts, expected):
    model = pyramid_model(**parts)
    assert dependencies(model) == expected
    sizes = {3: (9, 12), 4: (5, 6), 5: (3, 3), 6: (2, 2)}
    assert {level: tuple(x.shape[1:]) for level, x in model.output.items()} == {
        level: (*sizes[level], 5) for level in expected
    }


def test_levels_past_the_backbone_s_are_made_in_three_ways():
    maps = {level: tf.random.stateless_normal([1, *shape], [1, level]) for level, shape in SHAPES.items()}
    outputs = pyramid_model(max_level=7)(list(maps.values()))
    np.testing.assert_array_equal(outputs[6], outputs[5][:, ::2, ::2])
    np.testing.assert_array_equal(outputs[7], outputs[5][:, ::4, ::4])
    # Convolutions of 3 x 3: from P5 of 5 channels, and from C5 of 16.
    for coarse_levels, channels in ((CoarseLevels.CONVOLVE_PYRAMID, 5), (CoarseLevels.CONVOLVE_BACKBONE, 16)):
        model = pyramid_model(coarse_levels=coarse_levels)
        assert model.get_layer("fpn_coarse_6_conv").kernel.shape == (3, 3, channels, 5)
        assert tuple(model.output[6].shape[1:]) == (2, 2, 5)


def test_the_paper_s_convolutions_are_plain_and_the_api_s_are_not():
    plain, normalized = pyramid_model(), pyramid_model(is_normalized=True)
    assert not any("batch_norm" in weight.path for weight in plain.weights)
    # The Object Detection API smooths all but the coarsest map.
    assert {weight.path.split("/")[0] for weight in normalized.weights if "batch_norm" in weight.path} == {
        "fpn_smooth_3_batch_norm",
        "fpn_smooth_4_batch_norm",
    }


def test_a_pyramid_may_end_before_the_backbone_does():
    assert list(pyramid_model(max_level=5).output) == [3, 4, 5]
