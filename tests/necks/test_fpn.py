"""Both top-down pathways by hand, with kernels of ones on small maps, and the levels past the backbone's."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest

from detzoo.contracts import BatchNormHyperparams, ConvHyperparams
from detzoo.necks.fpn import (
    bottom_up_only,
    coarse_by_subsampling,
    coarse_from_backbone,
    coarse_from_pyramid,
    plain_top_down,
    smoothed_top_down,
    top_down_only,
)

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
    # P5 is only the lateral. The middle of level 4 is (2 + 1) * 9 taps = 27. Level 3 is (3 + 27) * 9 = 270 in cells
    # whose nine taps all lie over inner cells of level 4.
    np.testing.assert_allclose(outputs["5"], np.ones((1, 2, 3, 1)))
    assert float(outputs["4"][0, 1, 1, 0]) == 27.0
    assert float(outputs["4"][0, 0, 0, 0]) == 12.0  # the corner sees 4 taps
    assert float(outputs["3"][0, 3, 4, 0]) == 270.0
    assert {level: x.shape[1:3] for level, x in outputs.items()} == {"3": (7, 10), "4": (4, 5), "5": (2, 3)}


def test_the_first_api_sends_the_sum_down():
    outputs = pyramid_model(smoothed_top_down, 1, ONES, passes_sums=True)(maps(c5=1.0, c4=2.0, c3=3.0))
    # P5 is only the lateral. The sums are 3 on level 4 and 6 on level 3; nine taps each.
    np.testing.assert_allclose(outputs["5"], np.ones((1, 2, 3, 1)))
    assert float(outputs["4"][0, 1, 1, 0]) == 27.0
    assert float(outputs["3"][0, 3, 4, 0]) == 54.0


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


def test_without_the_top_down_pathway_each_level_stands_alone():
    outputs = pyramid_model(bottom_up_only, 1, ONES)(maps(c5=1.0, c4=2.0, c3=3.0))
    # Nine taps of each level's own lateral; level 5 has 2 x 3 cells, its middle column sees six.
    assert [float(outputs[level][0, y, x, 0]) for level, y, x in (("3", 3, 4), ("4", 1, 1), ("5", 0, 1))] == [27, 18, 6]


def test_without_laterals_every_level_is_the_coarsest_one_enlarged():
    outputs = pyramid_model(top_down_only, 1, ONES)(maps(c5=2.0, c4=50.0, c3=70.0))
    # Nine taps of 2 where all lie on the map. Level 3 is cut from 8 x 10 cells, level 4 from 4 x 6.
    assert [float(outputs[level][0, y, x, 0]) for level, y, x in (("3", 3, 4), ("4", 1, 1), ("5", 0, 1))] == [
        18,
        18,
        12,
    ]
    assert {level: x.shape[1:3] for level, x in outputs.items()} == {"3": (7, 10), "4": (4, 5), "5": (2, 3)}
    columns = {"5": np.arange(6.0).reshape(1, 2, 3, 1).astype(np.float32)}
    model = pyramid_model(top_down_only, 1, ONES)
    model.get_layer("fpn_smooth_4_conv").set_weights(
        [np.eye(9)[4].reshape(3, 3, 1, 1), np.zeros(1)]
    )  # the middle tap only
    enlarged = model(maps() | columns)["4"][0, :, :, 0]
    np.testing.assert_array_equal(enlarged, [[0, 0, 1, 1, 2]] * 2 + [[3, 3, 4, 4, 5]] * 2)


@pytest.mark.parametrize("build", [bottom_up_only, top_down_only])
def test_variables_of_the_ablations(build):
    paths = {weight.path for weight in pyramid_model(build, 4, ONES).weights}
    laterals = {5} if build is top_down_only else {3, 4, 5}
    assert {path for path in paths if "lateral" in path} == {
        f"fpn_lateral_{level}/{kind}" for level in laterals for kind in ("kernel", "bias")
    }
    assert {path for path in paths if "smooth" in path} == {
        f"fpn_smooth_{level}_conv/{kind}" for level in (3, 4, 5) for kind in ("kernel", "bias")
    }


def test_subsampled_levels_are_every_other_cell_of_the_one_before():
    shapes = {4: (9, 9, 3), 5: (5, 6, 1)}
    model = pyramid_model(coarse_by_subsampling, 7, shapes=shapes)
    coarsest = np.arange(30.0).reshape(1, 5, 6, 1).astype(np.float32)
    outputs = model(maps(shapes) | {"5": coarsest})
    assert not model.weights
    np.testing.assert_array_equal(outputs["6"], coarsest[:, ::2, ::2])
    np.testing.assert_array_equal(outputs["7"], coarsest[:, ::4, ::4])
    assert coarse_by_subsampling({5: keras.Input((5, 6, 1))}, 5) == {}
