"""Dependent trainings: from the training of another point, in four steps, or on the proposals of another point."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from detzoo.config.load import to_text
from detzoo.config.names import suggestion
from detzoo.sweep.plan.axes import SHARED_FEATURES, Axis, change_config
from detzoo.sweep.plan.excluded import Report
from detzoo.sweep.plan.files import OUTPUT_DIR_TOKEN, trained_model
from detzoo.sweep.plan.points import Base, Point, Proposals, copied, fingerprint, stage_sets, training_fingerprint

PROPOSALS = "proposals"  # below the output folder
TRAIN_FILE, EVAL_FILE = "train.npz", "eval.npz"
_CHECKPOINT_TYPE = "classification"  # restores the backbone, which detectors of all kinds share


def start_trainings(points: Sequence[Point], train: Any, report: Report) -> list[Point]:
    """Returns the points with their trainings changed for ``start_from`` of a ``pb.SweepTraining``."""
    if not train.start_from:
        if train.set_after_start:
            report("train.set_after_start", "means nothing without start_from; name the point that is trained first")
        return list(points)
    first = _named(points, train.start_from, "train.start_from", report)
    if first is None:
        return list(points)
    trainings: dict[str, Any] = {first.training_key: first.training}
    started = []
    for point in points:
        own = point.training.train_config.fine_tune_checkpoint
        if point.training_key and point.training_key != first.training_key and not own:
            if point.training_key not in trainings:
                trainings[point.training_key] = _started(point, first, train, report)
            before = first if first.training_key else None
            point = dataclasses.replace(point, training=trainings[point.training_key], starts_after=before)
            point = dataclasses.replace(point, training_key=training_fingerprint(point, train)).with_key()
        started.append(point)
    return started


def check_four_steps(axes: Sequence[Axis], bases: Sequence[Base], sweep: Any, report: Report) -> None:
    """Checks trainings in four steps, which the axis shared_features asks for, and the changes of their stages."""
    axis = next((axis for axis in axes if axis.kind == SHARED_FEATURES), None)
    if axis and not sweep.HasField("train"):
        report(axis.place, "both values come from one training in four steps: add `train { }`")
    for name, assignments in zip(("first_stage_set", "second_stage_set"), stage_sets(sweep.train)):
        place = f"train.{name}"
        if assignments and not axis:
            report(place, "means nothing without the axis shared_features")
            continue
        for index, assignment in enumerate(assignments):
            here = f"{place}[{index}]"
            if not assignment.strip().startswith("train_config."):
                report(here, f"{assignment}: only fields of train_config can differ between the stages")
                continue
            for base in bases:
                for problem in change_config(copied(base.loaded.message), assignment):
                    report(here, f"{problem.message.removeprefix('--set ')} ({base.name})")


def reads_proposals(config: Any) -> bool:
    """Returns True for a detector that takes its regions from its readers."""
    return config.model.HasField("faster_rcnn") and config.model.faster_rcnn.proposals_from_reader


def read_proposals_of(points: Sequence[Point], train: Any, report: Report) -> list[Point]:
    """Returns the points; those that read proposals read those of ``proposals_from`` of a ``pb.SweepTraining``."""
    place, name = "train.proposals_from", train.proposals_from
    if not name or not points:
        return list(points)
    readers = [point for point in points if reads_proposals(point.message)]
    first = _named(points, name, place, report)
    if first is None:
        return list(points)
    if first.traits.meta_architecture != "rpn":
        report(place, f"'{name}' is no first stage alone (model.faster_rcnn.number_of_stages: 1)")
    elif not readers:
        report(place, "no point reads proposals (model.faster_rcnn.proposals_from_reader: true)")
    elif any(_records(point.message) != _records(first.message) for point in readers):
        report(place, f"'{name}' has other records than the points that read its proposals; see data")
    elif weights := first.training_key or first.checkpoint:  # without data only time and memory are measured
        num_train = max(point.message.train_input_reader.max_number_of_proposals for point in readers)
        num_eval = max(r.max_number_of_proposals for point in readers for r in point.message.eval_input_reader)
        key = fingerprint([weights, to_text(first.message), num_train, num_eval])
        proposals = Proposals(key, first, num_train, num_eval)
        return [_joined(point, proposals, train) if point in readers else point for point in points]
    return list(points)


def name_proposals(config: Any, key: str) -> None:
    """Makes the readers of a config read the proposals of this key."""
    folder = f"{OUTPUT_DIR_TOKEN}/{PROPOSALS}/{key}"
    config.train_input_reader.proposals_path = f"{folder}/{TRAIN_FILE}"
    for reader in config.eval_input_reader:
        reader.proposals_path = f"{folder}/{EVAL_FILE}"


def _named(points: Sequence[Point], name: str, place: str, report: Report) -> Point | None:
    found = next((point for point in points if point.name == name), None)
    if found is None:
        names = [point.name for point in points]
        hint = suggestion(name, names) or f"; the first is {names[0]}" * bool(names)
        report(place, f"there is no point '{name}'{hint}")
    return found


def _started(point: Point, first: Point, train: Any, report: Report) -> Any:
    """Returns the config of a training that starts from the weights of ``first``."""
    training = copied(point.training)
    config = training.train_config
    config.fine_tune_checkpoint = first.checkpoint or f"{OUTPUT_DIR_TOKEN}/{trained_model(first.training_key)}"
    config.fine_tune_checkpoint_type = _CHECKPOINT_TYPE
    for index, assignment in enumerate(train.set_after_start):
        for problem in change_config(training, assignment):
            message = problem.message.removeprefix("--set ")
            report(f"train.set_after_start[{index}]", f"{message} ({point.base.name})")
    return training


def _joined(point: Point, proposals: Proposals, train: Any) -> Point:
    for message in (point.message, point.training):
        name_proposals(message, proposals.key)
    key = training_fingerprint(point, train) if point.training_key else ""
    return dataclasses.replace(point, proposals=proposals, training_key=key).with_key()


def _records(config: Any) -> list[list[str]]:
    readers = (config.train_input_reader, *config.eval_input_reader)
    return [list(reader.tf_record_input_reader.input_path) for reader in readers]
