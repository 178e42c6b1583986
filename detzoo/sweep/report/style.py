"""Common parts of the report's figures: markers and their legends, axes, the frontier, captions of missing data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator, ScalarFormatter

from detzoo.errors import DetzooError
from detzoo.figures import HEIGHT, WIDTH, add_legend, new_axes, new_figure
from detzoo.sweep.measured import Row, with_values
from detzoo.sweep.report.names import (
    extractor_name,
    folded,
    has_runtimes,
    meta_marker,
    meta_name,
    row_look,
)

MARKER_SIZE = 6.0
LOG_FROM_RATIO = 4.0  # an axis is logarithmic if its largest value is this many times its smallest
# Columns that are equal for the points of one detector in several runtimes.
_DETECTOR = ("meta_architecture", "extractor", "resolution", "output_stride", "proposals", "axes", "precision")
POINTS = "points"  # gid of the artists that show measured points, so that they can be counted
FRONTIER_COLOUR = "#444444"
LABEL_SIZE, LABEL_HEIGHT = 7.5, 10.0  # of labels of the frontier, points
LABEL_OFFSET = (-6, 2)  # from the point, points


class Drawing(NamedTuple):
    """A figure and the sentences below it."""

    figure: Figure
    caption: str


class MissingDataError(DetzooError):
    """The rows lack the values of a figure; the message is shown in its place."""


def rows_with(rows: Sequence[Row], *names: str) -> list[Row]:
    """Returns the rows that have all these columns, or raises a MissingDataError if there is none."""
    found = with_values(rows, *names)
    if not found:
        if not rows:
            raise MissingDataError("no point was measured")
        absent = [name for name in names if not with_values(rows, name)]
        if absent:
            raise MissingDataError(f"no point has {' or '.join(absent)}")
        raise MissingDataError(f"no point has {' and '.join(names)} at once")
    return found


def left_out(rows: Sequence[Row], shown: Sequence[Row]) -> str:
    """Returns a sentence on points without the values, "" if there are none."""
    missing = len(rows) - len(shown)
    return f" {missing} of {len(rows)} points lack a value and are left out." if missing else ""


def scatter(
    rows: Sequence[Row],
    columns: tuple[str, str],
    words: tuple[str, str],
    scales: tuple[float, float] = (1.0, 1.0),
    size: tuple[float, float] = (WIDTH, HEIGHT),
) -> tuple[Figure, Axes, list[Row]]:
    """Draws the rows that have both columns; columns, labels and factors are those of the x and the y axis.

    Returns:
        The figure of this size in inches, its axes, and the drawn rows.
    """
    shown = rows_with(rows, *columns)
    figure = new_figure(*size)
    axes = new_axes(figure)
    plot_points(axes, shown, *columns, y_scale=scales[1], x_scale=scales[0])
    axes.set(xlabel=words[0], ylabel=words[1])
    return figure, axes, shown


def plot_points(
    axes: Axes, rows: Sequence[Row], x_name: str, y_name: str, y_scale: float = 1.0, x_scale: float = 1.0
) -> None:
    """Draws one marker per row: colour by extractor, shape by meta-architecture, paler for lower resolutions.

    Every row must have both values. If there are several runtimes, colours are theirs, and a line with a name joins the
    points of each detector.
    """
    by_runtime = has_runtimes(rows)
    if by_runtime:
        _join_detectors(axes, rows, (x_name, x_scale), (y_name, y_scale))
    inside = resolution_tints(rows)
    groups: dict[tuple[str, str, float], list[Row]] = {}
    for row in rows:
        look = row_look(row, by_runtime)[1], meta_marker(row["meta_architecture"]), inside[row["resolution"]]
        groups.setdefault(look, []).append(row)
    for (colour, marker, tint), group in groups.items():
        xs = [row[x_name] * x_scale for row in group]
        draw_markers(axes, xs, [row[y_name] * y_scale for row in group], colour, marker, tint)


def _join_detectors(axes: Axes, rows: Sequence[Row], x: tuple[str, float], y: tuple[str, float]) -> None:
    detectors: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        detectors.setdefault(tuple(row[name] for name in _DETECTOR), []).append(row)
    for group in detectors.values():
        places = sorted((row[x[0]] * x[1], row[y[0]] * y[1]) for row in group)
        axes.plot(*zip(*places), color=FRONTIER_COLOUR, linewidth=0.6, alpha=0.6, zorder=1, gid="detector")
        name = f"{extractor_name(group[0]['extractor'])} {group[0]['resolution'] or ''}".strip()
        look: dict[str, Any] = {"fontsize": LABEL_SIZE, "color": FRONTIER_COLOUR, "zorder": 4}
        # Below the frontier's labels and line, to the left: the legend is on the right.
        axes.annotate(name, places[-1], (5, -6), textcoords="offset points", ha="right", va="top", **look)


def draw_markers(
    axes: Axes, xs: Sequence[float], ys: Sequence[float], colour: str, marker: str, tint: float, size: float = 1.0
) -> None:
    """Draws markers of one look; ``tint`` is the share of white in their inside, 0 to 1."""
    axes.plot(
        xs,
        ys,
        linestyle="none",
        marker=marker,
        markersize=size * MARKER_SIZE * {"D": 0.9, "^": 1.15}.get(marker, 1.0) + (0.0 if tint else 0.9),
        markerfacecolor=mixed_with_white(colour, tint),
        # A white rim separates full markers that overlap.
        markeredgecolor=colour if tint else "white",
        markeredgewidth=1.1 if tint else 0.6,
        gid=POINTS,
        zorder=3,
    )


def resolution_tints(rows: Sequence[Row]) -> dict[Any, float]:
    """Returns resolution -> tint of its markers: the highest is full, the lowest nearly white."""
    sizes = sorted({row["resolution"] for row in rows if row["resolution"] is not None}, reverse=True)
    tints: dict[Any, float] = {size: 0.85 * place / max(1, len(sizes) - 1) for place, size in enumerate(sizes)}
    return {None: 0.0, **tints}


def mixed_with_white(colour: str, share: float) -> tuple[float, float, float]:
    """Returns a colour mixed with this share of white."""
    red, green, blue = (part + share * (1.0 - part) for part in to_rgb(colour))
    return red, green, blue


def add_legends(figure: Figure, rows: Sequence[Row], resolutions: bool = True, top: float = 0.97) -> float:
    """Adds legends of the extractors (or runtimes), meta-architectures and resolutions.

    Returns:
        The height left for others.
    """
    by_runtime = has_runtimes(rows)
    looks = dict(row_look(row, by_runtime) for row in rows)
    handles = [_handle(name, "o", looks[name]) for name in sorted(looks, key=folded)]
    top = add_legend(figure, handles, "runtime" if by_runtime else "extractor", top)
    metas = {meta_name(row["meta_architecture"]): meta_marker(row["meta_architecture"]) for row in rows}
    handles = [_handle(name, metas[name], "#666666") for name in sorted(metas, key=folded)]
    top = add_legend(figure, handles, "meta-architecture", top)
    tints = {size: tint for size, tint in resolution_tints(rows).items() if size is not None}
    if resolutions and len(tints) > 1:
        handles = [_handle(f"{size} px", "o", "#666666", tint) for size, tint in tints.items()]
        top = add_legend(figure, handles, "resolution", top)
    return top


def _handle(name: str, marker: str, colour: str, tint: float = 0.0) -> Line2D:
    inside = mixed_with_white(colour, tint)
    return Line2D([], [], linestyle="none", marker=marker, markerfacecolor=inside, markeredgecolor=colour, label=name)


def scale_axis(axes: Axes, which: str, values: Sequence[float]) -> bool:
    """Fits the "x" or "y" axis to times or sizes; returns True if their range makes it logarithmic."""
    least, most = min(values), max(values)
    axis: Any = getattr(axes, f"{which}axis")
    is_log = least > 0 and most / least >= LOG_FROM_RATIO
    if is_log:
        axes.set(**{f"{which}scale": "log"})
        ratio = most / least
        steps = (1.0, 2.0, 3.0, 5.0, 7.0) if ratio < 10 else (1.0, 2.0, 5.0) if ratio < 3000 else (1.0,)
        axis.set_major_locator(LogLocator(subs=steps, numticks=20))
        axis.set_major_formatter(FuncFormatter(lambda value, _: plain_number(value)))
        axis.set_minor_locator(NullLocator())
        axis.set_minor_formatter(NullFormatter())
        low, high = least / ratio**0.06, most * ratio**0.06
    else:
        margin = 0.08 * (most - least) or 0.5 * abs(most) or 1.0
        low, high = max(0.0, least - margin) if least >= 0 else least - margin, most + margin
        axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
        axis.set_major_formatter(ScalarFormatter(useOffset=False))
    axes.set(**{f"{which}lim": (low, high)})
    return is_log


def plain_number(value: float) -> str:
    """Returns 12000 as "12,000" and 0.5 as "0.5"."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def draw_frontier(
    axes: Axes, xs: Sequence[float], ys: Sequence[float], labels: Sequence[str], colours: Sequence[str]
) -> int:
    """Draws a staircase through the points of a frontier, which come by rising x, and labels above their left.

    No point lies above and to the left of a point of the frontier, else it would dominate that point: a label there
    covers no point. A label that would touch another one is left out; both ends have theirs. The x axis is widened for
    the labels.

    Returns:
        The number of labelled points.
    """
    axes.step(xs, ys, where="post", color=FRONTIER_COLOUR, linewidth=1.3, zorder=2, gid="frontier")
    heights = [float(axes.transData.transform((xs[0], y))[1]) for y in ys]  # pixels
    dots_per_point = axes.figure.dpi / 72
    labelled: list[int] = []
    for index in dict.fromkeys([len(ys) - 1, *range(len(ys))]):
        if all(abs(heights[index] - heights[other]) >= LABEL_HEIGHT * dots_per_point for other in labelled):
            labelled.append(index)
    scale = axes.xaxis.get_transform()
    left, right = scale.transform(axes.get_xlim())
    for index in sorted(labelled):
        colour = tuple(0.62 * part for part in to_rgb(colours[index]))  # dark enough for text on white
        text = axes.annotate(
            labels[index],
            (xs[index], ys[index]),
            LABEL_OFFSET,
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize=LABEL_SIZE,
            color=colour,
            zorder=5,
        )
        width = text.get_window_extent().width - 2 * LABEL_OFFSET[0] * dots_per_point
        share = min(width / axes.get_window_extent().width, 0.6)
        # (place - left) / (right - left) >= share, solved for left.
        left = min(left, (scale.transform([xs[index]])[0] - share * right) / (1.0 - share))
    axes.set_xlim(left=scale.inverted().transform([left])[0])
    if axes.get_xscale() == "linear":  # without ticks at negative times
        axes.set_xticks([tick for tick in axes.get_xticks() if 0 <= tick <= axes.get_xlim()[1]])
    return len(labelled)
