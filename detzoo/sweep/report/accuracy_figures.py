"""Figures 2 to 5 and 11 of arXiv:1611.10012: accuracy against time, ImageNet, sizes and overlap thresholds.

Accuracy is shown in per cent, as the paper has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from detzoo.figures import WIDTH, add_axes, add_legend, line_handle, new_axes, new_figure
from detzoo.sweep.measured import LATENCY, Row, column
from detzoo.sweep.report.drawing import Drawing, MissingDataError, left_out, rows_with
from detzoo.sweep.report.frontier import optimality_frontier
from detzoo.sweep.report.frontier_labels import FRONTIER_COLOUR, draw_frontier, label_frontier
from detzoo.sweep.report.names import (
    IMAGENET_TOP_1,
    extractor_colour,
    extractor_name,
    folded,
    meta_name,
    point_labels,
)
from detzoo.sweep.report.style import POINTS, add_legends, mixed_with_white, plot_points, scale_axis

PERCENT = 100.0
SIZES = (
    ("mAP (small)", "small objects (below 32² pixels)", 0.72),
    ("mAP (medium)", "medium (to 96²)", 0.38),
    ("mAP (large)", "large", 0.0),
)
# Names above figure 3 keep this distance, as a share of the axis: 71.0 and 71.1 would cover each other.
NAME_DISTANCE = 0.055
META_STEP = 0.014  # between the markers of two meta-architectures in figure 3, as a share of the accuracies' range


def accuracy_time(rows: Sequence[Row], device: str, metric: str) -> Drawing:
    """Figure 2: accuracy against time with the optimality frontier."""
    shown = rows_with(rows, LATENCY, metric)
    figure = new_figure(9.0, 5.4)
    axes = new_axes(figure)
    plot_points(axes, shown, LATENCY, metric, PERCENT)
    times, values = column(shown, LATENCY), [PERCENT * value for value in column(shown, metric)]
    scale_axis(axes, "x", times)
    _percent_axis(axes, values)
    axes.set_xlabel(f"time per call on {device}, ms (median)")
    axes.set_ylabel(f"{metric}, %")
    frontier = optimality_frontier(times, values)
    xs, ys = [times[index] for index in frontier], [values[index] for index in frontier]
    labels = point_labels([shown[index] for index in frontier])
    draw_frontier(axes, xs, ys)
    labelled = label_frontier(axes, xs, ys, labels, [extractor_colour(shown[index]["extractor"]) for index in frontier])
    top = add_legends(figure, shown)
    add_legend(figure, [line_handle("optimality frontier", "-", FRONTIER_COLOUR)], "", top)
    caption = f"{_counted(len(shown), 'point')}, {len(frontier)} of them on the optimality frontier: no other point "
    caption += "is both as fast and as accurate."
    if len(labelled) < len(frontier):
        caption += f" {len(labelled)} of the frontier's points are labelled."
    return Drawing(figure, caption + left_out(rows, shown))


def accuracy_imagenet(rows: Sequence[Row], metric: str) -> Drawing:
    """Figure 3: accuracy of the detector against that of its extractor as a classifier."""
    known = rows_with(rows, metric)
    shown = [{**row, "top_1": IMAGENET_TOP_1.get(folded(row["extractor"]))} for row in known]
    unknown = sorted({extractor_name(row["extractor"]) for row in shown if row["top_1"] is None})
    shown = [row for row in shown if row["top_1"] is not None]
    if not shown:
        raise MissingDataError(f"the paper gives no accuracy on ImageNet for {', '.join(unknown)}")
    figure = new_figure()
    axes = new_axes(figure)
    box = axes.get_position()
    axes.set_position((box.x0, box.y0, box.width, box.height - 0.15))
    shown = _side_by_side(shown)
    plot_points(axes, shown, "place", metric, PERCENT)
    _best_lines(axes, shown, metric)
    _percent_axis(axes, [PERCENT * row[metric] for row in shown])
    accuracies = {extractor_name(row["extractor"]): (row["top_1"], row["extractor"]) for row in shown}
    least, most = (function(top_1 for top_1, _ in accuracies.values()) for function in (min, max))
    margin = 0.08 * (most - least) or 1.0
    axes.set_xlim(least - margin, most + margin)
    axes.set_xlabel("top-1 accuracy of the extractor on ImageNet, %")
    axes.set_ylabel(f"{metric}, %")
    _names_above(axes, accuracies)
    add_legends(figure, shown, top=0.82)
    caption = f"{_counted(len(shown), 'point')}; a line joins the best of each meta-architecture, which stand beside "
    caption += "each other. Top-1 accuracies are those of the paper's table 2."
    if unknown:
        caption += f" It has none for {', '.join(unknown)}."
    return Drawing(figure, caption + left_out(rows, known))


def object_size(rows: Sequence[Row]) -> Drawing:
    """Figure 4: accuracy by size of the objects, for each combination and resolution."""
    names = [name for name, _, _ in SIZES]
    shown = rows_with(rows, "mAP", *names)
    resolutions = sorted({row["resolution"] for row in shown}, key=lambda size: (size is None, size))[-3:]
    metas = sorted({row["meta_architecture"] or "" for row in shown}, key=folded)
    best = _best_of_combinations(shown)
    extractors = sorted({row["extractor"] or "" for row in shown}, key=lambda name: _best_of(name, shown))
    figure = new_figure(max(WIDTH, 2.3 * len(metas)), 1.35 + 1.8 * len(resolutions))
    grid: Any = figure.subplots(len(resolutions), len(metas), sharey=True, squeeze=False)
    bottom = 1.0 / figure.get_figheight()
    figure.subplots_adjust(left=0.1, right=0.99, top=1 - 0.6 / figure.get_figheight(), bottom=bottom, wspace=0.06)
    for line, resolution in enumerate(resolutions):
        for place, meta in enumerate(metas):
            axes = grid[line][place]
            axes.grid(False, axis="x")
            for position, extractor in enumerate(extractors):
                row = best.get((meta, extractor, resolution))
                if row is not None:
                    _size_bars(axes, position, row)
            names_here = [extractor_name(name) for name in extractors] if line == len(resolutions) - 1 else []
            axes.set_xticks(
                range(len(extractors)) if names_here else [], names_here, rotation=40, ha="right", fontsize=8
            )
            axes.set_xlim(-0.6, len(extractors) - 0.4)
            size = f", {resolution} px" if resolution is not None else ""
            axes.set_title(f"{meta_name(meta)}{size}", fontsize=9)
        grid[line][0].set_ylabel("mAP, %")
    greys = [Patch(facecolor=mixed_with_white("#555555", tint), label=label) for _, label, tint in SIZES]
    figure.legend(handles=greys, loc="upper left", ncols=3, bbox_to_anchor=(0.09, 1.0))
    caption = "The most accurate point of each combination. From left to right: small, medium and large objects."
    return Drawing(figure, caption + left_out(rows, shown))


def small_against_large(rows: Sequence[Row]) -> Drawing:
    """Figure 5: accuracy on large objects against that on small ones; what a higher resolution changes."""
    shown = rows_with(rows, "mAP (small)", "mAP (large)")
    figure = new_figure()
    axes = new_axes(figure)
    pairs = resolution_pairs(shown)
    for low, high in pairs:
        xs, ys = ([PERCENT * row[name] for row in (low, high)] for name in ("mAP (small)", "mAP (large)"))
        axes.plot(xs, ys, color=extractor_colour(low["extractor"]), linewidth=0.6, alpha=0.45, zorder=1.5, gid="pair")
    plot_points(axes, shown, "mAP (small)", "mAP (large)", PERCENT, PERCENT)
    axes.set_xlim(left=0.0)
    axes.set_xlabel("mAP on small objects (below 32² pixels), %")
    axes.set_ylabel("mAP on large objects (above 96² pixels), %")
    add_legends(figure, shown)
    caption = f"{_counted(len(shown), 'point')}; a line joins two resolutions of an otherwise equal point."
    return Drawing(figure, caption + _effect_of_resolution(pairs) + left_out(rows, shown))


def overlap_thresholds(rows: Sequence[Row]) -> Drawing:
    """Figure 11: mAP at IoU .50 and .75 against mAP, with the share of variance that a line explains."""
    names = ("mAP@.50IOU", "mAP@.75IOU")
    panels = [(name, [row for row in rows if row["mAP"] is not None and row[name] is not None]) for name in names]
    panels = [(name, shown) for name, shown in panels if shown]
    if not panels:
        rows_with(rows, "mAP", *names)
    figure = new_figure(8.4, 3.7)
    words = []
    for place, (name, shown) in enumerate(panels):
        left = 0.65 + 3.05 * place
        axes = add_axes(figure, 0.55, left, 3.4, left + 2.4)
        plot_points(axes, shown, "mAP", name, PERCENT, PERCENT)
        xs, ys = (PERCENT * np.array(column(shown, part)) for part in ("mAP", name))
        fit = line_fit(xs, ys)
        axes.set_title(name)
        if fit is not None:
            slope, intercept, share = fit
            ends = np.array([xs.min(), xs.max()])
            axes.plot(ends, slope * ends + intercept, color=FRONTIER_COLOUR, linewidth=1.0, zorder=2, gid="fit")
            axes.text(0.04, 0.95, f"R² = {share:.3f}", transform=axes.transAxes, va="top")
            words.append(f"{name}: R² = {share:.4f}")
        axes.set_xlabel("mAP (IoU .50 to .95), %")
        axes.set_ylabel(f"{name}, %")
    add_legends(figure, panels[0][1])
    caption = "Straight lines by least squares. " + "; ".join(words) + "." if words else ""
    return Drawing(figure, caption + left_out(rows, panels[0][1]))


def line_fit(xs: np.ndarray, ys: np.ndarray) -> tuple[float, float, float] | None:
    """Slope, intercept and R² of the least-squares line; None where the points do not determine them."""
    if len(xs) < 3 or np.ptp(xs) == 0 or np.ptp(ys) == 0:
        return None
    slope, intercept = np.polyfit(xs, ys, 1)
    residual = float(np.sum((ys - slope * xs - intercept) ** 2))
    return float(slope), float(intercept), 1.0 - residual / float(np.sum((ys - ys.mean()) ** 2))


def resolution_pairs(rows: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Points that differ in resolution only: those of the lowest with those of the highest resolution."""
    sizes = sorted({row["resolution"] for row in rows if row["resolution"] is not None})
    if len(sizes) < 2:
        return []
    same = ("meta_architecture", "extractor", "output_stride", "proposals", "axes", "device", "precision", "batch_size")
    low = {tuple(row[name] for name in same): row for row in rows if row["resolution"] == sizes[0]}
    high = {tuple(row[name] for name in same): row for row in rows if row["resolution"] == sizes[-1]}
    return [(low[key], high[key]) for key in low if key in high]


