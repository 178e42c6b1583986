"""Columns of the page's table of all points, and the data of its scatter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from detzoo.serving.runtimes import TENSORFLOW
from detzoo.sweep.columns import ACCURACIES, COLUMNS, LATENCY
from detzoo.sweep.measured import Row, groups_by_device, measured_rows
from detzoo.sweep.report.names import (
    extractor_name,
    folded,
    has_runtimes,
    meta_marker,
    meta_name,
    point_labels,
    printable,
    row_look,
    runtime_name,
)
from detzoo.sweep.report.style import resolution_tints

PERCENT, MILLIONTH, BILLIONTH = 100.0, 1e-6, 1e-9


class Cell(NamedTuple):
    """A column of the table."""

    name: str  # in results.csv
    heading: str
    show: Callable[[Any], str] = printable
    is_number: bool = True

    @property
    def classes(self) -> str:
        """Classes of its cells in HTML."""
        return " ".join(["number"] * self.is_number + ["extra"] * (self.name not in PRINTED))

    def as_column(self) -> dict[str, str]:
        """Returns the values of the column for the head of a table."""
        better = "more" if self.name in ACCURACIES or self.name == "images_per_second" else ""
        return {"heading": self.heading, "classes": self.classes, "meaning": MEANINGS[self.name], "better": better}

    def text(self, row: Row) -> str:
        """Returns the shown value; "" for a missing one."""
        value = row[self.name]
        return "" if value is None else self.show(value)


def _number(digits: int, factor: float = 1.0) -> Callable[[Any], str]:
    return lambda value: f"{value * factor:,.{digits}f}"


def _time(value: float) -> str:
    return f"{value:,.1f}" if value >= 10 else f"{value:.2f}"


def _text(value: Any) -> str:
    return printable(value, 120)


def _flag(value: bool) -> str:
    return "yes" if value else "no"


def accuracy_heading(name: str) -> str:
    """Returns the heading of an accuracy column, e.g. "AR small %" for AR@1000 (small)."""
    metric, _, size = name.partition(" (")
    if size:
        return f"{metric.replace('mAP', '').replace('@1000', '')} {size.rstrip(')')} %".strip()
    return f"{name.replace('0IOU', '').replace('IOU', '')} %"


CELLS: tuple[Cell, ...] = (
    Cell("name", "point", _text, False),
    Cell("meta_architecture", "meta-architecture", meta_name, False),
    Cell("extractor", "extractor", extractor_name, False),
    Cell("resolution", "px"),
    Cell("output_stride", "stride"),
    Cell("proposals", "proposals"),
    Cell("runtime", "runtime", runtime_name, False),
    Cell("device", "device", _text, False),
    Cell(LATENCY, "median ms", _time),
    Cell("latency.p10_ms", "p10 ms", _time),
    Cell("latency.p90_ms", "p90 ms", _time),
    Cell("latency.mean_ms", "mean ms", _time),
    Cell("images_per_second", "images/s", _time),
    Cell("first_run_seconds", "first call s", _time),
    *(Cell(name, accuracy_heading(name), _number(1, PERCENT)) for name in ACCURACIES),
    Cell("parameters", "parameters M", _number(2, MILLIONTH)),
    Cell("multiply_adds", "multiply-adds G", _number(2, BILLIONTH)),
    Cell("memory.total_mib", "total MiB", _number(0)),
    Cell("memory.peak_mib", "peak MiB", _number(0)),
    Cell("memory.process_peak_mib", "process MiB", _number(0)),
    Cell("precision", "precision", _text, False),
    Cell("batch_size", "batch"),
    Cell("jit_compile", "XLA", _flag, False),
    Cell("latency.repeat_difference", "repeat %", _number(1, PERCENT)),
    Cell("load.is_quiet", "quiet", _flag, False),
    Cell("status", "status", _text, False),
)
# Columns on paper, which does not scroll.
PRINTED = {
    *("name", LATENCY, "latency.p90_ms", "parameters", "multiply_adds", "memory.total_mib", "memory.peak_mib"),
    *(name for name in ACCURACIES if name.startswith("mAP")),
    *("device", "status"),
}
MEANINGS = {column.name: column.meaning for column in COLUMNS}
# Axes of the scatter: (column, label, factor).
X_AXES = (
    (LATENCY, "time per call, ms", 1.0),
    ("memory.peak_mib", "peak memory of the tensors, MiB", 1.0),
    ("memory.total_mib", "memory of all tensors, MiB", 1.0),
    ("memory.process_peak_mib", "peak memory of the process, MiB", 1.0),
    ("multiply_adds", "multiply-adds, billions", BILLIONTH),
    ("parameters", "parameters, millions", MILLIONTH),
)
Y_AXES = (
    *((name, accuracy_heading(name).replace(" %", ", %"), PERCENT) for name in ACCURACIES),
    ("images_per_second", "images per second", 1.0),
)
COST_AXES = X_AXES[4:] + X_AXES[:4]  # upward axes of a sweep without accuracies


def shown_cells(rows: Sequence[Row]) -> list[Cell]:
    """Returns the columns that some row has a value in, and the name."""
    shown = [cell for cell in CELLS if cell.name == "name" or any(row[cell.name] is not None for row in rows)]
    runtimes = {row["runtime"] or TENSORFLOW for row in rows}
    return [cell for cell in shown if cell.name != "runtime" or runtimes != {TENSORFLOW}]


def scatter_data(all_rows: Sequence[Row]) -> dict[str, Any]:
    """Returns JSON for the page's script: the axes to choose from, and every measured point."""
    rows = measured_rows(all_rows)
    groups = groups_by_device(rows)
    device_of = {id(row): device for device, group in groups.items() for row in group}
    cells = [cell for cell in shown_cells(rows) if cell.name != "status"] if rows else []

    def axes(candidates: Sequence[tuple[str, str, float]], better: str) -> list[dict[str, Any]]:
        return [
            {"name": name, "label": label, "factor": factor, "log": better == "less", "better": better}
            for name, label, factor in candidates
            if any(row[name] is not None for row in rows)
        ]

    xs, ys = axes(X_AXES, "less"), axes(Y_AXES, "more")
    if not any(axis["name"] in ACCURACIES for axis in ys):
        ys = axes(COST_AXES, "less")
    tints, by_runtime = resolution_tints(rows), has_runtimes(rows)
    points = [
        {
            "label": label,
            "device": printable(device_of[id(row)], 200),
            "colour": row_look(row, by_runtime)[1],
            "marker": meta_marker(row["meta_architecture"]),
            "tint": tints[row["resolution"]],
            "values": {axis["name"]: row[axis["name"]] for axis in (*xs, *ys)},
            "cells": [cell.text(row) for cell in cells],
            "command": printable(row["command"], 1000),
        }
        for row, label in zip(rows, point_labels(rows))
    ]
    looks = dict(row_look(row, by_runtime) for row in rows)
    metas = {meta_name(row["meta_architecture"]): meta_marker(row["meta_architecture"]) for row in rows}
    legend = [[name, looks[name], "o"] for name in sorted(looks, key=folded)]
    legend += [[name, "#808080", metas[name]] for name in sorted(metas, key=folded)]
    return {
        "xs": xs,
        "ys": ys,
        "devices": [printable(name, 200) for name in groups],
        "columns": [cell.heading for cell in cells],
        "legend": legend,
        "points": points,
    }
