"""Figures 6 to 10 of arXiv:1611.10012: proposals, time, multiply-adds and memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from detzoo.figures import WIDTH, add_axes, add_legend, line_handle, new_axes, new_figure
from detzoo.sweep.measured import LATENCY, MEMORIES, MULTIPLY_ADDS, Row, column, with_values
from detzoo.sweep.report.drawing import Drawing, MissingDataError, left_out, rows_with
from detzoo.sweep.report.names import extractor_colour, extractor_name, folded, meta_marker, meta_name
from detzoo.sweep.report.style import add_legends, draw_markers, plain_number, plot_points, resolution_tints, scale_axis

BILLION = 1e9
STRIDE_LINES = ("-", (0, (4, 2)), (0, (1, 1.5)))  # the largest output stride is the solid line
# What a memory axis says; the paper measures the total, not the peak.
MEMORY_WORDS = {
    "total": "memory of all tensors of a call, MiB",
    "peak": "peak memory of the tensors of a call, MiB",
    "process": "peak memory of the process, MiB",
}


def proposals_faster_rcnn(rows: Sequence[Row], device: str, metric: str) -> Drawing:
    """Figure 6a: accuracy and time against the number of proposals."""
    return _proposals(rows, device, metric, "fasterrcnn")


def proposals_rfcn(rows: Sequence[Row], device: str, metric: str) -> Drawing:
    """Figure 6b: the same of R-FCN."""
    return _proposals(rows, device, metric, "rfcn")


def time_by_combination(rows: Sequence[Row], device: str) -> Drawing:
    """Figure 7: time of each combination of meta-architecture and extractor."""
    shown = rows_with(rows, LATENCY)
    drawing = _by_combination(shown, LATENCY, f"time per call on {device}, ms (median)")
    return Drawing(drawing.figure, drawing.caption + left_out(rows, shown))


def multiply_adds_time(rows: Sequence[Row], device: str) -> Drawing:
    """Figure 8: multiply-adds against time; lines of equal speed show how well the hardware is used."""
    shown = rows_with(rows, MULTIPLY_ADDS, LATENCY)
    scaled = [{**row, "billions": row[MULTIPLY_ADDS] / BILLION} for row in shown]
    figure = new_figure()
    axes = new_axes(figure)
    plot_points(axes, scaled, "billions", LATENCY)
    logarithmic = [scale_axis(axes, "x", column(scaled, "billions")), scale_axis(axes, "y", column(scaled, LATENCY))]
    axes.set_xlabel("multiply-adds an image, billions")
    axes.set_ylabel(f"time per call on {device}, ms (median)")
    caption = f"{len(shown)} points."
    if all(logarithmic):
        _speed_lines(axes)
        caption += " Grey lines: equal numbers of multiply-adds a second."
    add_legends(figure, shown)
    return Drawing(figure, caption + left_out(rows, shown))


def memory_by_combination(rows: Sequence[Row], device: str) -> Drawing:
    """Figure 9: memory of each combination of meta-architecture and extractor."""
    kind = memory_kind(rows)
    shown = rows_with(rows, MEMORIES[kind])
    drawing = _by_combination(shown, MEMORIES[kind], f"{MEMORY_WORDS[kind]} ({device})")
    return Drawing(drawing.figure, drawing.caption + left_out(rows, shown))


def memory_time(rows: Sequence[Row], device: str) -> Drawing:
    """Figure 10: memory against time."""
    kind = memory_kind(rows)
    shown = rows_with(rows, MEMORIES[kind], LATENCY)
    figure = new_figure()
    axes = new_axes(figure)
    plot_points(axes, shown, LATENCY, MEMORIES[kind])
    scale_axis(axes, "x", column(shown, LATENCY))
    scale_axis(axes, "y", column(shown, MEMORIES[kind]))
    axes.set_xlabel(f"time per call on {device}, ms (median)")
    axes.set_ylabel(MEMORY_WORDS[kind])
    add_legends(figure, shown)
    return Drawing(figure, f"{len(shown)} points." + left_out(rows, shown))


def memory_kind(rows: Sequence[Row]) -> str:
    """The kind of memory to show: the total as in the paper, or else what was measured.

    Raises:
        MissingDataError: nothing was.
    """
    for kind in ("total", "peak", "process"):
        if with_values(rows, MEMORIES[kind]):
            return kind
    if not rows:
        raise MissingDataError("no point was measured")
    raise MissingDataError("no point's memory was measured")


def _proposals(rows: Sequence[Row], device: str, metric: str, meta: str) -> Drawing:
    name, article = {"fasterrcnn": ("Faster R-CNN", "a"), "rfcn": ("R-FCN", "an")}[meta]
    if not rows:
        raise MissingDataError("no point was measured")
    own = [row for row in rows if folded(row["meta_architecture"]) == meta]
    if not own:
        raise MissingDataError(f"no point is {article} {name}")
    known = rows_with(own, "proposals")
    resolution = max((row["resolution"] for row in known if row["resolution"] is not None), default=None)
    series = _series([row for row in known if row["resolution"] == resolution])
    if not series:
        raise MissingDataError(f"no {name} was measured with two numbers of proposals")
    panels = [(metric, 100.0, f"{metric}, %"), (LATENCY, 1.0, f"time on {device}, ms")]
    panels = [panel for panel in panels if any(with_values(group, panel[0]) for group in series.values())]
    if not panels:
        raise MissingDataError(f"no {name} has accuracy or time")
    figure = new_figure(WIDTH, 0.75 + 2.1 * len(panels))
    strides = sorted({stride for _, stride in series}, key=lambda stride: -(stride or 0))
    for place, (column_name, scale, words) in enumerate(panels):
        bottom = 0.6 + 2.1 * (len(panels) - 1 - place)
        axes = add_axes(figure, bottom, 0.72, bottom + 1.9)
        values = _draw_series(axes, series, strides, column_name, scale)
        _proposals_axis(axes, sorted({row["proposals"] for group in series.values() for row in group}))
        axes.set_ylabel(words)
        if column_name == LATENCY:
            scale_axis(axes, "y", values)
            axes.set_xlabel("proposals an image")
        if place < len(panels) - 1:
            axes.tick_params(labelbottom=False)
    shown = [row for group in series.values() for row in group]
    top = add_legends(figure, shown, resolutions=False)
    if len(strides) > 1:
        handles = [line_handle(f"stride {stride}", STRIDE_LINES[min(i, 2)]) for i, stride in enumerate(strides)]
        add_legend(figure, handles, "output stride", top)
    size = f" at {resolution} px" if resolution is not None else ""
    missing = "" if len(panels) == 2 else f" No point has {metric if panels[0][0] == LATENCY else 'a time'}."
    return Drawing(figure, f"{name}{size}.{missing}")


def _series(rows: Sequence[Row]) -> dict[tuple[str, Any], list[Row]]:
    """(extractor, stride) -> its rows by number of proposals; those with one number only are left out."""
    series: dict[tuple[str, Any], list[Row]] = {}
    for row in sorted(rows, key=lambda row: row["proposals"]):
        series.setdefault((row["extractor"] or "", row["output_stride"]), []).append(row)
    return {key: group for key, group in series.items() if len({row["proposals"] for row in group}) > 1}


def _draw_series(
    axes: Axes, series: dict[tuple[str, Any], list[Row]], strides: Sequence[Any], name: str, scale: float
) -> list[float]:
    """One line an extractor and stride, broken where a value is missing; returns the values."""
    values = []
    for (extractor, stride), group in series.items():
        xs = column(group, "proposals")
        ys = [np.nan if row[name] is None else scale * row[name] for row in group]
        style = STRIDE_LINES[min(strides.index(stride), len(STRIDE_LINES) - 1)]
        colour = extractor_colour(extractor)
        axes.plot(xs, ys, linestyle=style, color=colour, linewidth=1.2, zorder=2, gid="series")
        known = [(x, y) for x, y in zip(xs, ys) if np.isfinite(y)]
        draw_markers(
            axes,
            [x for x, _ in known],
            [y for _, y in known],
            colour,
            meta_marker(group[0]["meta_architecture"]),
            0.0,
            0.8,
        )
        values += [y for _, y in known]
    return values


def _proposals_axis(axes: Axes, numbers: Sequence[int]) -> None:
    if numbers[-1] / numbers[0] >= 4:
        axes.set_xscale("log")
    axes.set_xticks(numbers, [plain_number(number) for number in numbers])
    axes.minorticks_off()


def _by_combination(rows: Sequence[Row], name: str, words: str) -> Drawing:
    """A line for each combination, a marker for each of its points."""
    keys = {(row["meta_architecture"] or "", row["extractor"] or "") for row in rows}
    ordered = sorted(keys, key=lambda key: (folded(key[0]), _median(rows, key, name)), reverse=True)
    places = _places(ordered)
    top = max(places.values())
    figure = new_figure(WIDTH, max(2.9, 0.95 + 0.25 * (top + 1)))
    axes = add_axes(figure, 0.55, 1.75, figure.get_figheight() - 0.1)
    tints = resolution_tints(rows)
    for row in rows:
        place = places[row["meta_architecture"] or "", row["extractor"] or ""]
        tint = tints[row["resolution"]]
        shifted = place + (0.16 if tint else -0.16 if len(tints) > 2 else 0.0)
        colour, marker = extractor_colour(row["extractor"]), meta_marker(row["meta_architecture"])
        draw_markers(axes, [row[name]], [shifted], colour, marker, tint, 0.85)
    scale_axis(axes, "x", column(rows, name))
    axes.set_ylim(-0.7, top + 0.9)
    axes.set_yticks(list(places.values()), [extractor_name(extractor) for _, extractor in places])
    for meta in {key[0] for key in ordered}:
        last = max(place for key, place in places.items() if key[0] == meta)
        axes.text(-0.4, last + 0.75, meta_name(meta), transform=axes.get_yaxis_transform(), weight="bold", va="center")
    axes.set_xlabel(words)
    add_legends(figure, rows)
    varied = " of other strides and numbers of proposals" if any(row["proposals"] for row in rows) else ""
    caption = f"{len(rows)} points; a combination's markers are its points{varied}."
    return Drawing(figure, caption)


def _places(ordered: Sequence[tuple[str, str]]) -> dict[tuple[str, str], float]:
    """Heights of the lines from below, with a wider gap between meta-architectures."""
    places: dict[tuple[str, str], float] = {}
    height, before = 0.0, None
    for key in ordered:
        if before is not None:
            height += 1.0 if key[0] == before else 2.0
        places[key], before = height, key[0]
    return places


def _median(rows: Sequence[Row], key: tuple[str, str], name: str) -> float:
    own = [row[name] for row in rows if ((row["meta_architecture"] or ""), (row["extractor"] or "")) == key]
    return float(np.median(own))


def _speed_lines(axes: Axes) -> None:
    """Straight lines of equal multiply-adds a second through a log-log plot, each with its number."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    # billions / ms is 1e12 a second.
    slowest, fastest = np.log10(1e12 * left / top), np.log10(1e12 * right / bottom)
    for exponent in range(int(np.ceil(slowest)), int(np.floor(fastest)) + 1):
        speed = 10.0 ** (exponent - 12)
        axes.plot([left, right], [left / speed, right / speed], color="#C9C9C9", linewidth=0.8, zorder=1, gid="speed")
        x = min(right, top * speed)
        y = x / speed
        words = f"{plain_number(10.0 ** (exponent - 9))} G/s"
        inside = x > left * (right / left) ** 0.06 and y > bottom * (top / bottom) ** 0.06
        if inside:
            side = "right" if x >= right else "center"
            axes.annotate(
                words,
                (x, y),
                xytext=(0, 2),
                textcoords="offset points",
                ha=side,
                va="bottom",
                fontsize=7,
                color="#777777",
            )
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
