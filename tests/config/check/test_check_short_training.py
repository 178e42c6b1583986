"""Warnings of what a training leaves as it was: statistics, frozen parts, rates of 0; and published configs without."""

from __future__ import annotations

import math

import pytest

from detzoo.builders.features import build_network
from detzoo.config.batch_norm import BACKBONE_MOMENTUM, CENTER_MOMENTUM, arrival_warning, initial_share, steps_to_arrive
from detzoo.config.check.pipeline import check_pipeline
from detzoo.config.check.short_training import check_short_training
from detzoo.config.load import load_pipeline, read_pipeline
from detzoo.config.problems import Findings, Severity
from detzoo.config.support import CENTER_EXTRACTORS, REGION_EXTRACTORS, SSD_EXTRACTORS
from detzoo.features import hourglass

EXTRACTOR = "model.ssd.feature_extractor"
HYPERPARAMS = f"{EXTRACTOR}.conv_hyperparams"
DECAY = f"{HYPERPARAMS}.batch_norm.decay"
OVERRIDE = f"{EXTRACTOR}.override_base_feature_extractor_hyperparams"
HEAD = "model.ssd.box_predictor.weight_shared_convolutional_box_predictor.conv_hyperparams"
REGION = "model.faster_rcnn.feature_extractor"
MOMENTUM = "train_config.optimizer.momentum_optimizer.learning_rate"
COSINE = f"{MOMENTUM}.cosine_decay_learning_rate"
EXPONENTIAL = f"{MOMENTUM}.exponential_decay_learning_rate"
PLAIN = ("train_config.recompute_batch_norm=",)  # the config without its recomputation


def found(path, *overrides, severity=Severity.WARNING):
    return {p.path: p.message for p in check_pipeline(load_pipeline(str(path), overrides)) if p.severity is severity}


def steps(number):
    return [f"train_config.num_steps={number}", f"{COSINE}.total_steps={number}"]


def test_shares_and_steps():
    assert initial_share(0.9, 2) == pytest.approx(0.81)
    assert initial_share(0.9997, 1500) == pytest.approx(math.exp(1500 * math.log(0.9997)))  # 0.6376
    # 0.5 ** 6 = 0.0156 is above 0.01, 0.5 ** 7 = 0.0078 is not.
    assert steps_to_arrive(0.5) == 7
    # log(0.01) = -4.605170; log(0.9997) = -0.000300045; their quotient is 15348.3.
    assert steps_to_arrive(0.9997) == 15349
    assert (steps_to_arrive(0.0), steps_to_arrive(1.0)) == (1, math.inf)
    assert arrival_warning([0.9, 0.5], 44) == ""  # 0.9 ** 44 = 0.0097
    assert "still 1% their" in arrival_warning([0.9, 0.5], 43)  # 0.0108
    assert "momentum 1: 1% is left after inf steps" in arrival_warning([1.0], 10)
    assert arrival_warning([], 1) == ""


@pytest.mark.parametrize("name", sorted({**SSD_EXTRACTORS, **REGION_EXTRACTORS}))
def test_the_momentum_of_each_family_is_its_networks(name):
    row = {**SSD_EXTRACTORS, **REGION_EXTRACTORS}[name]
    batch_norm = _hyperparams_of(row.family, row.variant, row).batch_norm
    assert BACKBONE_MOMENTUM.get(row.family) == (None if batch_norm is None else batch_norm.momentum)


@pytest.mark.parametrize("name", ["hourglass_10", "resnet_v1_50_fpn", "resnet_v2_50", "mobilenet_v2_fpn"])
def test_the_momentum_of_each_family_of_centernet_is_its_networks(name):
    row = CENTER_EXTRACTORS[name]
    if row.family == "hourglass":
        momentum = hourglass.BATCH_NORM.momentum
    else:
        momentum = build_network(row, for_center=True).hyperparams.batch_norm.momentum
    assert CENTER_MOMENTUM[row.family] == momentum


_networks: dict[str, object] = {}


def _hyperparams_of(family, variant, row):
    """One network per family: all of its variants share their hyperparameters."""
    if family not in _networks:
        _networks[family] = build_network(row).hyperparams
    return _networks[family]


