"""Rules of ``train_config``: optimizer, schedule against steps, augmentation, stopping, the checkpoint."""

from __future__ import annotations

import math
import os
import pathlib
import re
from typing import Any

from detzoo.config import pb, stages, zoo
from detzoo.config.check.effects import check_choice
from detzoo.config.check.parts import SOFTMAX_LOSSES
from detzoo.config.names import clip, suggestion
from detzoo.config.paths import checkpoint_hint, is_remote
from detzoo.config.problems import Findings
from detzoo.config.values import PATTERN_ERRORS
from detzoo.folders import FROZEN_GRAPH_FILE

AUTOAUGMENT_POLICIES = ("v0", "v1", "v2", "v3")
CHECKPOINT_TYPES = ("", "classification", "detection", "fine_tune", "full")
LONG_DECAY = 10  # trainings; published configs have decay_steps of up to four
# Files of which a folder with a checkpoint has one; the file ``checkpoint`` may name a prefix in another folder.
_CHECKPOINT_FILES = ("*.index", "checkpoint", FROZEN_GRAPH_FILE, "saved_model.pb")
_LEAST_RANGE = 1e-6  # of values that are scaled
# The published configs with momentum 0.9 use at most 0.0016 per image of the batch (SSD MobileNet v2 300: 0.8 for 512
# images), and MnasFPN 0.0039 (4.0 for 1024). The warning begins above that, in terms of rate / (1 - momentum).
MAX_EFFECTIVE_RATE_PER_IMAGE = 0.004 / (1 - 0.9)
# Adam's published 0.001 belongs to batches of 128, and common practice to batches of 8. Its steps do not grow with the
# gradient, so that the bound grows with the square root of the batch.
MAX_ADAM_RATE_PER_ROOT_IMAGE = 0.0005


def check_training(config: pb.TrainEvalPipelineConfig, findings: Findings) -> None:
    """Checks the ``train_config`` block of a config."""
    if config.train_config.merge_multiple_label_boxes:
        _check_merged_labels(config.model, findings)
    training, findings = config.train_config, findings.at("train_config")
    if stages.trains_by_steps(config.model):
        if not training.num_steps:
            findings.warning("num_steps", "no-steps", "is 0: `detzoo train` then needs --num_train_steps")
        here = findings.at("optimizer")
        check_optimizer(training.optimizer, here, training.num_steps)
        _check_peak(training, here)
    else:
        for name in ("num_steps", "optimizer"):
            if training.HasField(name):
                findings.no_effect(name, "without model.spp_net.fine_tuning, nothing is trained by steps")
    for index, step in enumerate(training.data_augmentation_options):
        check_augmentation(step, findings.at(f"data_augmentation_options[{index}]"))
    if config.model.HasField("spp_net") and training.data_augmentation_options:
        text = "do not go with SPP-net, whose maps are computed once for each image; accepted: none"
        findings.error("data_augmentation_options", "augmented-spp-net", text)
    for name in ("freeze_variables", "update_trainable_variables"):
        for index, pattern in enumerate(getattr(training, name)):
            try:
                re.compile(pattern)
            except PATTERN_ERRORS as problem:
                text = f"'{clip(pattern)}' is not a regular expression: {problem}"
                findings.error(f"{name}[{index}]", "regular-expression", text)
    if training.HasField("early_stopping") and not training.eval_every_n_steps:
        text = "needs evaluations while training; set train_config.eval_every_n_steps"
        findings.error("early_stopping", "stopping-without-evaluation", text, ["eval_every_n_steps"])
    path, schedule = chosen_schedule(training.optimizer)
    if isinstance(schedule, pb.PlateauLearningRate) and not training.eval_every_n_steps:
        text = "needs evaluations while training; set train_config.eval_every_n_steps"
        findings.error(f"optimizer.{path}", "plateau-without-evaluation", text, ["eval_every_n_steps"])
    name = training.fine_tune_checkpoint
    if (archive := zoo.name_in(name)) is not None:
        if refusal := zoo.problem_of(archive):
            findings.error("fine_tune_checkpoint", "unknown-weights", refusal)
    elif findings.files and name and not is_remote(name):
        give = "a checkpoint's prefix, or nothing after = to start from scratch"
        findings.check_file("fine_tune_checkpoint", name, give, _checkpoint_problem)
    kind = training.fine_tune_checkpoint_type
    if kind not in CHECKPOINT_TYPES:
        hint = suggestion(kind, CHECKPOINT_TYPES[1:])
        findings.error("fine_tune_checkpoint_type", "checkpoint-type", f"is '{kind}'{hint}")


