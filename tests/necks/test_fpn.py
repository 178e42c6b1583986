"""Both top-down pathways by hand, with kernels of ones on small maps, and the levels past the backbone's."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest

from detzoo.contracts import BatchNormHyperparams, ConvHyperparams
from detzoo.necks.fpn import coarse_from_backbone, coarse_from_pyramid, plain_top_down, smoothed_top_down

ONES = ConvHyperparams(kernel_initializer=keras.initializers.Ones, activation=None)
NORMALIZED = dataclasses.replace(ONES, activation="relu6", batch_norm=BatchNormHyperparams(scale=True))
SHAPES = {3: (7, 10, 1), 4: (4, 5, 1), 5: (2, 3, 1)}  # odd sizes, not square


def pyramid_model(build, *args, shapes=SHAPES, **kwargs):
    inputs = {str(level): keras.Input(shape, name=str(level)) for level, shape in shapes.items()}
    outputs = build({int(level): x for level, x in inputs.items()}, *args, **kwargs)
    return keras.Model(inputs, {str(level): x for level, x in outputs.items()})


def maps(shapes=SHAPES, **values):
    return {
        str(level): np.full((1, *shape), values.get(f"c{level}", 1.0), np.float32) for level, shape in shapes.items()
    }


def test_api_pathway_sends_the_smoothed_map_down():
    outputs = pyramid_model(smoothed_top_down, 1, ONES)(maps(c5=1.0, c4=2.0, c3=3.0))
    # P5 is the bare lateral. In the middle of level 4: (2 + 1) * 9 taps = 27; of level 3: (3 + 27) * 9 = 270 where all
    # nine taps lie over inner cells of level 4.
    np.testing.assert_allclose(outputs["5"], np.ones((1, 2, 3, 1)))
    assert float(outputs["4"][0, 1, 1, 0]) == 27.0
    assert float(outputs["4"][0, 0, 0, 0]) == 12.0  # the corner sees 4 taps
    assert float(outputs["3"][0, 3, 4, 0]) == 270.0
    assert {level: x.shape[1:3] for level, x in outputs.items()} == {"3": (7, 10), "4": (4, 5), "5": (2, 3)}


def test_papers_pathway_sends_the_bare_sum_down_and_smooths_every_map():
    outputs = pyramid_model(plain_top_down, 1, NORMALIZED)(maps(c5=1.0, c4=2.0, c3=3.0))
    # Sums are 1, 3, 6 from the top. Nine taps inside; level 5 is 2 x 3, so its middle column sees 2 x 3 = 6 taps.
    # Normalisation and activation of the hyperparameters are ignored: 54 is above ReLU6's 6.
    assert float(outputs["3"][0, 3, 4, 0]) == 54.0
    assert float(outputs["4"][0, 1, 1, 0]) == 27.0
    assert float(outputs["5"][0, 0, 1, 0]) == 6.0


def test_variables_of_both_pathways():
    smoothed = pyramid_model(smoothed_top_down, 4, NORMALIZED)
    convolutions = sorted(weight.path for weight in smoothed.weights if "batch_norm" not in weight.path)
    assert convolutions == [
        "fpn_lateral_3/bias",
        "fpn_lateral_3/kernel",
        "fpn_lateral_4/bias",
        "fpn_lateral_4/kernel",
        "fpn_lateral_5/bias",
        "fpn_lateral_5/kernel",
        "fpn_smooth_3_conv/kernel",
        "fpn_smooth_4_conv/kernel",
    ]
    plain = pyramid_model(plain_top_down, 4, NORMALIZED)
    assert sum("fpn_smooth" in weight.path and weight.path.endswith("bias") for weight in plain.weights) == 3
    assert not any("batch_norm" in weight.path for weight in plain.weights)


@pytest.mark.parametrize("pathway", [smoothed_top_down, plain_top_down])
def test_lite_pathways_are_separable(pathway):
    model = pyramid_model(pathway, 4, NORMALIZED, use_depthwise=True)
    assert any(weight.path == "fpn_smooth_3_separable/pointwise_kernel" for weight in model.weights)
    assert not any("smooth" in weight.path and weight.path.endswith("/kernel") for weight in model.weights)


def test_coarse_levels_of_the_api_come_from_the_pyramid():
    model = pyramid_model(coarse_from_pyramid, 2, 7, ONES, shapes={4: (9, 9, 3), 5: (5, 6, 1)})
    outputs = model(maps({4: (9, 9, 3), 5: (5, 6, 1)}))
    assert {level: tuple(x.shape[1:]) for level, x in outputs.items()} == {"6": (3, 3, 2), "7": (2, 2, 2)}
    # 5 rows pad to (1, 1), 6 columns to (0, 1): the middle of P6 sees 3 x 3 taps of one channel.
    assert float(outputs["6"][0, 1, 1, 0]) == 9.0


def test_coarse_levels_of_the_paper_put_a_relu_between():
    negative = dataclasses.replace(ONES, kernel_initializer=lambda: keras.initializers.Constant(-1.0))
    outputs = pyramid_model(coarse_from_backbone, 1, 7, negative, shapes={5: (5, 6, 1)})(maps({5: (5, 6, 1)}))
    assert float(outputs["6"][0, 1, 1, 0]) == -9.0
    np.testing.assert_array_equal(outputs["7"], np.zeros((1, 2, 2, 1)))  # every input of P7 is negative


@pytest.mark.parametrize("build", [coarse_from_pyramid, coarse_from_backbone])
def test_no_coarse_level_is_added_where_none_is_missing(build):
    assert build({4: keras.Input((4, 5, 1)), 5: keras.Input((2, 3, 1))}, 2, 5, ONES) == {}


def test_explicit_padding_keeps_the_sizes_of_maps_that_double():
    shapes = {3: (8, 12, 1), 4: (4, 6, 1)}
    model = pyramid_model(smoothed_top_down, 2, ONES, shapes=shapes, explicit_padding=True)
    assert {level: x.shape[1:3] for level, x in model(maps(shapes)).items()} == {"3": (8, 12), "4": (4, 6)}


def test_sizes_may_be_unknown_until_the_image_arrives():
    model = pyramid_model(smoothed_top_down, 2, NORMALIZED, shapes=dict.fromkeys(SHAPES, (None, None, 1)))
    assert {level: x.shape[1:3] for level, x in model(maps()).items()} == {"3": (7, 10), "4": (4, 5), "5": (2, 3)}
