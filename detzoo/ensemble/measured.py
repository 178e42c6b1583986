"""Reads metrics.json files for the choice of an ensemble."""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from detzoo.ensemble.selection import MeasuredModel
from detzoo.errors import DataError, UsageError

METRICS_FILE = "metrics.json"
# Average precision by class -> the number of the whole data set that goes with it.
OVERALL = {
    "AP": "mAP",
    "AP@.50IOU": "mAP@.50IOU",
    "mask AP": "mask mAP",
    "mask AP@.50IOU": "mask mAP@.50IOU",
    "VOC mAP@.50IOU": "VOC mAP@.50IOU",
    "VOC2007 mAP@.50IOU": "VOC2007 mAP@.50IOU",
    "OpenImages mAP@.50IOU": "OpenImages mAP@.50IOU",
    "OpenImagesChallenge mAP@.50IOU": "OpenImagesChallenge mAP@.50IOU",
}
_NOT_MEASURED = -1.0


def read_measured(metrics_file: str | pathlib.Path, name: str, metric: str = "AP") -> MeasuredModel:
    """What an evaluation found.

    Args:
        metrics_file: the metrics.json, or the folder that it is in.
        name: what to call the model.
        metric: of ``OVERALL``.

    Raises:
        UsageError: there is no metrics.json, or it lacks the metric.
        DataError: it is not what ``detzoo evaluate`` writes.
    """
    path = pathlib.Path(metrics_file)
    path = path / METRICS_FILE if path.is_dir() or path.name != METRICS_FILE else path
    numbers = _read(path)
    per_class = numbers.get("per_class")
    if not isinstance(per_class, dict) or not per_class:
        raise UsageError(f"{path} has no per_class: an ensemble is chosen by the average precision of each class")
    rows = {str(class_name): row for class_name, row in per_class.items() if isinstance(row, dict)}
    if len(rows) < len(per_class) or not isinstance(numbers.get(OVERALL[metric], 0.0), (int, float)):
        raise DataError(f"{path}: per_class or {OVERALL[metric]} is not as `detzoo evaluate` writes it")
    if OVERALL[metric] not in numbers or not any(metric in row for row in rows.values()):
        there = [known for known, overall in OVERALL.items() if overall in numbers]
        hint = f"it has {', '.join(there)}: choose with --metric" if there else "it has none that is known"
        raise UsageError(f"{path} has no {metric} of the classes; {hint}")
    return MeasuredModel(
        name=name,
        folder=str(path.parent),
        overall=float(numbers[OVERALL[metric]]),
        per_class={class_name: _precision(path, row, class_name, metric) for class_name, row in rows.items()},
        num_objects={class_name: int(row["objects"]) for class_name, row in rows.items() if "objects" in row},
        num_images=int(numbers.get("num_images", 0)),
        saved_model=numbers.get("saved_model"),
        checkpoint=numbers.get("checkpoint"),
    )


def short_names(paths: Sequence[str]) -> list[str]:
    """Paths without the folders that all begin or end with: runs/a/evaluation, runs/b/evaluation -> a, b."""
    parts = [pathlib.Path(path).parts for path in paths]
    if len(set(parts)) < 2:
        return [str(path) for path in paths]
    shortest = min(map(len, parts))
    begin = next((i for i in range(shortest) if len({part[i] for part in parts}) > 1), shortest)
    end = next((i for i in range(shortest - begin) if len({part[-1 - i] for part in parts}) > 1), shortest - begin)
    return ["/".join(part[begin : len(part) - end] or part[-1:]) for part in parts]


def _read(path: pathlib.Path) -> Mapping[str, Any]:
    try:
        numbers = json.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        reason = "does not exist" if isinstance(problem, FileNotFoundError) else problem.strerror
        raise UsageError(f"{path}: {reason}; give the --output_dir of `detzoo evaluate`") from None
    except ValueError as problem:
        raise DataError(f"{path} is not JSON, or was cut short: {problem}") from None
    if not isinstance(numbers, dict):
        raise DataError(f"{path} is not what `detzoo evaluate` writes: a JSON object")
    return numbers


def _precision(path: pathlib.Path, row: Mapping[str, Any], class_name: str, metric: str) -> float:
    value = row.get(metric, _NOT_MEASURED)
    if not isinstance(value, (int, float)) or value > 1:
        raise DataError(
            f"{path}: per_class, {class_name}: {metric} is {value!r}; accepted: 0 to 1, or -1 for no object"
        )
    return float("nan") if value < 0 or math.isnan(value) else float(value)