def check_augmentation(step: pb.PreprocessingStep, findings: Findings) -> None:
    """Checks one of ``data_augmentation_options``."""
    kind = step.WhichOneof("preprocessing_step")
    if kind is None:
        findings.error("", "empty-augmentation", "is empty; name an augmentation or delete it")
        return
    chosen, findings = getattr(step, kind), findings.at(kind)
    if kind == "autoaugment_image" and chosen.policy_name not in AUTOAUGMENT_POLICIES:
        text = f"is '{clip(chosen.policy_name)}'; accepted: {', '.join(AUTOAUGMENT_POLICIES)}"
        findings.error("policy_name", "unknown-policy", text)
    elif kind == "normalize_image" and chosen.original_maxval - chosen.original_minval < _LEAST_RANGE:
        text = (
            f"is {chosen.original_maxval:g}, but must be above original_minval ({chosen.original_minval:g}), as 255 is"
        )
        findings.error("original_maxval", "empty-range", text, ["original_minval"])
    elif kind == "subtract_channel_mean" and not chosen.means:
        findings.missing("means", "give 3 values, one per channel")
    elif kind == "random_pad_image":
        for bound in ("min", "max"):
            height, width = f"{bound}_image_height", f"{bound}_image_width"
            if chosen.HasField(height) != chosen.HasField(width):
                absent, given = (width, height) if chosen.HasField(height) else (height, width)
                text = f"goes with {absent}, which is missing; give both or neither"
                findings.error(given, "incomplete-pair", text, [absent])


def _check_merged_labels(model: pb.DetectionModel, findings: Findings) -> None:
    """Checks that boxes with several labels meet no softmax, which has one right class."""
    kind = model.WhichOneof("model")
    if kind == "ssd":
        loss, path = model.ssd.loss.classification_loss, "model.ssd.loss.classification_loss"
    elif kind == "faster_rcnn" and stages.has_second_stage(model.faster_rcnn):
        loss = model.faster_rcnn.second_stage_classification_loss
        path = "model.faster_rcnn.second_stage_classification_loss"
    else:
        return
    if (loss.WhichOneof("classification_loss") or SOFTMAX_LOSSES[0]) in SOFTMAX_LOSSES:
        text = (
            "is a softmax with one right class, but with train_config.merge_multiple_label_boxes boxes have several; "
            "accepted with it: weighted_sigmoid, weighted_sigmoid_focal"
        )
        findings.error(path, "softmax-of-merged-labels", text)


def check_optimizer(optimizer: pb.Optimizer, findings: Findings, num_steps: int = 0) -> None:
    """Checks an optimizer and its schedule. ``num_steps``: length of the training, 0 if unknown."""
    name = check_choice(optimizer, "optimizer", "", findings)
    if not name:
        return
    rate, findings = getattr(optimizer, name).learning_rate, findings.at(f"{name}.learning_rate")
    kind = check_choice(rate, "learning_rate", "", findings)
    if kind in _SCHEDULE_RULES:
        _SCHEDULE_RULES[kind](getattr(rate, kind), findings.at(kind), num_steps)


def chosen_schedule(optimizer: pb.Optimizer) -> tuple[str, Any]:
    """Returns the path of an optimizer's schedule below the optimizer, and its message; "" and None if unset."""
    name = optimizer.WhichOneof("optimizer")
    rate = getattr(optimizer, name).learning_rate if name else None
    kind = rate.WhichOneof("learning_rate") if rate is not None else None
    return (f"{name}.learning_rate.{kind}", getattr(rate, kind)) if kind else ("", None)


def peak_learning_rate(schedule: Any) -> float:
    """Returns the highest learning rate of a schedule's message."""
    match schedule:
        case pb.PlateauLearningRate():
            return schedule.initial_learning_rate
        case pb.ConstantLearningRate():
            return schedule.learning_rate
        case pb.ExponentialDecayLearningRate():
            return max(schedule.initial_learning_rate, schedule.burnin_learning_rate)
        case pb.ManualStepLearningRate():
            return max([schedule.initial_learning_rate, *(step.learning_rate for step in schedule.schedule)])
    return max(schedule.learning_rate_base, schedule.warmup_learning_rate if schedule.warmup_steps else 0.0)


def _check_peak(training: pb.TrainConfig, findings: Findings) -> None:
    """Warns of a peak rate that is too high for the images per step."""
    path, schedule = chosen_schedule(training.optimizer)
    if schedule is None:
        return
    peak, batch_size = peak_learning_rate(schedule), training.batch_size
    if training.optimizer.HasField("adam_optimizer"):
        highest = MAX_ADAM_RATE_PER_ROOT_IMAGE * math.sqrt(batch_size)
    else:
        chosen = getattr(training.optimizer, str(training.optimizer.WhichOneof("optimizer")))
        highest = MAX_EFFECTIVE_RATE_PER_IMAGE * (1.0 - chosen.momentum_optimizer_value) * batch_size
    if peak > highest:
        text = (
            f"a learning rate of {peak:g} is high for {batch_size} images per step and may end in NaN; published "
            f"configs stay below {highest:.2g} for it (half the batch needs half the rate)"
        )
        findings.warning(path, "high-learning-rate", text)


