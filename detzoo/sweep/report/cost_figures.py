"""Figures 6 to 10 of arXiv:1611.10012 and the time by stages: proposals, time, multiply-adds and memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from detzoo.figures import WIDTH, add_axes, add_legend, line_handle, new_figure
from detzoo.sweep.columns import LATENCY
from detzoo.sweep.measured import MEMORIES, Row, column, with_values
from detzoo.sweep.report import names, style

BILLION = 1e9
STRIDE_LINES = ("-", (0, (4, 2)), (0, (1, 1.5)))  # the largest output stride is the solid line
# Labels of a memory axis; the paper measures the total, not the peak.
MEMORY_WORDS = {
    "total": "memory of all tensors of a call, MiB",
    "peak": "peak memory of the tensors of a call, MiB",
    "process": "peak memory of the process, MiB",
}
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


def proposals_faster_rcnn(rows: Sequence[Row], device: str, metric: str) -> style.Drawing:
    """Figure 6a: accuracy and time against the number of proposals."""
    return _proposals(rows, device, metric, "Faster R-CNN", "a")


def proposals_rfcn(rows: Sequence[Row], device: str, metric: str) -> style.Drawing:
    """Figure 6b: the same of R-FCN."""
    return _proposals(rows, device, metric, "R-FCN", "an")


def time_by_combination(rows: Sequence[Row], device: str) -> style.Drawing:
    """Figure 7: time of each combination of meta-architecture and extractor."""
    return _by_combination(rows, LATENCY, f"time per call on {device}, ms (median)")


def multiply_adds_time(rows: Sequence[Row], device: str) -> style.Drawing:
    """Figure 8: multiply-adds against time, with lines of equal speed."""
    words = "multiply-adds per image, billions", f"time per call on {device}, ms (median)"
    figure, axes, shown = style.scatter(rows, ("multiply_adds", LATENCY), words, (1 / BILLION, 1.0))
    billions = [number / BILLION for number in column(shown, "multiply_adds")]
    logarithmic = [style.scale_axis(axes, "x", billions), style.scale_axis(axes, "y", column(shown, LATENCY))]
    caption = f"{len(shown)} points."
    if all(logarithmic):
        _speed_lines(axes)
        caption += " Grey lines: equal numbers of multiply-adds per second."
    style.add_legends(figure, shown)
    return style.Drawing(figure, caption + style.left_out(rows, shown))


def memory_by_combination(rows: Sequence[Row], device: str) -> style.Drawing:
    """Figure 9: memory of each combination of meta-architecture and extractor."""
    kind = memory_kind(rows)
    return _by_combination(rows, MEMORIES[kind], f"{MEMORY_WORDS[kind]} ({device})")


def memory_time(rows: Sequence[Row], device: str) -> style.Drawing:
    """Figure 10: memory against time."""
    kind = memory_kind(rows)
    columns = (LATENCY, MEMORIES[kind])
    words = f"time per call on {device}, ms (median)", MEMORY_WORDS[kind]
    figure, axes, shown = style.scatter(rows, columns, words)
    for which, name in zip("xy", columns):
        style.scale_axis(axes, which, column(shown, name))
    style.add_legends(figure, shown)
    return style.Drawing(figure, f"{len(shown)} points." + style.left_out(rows, shown))


def memory_kind(rows: Sequence[Row]) -> str:
    """Returns the kind of memory to show: the total as in the paper, or the first that was measured.

    Of several runtimes it is the memory of the process: tensors are those of TensorFlow's graph alone.
    """
    for kind in ("process", "total", "peak") if names.has_runtimes(rows) else ("total", "peak", "process"):
        if with_values(rows, MEMORIES[kind]):
            return kind
    raise style.MissingDataError("no point's memory was measured" if rows else "no point was measured")


def stage_breakdown(rows: Sequence[Row], device: str) -> style.Drawing:
    """Stacked bars of the stages' times: one bar per point, one colour per stage."""
    split = [row for row in rows if stage_parts(row)]
    if not split:
        raise style.MissingDataError("no point has times of its stages" if rows else "no point was measured")
    shown = sorted(representative_rows(split), key=lambda row: -sum(stage_parts(row).values()))
    figure = new_figure(WIDTH, max(2.6, 1.15 + 0.19 * len(shown)))
    height = figure.get_figheight()
    axes = figure.add_axes((0.3, 0.55 / height, 0.685, 1 - 1.15 / height))
    used: dict[str, Any] = {}
    for place, row in enumerate(shown):
        left = 0.0
        for stage, milliseconds in stage_parts(row).items():
            [bar] = axes.barh(place, milliseconds, 0.74, left=left, color=STAGES[stage], linewidth=0, gid=style.POINTS)
            used.setdefault(stage, bar)
            left += milliseconds
    ticks = axes.set_yticks(range(len(shown)), names.point_labels(shown), fontsize=8)
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
    if len(split) < len(rows):
        caption += f" {len(rows) - len(split)} points have no times of stages."
    return style.Drawing(figure, caption)


