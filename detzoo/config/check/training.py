"""Checks of ``train_config``: steps against the schedule, the optimizer, augmentation, stopping, the checkpoint."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from detzoo.config import stages
from detzoo.config.names import clip, suggestion
from detzoo.config.paths import checkpoint_hint, is_remote
from detzoo.config.problems import Findings, is_placeholder
from detzoo.config.schedule import chosen_schedule, learning_rate_warning
from detzoo.config.values import PATTERN_ERRORS

AUTOAUGMENT_POLICIES = ("v0", "v1", "v2", "v3")
CHECKPOINT_TYPES = ("", "classification", "detection", "fine_tune", "full")
LONG_DECAY = 10  # trainings; published configs have decay_steps of up to four
_PATH = "train_config"
_LEAST_RANGE = 1e-6  # of values that are scaled
_SOFTMAX_LOSSES = ("weighted_softmax", "weighted_logits_softmax")
_OPTIMIZERS = "rms_prop_optimizer, momentum_optimizer, adam_optimizer"
_SCHEDULES = (
    "constant_learning_rate, exponential_decay_learning_rate, manual_step_learning_rate, cosine_decay_learning_rate"
)


def check_training(config: Any, findings: Findings, files: bool, by_steps: bool = True) -> None:
    """Adds what is wrong with a ``pb.TrainConfig``.

    Args:
        config: the message.
        findings: where problems go.
        files: whether paths must exist.
        by_steps: whether an optimizer trains anything; an SPP-net without fine-tuning has none.
    """
    if by_steps:
        if not config.num_steps:
            findings.warning(f"{_PATH}.num_steps", "is 0: `detzoo train` then needs --num_train_steps")
        _check_optimizer(config, findings)
    for index, step in enumerate(config.data_augmentation_options):
        for field, text in _problems_of_step(step):
            findings.error(f"{_PATH}.data_augmentation_options[{index}]{field}", text)
    for name in ("freeze_variables", "update_trainable_variables"):
        for index, pattern in enumerate(getattr(config, name)):
            try:
                re.compile(pattern)
            except PATTERN_ERRORS as problem:
                text = f"'{clip(pattern)}' is not a regular expression: {problem}"
                findings.error(f"{_PATH}.{name}[{index}]", text)
    if config.HasField("early_stopping"):
        _check_early_stopping(config, findings)
    if files:
        _check_fine_tune_checkpoint(config, findings)
    if config.fine_tune_checkpoint_type not in CHECKPOINT_TYPES:
        hint = suggestion(config.fine_tune_checkpoint_type, CHECKPOINT_TYPES[1:])
        findings.error(f"{_PATH}.fine_tune_checkpoint_type", f"is '{config.fine_tune_checkpoint_type}'{hint}")


def _problems_of_step(step: Any) -> Iterator[tuple[str, str]]:
    """Yields the field below a ``pb.PreprocessingStep``, and what is wrong with it."""
    kind = step.WhichOneof("preprocessing_step")
    chosen: Any = getattr(step, kind) if kind else None
    if kind is None:
        yield "", "is empty; name an augmentation or delete it"
    elif kind == "autoaugment_image" and chosen.policy_name not in AUTOAUGMENT_POLICIES:
        yield f".{kind}.policy_name", f"is '{clip(chosen.policy_name)}'; accepted: {', '.join(AUTOAUGMENT_POLICIES)}"
    elif kind == "normalize_image" and chosen.original_maxval - chosen.original_minval < _LEAST_RANGE:
        text = (
            f"is {chosen.original_maxval:g}, but must be above original_minval ({chosen.original_minval:g}), as 255 is"
        )
        yield f".{kind}.original_maxval", text
    elif kind == "subtract_channel_mean" and not chosen.means:
        yield f".{kind}.means", "is missing; give 3 values, one per channel"
    elif kind == "random_pad_image":
        for bound in ("min", "max"):
            height, width = f"{bound}_image_height", f"{bound}_image_width"
            if chosen.HasField(height) != chosen.HasField(width):
                missing, given = (width, height) if chosen.HasField(height) else (height, width)
                yield f".{kind}.{given}", f"goes with {missing}, which is missing; give both or neither"


def check_merged_labels(config: Any, findings: Findings) -> None:
    """Adds what stands against several labels for one box in a ``pb.TrainEvalPipelineConfig``: a softmax has one."""
    if not config.train_config.merge_multiple_label_boxes:
        return
    kind = config.model.WhichOneof("model")
    loss, path = None, f"model.{kind}.second_stage_classification_loss"
    if kind == "ssd":
        loss, path = config.model.ssd.loss.classification_loss, f"model.{kind}.loss.classification_loss"
    elif kind == "faster_rcnn" and stages.has_second_stage(config.model.faster_rcnn):
        loss = config.model.faster_rcnn.second_stage_classification_loss
    if loss is not None and (loss.WhichOneof("classification_loss") or _SOFTMAX_LOSSES[0]) in _SOFTMAX_LOSSES:
        text = (
            "is a softmax, which knows one right class, but train_config.merge_multiple_label_boxes gives a box "
            "several; accepted with it: weighted_sigmoid, weighted_sigmoid_focal"
        )
        findings.error(path, text)


def _check_optimizer(config: Any, findings: Findings) -> None:
    name, _, schedule_name, schedule = chosen_schedule(config.optimizer)
    path = f"{_PATH}.optimizer"
    if not name:
        findings.error(path, f"is missing or empty; choose one of {_OPTIMIZERS}")
        return
    path = f"{path}.{name}.learning_rate"
    if not schedule_name:
        findings.error(path, f"is missing or empty; choose one of {_SCHEDULES}")
        return
    path = f"{path}.{schedule_name}"
    if schedule_name in _SCHEDULE_CHECKS:
        _SCHEDULE_CHECKS[schedule_name](schedule, path, config.num_steps, findings)
    if warning := learning_rate_warning(config.optimizer, config.batch_size):
        findings.warning(path, warning)


def _check_exponential(schedule: Any, path: str, num_steps: int, findings: Findings) -> None:
    if num_steps and schedule.decay_factor < 1 and schedule.decay_steps >= LONG_DECAY * num_steps:
        left = schedule.decay_factor ** (0 if schedule.staircase else num_steps / schedule.decay_steps)
        text = (
            f"is {schedule.decay_steps}: after num_steps {num_steps} the learning rate is still {left:.0%} of its start"
        )
        findings.warning(f"{path}.decay_steps", text)
    elif num_steps and schedule.staircase and schedule.decay_steps >= num_steps:
        text = f"is {schedule.decay_steps}: with num_steps {num_steps} the learning rate never decays"
        findings.note(f"{path}.decay_steps", text)
    _check_warm_up(schedule.burnin_steps, "burnin_steps", path, num_steps, findings)


def _check_manual(schedule: Any, path: str, num_steps: int, findings: Findings) -> None:
    steps = list(schedule.schedule)
    if not steps:
        findings.error(f"{path}.schedule", "is missing; one rate for all steps is constant_learning_rate")
    previous = 0
    for index, item in enumerate(steps):
        here = f"{path}.schedule[{index}]"
        if index and item.step <= previous:
            findings.error(f"{here}.step", f"is {item.step}, not above the {previous} before it; steps must increase")
        elif num_steps and item.step >= num_steps:
            findings.warning(f"{here}.step", f"is {item.step}, never reached: training ends at num_steps {num_steps}")
        previous = item.step


def _check_cosine(schedule: Any, path: str, num_steps: int, findings: Findings) -> None:
    total, warm_up, hold = schedule.total_steps, schedule.warmup_steps, schedule.hold_base_rate_steps
    if warm_up > total:
        findings.error(f"{path}.warmup_steps", f"is {warm_up}, above total_steps ({total})")
    elif warm_up + hold > total:
        text = f"is {hold}; with warmup_steps {warm_up} that is above total_steps ({total})"
        findings.error(f"{path}.hold_base_rate_steps", text)
    if warm_up and schedule.warmup_learning_rate > schedule.learning_rate_base:
        text = f"is {schedule.warmup_learning_rate:g}, above learning_rate_base ({schedule.learning_rate_base:g})"
        findings.error(f"{path}.warmup_learning_rate", text)
    if num_steps > total:
        text = f"is {total}, but num_steps is {num_steps}: the last {num_steps - total} steps have learning rate 0"
        findings.warning(f"{path}.total_steps", text)
    elif 0 < num_steps < total:
        text = f"is {total}, but num_steps is {num_steps}: training stops before the learning rate has come down"
        findings.warning(f"{path}.total_steps", text)
        _check_warm_up(warm_up, "warmup_steps", path, num_steps, findings)


def _check_warm_up(warm_up_steps: int, name: str, path: str, num_steps: int, findings: Findings) -> None:
    if num_steps and warm_up_steps >= num_steps:
        text = f"is {warm_up_steps}: with num_steps {num_steps} training is all warm-up"
        findings.warning(f"{path}.{name}", text)


_SCHEDULE_CHECKS = {
    "exponential_decay_learning_rate": _check_exponential,
    "manual_step_learning_rate": _check_manual,
    "cosine_decay_learning_rate": _check_cosine,
}


def _check_early_stopping(config: Any, findings: Findings) -> None:
    if not config.eval_every_n_steps:
        text = "needs evaluations while training; set train_config.eval_every_n_steps"
        findings.error(f"{_PATH}.early_stopping", text)


def _check_fine_tune_checkpoint(config: Any, findings: Findings) -> None:
    """What warm start takes: a checkpoint's prefix, one of its files, or a folder that holds checkpoints."""
    name, path = config.fine_tune_checkpoint, f"{_PATH}.fine_tune_checkpoint"
    if not name or is_remote(name):
        return
    file = pathlib.Path(name)
    if is_placeholder(name):
        findings.to_set(path, "a checkpoint's prefix, or nothing after = to start from scratch")
    elif os.path.isdir(name):
        if not any(file.glob("*.index")):
            findings.error(path, f"there is no checkpoint in '{name}'{checkpoint_hint(file)}")
    elif file.suffix == ".meta":
        wanted = name.removesuffix(".meta")
        findings.error(path, f"'{name}' is a graph without weights; give the checkpoint's prefix: '{wanted}'")
    elif not os.path.isfile(name) and not os.path.isfile(f"{name}.index"):
        findings.error(path, f"there is no checkpoint at '{name}'{checkpoint_hint(file)}")
