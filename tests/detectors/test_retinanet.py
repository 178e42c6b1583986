"""The pyramid of RetinaNet in the paper's form and in the Object Detection API's."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest

from detzoo.contracts import BatchNormHyperparams, ConvHyperparams
from detzoo.detectors.retinanet import retinanet_pyramid

HYPERPARAMS = ConvHyperparams(
    kernel_initializer=keras.initializers.Ones, activation="relu6", batch_norm=BatchNormHyperparams(scale=True)
)
SHAPES = {3: (10, 16, 8), 4: (5, 8, 16), 5: (3, 4, 32)}  # an image of 80 x 128


def pyramid_model(max_level=7, hyperparams=HYPERPARAMS, **kwargs):
    maps = {level: keras.Input(shape, name=f"c{level}") for level, shape in SHAPES.items()}
    pyramid = retinanet_pyramid(maps, 4, max_level, hyperparams, **kwargs)
    return keras.Model(list(maps.values()), list(pyramid.values()))


def shapes_by_path(model):
    return {weight.path: tuple(weight.shape) for weight in model.weights}


@pytest.mark.parametrize("coarse_from_c5", [False, True])
@pytest.mark.parametrize("normalized", [False, True])
def test_every_form_has_five_maps_of_one_depth(coarse_from_c5, normalized):
    model = pyramid_model(coarse_from_c5=coarse_from_c5, normalized=normalized)
    assert [x.shape[1:] for x in model.outputs] == [(10, 16, 4), (5, 8, 4), (3, 4, 4), (2, 2, 4), (1, 1, 4)]


def test_the_papers_form_is_plain_and_takes_p6_from_c5():
    shapes = shapes_by_path(pyramid_model(coarse_from_c5=True, normalized=False))
    assert not any("batch_norm" in path for path in shapes)
    assert shapes["fpn_coarse_6_conv/kernel"] == (3, 3, 32, 4)
    assert shapes["fpn_coarse_7_conv/kernel"] == (3, 3, 4, 4)
    assert shapes["fpn_smooth_5_conv/kernel"] == (3, 3, 4, 4)
    # Laterals 1 x 1: 8*4+4, 16*4+4, 32*4+4; three 3 x 3: 3*(9*16+4); P6 9*32*4+4; P7 9*16+4.
    assert sum(np.prod(shape) for shape in shapes.values()) == 36 + 68 + 132 + 3 * 148 + 1156 + 148


def test_the_apis_form_is_normalised_and_takes_p6_from_p5():
    shapes = shapes_by_path(pyramid_model())
    assert shapes["fpn_coarse_6_conv/kernel"] == (3, 3, 4, 4)
    assert shapes["fpn_coarse_7_batch_norm/gamma"] == (4,)
    assert "fpn_smooth_5_conv/kernel" not in shapes


def test_lite_form_is_separable_below_and_above():
    shapes = shapes_by_path(pyramid_model(use_depthwise=True))
    assert shapes["fpn_smooth_3_separable/depthwise_kernel"] == (3, 3, 4, 1)
    assert shapes["fpn_coarse_7_separable/pointwise_kernel"] == (1, 1, 4, 4)


def test_pyramid_may_end_where_the_backbone_ends():
    assert len(pyramid_model(max_level=5).outputs) == 3


def test_p7_sees_p6_through_a_relu_in_the_papers_form():
    negative = dataclasses.replace(HYPERPARAMS, kernel_initializer=lambda: keras.initializers.Constant(-1.0))
    model = pyramid_model(hyperparams=negative, coarse_from_c5=True, normalized=False)
    *_, p6, p7 = model([np.ones((1, *shape), np.float32) for shape in SHAPES.values()])
    assert float(np.max(p6)) < 0.0
    np.testing.assert_array_equal(p7, np.zeros((1, 1, 1, 4)))
