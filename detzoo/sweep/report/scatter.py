"""What the page's script needs for the scatter: axes, points with their rows, legend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detzoo.sweep.measured import ACCURACIES, LATENCY, Row, groups_by_device, measured_rows
from detzoo.sweep.report.cells import ACCURACY_HEADINGS, shown_cells
from detzoo.sweep.report.names import (
    extractor_colour,
    extractor_name,
    folded,
    meta_marker,
    meta_name,
    point_labels,
    printable,
)
from detzoo.sweep.report.style import resolution_tints

# Axes of the scatter: (column, words, factor, whether more is better).
X_AXES = (
    (LATENCY, "time per call, ms", 1.0),
    ("memory.peak_mib", "peak memory of the tensors, MiB", 1.0),
    ("memory.total_mib", "memory of all tensors, MiB", 1.0),
    ("memory.process_peak_mib", "peak memory of the process, MiB", 1.0),
    ("multiply_adds", "multiply-adds, billions", 1e-9),
    ("parameters", "parameters, millions", 1e-6),
)
Y_AXES = (
    *((name, ACCURACY_HEADINGS[name].replace(" %", ", %"), 100.0) for name in ACCURACIES),
    ("images_per_second", "images per second", 1.0),
)
# What can be looked at where no accuracy was measured: multiply-adds first.
COST_AXES = X_AXES[4:] + X_AXES[:4]


def scatter_data(all_rows: Sequence[Row]) -> dict[str, Any]:
    """For JSON: the axes that can be chosen, and every measured point (failed ones have no place in a scatter)."""
    rows = measured_rows(all_rows)
    groups = groups_by_device(rows)
    device_of = {id(row): device for device, group in groups.items() for row in group}
    cells = [cell for cell in shown_cells(list(rows)) if cell.name != "status"] if rows else []

    def axes(candidates: Sequence[tuple[str, str, float]], better: str) -> list[dict[str, Any]]:
        return [
            {"name": name, "label": label, "factor": factor, "log": better == "less", "better": better}
            for name, label, factor in candidates
            if any(row[name] is not None for row in rows)
        ]

    xs, ys = axes(X_AXES, "less"), axes(Y_AXES, "more")
    if not any(axis["name"] in ACCURACIES for axis in ys):
        ys = axes(COST_AXES, "less")
    tints = resolution_tints(rows)
    wanted = {axis["name"] for axis in (*xs, *ys)}
    points = [
        {
            "label": label,
            "device": printable(device_of[id(row)], 200),
            "colour": extractor_colour(row["extractor"]),
            "marker": meta_marker(row["meta_architecture"]),
            "tint": tints[row["resolution"]],
            "values": {name: row[name] for name in sorted(wanted)},
            "cells": [cell.text(row) for cell in cells],
            "command": printable(row["command"], 1000),
        }
        for row, label in zip(rows, point_labels(rows))
    ]
    extractors = {extractor_name(row["extractor"]): extractor_colour(row["extractor"]) for row in rows}
    metas = {meta_name(row["meta_architecture"]): meta_marker(row["meta_architecture"]) for row in rows}
    legend = [[name, extractors[name], "o"] for name in sorted(extractors, key=folded)]
    legend += [[name, "#808080", metas[name]] for name in sorted(metas, key=folded)]
    return {
        "xs": xs,
        "ys": ys,
        "devices": [printable(name, 200) for name in groups],
        "columns": [cell.heading for cell in cells],
        "legend": legend,
        "points": points,
    }