def _check_exponential(schedule: pb.ExponentialDecayLearningRate, findings: Findings, num_steps: int) -> None:
    reads = ["num_steps"]
    if num_steps and schedule.decay_factor < 1 and schedule.decay_steps >= LONG_DECAY * num_steps:
        left = schedule.decay_factor ** (0 if schedule.staircase else num_steps / schedule.decay_steps)
        text = (
            f"is {schedule.decay_steps}: after num_steps {num_steps} the learning rate is still {left:.0%} of its start"
        )
        findings.warning("decay_steps", "long-decay", text, reads)
    elif num_steps and schedule.staircase and schedule.decay_steps >= num_steps:
        text = f"is {schedule.decay_steps}: with num_steps {num_steps} the learning rate never decays"
        findings.note("decay_steps", "no-decay", text, reads)
    _check_warm_up(schedule.burnin_steps, "burnin_steps", findings, num_steps)


def _check_manual(schedule: pb.ManualStepLearningRate, findings: Findings, num_steps: int) -> None:
    if not schedule.schedule:
        findings.missing("schedule", "one rate for all steps is constant_learning_rate")
    previous = 0
    for index, item in enumerate(schedule.schedule):
        path = f"schedule[{index}].step"
        if index and item.step <= previous:
            text = f"is {item.step}, not above the {previous} before it; steps must increase"
            findings.error(path, "schedule-order", text)
        elif num_steps and item.step >= num_steps:
            text = f"is {item.step}, never reached: training ends at num_steps {num_steps}"
            findings.warning(path, "step-never-reached", text, ["num_steps"])
        previous = item.step


def _check_cosine(schedule: pb.CosineDecayLearningRate, findings: Findings, num_steps: int) -> None:
    total, warm_up, hold = schedule.total_steps, schedule.warmup_steps, schedule.hold_base_rate_steps
    if warm_up > total:
        findings.error("warmup_steps", "schedule-steps", f"is {warm_up}, above total_steps ({total})", ["total_steps"])
    elif warm_up + hold > total:
        text = f"is {hold}; with warmup_steps {warm_up} that is above total_steps ({total})"
        findings.error("hold_base_rate_steps", "schedule-steps", text, ["warmup_steps", "total_steps"])
    if warm_up and schedule.warmup_learning_rate > schedule.learning_rate_base:
        text = f"is {schedule.warmup_learning_rate:g}, above learning_rate_base ({schedule.learning_rate_base:g})"
        findings.error("warmup_learning_rate", "warm-up-rate", text, ["learning_rate_base"])
    if num_steps > total:
        text = f"is {total}, but num_steps is {num_steps}: the last {num_steps - total} steps have learning rate 0"
        findings.warning("total_steps", "schedule-before-end", text, ["num_steps"])
    elif 0 < num_steps < total:
        text = f"is {total}, but num_steps is {num_steps}: training stops before the learning rate has come down"
        findings.warning("total_steps", "schedule-after-end", text, ["num_steps"])
        _check_warm_up(warm_up, "warmup_steps", findings, num_steps)


def _check_plateau(schedule: pb.PlateauLearningRate, findings: Findings, num_steps: int) -> None:
    if schedule.min_learning_rate > schedule.initial_learning_rate:
        text = f"is {schedule.min_learning_rate:g}, above initial_learning_rate ({schedule.initial_learning_rate:g})"
        findings.error("min_learning_rate", "plateau-minimum", text, ["initial_learning_rate"])


def _check_warm_up(warm_up_steps: int, name: str, findings: Findings, num_steps: int) -> None:
    if num_steps and warm_up_steps >= num_steps:
        text = f"is {warm_up_steps}: with num_steps {num_steps} training is all warm-up"
        findings.warning(name, "all-warm-up", text, ["num_steps"])


_SCHEDULE_RULES: dict[str, Any] = {
    "exponential_decay_learning_rate": _check_exponential,
    "manual_step_learning_rate": _check_manual,
    "cosine_decay_learning_rate": _check_cosine,
    "plateau_learning_rate": _check_plateau,
}


def _checkpoint_problem(name: str) -> str:
    """Returns why a path is no checkpoint: neither a prefix, nor one of its files, nor a folder that holds some."""
    file = pathlib.Path(name)
    if os.path.isdir(name):
        held = any(path.is_file() for pattern in _CHECKPOINT_FILES for path in file.glob(pattern))
        return "" if held else f"there is no checkpoint in '{name}'{checkpoint_hint(file)}"
    if file.suffix == ".meta":
        return f"'{name}' is a graph without weights; give the checkpoint's prefix: '{name.removesuffix('.meta')}'"
    if os.path.isfile(name) or os.path.isfile(f"{name}.index"):
        return ""
    return f"there is no checkpoint at '{name}'{checkpoint_hint(file)}"
