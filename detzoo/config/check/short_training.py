"""Checks of what a training leaves as it was, in silence: statistics, frozen parts and rates of 0.

Each finding is a warning: the training runs, its loss may fall, and the detector is not what its config says.
"""

from __future__ import annotations

import math
from typing import Any

from detzoo.config import stages
from detzoo.config.batch_norm import (
    BACKBONE_KERNEL,
    BACKBONE_MOMENTUM,
    HOW_TO_RECOMPUTE,
    HYPERPARAMS,
    MAX_INITIAL_SHARE,
    OVERRIDE,
    TrainedStatistics,
    backbone_moves_statistics,
    batch_norm_of,
    decay_path,
    extractor_of,
    finds,
    freezes,
    initial_share,
    statistics_are_frozen,
    steps_to_arrive,
    trained_statistics,
)
from detzoo.config.problems import Findings
from detzoo.config.schedule import chosen_schedule, peak_learning_rate

SMALL_BATCH = 2  # images; statistics of so few say little about others
NEGLIGIBLE_RATE = 1e-4  # of the initial learning rate
_TRAIN = "train_config"
_RECOMPUTE = f"{_TRAIN}.recompute_batch_norm"


def check_short_training(config: Any, findings: Findings) -> None:
    """Adds what a training by a ``pb.TrainEvalPipelineConfig`` would leave as it was."""
    if not stages.trains_by_steps(config.model):
        return
    trained = trained_statistics(config)
    _check_reach(config, findings)
    _check_recomputation(config.train_config, trained, findings)
    _check_arrival(config, trained, findings)
    _check_small_batch(config.train_config, trained, findings)
    _check_frozen(config, findings)
    _check_rates(config.train_config, findings)


def _check_reach(config: Any, findings: Findings) -> None:
    """Adds batch normalization of ``conv_hyperparams`` that the backbone does not take."""
    extractor = extractor_of(config.model)
    if extractor is None or not backbone_moves_statistics(config):
        return
    path, message, family = extractor
    hyperparams = getattr(message, HYPERPARAMS)
    asked, own = batch_norm_of(hyperparams), BACKBONE_MOMENTUM[family]
    if asked is None:
        return
    remedy = f"set {OVERRIDE}: true if it is meant for the backbone, too"
    field = decay_path(f"{path}.{HYPERPARAMS}", hyperparams)
    if not asked.train:
        text = f"is false, but does not reach the backbone, whose batch normalization trains; {remedy}"
        findings.warning(field.removesuffix("decay") + "train", text)
    elif not math.isclose(asked.decay, own, rel_tol=1e-6):
        text = f"is {asked.decay:g}, but does not reach the backbone, whose own momentum is {own:g}; {remedy}"
        # A backbone that is faster than asked for is none the worse.
        (findings.warning if asked.decay < own else findings.note)(field, text)


def _check_recomputation(config: Any, trained: list[TrainedStatistics], findings: Findings) -> None:
    if config.HasField("recompute_batch_norm") and not trained:
        text = "has no effect: the model has no batch normalization whose statistics training moves"
        findings.warning(_RECOMPUTE, text)


def _check_arrival(config: Any, trained: list[TrainedStatistics], findings: Findings) -> None:
    """Adds moving statistics that are still mostly their initial values at the last step; one finding per momentum."""
    train_config = config.train_config
    if not train_config.num_steps or train_config.HasField("recompute_batch_norm"):
        return
    initial = "those of mean 0 and variance 1"
    if train_config.fine_tune_checkpoint:
        initial = "those of fine_tune_checkpoint's images"
    elif _has_weights(config):
        initial = "those of the pretrained weights' images"
    late: dict[float, list[TrainedStatistics]] = {}
    for part in trained:
        if initial_share(part.momentum, train_config.num_steps) > MAX_INITIAL_SHARE:
            late.setdefault(part.momentum, []).append(part)
    for momentum, parts in late.items():
        steps = steps_to_arrive(momentum)
        others = f" (also {', '.join(part.where for part in parts[1:])})" if parts[1:] else ""
        text = (
            f"the batch normalization of {parts[0].where}{others} has momentum {momentum:g}: after num_steps "
            f"{train_config.num_steps} its moving statistics, with which detections are made, are still "
            f"{initial_share(momentum, train_config.num_steps):.0%} {initial}; {MAX_INITIAL_SHARE:.0%} is left after "
            f"{steps} steps. A momentum of {_fitting_momentum(train_config.num_steps):.3g} fits num_steps. "
            f"{HOW_TO_RECOMPUTE}"
        )
        findings.warning(parts[0].path, text)


