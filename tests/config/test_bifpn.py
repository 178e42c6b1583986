"""Checks of ``feature_extractor.bifpn``, and what a config without the block stands for."""

from __future__ import annotations

import pytest

from detzoo.config import pb
from detzoo.config.check.pipeline import check_pipeline
from detzoo.config.load import load_pipeline
from detzoo.config.problems import Severity
from detzoo.config.support import SSD_EXTRACTORS, Normalization, bifpn_of, lookup_ssd_extractor

EXTRACTOR = "model.ssd.feature_extractor"
BIFPN = f"{EXTRACTOR}.bifpn"
TYPE = "ssd_efficientnet-b0_bifpn_keras"
CHOSEN = [
    f"{EXTRACTOR}.fpn=",
    f"{EXTRACTOR}.type={TYPE}",
    f"{BIFPN}.max_level=6",
    f"{BIFPN}.num_iterations=3",
    f"{BIFPN}.num_filters=64",
]


def found(path, *overrides, severity=Severity.ERROR):
    """Field path -> message, of the config with the given overrides."""
    problems = check_pipeline(load_pipeline(str(path), [*CHOSEN, *overrides]))
    return {problem.path: problem.message for problem in problems if problem.severity is severity}


def test_a_good_config_has_no_problem(config_path):
    assert check_pipeline(load_pipeline(str(config_path), CHOSEN)) == []


@pytest.mark.parametrize(
    ("override", "path", "says"),
    [
        (f"{BIFPN}.num_iterations=0", f"{BIFPN}.num_iterations", "is 0; accepted: 1 or more, in EfficientDet 3"),
        (f"{BIFPN}.num_filters=0", f"{BIFPN}.num_filters", "is 0; accepted: 1 or more, in EfficientDet 64"),
        (f"{BIFPN}.min_level=1", f"{BIFPN}.min_level", "2 to 5, the levels of the backbone"),
        (f"{BIFPN}.max_level=3", f"{BIFPN}.max_level", "min_level + 1 (4) to 12"),
        (f"{BIFPN}.max_level=13", f"{BIFPN}.max_level", "to 12"),
        (f"{BIFPN}.combine_method=fast_atention", f"{BIFPN}.combine_method", "did you mean 'fast_attention'"),
        (f"{EXTRACTOR}.use_depthwise=true", f"{EXTRACTOR}.use_depthwise", f"not supported by {TYPE}; accepted: false"),
        (f"{EXTRACTOR}.use_explicit_padding=true", f"{EXTRACTOR}.use_explicit_padding", "accepted: false"),
        (
            f"{EXTRACTOR}.override_base_feature_extractor_hyperparams=true",
            f"{EXTRACTOR}.override_base_feature_extractor_hyperparams",
            "accepted: false",
        ),
        (f"{EXTRACTOR}.depth_multiplier=0.5", f"{EXTRACTOR}.depth_multiplier", "has one width only"),
        (f"{EXTRACTOR}.output_stride=16", f"{EXTRACTOR}.output_stride", "0, 32"),
        (
            "model.ssd.anchor_generator.multiscale_anchor_generator.max_level=7",
            "model.ssd.anchor_generator.multiscale_anchor_generator.max_level",
            f"levels 3 to 6 ({BIFPN}); accepted: 6",
        ),
    ],
)
def test_an_error_names_field_and_remedy(config_path, override, path, says):
    errors = found(config_path, override)
    assert says in errors[path]


def test_blocks_of_the_other_pyramid(config_path):
    overrides = [f"{EXTRACTOR}.bifpn=", f"{EXTRACTOR}.fpn.max_level=6"]
    assert "use the block bifpn" in found(config_path, *overrides)[f"{EXTRACTOR}.fpn"]
    overrides = [f"{EXTRACTOR}.type=ssd_mobilenet_v2_fpn_keras"]
    assert "builds no bidirectional pyramid" in found(config_path, *overrides)[BIFPN]


def test_attention_of_the_original_is_no_attention(config_path):
    override = f"{BIFPN}.combine_method=attention"
    assert found(config_path, override) == {}
    assert "the weight 1" in found(config_path, override, severity=Severity.WARNING)[f"{BIFPN}.combine_method"]


def test_native_enlargement_has_no_effect(config_path):
    notes = found(config_path, f"{BIFPN}.use_native_resize_op=true", severity=Severity.NOTE)
    assert "accepted, no effect" in notes[f"{BIFPN}.use_native_resize_op"]


@pytest.mark.parametrize(
    ("variant", "passes", "filters", "fusion"),
    # Table 1 of the paper, which sums without weights in D6 and D7.
    [("b0", 3, 64, "fast_attention"), ("b3", 6, 160, "fast_attention"), ("b6", 8, 384, "sum")],
)
def test_without_the_block_the_numbers_are_the_papers(variant, passes, filters, fusion):
    message = pb.SsdFeatureExtractor(type=f"ssd_efficientnet-{variant}_bifpn_keras")
    assert bifpn_of(message, lookup_ssd_extractor(message.type)) == (3, 7, passes, filters, fusion)


def test_filters_are_no_fewer_than_min_depth():
    block = pb.BidirectionalFeaturePyramidNetworks(num_iterations=1, num_filters=8)
    message = pb.SsdFeatureExtractor(type=TYPE, bifpn=block)
    assert bifpn_of(message, lookup_ssd_extractor(TYPE)).num_filters == 16  # the default of min_depth


def test_eight_extractors_with_and_without_keras():
    rows = {name: row for name, row in SSD_EXTRACTORS.items() if row.is_bifpn}
    assert len(rows) == 16
    assert rows["ssd_efficientnet-b7_bifpn"] is rows["ssd_efficientnet-b7_bifpn_keras"]
    assert {row.normalization for row in rows.values()} == {Normalization.IMAGENET_STANDARD}
    assert not any(row.is_fpn for row in rows.values())
    assert all(row.is_pyramid for row in rows.values())


def test_published_configs_of_efficientdet_are_accepted(shared):
    paths = sorted((shared / "configs" / "published" / "tf2").glob("ssd_efficientdet_d*.config"))
    assert len(paths) == 8
    for path in paths:
        problems = check_pipeline(load_pipeline(str(path)), files=False)
        assert [problem for problem in problems if problem.severity is Severity.ERROR] == []