def _effect_of_resolution(pairs: Sequence[tuple[Row, Row]]) -> str:
    """The paper's sentence on what the lower resolution costs and saves, with this sweep's numbers."""
    parts = []
    for name, what in (("mAP", "mAP"), (LATENCY, "time")):
        changes = [low[name] / high[name] - 1.0 for low, high in pairs if low[name] is not None and high[name]]
        if changes:
            parts.append(f"{what} changes by {PERCENT * float(np.mean(changes)):+.1f} %")
    if not parts:
        return ""
    low, high = pairs[0]
    sizes = f"from {high['resolution']} to {low['resolution']} px"
    words = " and ".join(parts).replace("-", "−")
    return f" {sizes[0].upper()}{sizes[1:]} {words} on average of {_counted(len(pairs), 'pair')}."


def _best_of_combinations(rows: Sequence[Row]) -> dict[tuple[str, str, Any], Row]:
    best: dict[tuple[str, str, Any], Row] = {}
    for row in rows:
        key = row["meta_architecture"] or "", row["extractor"] or "", row["resolution"]
        if key not in best or row["mAP"] > best[key]["mAP"]:
            best[key] = row
    return best


def _best_of(extractor: str, rows: Sequence[Row]) -> float:
    return float(max(row["mAP"] for row in rows if (row["extractor"] or "") == extractor))


