"""The table of feature extractors."""

from __future__ import annotations

import dataclasses
import re

import pytest

from detzoo.config import support
from detzoo.config.support import SSD_EXTRACTORS, Normalization, lookup_ssd_extractor, refusal
from detzoo.errors import ConfigError


def test_both_generations_are_of_one_backbone():
    first, second = map(lookup_ssd_extractor, ("ssd_mobilenet_v2", "ssd_mobilenet_v2_keras"))
    assert (first.is_first_generation, second.is_first_generation) == (True, False)
    assert dataclasses.replace(first, is_first_generation=False) == second


def test_backbones_plain_and_with_pyramid():
    plain = {name.removesuffix("_fpn") for name in SSD_EXTRACTORS if name.endswith("_fpn")} & set(SSD_EXTRACTORS)
    assert plain >= {"ssd_vgg16", "ssd_mobilenet_v1", "ssd_mobilenet_v2", "ssd_resnext101_32x8d"}
    assert plain >= {"ssd_inception_v2", "ssd_inception_v3", "ssd_inception_resnet_v2"}
    assert plain >= {"ssd_resnet50_v1", "ssd_resnet101_v1", "ssd_resnet152_v1"}
    variants = {f"{name}{pyramid}{keras}" for name in plain for pyramid in ("", "_fpn") for keras in ("", "_keras")}
    assert variants <= set(SSD_EXTRACTORS)
    assert all(SSD_EXTRACTORS[f"{name}_fpn"].is_fpn for name in plain)


def test_levels_of_ssd():
    mobilenet = lookup_ssd_extractor("ssd_mobilenet_v1")
    assert mobilenet.ssd_levels(6) == (4, 5, 6, 7, 8, 9)  # strides 16, 32 of the backbone, then four halvings
    assert mobilenet.ssd_levels(2) == (4, 5)
    assert mobilenet.max_num_layers == 6
    vgg = lookup_ssd_extractor("ssd_vgg16")  # 38 x 38 at 300 px is stride 8
    assert vgg.ssd_levels(6)[0] == 3
    assert vgg.max_num_layers == 7
    assert vgg.l2_normalized_levels == (3,)
    assert lookup_ssd_extractor("ssd_inception_resnet_v2").max_num_layers == 5


@pytest.mark.parametrize(("name", "levels"), [("embedded_ssd_mobilenet_v1", 5), ("ssd_mobilenet_v1_ppn", 6)])
def test_extractors_that_always_make_all_maps(name, levels):
    row = lookup_ssd_extractor(name)
    for num_layers in (1, 3, 6):
        assert row.num_maps(num_layers) == levels
        assert row.ssd_levels(num_layers) == tuple(range(4, 4 + levels))
    for other in (f"{name}_keras", f"{name}_fpn"):  # the Object Detection API has none
        with pytest.raises(ConfigError, match=f"'{other}'"):
            lookup_ssd_extractor(other)


def test_a_pyramid_reads_levels_two_to_five_and_has_no_extra_levels():
    row = lookup_ssd_extractor("ssd_vgg16_fpn")
    assert (row.backbone_levels, row.extra_depths, row.l2_normalized_levels) == ((2, 3, 4, 5), (), ())


def test_normalization():
    assert lookup_ssd_extractor("ssd_mobilenet_v2").normalization is Normalization.MINUS_ONE_TO_ONE
    assert lookup_ssd_extractor("ssd_resnet50_v1_fpn").normalization is Normalization.IMAGENET_MEAN


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("ssd_resnet50_v1_ppn", "not supported yet (pooling pyramids"),
        ("ssd_pnasnet", "not supported yet (the PNASNet"),
        ("ssd_spaghettinet", "not supported yet (SpaghettiNet"),
        ("faster_rcnn_resnet101_keras", "a feature extractor of faster_rcnn, not of ssd"),
        ("hourglass_104", "a feature extractor of center_net, not of ssd"),
        ("ssd_mobilnet_v2", "did you mean 'ssd_mobilenet_v2'"),
        ("", "no feature extractor is named"),
    ],
)
def test_a_refusal_says_why_and_what_is_accepted(name, says):
    assert says in refusal(name)
    with pytest.raises(ConfigError, match=re.escape("accepted: ssd_vgg16, ")):
        lookup_ssd_extractor(name)


def test_every_extractor_of_center_net_in_the_original_is_known():
    assert set(support.CENTER_EXTRACTORS) == {
        *(f"hourglass_{depth}" for depth in (10, 20, 32, 52, 104)),
        *(f"resnet_v1_{depth}_fpn" for depth in (18, 34, 50, 101)),
        "resnet_v2_50",
        "resnet_v2_101",
        "mobilenet_v2",
        "mobilenet_v2_fpn",
        "mobilenet_v2_fpn_sep_conv",
    }
    assert support.weights_problem("imagenet", support.CENTER_EXTRACTORS["resnet_v1_18_fpn"])