def _fitting_momentum(num_steps: int) -> float:
    """Returns the momentum that leaves ``MAX_INITIAL_SHARE`` of the initial value after a quarter of the training."""
    return math.exp(math.log(MAX_INITIAL_SHARE) / max(1, num_steps // 4))


def _check_small_batch(config: Any, trained: list[TrainedStatistics], findings: Findings) -> None:
    if trained and 1 <= config.batch_size <= SMALL_BATCH:
        text = (
            f"is {config.batch_size}: batch normalization ({', '.join(part.where for part in trained)}) then trains on "
            f"the statistics of {config.batch_size} image{'s' * (config.batch_size > 1)}, and detects with others. "
            "Use more images, or keep the statistics of a pretrained backbone (freeze_batchnorm: true in ssd, "
            "batch_norm_trainable: false in faster_rcnn)"
        )
        findings.warning(f"{_TRAIN}.batch_size", text)


def _has_weights(config: Any) -> bool:
    """Returns whether the backbone starts from weights that were trained."""
    extractor = extractor_of(config.model)
    pretrained = extractor is not None and extractor[1].pretrained_weights
    return bool(pretrained or config.train_config.fine_tune_checkpoint)


def _check_frozen(config: Any, findings: Findings) -> None:
    """Adds parts that stay at their random initial values."""
    extractor = extractor_of(config.model)
    if extractor is None or _has_weights(config):
        return
    path, message, family = extractor
    remedy = "set pretrained_weights or train_config.fine_tune_checkpoint, or let it train"
    text = f"keeps the backbone at its random initial weights: no weights are named; {remedy}"
    if message.freeze_backbone:
        findings.warning(f"{path}.freeze_backbone", f"is true and {text}")
    if freezes(config.train_config, BACKBONE_KERNEL):
        findings.warning(f"{_TRAIN}.freeze_variables", text)
    updated = [pattern for pattern in config.train_config.update_trainable_variables if pattern]
    if updated and not any("backbone" in pattern or finds(pattern, BACKBONE_KERNEL) for pattern in updated):
        findings.warning(f"{_TRAIN}.update_trainable_variables", text)
    if statistics_are_frozen(config.model) and family in BACKBONE_MOMENTUM:
        is_ssd = config.model.HasField("ssd")
        field = "model.ssd.freeze_batchnorm" if is_ssd else f"{path}.batch_norm_trainable"
        text = (
            f"is {str(is_ssd).lower()}, so that batch normalization keeps its initial mean 0 and variance 1 and "
            f"normalizes nothing, but no weights are named; {remedy}"
        )
        findings.warning(field, text)


def _check_rates(config: Any, findings: Findings) -> None:
    """Adds learning rates that teach nothing, at every step or at most of them."""
    optimizer, _, name, schedule = chosen_schedule(config.optimizer)
    if not name:
        return
    path = f"{_TRAIN}.optimizer.{optimizer}.learning_rate.{name}"
    if peak_learning_rate(config.optimizer) == 0:
        findings.warning(path, "has a learning rate of 0 at every step: nothing is learned")
    if name == "exponential_decay_learning_rate" and 0 < schedule.decay_factor < 1 and not schedule.min_learning_rate:
        # Less than a millionth of a decay is the rounding of a float32 factor.
        decays = math.log(NEGLIGIBLE_RATE) / math.log(schedule.decay_factor)
        end = schedule.burnin_steps + math.ceil(decays - 1e-6) * schedule.decay_steps
        if 0 < end < config.num_steps / 2:
            text = (
                f"is {schedule.decay_steps}: with decay_factor {schedule.decay_factor:g} the learning rate is below "
                f"{NEGLIGIBLE_RATE:g} of initial_learning_rate from step {end} on, and num_steps is {config.num_steps}"
            )
            findings.warning(f"{path}.decay_steps", text)
    elif name == "cosine_decay_learning_rate":
        ramp = schedule.warmup_steps + schedule.hold_base_rate_steps
        if 0 < schedule.total_steps == schedule.warmup_steps and config.num_steps >= schedule.total_steps:
            text = f"is {schedule.warmup_steps}, all of total_steps: the training is all warm-up"
            findings.warning(f"{path}.warmup_steps", text)
        elif 0 < schedule.total_steps == ramp:
            text = f"is {schedule.hold_base_rate_steps}: with the warm-up all of total_steps, the rate never decays"
            findings.warning(f"{path}.hold_base_rate_steps", text)