def test_a_momentum_that_does_not_reach_the_backbone(config_path):
    overrides = [*PLAIN, *steps(1500), f"{DECAY}=0.97"]
    warnings = found(config_path, *overrides)
    assert warnings.keys() == {DECAY, f"{EXTRACTOR}.type"}
    assert "is 0.97, but does not reach the backbone, whose own momentum is 0.9997" in warnings[DECAY]
    assert "Set override_base_feature_extractor_hyperparams: true" in warnings[DECAY]
    # 0.9997 ** 1500 = 0.638
    assert "num_steps 1500" in warnings[f"{EXTRACTOR}.type"]
    assert "still 64% those of mean 0 and variance 1; 1% is left after 15349 steps" in warnings[f"{EXTRACTOR}.type"]
    assert "--recompute_batch_norm" in warnings[f"{EXTRACTOR}.type"]
    assert found(config_path, *overrides, f"{OVERRIDE}=true") == {}
    assert found(config_path, *PLAIN, *steps(15349), f"{DECAY}=0.9997") == {}
    assert found(config_path, *PLAIN, *steps(15348), f"{DECAY}=0.9997").keys() == {f"{EXTRACTOR}.type", DECAY}
    assert "does not reach" in found(config_path, *PLAIN, *steps(20000), f"{DECAY}=0.97")[DECAY]
    frozen = f"{HYPERPARAMS}.batch_norm.train=false"
    assert "is false, but does not reach" in found(config_path, *steps(1500), frozen)[frozen.split("=")[0]]


def test_a_backbone_that_is_faster_than_asked_for_is_a_note(config_path):
    overrides = [*PLAIN, *steps(20000), f"{EXTRACTOR}.type=ssd_resnet50_v1_fpn_keras", f"{DECAY}=0.9997"]
    assert found(config_path, *overrides) == {}
    assert "whose own momentum is 0.997" in found(config_path, *overrides, severity=Severity.NOTE)[DECAY]


def test_every_part_counts_with_its_own_momentum(config_path):
    overrides = [*PLAIN, *steps(1000), f"{OVERRIDE}=true", f"{DECAY}=0.9"]
    assert found(config_path, *overrides) == {}
    warnings = found(config_path, *overrides, f"{HEAD}.sync_batch_norm.decay=0.999")
    assert warnings.keys() == {f"{HEAD}.sync_batch_norm.decay"}
    assert "still 37% those" in warnings[f"{HEAD}.sync_batch_norm.decay"]  # 0.999 ** 1000 = 0.3677
    assert found(config_path, *overrides, f"{HEAD}.sync_batch_norm.decay=0.9") == {}


@pytest.mark.parametrize(
    ("override", "whose"),
    [
        ("train_config.fine_tune_checkpoint={}/ckpt-0", "those of fine_tune_checkpoint's images"),
        (f"{EXTRACTOR}.pretrained_weights=imagenet", "those of the pretrained weights' images"),
    ],
)
def test_a_warm_start_has_the_statistics_of_other_images(config_path, override, whose):
    (config_path.parent / "ckpt-0.index").write_bytes(b"index")
    warnings = found(config_path, *PLAIN, *steps(1500), override.format(config_path.parent))
    assert f"still 64% {whose}" in warnings[f"{EXTRACTOR}.type"]


@pytest.mark.parametrize(
    "override",
    [
        "model.ssd.freeze_batchnorm=true",
        f"{EXTRACTOR}.freeze_backbone=true",
        "train_config.freeze_variables[+]=backbone",
        "train_config.freeze_variables[+]=moving_(mean|variance)$",
        "train_config.recompute_batch_norm.num_batches=5",
        f"{EXTRACTOR}.type=ssd_vgg16_fpn_keras",
    ],
)
def test_quiet_where_no_statistics_move_or_they_are_recomputed(config_path, override):
    pretrained = f"{EXTRACTOR}.pretrained_weights=imagenet"
    assert found(config_path, *PLAIN, *steps(1500), pretrained).keys() == {f"{EXTRACTOR}.type"}
    assert found(config_path, *PLAIN, *steps(1500), pretrained, override) == {}


def test_two_stages(region_path):
    assert found(region_path) == {}
    warnings = found(region_path, *PLAIN)
    assert "still 74% those" in warnings[f"{REGION}.type"]  # ResNet: 0.997 ** 100 = 0.7405
    assert found(region_path, *PLAIN, *steps(1533)) == {}  # log(0.01) / log(0.997) = 1532.8
    weights = f"{REGION}.pretrained_weights=imagenet"
    assert found(region_path, *PLAIN, f"{REGION}.batch_norm_trainable=false", weights) == {}


def test_recomputing_nothing(region_path):
    weights = f"{REGION}.pretrained_weights=imagenet"
    warnings = found(region_path, f"{REGION}.batch_norm_trainable=false", weights)
    assert "has no effect" in warnings["train_config.recompute_batch_norm"]
    errors = found(region_path, "train_config.recompute_batch_norm.num_batches=0", severity=Severity.ERROR)
    assert "is 0; accepted: 1 to" in errors["train_config.recompute_batch_norm.num_batches"]