def _size_bars(axes: Axes, position: int, row: Row) -> None:
    for place, (name, _, tint) in enumerate(SIZES):
        colour = extractor_colour(row["extractor"])
        axes.bar(
            position + 0.27 * (place - 1),
            PERCENT * row[name],
            0.25,
            facecolor=mixed_with_white(colour, tint),
            edgecolor=colour,
            linewidth=0.7,
            gid=POINTS,
        )


def _best_lines(axes: Axes, rows: Sequence[Row], metric: str) -> None:
    """For each meta-architecture a line through its best point of each extractor."""
    for meta in sorted({row["meta_architecture"] or "" for row in rows}):
        best: dict[float, float] = {}
        for row in rows:
            if (row["meta_architecture"] or "") == meta:
                best[row["place"]] = max(PERCENT * row[metric], best.get(row["place"], 0.0))
        xs = sorted(best)
        axes.plot(xs, [best[x] for x in xs], color="#AAAAAA", linewidth=0.9, zorder=1.5, gid="best")


def _side_by_side(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows with their ``place`` on the axis of top-1 accuracies: meta-architectures stand beside each other."""
    metas = sorted({row["meta_architecture"] or "" for row in rows}, key=folded)
    accuracies = [row["top_1"] for row in rows]
    step = META_STEP * ((max(accuracies) - min(accuracies)) or 2.0)
    steps = {meta: step * (index - 0.5 * (len(metas) - 1)) for index, meta in enumerate(metas)}
    return [{**row, "place": row["top_1"] + steps[row["meta_architecture"] or ""]} for row in rows]


def _names_above(axes: Axes, accuracies: dict[str, tuple[float, str]]) -> None:
    """Extractors' names above the axes, apart from each other, with a line to their place."""
    low, high = axes.get_xlim()
    latest = -1.0
    for name, (top_1, extractor) in sorted(accuracies.items(), key=lambda item: item[1][0]):
        true = (top_1 - low) / (high - low)
        place = max(true, latest + NAME_DISTANCE)
        latest = place
        axes.annotate(
            name,
            xy=(true, 1.0),
            xytext=(place, 1.035),
            xycoords="axes fraction",
            textcoords="axes fraction",
            rotation=30,
            rotation_mode="anchor",
            ha="left",
            va="bottom",
            fontsize=8,
            color="#222222",
            arrowprops={
                "arrowstyle": "-",
                "color": extractor_colour(extractor),
                "linewidth": 1.0,
                "shrinkA": 1,
                "shrinkB": 0,
            },
        )


def _percent_axis(axes: Axes, values: Sequence[float]) -> None:
    low, high = min(values), max(values)
    margin = 0.07 * (high - low) or max(1.0, 0.1 * high)
    axes.set_ylim(max(0.0, low - margin), high + margin)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
