"""Rules of parts that a training leaves unchanged in silence: statistics, frozen parts and rates of 0.

Each finding is a warning: the training runs, its loss may fall, and the detector is not the one that the config
describes.
"""

from __future__ import annotations

import math

from detzoo.config import batch_norm, pb, stages
from detzoo.config.batch_norm import BACKBONE_KERNEL, HOW_TO_RECOMPUTE, MAX_INITIAL_SHARE, TrainedStatistics
from detzoo.config.check.training import chosen_schedule, peak_learning_rate
from detzoo.config.problems import Findings
from detzoo.config.support import FIXED_FAMILIES

SMALL_BATCH = 2  # images; statistics of so few say little about others
NEGLIGIBLE_RATE = 1e-4  # of the initial learning rate


def check_short_training(config: pb.TrainEvalPipelineConfig, findings: Findings) -> None:
    """Checks the parts of a model that a training with this config would leave unchanged."""
    if not stages.trains_by_steps(config.model):
        return
    trained = batch_norm.trained_statistics(config)
    _check_reach(config, findings)
    if config.train_config.HasField("recompute_batch_norm") and not trained:
        text = "has no effect: the model has no batch normalization whose statistics training moves"
        findings.warning("train_config.recompute_batch_norm", "nothing-to-recompute", text)
    _check_arrival(config, trained, findings)
    _check_small_batch(config.train_config, trained, findings)
    _check_frozen(config, findings)
    _check_rates(config.train_config, findings.at("train_config.optimizer"))


def _check_reach(config: pb.TrainEvalPipelineConfig, findings: Findings) -> None:
    """Adds batch normalization of ``conv_hyperparams`` that the backbone does not take."""
    extractor = batch_norm.extractor_of(config.model)
    if extractor is None or not batch_norm.backbone_moves_statistics(config):
        return
    path, message, family = extractor
    hyperparams = getattr(message, batch_norm.HYPERPARAMS)
    requested, own = batch_norm.batch_norm_of(hyperparams), batch_norm.BACKBONE_MOMENTUM[family]
    if requested is None:
        return
    is_fixed = family in FIXED_FAMILIES
    remedy = f"Set {batch_norm.OVERRIDE}: true if it is meant for the backbone, too"
    remedy = "Set model.ssd.freeze_batchnorm: true to freeze it" if is_fixed else remedy
    field = batch_norm.decay_path(f"{path}.{batch_norm.HYPERPARAMS}", hyperparams)
    if not requested.train:
        text = f"is false, but does not reach the backbone, whose batch normalization trains. {remedy}"
        findings.warning(field.removesuffix("decay") + "train", "batch-norm-without-reach", text)
    elif not is_fixed and not math.isclose(requested.decay, own, rel_tol=1e-6):
        text = f"is {requested.decay:g}, but does not reach the backbone, whose own momentum is {own:g}. {remedy}"
        # A backbone whose statistics move faster than requested does no harm.
        add = findings.warning if requested.decay < own else findings.note
        add(field, "batch-norm-without-reach", text)


