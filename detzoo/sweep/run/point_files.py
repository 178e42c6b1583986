"""Layout of a sweep's folder, and the row of a point from its measurements.

results.csv                   one row per point
points/KEY/pipeline.config    resolved
points/KEY/metrics.json       accuracy, also per class
points/KEY/examples.json      detections on the example images
points/KEY/log.txt            output of its process
training/KEY/model            of trained points: the --model_dir of `detzoo train`
proposals/KEY                 train.npz and eval.npz of a point whose proposals others read
examples/NAME.jpg             the example images
data/                         the embedded data set
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from detzoo.benchmark.report import flatten
from detzoo.folders import write_atomically
from detzoo.sweep.columns import COLUMNS, NAMES, Kind, Status
from detzoo.sweep.results import Row, Value

POINTS, EXAMPLES = "points", "examples"
EXAMPLES_FILE = "examples.json"
POINT_FILE, RESULT_FILE, LOG_FILE = "point.json", "result.json", "log.txt"  # task, result and output of a process
POINT_MODULE = "detzoo.sweep.run.point"  # the program of a point's process
AND = " && "  # between two commands of a row
_NOT_MEASURED = -1.0  # pycocotools' value for nothing to measure


def compose_row(facts: Mapping[str, Value], result: Mapping[str, Any] | None, reason: str | None) -> Row:
    """Returns the row of a point.

    Args:
        facts: Cells that are known before the measurement.
        result: Result file of the point's process: ``benchmark`` (JSON of `detzoo benchmark`; ``where`` with its
            description of the machine if nothing was timed), ``metrics``, ``columns`` (other cells) and ``skipped``
            (the reason of a point that cannot be measured); None if there is none.
        reason: Reason of a failure; None for success.
    """
    row: Row = {**dict.fromkeys(NAMES), **facts}
    result = result or {}
    sources = (
        flatten(result.get("benchmark") or result.get("where") or {}),
        result.get("metrics") or {},
        result.get("columns") or {},
    )
    for column in COLUMNS:
        for source in sources:
            value = _cell(column.kind, source.get(column.name))
            if value is not None and column.name not in facts:
                row[column.name] = value
    skipped = result.get("skipped")
    row["status"] = (Status.FAILED if reason is not None else Status.SKIPPED if skipped else Status.OK).value
    if reason is not None or skipped:
        row["reason"] = reason if reason is not None else skipped
    return row


def write_json(file: pathlib.Path, value: Any) -> None:
    """Writes a JSON file as a whole."""
    write_atomically(file, json.dumps(value, indent=1) + "\n")


def _cell(kind: Kind, value: Any) -> Value:
    if value is None or value == "":
        return None
    if kind is Kind.TEXT:
        return str(value)
    if kind is Kind.FLAG:
        return bool(value)
    if value == _NOT_MEASURED or value != value:
        return None
    return int(value) if kind is Kind.INTEGER else float(value)