@pytest.mark.parametrize(("size", "says"), [(1, "of 1 image,"), (2, "of 2 images,")])
def test_small_batches(config_path, size, says):
    rate = f"{COSINE}.learning_rate_base=0.001"  # else high for the batch
    warning = found(config_path, f"train_config.batch_size={size}", rate)["train_config.batch_size"]
    assert f"is {size}: batch normalization (the backbone) then trains on the statistics {says}" in warning
    weights = f"{EXTRACTOR}.pretrained_weights=imagenet"
    frozen = ["model.ssd.freeze_batchnorm=true", weights, *PLAIN]
    assert found(config_path, f"train_config.batch_size={size}", rate, *frozen) == {}
    assert found(config_path, "train_config.batch_size=3", rate) == {}


@pytest.mark.parametrize(
    ("override", "path", "says"),
    [
        (f"{EXTRACTOR}.freeze_backbone=true", f"{EXTRACTOR}.freeze_backbone", "random initial weights"),
        (
            "train_config.freeze_variables[+]=^backbone/",
            "train_config.freeze_variables",
            "keeps the backbone at its random initial weights",
        ),
        (
            "train_config.update_trainable_variables[+]=^head/",
            "train_config.update_trainable_variables",
            "keeps the backbone at its random initial weights",
        ),
        ("model.ssd.freeze_batchnorm=true", "model.ssd.freeze_batchnorm", "is true, so that batch normalization keeps"),
    ],
)
def test_what_is_frozen_before_it_was_trained(config_path, override, path, says):
    assert says in found(config_path, *PLAIN, override)[path]
    assert path not in found(config_path, *PLAIN, override, f"{EXTRACTOR}.pretrained_weights=imagenet")
    (config_path.parent / "ckpt-0.index").write_bytes(b"index")
    assert path not in found(config_path, *PLAIN, override, f"train_config.fine_tune_checkpoint={config_path.parent}")


def test_frozen_statistics_of_two_stages_without_weights(region_path):
    warnings = found(region_path, *PLAIN, f"{REGION}.batch_norm_trainable=false")
    assert "is false, so that batch normalization keeps" in warnings[f"{REGION}.batch_norm_trainable"]


@pytest.mark.parametrize(
    ("overrides", "path", "says"),
    [
        ([f"{MOMENTUM}.constant_learning_rate.learning_rate=0"], f"{MOMENTUM}.constant_learning_rate", "nothing is"),
        ([f"{COSINE}.warmup_steps=100"], f"{COSINE}.warmup_steps", "is 100, all of total_steps"),
        ([f"{COSINE}.hold_base_rate_steps=90"], f"{COSINE}.hold_base_rate_steps", "the rate never decays"),
        # 0.1 ** 4 = 1e-4, after 4 * 5 steps and a burn-in of 10.
        (
            [f"{EXPONENTIAL}.{field}" for field in ("decay_steps=5", "decay_factor=0.1", "burnin_steps=10")],
            f"{EXPONENTIAL}.decay_steps",
            "is 5: with decay_factor 0.1 the learning rate is below 0.0001 of initial_learning_rate from step 30 on",
        ),
        # 0.95 ** (100 / 1000) = 0.9949
        (
            [f"{EXPONENTIAL}.{field}" for field in ("decay_steps=1000", "decay_factor=0.95", "staircase=false")],
            f"{EXPONENTIAL}.decay_steps",
            "is 1000: after num_steps 100 the learning rate is still 99% of its start",
        ),
        ([f"{EXPONENTIAL}.decay_steps=1000"], f"{EXPONENTIAL}.decay_steps", "still 100% of its start"),
        ([f"{EXPONENTIAL}.burnin_steps=100"], f"{EXPONENTIAL}.burnin_steps", "training is all warm-up"),
    ],
)
def test_rates_with_which_nothing_is_learned(config_path, overrides, path, says):
    assert found(config_path, f"{COSINE}.hold_base_rate_steps=0") == {}
    assert says in found(config_path, *overrides)[path]


def test_published_configs_are_quiet(shared):
    paths = sorted((shared / "configs" / "published").glob("*/*.config"))
    assert len(paths) == 104
    for path in paths:
        loaded, _ = read_pipeline(str(path))
        findings = Findings(loaded.line_of)
        check_short_training(loaded.message, findings)
        assert findings.problems == [], path.name
