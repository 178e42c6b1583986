"""Figures 2 to 5 and 11 of arXiv:1611.10012: accuracy against time, ImageNet, object sizes and overlap thresholds.

Accuracy is in per cent, as in the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from detzoo.config.names import counted
from detzoo.figures import WIDTH, add_axes, add_legend, line_handle, new_axes, new_figure
from detzoo.sweep.columns import LATENCY
from detzoo.sweep.measured import Row, column
from detzoo.sweep.report import names, style
from detzoo.sweep.report.frontier import optimality_frontier

PERCENT = 100.0
SIZES = (
    ("mAP (small)", "small objects (below 32² pixels)", 0.72),
    ("mAP (medium)", "medium (to 96²)", 0.38),
    ("mAP (large)", "large", 0.0),
)
# Least distance of names above figure 3, as a share of the axis: 71.0 and 71.1 would cover each other.
NAME_DISTANCE = 0.055
META_STEP = 0.014  # between the markers of two meta-architectures in figure 3, as a share of the accuracies' range


def accuracy_time(rows: Sequence[Row], device: str, metric: str) -> style.Drawing:
    """Figure 2: accuracy against time with the optimality frontier."""
    words = f"time per call on {device}, ms (median)", f"{metric}, %"
    figure, axes, shown = style.scatter(rows, (LATENCY, metric), words, (1.0, PERCENT), (9.0, 5.4))
    times, values = column(shown, LATENCY), [PERCENT * value for value in column(shown, metric)]
    style.scale_axis(axes, "x", times)
    _percent_axis(axes, values)
    frontier = optimality_frontier(times, values)
    best = [shown[index] for index in frontier]
    xs, ys = [times[index] for index in frontier], [values[index] for index in frontier]
    by_runtime = names.has_runtimes(shown)
    colours = [names.row_look(row, by_runtime)[1] for row in best]
    num_labelled = style.draw_frontier(axes, xs, ys, names.point_labels(best), colours)
    top = style.add_legends(figure, shown)
    add_legend(figure, [line_handle("optimality frontier", "-", style.FRONTIER_COLOUR)], "", top)
    caption = f"{counted(len(shown), 'point')}, {len(frontier)} of them on the optimality frontier: no other "
    caption += "point is both as fast and as accurate."
    if num_labelled < len(frontier):
        caption += f" {num_labelled} of the frontier's points are labelled."
    return style.Drawing(figure, caption + style.left_out(rows, shown))


def accuracy_imagenet(rows: Sequence[Row], metric: str) -> style.Drawing:
    """Figure 3: accuracy of the detector against that of its extractor as a classifier."""
    known = style.rows_with(rows, metric)
    shown = [{**row, "top_1": names.imagenet_accuracy(row["extractor"])} for row in known]
    unknown = sorted({names.extractor_name(row["extractor"]) for row in shown if row["top_1"] is None})
    shown = [row for row in shown if row["top_1"] is not None]
    if not shown:
        raise style.MissingDataError(f"the paper gives no accuracy on ImageNet for {', '.join(unknown)}")
    figure = new_figure()
    axes = new_axes(figure)
    box = axes.get_position()
    axes.set_position((box.x0, box.y0, box.width, box.height - 0.15))
    accuracies = {names.extractor_name(row["extractor"]): (row["top_1"], row["extractor"]) for row in shown}
    least, most = (function(top_1 for top_1, _ in accuracies.values()) for function in (min, max))
    metas = sorted({row["meta_architecture"] or "" for row in shown}, key=names.folded)
    step = META_STEP * ((most - least) or 2.0)
    for row in shown:  # meta-architectures stand side by side
        row["place"] = row["top_1"] + step * (metas.index(row["meta_architecture"] or "") - 0.5 * (len(metas) - 1))
    style.plot_points(axes, shown, "place", metric, PERCENT)
    _best_lines(axes, shown, metric)
    _percent_axis(axes, [PERCENT * row[metric] for row in shown])
    margin = 0.08 * (most - least) or 1.0
    axes.set_xlim(least - margin, most + margin)
    axes.set_xlabel("top-1 accuracy of the extractor on ImageNet, %")
    axes.set_ylabel(f"{metric}, %")
    _names_above(axes, accuracies)
    style.add_legends(figure, shown, top=0.82)
    caption = f"{counted(len(shown), 'point')}; a line joins the best of each meta-architecture; they stand "
    caption += "side by side. Top-1 accuracies are those of the paper's table 2."
    if unknown:
        caption += f" It has none for {', '.join(unknown)}."
    return style.Drawing(figure, caption + style.left_out(rows, known))


def object_size(rows: Sequence[Row]) -> style.Drawing:
    """Figure 4: accuracy by size of the objects, for each combination and resolution."""
    shown = style.rows_with(rows, "mAP", *(name for name, _, _ in SIZES))
    resolutions = sorted({row["resolution"] for row in shown}, key=lambda size: (size is None, size))[-3:]
    metas = sorted({row["meta_architecture"] or "" for row in shown}, key=names.folded)
    best: dict[tuple[str, str, Any], Row] = {}
    best_of: dict[str, float] = {}
    for row in sorted(shown, key=lambda row: -row["mAP"]):
        best.setdefault((row["meta_architecture"] or "", row["extractor"] or "", row["resolution"]), row)
        best_of.setdefault(row["extractor"] or "", row["mAP"])
    extractors = sorted(sorted(best_of), key=lambda name: best_of[name])
    figure = new_figure(max(WIDTH, 2.3 * len(metas)), 1.35 + 1.8 * len(resolutions))
    grid: Any = figure.subplots(len(resolutions), len(metas), sharey=True, squeeze=False)
    height = figure.get_figheight()
    figure.subplots_adjust(left=0.1, right=0.99, top=1 - 0.6 / height, bottom=1.0 / height, wspace=0.06)
    for line, resolution in enumerate(resolutions):
        is_last = line == len(resolutions) - 1
        for axes, meta in zip(grid[line], metas):
            axes.grid(False, axis="x")
            for position, extractor in enumerate(extractors):
                if found := best.get((meta, extractor, resolution)):
                    _size_bars(axes, position, found)
            ticks, labels = (range(len(extractors)), map(names.extractor_name, extractors)) if is_last else ([], [])
            axes.set_xticks(ticks, list(labels), rotation=40, ha="right", fontsize=8)
            axes.set_xlim(-0.6, len(extractors) - 0.4)
            size = f", {resolution} px" if resolution is not None else ""
            axes.set_title(f"{names.meta_name(meta)}{size}", fontsize=9)
        grid[line][0].set_ylabel("mAP, %")
    greys = [Patch(facecolor=style.mixed_with_white("#555555", tint), label=label) for _, label, tint in SIZES]
    figure.legend(handles=greys, loc="upper left", ncols=3, bbox_to_anchor=(0.09, 1.0))
    caption = "The most accurate point of each combination. From left to right: small, medium and large objects."
    return style.Drawing(figure, caption + style.left_out(rows, shown))


def small_against_large(rows: Sequence[Row]) -> style.Drawing:
    """Figure 5: accuracy on large objects against that on small ones, and the effect of a higher resolution."""
    columns = ("mAP (small)", "mAP (large)")
    words = "mAP on small objects (below 32² pixels), %", "mAP on large objects (above 96² pixels), %"
    figure, axes, shown = style.scatter(rows, columns, words, (PERCENT, PERCENT))
    pairs = resolution_pairs(shown)
    for low, high in pairs:
        xs, ys = ([PERCENT * row[name] for row in (low, high)] for name in columns)
        colour = names.extractor_colour(low["extractor"])
        axes.plot(xs, ys, color=colour, linewidth=0.6, alpha=0.45, zorder=1.5, gid="pair")
    axes.set_xlim(left=0.0)
    style.add_legends(figure, shown)
    caption = f"{counted(len(shown), 'point')}; a line joins two resolutions of an otherwise equal point."
    return style.Drawing(figure, caption + _effect_of_resolution(pairs) + style.left_out(rows, shown))


def overlap_thresholds(rows: Sequence[Row]) -> style.Drawing:
    """Figure 11: mAP at IoU .50 and .75 against mAP, with the share of variance that a line explains."""
    columns = ("mAP@.50IOU", "mAP@.75IOU")
    panels = [(name, [row for row in rows if row["mAP"] is not None and row[name] is not None]) for name in columns]
    panels = [(name, shown) for name, shown in panels if shown]
    if not panels:
        style.rows_with(rows, "mAP", *columns)
    figure = new_figure(8.4, 3.7)
    words = []
    for place, (name, shown) in enumerate(panels):
        left = 0.65 + 3.05 * place
        axes = add_axes(figure, 0.55, left, 3.4, left + 2.4)
        style.plot_points(axes, shown, "mAP", name, PERCENT, PERCENT)
        xs, ys = (PERCENT * np.array(column(shown, part)) for part in ("mAP", name))
        axes.set_title(name)
        if fit := line_fit(xs, ys):
            slope, intercept, share = fit
            ends = np.array([xs.min(), xs.max()])
            axes.plot(ends, slope * ends + intercept, color=style.FRONTIER_COLOUR, linewidth=1.0, zorder=2, gid="fit")
            axes.text(0.04, 0.95, f"R² = {share:.3f}", transform=axes.transAxes, va="top")
            words.append(f"{name}: R² = {share:.4f}")
        axes.set_xlabel("mAP (IoU .50 to .95), %")
        axes.set_ylabel(f"{name}, %")
    style.add_legends(figure, panels[0][1])
    caption = "Straight lines by least squares. " + "; ".join(words) + "." if words else ""
    return style.Drawing(figure, caption + style.left_out(rows, panels[0][1]))


def line_fit(xs: np.ndarray, ys: np.ndarray) -> tuple[float, float, float] | None:
    """Returns slope, intercept and R² of the least-squares line; None if the points do not determine them."""
    if len(xs) < 3 or np.ptp(xs) == 0 or np.ptp(ys) == 0:
        return None
    slope, intercept = np.polyfit(xs, ys, 1)
    residual = float(np.sum((ys - slope * xs - intercept) ** 2))
    return float(slope), float(intercept), 1.0 - residual / float(np.sum((ys - ys.mean()) ** 2))


def resolution_pairs(rows: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Returns (lowest, highest resolution) of points that differ in resolution only."""
    sizes = sorted({row["resolution"] for row in rows if row["resolution"] is not None})
    if len(sizes) < 2:
        return []
    same = ("meta_architecture", "extractor", "output_stride", "proposals", "axes", "device", "precision", "batch_size")
    low, high = (
        {tuple(row[name] for name in same): row for row in rows if row["resolution"] == size}
        for size in (sizes[0], sizes[-1])
    )
    return [(low[key], high[key]) for key in low if key in high]


