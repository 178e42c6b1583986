"""The folder of a sweep, and the row of a point from what was measured.

results.csv                   one row a point
points/KEY/pipeline.config    resolved
points/KEY/metrics.json       accuracy, also of each class
points/KEY/examples.json      detections on the example images
points/KEY/log.txt            what its process printed
training/KEY/model            of points that the sweep trains: as `detzoo train` leaves it
proposals/KEY                 train.npz and eval.npz, of a point whose proposals others read
examples/NAME.jpg             the example images
data/                         the embedded data set
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from detzoo.folders import write_atomically
from detzoo.sweep.columns import COLUMNS, Kind, Status
from detzoo.sweep.plan.files import TRAINING
from detzoo.sweep.results import Row, Value, empty_row

POINTS, EXAMPLES = "points", "examples"
PIPELINE_FILE, METRICS_FILE, EXAMPLES_FILE, POINT_FILE = (
    "pipeline.config",
    "metrics.json",
    "examples.json",
    "point.json",
)
FINISHED_FILE = "finished"  # of a training
AND = " && "  # between two commands of a row
_NOT_MEASURED = -1.0  # what COCO's tools say where there is nothing to measure


def point_folder(output_dir: pathlib.Path, key: str) -> pathlib.Path:
    """Where a point's files are."""
    return output_dir / POINTS / key


def training_folder(output_dir: pathlib.Path, key: str) -> pathlib.Path:
    """Where a training's files are."""
    return output_dir / TRAINING / key


def compose_row(facts: Mapping[str, Value], result: Mapping[str, Any] | None, reason: str | None) -> Row:
    """The row of a point.

    Args:
        facts: what is known before it is measured, by column.
        result: what its process left: ``benchmark`` (the JSON of `detzoo benchmark`; without one ``where``, what that
            tells of the machine), ``metrics`` and ``columns`` (other cells by name), each where it came so far; None
            for nothing.
        reason: of a failure; None where it went well.
    """
    row = empty_row()
    row.update(facts)
    result = result or {}
    sources = (
        _flat(result.get("benchmark") or result.get("where") or {}),
        result.get("metrics") or {},
        result.get("columns") or {},
    )
    for column in COLUMNS:
        for source in sources:
            value = _cell(column.kind, source.get(column.name))
            if value is not None and column.name not in facts:
                row[column.name] = value
    row["status"] = (Status.OK if reason is None else Status.FAILED).value
    if reason is not None:
        row["reason"] = reason
    return row


def _flat(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Nested mappings as one, its names dotted paths."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        here = f"{path}.{name}" if path else name
        if isinstance(value, Mapping):
            found.update(_flat(value, here))
        else:
            found[here] = value
    return found


def _cell(kind: Kind, value: Any) -> Value:
    """A value as its column takes it, None where there is none."""
    if isinstance(value, (list, tuple)):
        value = "; ".join(map(str, value))
    if value is None or value == "":
        return None
    if kind is Kind.TEXT:
        return str(value)
    if kind is Kind.FLAG:
        return bool(value)
    if value == _NOT_MEASURED or value != value:
        return None
    return int(value) if kind is Kind.INTEGER else float(value)


def write_json(file: pathlib.Path, value: Any) -> None:
    """Writes a JSON file that is there as a whole or not at all."""
    write_atomically(file, json.dumps(value, indent=1) + "\n")
