"""The look of the report's figures: points, their colours and markers, the legends that explain them, axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator, ScalarFormatter

from detzoo.figures import add_legend
from detzoo.sweep.measured import Row
from detzoo.sweep.report.names import extractor_colour, extractor_name, folded, meta_marker, meta_name

MARKER_SIZE = 6.0
LOG_FROM_RATIO = 4.0  # an axis whose largest value is this many times its smallest is logarithmic
POINTS = "points"  # gid of what shows measured points, so that they can be counted


def plot_points(
    axes: Axes, rows: Sequence[Row], x_name: str, y_name: str, y_scale: float = 1.0, x_scale: float = 1.0
) -> None:
    """One marker a row: colour by extractor, shape by meta-architecture, paler inside for lower resolutions.

    Every row must have both values.
    """
    inside = resolution_tints(rows)
    groups: dict[tuple[str, str, float], list[Row]] = {}
    for row in rows:
        look = extractor_colour(row["extractor"]), meta_marker(row["meta_architecture"]), inside[row["resolution"]]
        groups.setdefault(look, []).append(row)
    for (colour, marker, tint), group in groups.items():
        xs = [row[x_name] * x_scale for row in group]
        ys = [row[y_name] * y_scale for row in group]
        draw_markers(axes, xs, ys, colour, marker, tint)


def draw_markers(
    axes: Axes, xs: Sequence[float], ys: Sequence[float], colour: str, marker: str, tint: float, size: float = 1.0
) -> None:
    """Markers of one look; ``tint`` is how far their inside is mixed with white, 0 to 1."""
    axes.plot(
        xs,
        ys,
        linestyle="none",
        marker=marker,
        markersize=size * MARKER_SIZE * {"D": 0.9, "^": 1.15}.get(marker, 1.0) + (0.0 if tint else 0.9),
        markerfacecolor=mixed_with_white(colour, tint),
        # A white rim keeps full markers apart where they overlap.
        markeredgecolor=colour if tint else "white",
        markeredgewidth=1.1 if tint else 0.6,
        gid=POINTS,
        zorder=3,
    )


def resolution_tints(rows: Sequence[Row]) -> dict[Any, float]:
    """Resolution -> how pale its markers are: the highest is full, the lowest nearly white."""
    sizes = sorted({row["resolution"] for row in rows if row["resolution"] is not None}, reverse=True)
    tints: dict[Any, float] = {size: 0.85 * place / max(1, len(sizes) - 1) for place, size in enumerate(sizes)}
    return {None: 0.0, **tints}


def mixed_with_white(colour: str, share: float) -> tuple[float, float, float]:
    """A colour of which ``share`` is white."""
    red, green, blue = (part + share * (1.0 - part) for part in to_rgb(colour))
    return red, green, blue


def add_legends(figure: Figure, rows: Sequence[Row], resolutions: bool = True, top: float = 0.97) -> float:
    """Extractors, meta-architectures and resolutions of the rows, on the right; returns the height that is left."""
    extractors = {extractor_name(row["extractor"]): extractor_colour(row["extractor"]) for row in rows}
    handles = [_handle(name, "o", extractors[name], extractors[name]) for name in sorted(extractors, key=folded)]
    top = add_legend(figure, handles, "extractor", top)
    metas = {meta_name(row["meta_architecture"]): meta_marker(row["meta_architecture"]) for row in rows}
    handles = [_handle(name, metas[name], "#666666", "#666666") for name in sorted(metas, key=folded)]
    top = add_legend(figure, handles, "meta-architecture", top)
    tints = {size: tint for size, tint in resolution_tints(rows).items() if size is not None}
    if resolutions and len(tints) > 1:
        handles = [
            _handle(f"{size} px", "o", mixed_with_white("#666666", tint), "#666666") for size, tint in tints.items()
        ]
        top = add_legend(figure, handles, "resolution", top)
    return top


def _handle(name: str, marker: str, inside: Any, edge: Any) -> Line2D:
    return Line2D([], [], linestyle="none", marker=marker, markerfacecolor=inside, markeredgecolor=edge, label=name)


def scale_axis(axes: Axes, which: str, values: Sequence[float]) -> bool:
    """Makes an axis of times or sizes logarithmic where the values ask for it, with plain numbers at its ticks.

    Args:
        axes: to change.
        which: "x" or "y".
        values: what the axis shows.

    Returns:
        Whether it is logarithmic.
    """
    least, most = min(values), max(values)
    is_x = which == "x"
    axis = axes.xaxis if is_x else axes.yaxis
    set_limits: Any = axes.set_xlim if is_x else axes.set_ylim
    is_log = least > 0 and most / least >= LOG_FROM_RATIO
    if is_log:
        (axes.set_xscale if is_x else axes.set_yscale)("log")
        steps = (1.0, 2.0, 5.0) if most / least < 3000 else (1.0,)
        axis.set_major_locator(LogLocator(subs=steps, numticks=20))
        axis.set_major_formatter(FuncFormatter(lambda value, _: plain_number(value)))
        axis.set_minor_locator(NullLocator())
        axis.set_minor_formatter(NullFormatter())
        set_limits(least / (most / least) ** 0.06, most * (most / least) ** 0.06)
    else:
        margin = 0.08 * (most - least) or 0.5 * abs(most) or 1.0
        set_limits(max(0.0, least - margin) if least >= 0 else least - margin, most + margin)
        axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
        axis.set_major_formatter(ScalarFormatter(useOffset=False))
    return is_log


def plain_number(value: float) -> str:
    """12000 as "12,000", 0.5 as "0.5"."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
