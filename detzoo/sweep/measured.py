"""Rows of results.csv as the report and the choice read them: what cannot be a measurement is missing, never a number.

A row is a mapping from the names of ``detzoo.sweep.columns`` to typed values, None where nothing was measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from detzoo.sweep.columns import COLUMNS, NAMES, Kind, Status

Row = Mapping[str, Any]

ACCURACIES = tuple(name for name in NAMES if name.startswith(("mAP", "AR@", "mask AR@")))
LATENCY = "latency.median_ms"
MEMORIES = {"peak": "memory.peak_mib", "total": "memory.total_mib", "process": "memory.process_peak_mib"}
MULTIPLY_ADDS = "multiply_adds"
PARAMETERS = "parameters"
# A share, a load or a start of 0 is possible; 0 ms, 0 MiB or 0 multiply-adds are not.
_POSITIVE = {
    *(column.name for column in COLUMNS if column.name.startswith(("latency.m", "latency.p", "memory."))),
    *(MULTIPLY_ADDS, PARAMETERS, "images_per_second", "yardstick_gflops", "resolution", "proposals", "output_stride"),
}
_NUMBERS = {column.name for column in COLUMNS if column.kind in (Kind.INTEGER, Kind.NUMBER)}


def clean_rows(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """The rows with every column, None where one lacks it.

    A number that is not finite becomes None, and so does an accuracy below 0 (pycocotools' "nothing to measure") and
    a time or a size that is not above 0.
    """
    return [{name: _clean(name, row.get(name)) for name in NAMES} for row in rows]


def measured_rows(rows: Iterable[Row]) -> list[Row]:
    """The rows whose point did not fail."""
    return [row for row in rows if row["status"] != Status.FAILED.value]


def failed_rows(rows: Iterable[Row]) -> list[Row]:
    """The rows whose point failed; ``reason`` says why."""
    return [row for row in rows if row["status"] == Status.FAILED.value]


def with_values(rows: Iterable[Row], *names: str) -> list[Row]:
    """The rows that have all these columns."""
    return [row for row in rows if all(row[name] is not None for name in names)]


def column(rows: Iterable[Row], name: str) -> list[Any]:
    """One column of many rows."""
    return [row[name] for row in rows]


def main_accuracy(rows: Iterable[Row]) -> str:
    """The accuracy by which detectors are compared: mAP, or the recall of proposals where there are proposals only."""
    known = list(rows)
    return next((name for name in ("mAP", "AR@1000", "mask AR@1000") if with_values(known, name)), "mAP")


def groups_by_device(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows whose times may be compared: of one device and one batch size.

    Returns:
        "GPU" or "CPU", or "CPU, batch 8" where there are several batch sizes -> rows; the largest group first.
    """
    several = len({row["batch_size"] for row in rows}) > 1
    groups: dict[str, list[Row]] = {}
    for row in rows:
        name = row["device"] or "unknown device"
        if several:
            name += f", batch {row['batch_size'] if row['batch_size'] is not None else '?'}"
        groups.setdefault(name, []).append(row)
    return dict(sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])))


def _clean(name: str, value: Any) -> Any:
    if value is None or name not in _NUMBERS:
        return value
    if not math.isfinite(value) or (name in ACCURACIES and value < 0) or (name in _POSITIVE and value <= 0):
        return None
    return value