def _check_arrival(config: pb.TrainEvalPipelineConfig, trained: list[TrainedStatistics], findings: Findings) -> None:
    """Adds moving statistics that are still mostly their initial values at the last step; one finding per momentum."""
    training = config.train_config
    if not training.num_steps or training.HasField("recompute_batch_norm"):
        return
    initial = "those of mean 0 and variance 1"
    if training.fine_tune_checkpoint:
        initial = "those of fine_tune_checkpoint's images"
    elif _has_weights(config):
        initial = "those of the pretrained weights' images"
    late: dict[float, list[TrainedStatistics]] = {}
    for part in trained:
        if batch_norm.initial_share(part.momentum, training.num_steps) > MAX_INITIAL_SHARE:
            late.setdefault(part.momentum, []).append(part)
    # The momentum that leaves MAX_INITIAL_SHARE of the initial value after a quarter of the training.
    fitting = math.exp(math.log(MAX_INITIAL_SHARE) / max(1, training.num_steps // 4))
    for momentum, parts in late.items():
        share = batch_norm.initial_share(momentum, training.num_steps)
        others = f" (also {', '.join(part.where for part in parts[1:])})" if parts[1:] else ""
        text = (
            f"the batch normalization of {parts[0].where}{others} has momentum {momentum:g}. After num_steps "
            f"{training.num_steps} its moving statistics, with which detections are made, are still "
            f"{share:.0%} {initial}; {MAX_INITIAL_SHARE:.0%} is left after {batch_norm.steps_to_arrive(momentum)} "
            f"steps. A momentum of {fitting:.3g} fits num_steps. {HOW_TO_RECOMPUTE}"
        )
        findings.warning(parts[0].path, "initial-statistics", text, ["num_steps"])


def _check_small_batch(training: pb.TrainConfig, trained: list[TrainedStatistics], findings: Findings) -> None:
    if trained and 1 <= training.batch_size <= SMALL_BATCH:
        text = (
            f"is {training.batch_size}: batch normalization ({', '.join(part.where for part in trained)}) then trains "
            f"on the statistics of {training.batch_size} image{'s' * (training.batch_size > 1)}, and detects with "
            "others. Use more images, or keep the statistics of a pretrained backbone (freeze_batchnorm: true in ssd, "
            "batch_norm_trainable: false in faster_rcnn)"
        )
        findings.warning("train_config.batch_size", "small-batch", text)


def _has_weights(config: pb.TrainEvalPipelineConfig) -> bool:
    """Returns True if the backbone starts from trained weights."""
    extractor = batch_norm.extractor_of(config.model)
    pretrained = extractor is not None and extractor[1].pretrained_weights
    return bool(pretrained or config.train_config.fine_tune_checkpoint)


def _check_frozen(config: pb.TrainEvalPipelineConfig, findings: Findings) -> None:
    """Adds parts that stay at their random initial values."""
    extractor, training = batch_norm.extractor_of(config.model), config.train_config
    if extractor is None or _has_weights(config):
        return
    path, message, family = extractor
    remedy = "set pretrained_weights or train_config.fine_tune_checkpoint, or let it train"
    text = f"keeps the backbone at its random initial weights: no weights are named; {remedy}"
    if message.freeze_backbone:
        findings.warning(f"{path}.freeze_backbone", "frozen-at-random", f"is true and {text}")
    if batch_norm.freezes(training, BACKBONE_KERNEL):
        findings.warning("train_config.freeze_variables", "frozen-at-random", text)
    updated = [pattern for pattern in training.update_trainable_variables if pattern]
    if updated and not any("backbone" in pattern or batch_norm.finds(pattern, BACKBONE_KERNEL) for pattern in updated):
        findings.warning("train_config.update_trainable_variables", "frozen-at-random", text)
    if batch_norm.statistics_are_frozen(config.model) and family in batch_norm.BACKBONE_MOMENTUM:
        is_ssd = config.model.HasField("ssd")
        field = "model.ssd.freeze_batchnorm" if is_ssd else f"{path}.batch_norm_trainable"
        text = (
            f"is {str(is_ssd).lower()}, so that batch normalization keeps its initial mean 0 and variance 1 and "
            f"normalizes nothing, but no weights are named; {remedy}"
        )
        findings.warning(field, "frozen-at-random", text)


def _check_rates(training: pb.TrainConfig, findings: Findings) -> None:
    """Adds learning rates that teach nothing, at every step or at most of them."""
    path, schedule = chosen_schedule(training.optimizer)
    if schedule is None:
        return
    findings, num_steps = findings.at(path), training.num_steps
    if peak_learning_rate(schedule) == 0:
        findings.warning("", "zero-learning-rate", "has a learning rate of 0 at every step: nothing is learned")
    if isinstance(schedule, pb.ExponentialDecayLearningRate):
        if 0 < schedule.decay_factor < 1 and not schedule.min_learning_rate:
            # Less than a millionth of a decay is the rounding of a float32 factor.
            decays = math.log(NEGLIGIBLE_RATE) / math.log(schedule.decay_factor)
            end = schedule.burnin_steps + math.ceil(decays - 1e-6) * schedule.decay_steps
            if 0 < end < num_steps / 2:
                text = (
                    f"is {schedule.decay_steps}: with decay_factor {schedule.decay_factor:g} the learning rate is "
                    f"below {NEGLIGIBLE_RATE:g} of initial_learning_rate from step {end} on, and num_steps is "
                    f"{num_steps}"
                )
                reads = ["decay_factor", "initial_learning_rate", "num_steps"]
                findings.warning("decay_steps", "negligible-learning-rate", text, reads)
    elif isinstance(schedule, pb.CosineDecayLearningRate):
        total, warm_up, hold = schedule.total_steps, schedule.warmup_steps, schedule.hold_base_rate_steps
        if 0 < total == warm_up and num_steps >= total:
            text = f"is {warm_up}, all of total_steps: the training is all warm-up"
            findings.warning("warmup_steps", "all-warm-up", text, ["total_steps"])
        elif 0 < total == warm_up + hold:
            text = f"is {hold}: with the warm-up all of total_steps, the rate never decays"
            findings.warning("hold_base_rate_steps", "no-decay", text, ["total_steps"])