def stage_parts(row: Row) -> dict[str, float]:
    """Returns stage -> milliseconds, in the order in which they run; together the whole that was split.

    first_stage_ms includes the extractor, and network_ms everything but the ends: the remainder of each is a part.
    """
    parts_of = ("preprocess", "network", "extractor", "first_stage", "second_stage", "masks", "postprocess")
    before, network, extractor, first, second, masks, after = (row[f"stages.{name}_ms"] for name in parts_of)
    if network is None and first is None and extractor is None:
        return {}
    parts: dict[str, float | None] = {"preprocessing": before, "extractor": extractor}
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
    parts |= {"masks": masks, "post-processing": after}
    return {stage: max(0.0, part) for stage, part in parts.items() if part is not None}


def representative_rows(rows: Sequence[Row]) -> list[Row]:
    """Returns all rows if a bar fits for each; else one per combination and resolution, and of those the slowest."""
    if len(rows) <= MOST_BARS:
        return list(rows)
    best: dict[Any, Row] = {}
    for row in sorted(rows, key=lambda row: (row["output_stride"] or 0, row["proposals"] or 0), reverse=True):
        combination = names.folded(row["meta_architecture"]), names.folded(row["extractor"])
        best.setdefault((*combination, row["resolution"]), row)
    return sorted(best.values(), key=lambda row: -(row[LATENCY] or 0.0))[:MOST_BARS]


def _proposals(rows: Sequence[Row], device: str, metric: str, name: str, article: str) -> style.Drawing:
    if not rows:
        raise style.MissingDataError("no point was measured")
    own = [row for row in rows if names.folded(row["meta_architecture"]) == names.folded(name)]
    if not own:
        raise style.MissingDataError(f"no point is {article} {name}")
    known = style.rows_with(own, "proposals")
    resolution = max((row["resolution"] for row in known if row["resolution"] is not None), default=None)
    series = _series([row for row in known if row["resolution"] == resolution])
    if not series:
        raise style.MissingDataError(f"no {name} was measured with two numbers of proposals")
    shown = [row for group in series.values() for row in group]
    panels = [(metric, 100.0, f"{metric}, %"), (LATENCY, 1.0, f"time on {device}, ms")]
    panels = [panel for panel in panels if with_values(shown, panel[0])]
    if not panels:
        raise style.MissingDataError(f"no {name} has accuracy or time")
    figure = new_figure(WIDTH, 0.75 + 2.1 * len(panels))
    strides = sorted({stride for _, stride in series}, key=lambda stride: -(stride or 0))
    for place, (column_name, scale, words) in enumerate(panels):
        bottom = 0.6 + 2.1 * (len(panels) - 1 - place)
        axes = add_axes(figure, bottom, 0.72, bottom + 1.9)
        values = _draw_series(axes, series, strides, column_name, scale)
        numbers = sorted({row["proposals"] for row in shown})
        if numbers[-1] / numbers[0] >= 4:
            axes.set_xscale("log")
        axes.set_xticks(numbers, [style.plain_number(number) for number in numbers])
        axes.minorticks_off()
        axes.set_ylabel(words)
        if column_name == LATENCY:
            style.scale_axis(axes, "y", values)
            axes.set_xlabel("proposals per image")
        if place < len(panels) - 1:
            axes.tick_params(labelbottom=False)
    top = style.add_legends(figure, shown, resolutions=False)
    if len(strides) > 1:
        handles = [line_handle(f"stride {stride}", STRIDE_LINES[min(i, 2)]) for i, stride in enumerate(strides)]
        add_legend(figure, handles, "output stride", top)
    size = f" at {resolution} px" if resolution is not None else ""
    missing = "" if len(panels) == 2 else f" No point has {metric if panels[0][0] == LATENCY else 'a time'}."
    return style.Drawing(figure, f"{name}{size}.{missing}")