def _effect_of_resolution(pairs: Sequence[tuple[Row, Row]]) -> str:
    """Returns the paper's sentence on the cost and gain of a lower resolution, with this sweep's numbers."""
    parts = []
    for name, words in (("mAP", "mAP"), (LATENCY, "time")):
        changes = [low[name] / high[name] - 1.0 for low, high in pairs if low[name] is not None and high[name]]
        if changes:
            parts.append(f"{words} changes by {PERCENT * float(np.mean(changes)):+.1f} %")
    if not parts:
        return ""
    low, high = pairs[0]
    text = " and ".join(parts).replace("-", "−")
    sizes = f"From {high['resolution']} to {low['resolution']} px"
    return f" {sizes} {text} on average of {counted(len(pairs), 'pair')}."


def _size_bars(axes: Axes, position: int, row: Row) -> None:
    for place, (name, _, tint) in enumerate(SIZES):
        colour = names.extractor_colour(row["extractor"])
        axes.bar(
            position + 0.27 * (place - 1),
            PERCENT * row[name],
            0.25,
            facecolor=style.mixed_with_white(colour, tint),
            edgecolor=colour,
            linewidth=0.7,
            gid=style.POINTS,
        )


def _best_lines(axes: Axes, rows: Sequence[Row], metric: str) -> None:
    """Joins the best points of each extractor, for each meta-architecture."""
    best: dict[str, dict[float, float]] = {}
    for row in sorted(rows, key=lambda row: row[metric]):
        best.setdefault(row["meta_architecture"] or "", {})[row["place"]] = PERCENT * row[metric]
    for _, points in sorted(best.items()):
        xs = sorted(points)
        axes.plot(xs, [points[x] for x in xs], color="#AAAAAA", linewidth=0.9, zorder=1.5, gid="best")


def _names_above(axes: Axes, accuracies: dict[str, tuple[float, str]]) -> None:
    """Writes extractors' names above the axes, apart from each other, each connected with its place."""
    low, high = axes.get_xlim()
    place = -1.0
    for name, (top_1, extractor) in sorted(accuracies.items(), key=lambda item: item[1][0]):
        true = (top_1 - low) / (high - low)
        place = max(true, place + NAME_DISTANCE)
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
                "color": names.extractor_colour(extractor),
                "linewidth": 1.0,
                "shrinkA": 1,
                "shrinkB": 0,
            },
        )


def _percent_axis(axes: Axes, values: Sequence[float]) -> None:
    low, high = min(values), max(values)
    margin = 0.07 * (high - low) or max(1.0, 0.1 * high)
    axes.set_ylim(max(0.0, low - margin), high + margin)
