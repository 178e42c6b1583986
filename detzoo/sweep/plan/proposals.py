"""Points of a sweep that read the proposals of another of its points: Fast R-CNN on the regions of a first stage."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from detzoo.config.load import to_text
from detzoo.config.names import suggestion
from detzoo.sweep.plan.files import OUTPUT_DIR_TOKEN
from detzoo.sweep.plan.points import Point, Proposals, fingerprint, training_fingerprint

PROPOSALS = "proposals"  # below the output folder
TRAIN_FILE, EVAL_FILE = "train.npz", "eval.npz"
_FIELD = "train.proposals_from"


def reads_proposals(config: Any) -> bool:
    """Whether a config's detector takes its regions from its readers."""
    return config.model.HasField("faster_rcnn") and config.model.faster_rcnn.proposals_from_reader


def read_proposals_of(points: Sequence[Point], train: Any, tell: Callable[[str, str], None]) -> list[Point]:
    """The points; those whose detectors read proposals read those of the point that ``train`` names.

    Args:
        points: located, and with their trainings.
        train: whose ``proposals_from`` names one of them, or is empty.
        tell: takes (place in the sweep file, message) of what is wrong.
    """
    name = train.proposals_from
    if not name or not points:
        return list(points)
    first = next((point for point in points if point.name == name), None)
    readers = [point for point in points if reads_proposals(point.message)]
    if first is None:
        names = [point.name for point in points]
        hint = suggestion(name, names) or f"; the first is {names[0]}"
        tell(_FIELD, f"there is no point '{name}'{hint}")
    elif first.traits.meta_architecture != "rpn":
        tell(_FIELD, f"'{name}' is no first stage alone (model.faster_rcnn.number_of_stages: 1)")
    elif not readers:
        tell(_FIELD, "no point reads proposals (model.faster_rcnn.proposals_from_reader: true)")
    elif any(_records(point.message) != _records(first.message) for point in readers):
        tell(_FIELD, f"'{name}' has other records than the points that read its proposals; see data")
    else:
        return _joined(points, first, readers)
    return list(points)


def _joined(points: Sequence[Point], first: Point, readers: Sequence[Point]) -> list[Point]:
    if not (first.training_key or first.checkpoint):
        return list(points)  # without data nothing is trained, and only time and memory are measured
    num_train = max(point.message.train_input_reader.max_number_of_proposals for point in readers)
    num_eval = max(reader.max_number_of_proposals for point in readers for reader in point.message.eval_input_reader)
    told = [first.training_key or first.checkpoint, to_text(first.message), num_train, num_eval]
    proposals = Proposals(fingerprint(told), first, num_train, num_eval)
    joined = []
    for point in points:
        if point in readers:
            for message in (point.message, point.training):
                name_proposals(message, proposals.key)
            key = training_fingerprint(point) if point.training_key else ""
            point = dataclasses.replace(point, proposals=proposals, training_key=key).with_key()
        joined.append(point)
    return joined


def name_proposals(config: Any, key: str) -> None:
    """Makes the readers of a config read the proposals of this key."""
    folder = f"{OUTPUT_DIR_TOKEN}/{PROPOSALS}/{key}"
    config.train_input_reader.proposals_path = f"{folder}/{TRAIN_FILE}"
    for reader in config.eval_input_reader:
        reader.proposals_path = f"{folder}/{EVAL_FILE}"


def _records(config: Any) -> list[list[str]]:
    return [list(reader.tf_record_input_reader.input_path) for reader in _readers(config)]


def _readers(config: Any) -> Iterator[Any]:
    yield config.train_input_reader
    yield from config.eval_input_reader
