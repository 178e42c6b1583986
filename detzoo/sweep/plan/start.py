"""How a sweep trains: from the training of one of its points, which comes first, and in four steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from detzoo.config.names import suggestion
from detzoo.sweep.plan.axes import SHARED_FEATURES, Axis, change_config
from detzoo.sweep.plan.files import OUTPUT_DIR_TOKEN, trained_model
from detzoo.sweep.plan.points import Base, Point, stage_sets, training_fingerprint

# Parts that detectors of all kinds share: the backbone.
_CHECKPOINT_TYPE = "classification"


def start_trainings(points: Sequence[Point], train: Any, tell: Callable[[str, str], None]) -> list[Point]:
    """The points, their trainings changed as a ``pb.SweepTraining`` says.

    Args:
        points: located.
        train: whose ``start_from`` names one of them, or is empty.
        tell: takes (place in the sweep file, message) of what is wrong.
    """
    if not train.start_from:
        if train.set_after_start:
            tell("train.set_after_start", "means nothing without start_from; name the point that is trained first")
        return list(points)
    first = next((point for point in points if point.name == train.start_from), None)
    if first is None:
        names = [point.name for point in points]
        hint = suggestion(train.start_from, names) or f"; the first is {names[0]}" * bool(names)
        tell("train.start_from", f"there is no point '{train.start_from}'{hint}")
        return list(points)
    trainings: dict[str, Any] = {first.training_key: first.training}
    started = []
    for point in points:
        own = point.training.train_config.fine_tune_checkpoint
        if not point.training_key or point.training_key == first.training_key or own:
            started.append(point)
            continue
        if point.training_key not in trainings:
            trainings[point.training_key] = _started(point, first, train, tell)
        training = trainings[point.training_key]
        comes_first = first if first.training_key else None
        changed = dataclasses.replace(point, training=training, starts_after=comes_first)
        key = training_fingerprint(changed, stage_sets(train))
        started.append(dataclasses.replace(changed, training_key=key).with_key())
    return started


def check_four_steps(axes: Sequence[Axis], bases: Sequence[Base], sweep: Any, tell: Callable[[str, str], None]) -> None:
    """Looks at the trainings in four steps that the axis shared_features asks for, and at what changes their stages."""
    axis = next((axis for axis in axes if axis.kind == SHARED_FEATURES), None)
    if axis and not sweep.HasField("train"):
        tell(axis.place, "both values come from one training in four steps: add `train { }`")
    for name, assignments in zip(("first_stage_set", "second_stage_set"), stage_sets(sweep.train)):
        place = f"train.{name}"
        if assignments and not axis:
            tell(place, "means nothing without the axis shared_features")
            continue
        for index, assignment in enumerate(assignments):
            here = f"{place}[{index}]"
            if not assignment.strip().startswith("train_config."):
                tell(here, f"{assignment}: only fields of train_config can differ between the stages")
                continue
            for base in bases:
                copy = type(base.loaded.message)()
                copy.CopyFrom(base.loaded.message)
                for problem in change_config(copy, assignment):
                    tell(here, f"{problem.message.removeprefix('--set ')} ({base.name})")


def _started(point: Point, first: Point, train: Any, tell: Callable[[str, str], None]) -> Any:
    """The config of a training that starts from the weights of ``first``."""
    training = type(point.training)()
    training.CopyFrom(point.training)
    config = training.train_config
    config.fine_tune_checkpoint = first.checkpoint or f"{OUTPUT_DIR_TOKEN}/{trained_model(first.training_key)}"
    config.fine_tune_checkpoint_type = _CHECKPOINT_TYPE
    for index, assignment in enumerate(train.set_after_start):
        for problem in change_config(training, assignment):
            message = problem.message.removeprefix("--set ")
            tell(f"train.set_after_start[{index}]", f"{message} ({point.base.name})")
    return training
