"""Where a point's time goes: one bar a point, one colour a stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detzoo.figures import WIDTH, new_figure
from detzoo.sweep.measured import LATENCY, Row
from detzoo.sweep.report.drawing import Drawing, MissingDataError
from detzoo.sweep.report.names import folded, point_labels
from detzoo.sweep.report.style import POINTS

# Not the extractors' colours: grey for the ends, one hue for parts of the network, others for the whole and for masks.
STAGES = {
    "preprocessing": "#BDBDBD",
    "extractor": "#08519C",
    "first stage after the extractor": "#3182BD",
    "first stage with its extractor": "#2B5F93",
    "second stage": "#6BAED6",
    "heads": "#9ECAE1",
    "network, not split": "#A6845B",
    "masks": "#8C6BB1",
    "post-processing": "#636363",
}
MOST_BARS = 36


def stage_breakdown(rows: Sequence[Row], device: str) -> Drawing:
    """Stacked bars of the stages' times."""
    split = [row for row in rows if stage_parts(row)]
    if not split:
        raise MissingDataError("no point has times of its stages" if rows else "no point was measured")
    shown = representative_rows(split)
    shown.sort(key=lambda row: -sum(stage_parts(row).values()))
    figure = new_figure(WIDTH, max(2.6, 1.15 + 0.19 * len(shown)))
    height = figure.get_figheight()
    axes = figure.add_axes((0.3, 0.55 / height, 0.685, 1 - 1.15 / height))
    used: dict[str, Any] = {}
    for place, row in enumerate(shown):
        left = 0.0
        for stage, milliseconds in stage_parts(row).items():
            [bar] = axes.barh(place, milliseconds, 0.74, left=left, color=STAGES[stage], linewidth=0, gid=POINTS)
            used.setdefault(stage, bar)
            left += milliseconds
    ticks = axes.set_yticks(range(len(shown)), point_labels(shown), fontsize=8)
    widest = max(tick.label1.get_window_extent().width for tick in ticks) / figure.bbox.width
    axes.set_position((widest + 0.02, 0.55 / height, 0.965 - widest, 1 - 1.15 / height))
    axes.set_ylim(-0.6, len(shown) - 0.4)
    axes.grid(False, axis="y")
    axes.set_xlabel(f"time on {device}, ms (median, by stage)")
    stages = [stage for stage in STAGES if stage in used]
    figure.legend([used[stage] for stage in stages], stages, loc="upper left", ncols=3, bbox_to_anchor=(0.01, 0.995))
    caption = "The median time, divided among the stages."
    if len(shown) < len(split):
        caption += " Of each combination and resolution the point with the largest stride and the most proposals."
    if len(shown) < len(rows) and len(split) < len(rows):
        caption += f" {len(rows) - len(split)} points have no times of stages."
    return Drawing(figure, caption)


def stage_parts(row: Row) -> dict[str, float]:
    """Stage -> milliseconds, in the order in which they run; together the whole that was split.

    first_stage_ms includes the extractor, and network_ms all but the ends: what is left of each is its own part.
    """
    known = {name: row[f"stages.{name}_ms"] for name in ("preprocess", "network", "extractor", "postprocess")}
    first, second, masks = (row[f"stages.{name}_ms"] for name in ("first_stage", "second_stage", "masks"))
    network, extractor = known["network"], known["extractor"]
    parts: dict[str, float | None] = {"preprocessing": known["preprocess"], "extractor": extractor}
    if first is not None:
        if extractor is None:
            parts["first stage with its extractor"] = first
        else:
            parts["first stage after the extractor"] = first - extractor
        parts["second stage"] = second
    elif network is not None and extractor is not None:
        parts["heads"] = network - extractor - (masks or 0.0)
    elif network is not None:
        parts["network, not split"] = network
    parts["masks"] = masks
    parts["post-processing"] = known["postprocess"]
    if network is None and first is None and extractor is None:
        return {}
    return {stage: max(0.0, part) for stage, part in parts.items() if part is not None}


def representative_rows(rows: Sequence[Row]) -> list[Row]:
    """All rows where a bar fits for each; else one a combination and resolution, slowest ones if still too many."""
    if len(rows) <= MOST_BARS:
        return list(rows)
    best: dict[Any, Row] = {}
    for row in rows:
        key = folded(row["meta_architecture"]), folded(row["extractor"]), row["resolution"]
        if key not in best or _size(row) > _size(best[key]):
            best[key] = row
    return sorted(best.values(), key=lambda row: -(row[LATENCY] or 0.0))[:MOST_BARS]


def _size(row: Row) -> tuple[int, int]:
    return row["output_stride"] or 0, row["proposals"] or 0
