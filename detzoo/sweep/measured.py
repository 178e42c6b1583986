"""Rows of results.csv for the report and the choice: values that cannot be measurements become None.

A row is a mapping from the names of ``detzoo.sweep.columns`` to typed values, None for what was not measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from detzoo.sweep.columns import ACCURACIES, COLUMNS, NAMES, Kind, Status

Row = Mapping[str, Any]

MEMORIES = {"peak": "memory.peak_mib", "total": "memory.total_mib", "process": "memory.process_peak_mib"}
# A share, a load or a start of 0 is possible; 0 ms, 0 MiB or 0 multiply-adds are not.
_POSITIVE = {
    *(name for name in NAMES if name.startswith(("latency.m", "latency.p", "memory."))),
    *("multiply_adds", "parameters", "images_per_second", "yardstick_gflops", "resolution", "proposals"),
    "output_stride",
}
_NUMBERS = {column.name for column in COLUMNS if column.kind in (Kind.INTEGER, Kind.NUMBER)}


def clean_rows(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Returns the rows with every column, None for the columns that a row lacks.

    A number that is not finite becomes None. So do an accuracy below 0 (pycocotools' "nothing to measure") and a time
    or size that is not above 0.
    """
    return [{name: _clean(name, row.get(name)) for name in NAMES} for row in rows]


def measured_rows(rows: Iterable[Row]) -> list[Row]:
    """Returns the rows of points that were measured: those that neither failed nor were skipped."""
    return [row for row in rows if row["status"] not in (Status.FAILED.value, Status.SKIPPED.value)]


def failed_rows(rows: Iterable[Row]) -> list[Row]:
    """Returns the rows of points that failed."""
    return _with_status(rows, Status.FAILED)


def skipped_rows(rows: Iterable[Row]) -> list[Row]:
    """Returns the rows of points whose runtime is not installed or does not support the detector."""
    return _with_status(rows, Status.SKIPPED)


def with_values(rows: Iterable[Row], *names: str) -> list[Row]:
    """Returns the rows that have all these columns."""
    return [row for row in rows if all(row[name] is not None for name in names)]


def column(rows: Iterable[Row], name: str) -> list[Any]:
    """Returns the values of one column."""
    return [row[name] for row in rows]


def main_accuracy(rows: Sequence[Row]) -> str:
    """Returns the column to compare detectors by: mAP, or the recall of proposals if no row has mAP."""
    return next((name for name in ("mAP", "AR@1000", "mask AR@1000") if with_values(rows, name)), "mAP")


def groups_by_device(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Groups rows with comparable times: the same device and batch size.

    Returns:
        "GPU" or "CPU" (or "CPU, batch 8" if batch sizes differ) -> rows; the largest group first.
    """
    several = len({row["batch_size"] for row in rows}) > 1
    groups: dict[str, list[Row]] = {}
    for row in rows:
        name = row["device"] or "unknown device"
        if several:
            name += f", batch {row['batch_size'] if row['batch_size'] is not None else '?'}"
        groups.setdefault(name, []).append(row)
    return dict(sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])))


def _with_status(rows: Iterable[Row], status: Status) -> list[Row]:
    return [row for row in rows if row["status"] == status.value]


def _clean(name: str, value: Any) -> Any:
    if value is None or name not in _NUMBERS:
        return value
    if not math.isfinite(value) or (name in ACCURACIES and value < 0) or (name in _POSITIVE and value <= 0):
        return None
    return value