def _series(rows: Sequence[Row]) -> dict[tuple[str, Any], list[Row]]:
    """Returns (extractor, stride) -> its rows by number of proposals, without series of a single number."""
    series: dict[tuple[str, Any], list[Row]] = {}
    for row in sorted(rows, key=lambda row: row["proposals"]):
        series.setdefault((row["extractor"] or "", row["output_stride"]), []).append(row)
    return {key: group for key, group in series.items() if len({row["proposals"] for row in group}) > 1}


def _draw_series(
    axes: Axes, series: dict[tuple[str, Any], list[Row]], strides: Sequence[Any], name: str, scale: float
) -> list[float]:
    """Draws one line per extractor and stride, broken at missing values; returns the values."""
    values: list[float] = []
    for (extractor, stride), group in series.items():
        xs = column(group, "proposals")
        ys = [np.nan if row[name] is None else scale * row[name] for row in group]
        line = STRIDE_LINES[min(strides.index(stride), len(STRIDE_LINES) - 1)]
        colour = names.extractor_colour(extractor)
        axes.plot(xs, ys, linestyle=line, color=colour, linewidth=1.2, zorder=2, gid="series")
        known = with_values(group, name)
        shown = [scale * row[name] for row in known]
        marker = names.meta_marker(group[0]["meta_architecture"])
        style.draw_markers(axes, column(known, "proposals"), shown, colour, marker, 0.0, 0.8)
        values += shown
    return values


def _by_combination(all_rows: Sequence[Row], name: str, words: str) -> style.Drawing:
    """Draws the points of each combination on one line; a wider gap separates meta-architectures."""
    rows = style.rows_with(all_rows, name)
    combinations: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        combinations.setdefault((row["meta_architecture"] or "", row["extractor"] or ""), []).append(row[name])
    medians = {key: float(np.median(values)) for key, values in combinations.items()}
    ordered = sorted(medians, key=lambda key: (names.folded(key[0]), medians[key]), reverse=True)
    places: dict[tuple[str, str], float] = {}
    top, before = 0.0, None
    for key in ordered:
        if before is not None:
            top += 1.0 if key[0] == before else 2.0
        places[key], before = top, key[0]
    figure = new_figure(WIDTH, max(2.9, 0.95 + 0.25 * (top + 1)))
    axes = add_axes(figure, 0.55, 1.75, figure.get_figheight() - 0.1)
    tints, by_runtime = style.resolution_tints(rows), names.has_runtimes(rows)
    for row in rows:
        tint = tints[row["resolution"]]
        shift = 0.16 if tint else -0.16 if len(tints) > 2 else 0.0
        place = places[row["meta_architecture"] or "", row["extractor"] or ""] + shift
        colour, marker = names.row_look(row, by_runtime)[1], names.meta_marker(row["meta_architecture"])
        style.draw_markers(axes, [row[name]], [place], colour, marker, tint, 0.85)
    style.scale_axis(axes, "x", column(rows, name))
    axes.set_ylim(-0.7, top + 0.9)
    axes.set_yticks(list(places.values()), [names.extractor_name(extractor) for _, extractor in places])
    for meta, last in {key[0]: place for key, place in places.items()}.items():
        beside_axis = axes.get_yaxis_transform()
        axes.text(-0.4, last + 0.75, names.meta_name(meta), transform=beside_axis, weight="bold", va="center")
    axes.set_xlabel(words)
    style.add_legends(figure, rows)
    varied = " of other strides and numbers of proposals" if any(row["proposals"] for row in rows) else ""
    caption = f"{len(rows)} points; a combination's markers are its points{varied}."
    return style.Drawing(figure, caption + style.left_out(all_rows, rows))


def _speed_lines(axes: Axes) -> None:
    """Draws lines of equal multiply-adds per second through a log-log plot, each with its number."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    # 1 billion per ms is 1e12 per second.
    slowest, fastest = np.log10(1e12 * left / top), np.log10(1e12 * right / bottom)
    for exponent in range(int(np.ceil(slowest)), int(np.floor(fastest)) + 1):
        speed = 10.0 ** (exponent - 12)
        axes.plot([left, right], [left / speed, right / speed], color="#C9C9C9", linewidth=0.8, zorder=1, gid="speed")
        x = min(right, top * speed)
        y = x / speed
        if x > left * (right / left) ** 0.06 and y > bottom * (top / bottom) ** 0.06:
            axes.annotate(
                f"{style.plain_number(10.0 ** (exponent - 9))} G/s",
                (x, y),
                xytext=(0, 2),
                textcoords="offset points",
                ha="right" if x >= right else "center",
                va="bottom",
                fontsize=7,
                color="#777777",
            )
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
