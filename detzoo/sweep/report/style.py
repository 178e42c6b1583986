"""The look that all figures share: canvas, axes, points, legends, files. matplotlib without pyplot's global state."""

from __future__ import annotations

import contextlib
import pathlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator, ScalarFormatter

from detzoo.sweep.measured import Row
from detzoo.sweep.report.names import extractor_colour, extractor_name, folded, meta_marker, meta_name

SETTINGS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same picture everywhere
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.labelcolor": "#222222",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.7,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.title_fontsize": 8,
    # A file is the same whenever and wherever it is made, and a dollar in a name is a dollar.
    "svg.hashsalt": "detzoo",
    "svg.fonttype": "path",
    "text.parse_math": False,
}
# Without these the files would name the time and the version of matplotlib.
SVG_METADATA = {"Date": None, "Creator": "detzoo"}
PNG_METADATA = {"Software": "detzoo"}
DOTS_PER_INCH = 150
WIDTH, HEIGHT = 7.4, 4.6  # inches: two columns of a journal
LEGEND_INCHES = 1.72  # of the width, for what is on the right of the axes
LEGEND_LINE_INCHES = 0.165  # at the legends' size of letters
MARKER_SIZE = 6.0
LOG_FROM_RATIO = 4.0  # an axis whose largest value is this many times its smallest is logarithmic
POINTS = "points"  # gid of what shows measured points, so that they can be counted


@contextlib.contextmanager
def figure_settings() -> Iterator[None]:
    """Within it figures are made, drawn and written with the settings above."""
    with matplotlib.rc_context(SETTINGS), warnings.catch_warnings():
        # A name in a script that the font lacks shows as boxes; its figure is no less right.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def new_figure(width: float = WIDTH, height: float = HEIGHT) -> Figure:
    """An empty figure that can be measured, in inches."""
    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH)
    FigureCanvasAgg(figure)
    return figure


def new_axes(figure: Figure) -> Axes:
    """One pair of axes with room for legends on the right."""
    return add_axes(figure, 0.55, 0.72, figure.get_figheight() - 0.15)


def add_axes(figure: Figure, bottom: float, left: float, top: float, right: float | None = None) -> Axes:
    """Axes between these edges, in inches from the lower left corner; without ``right`` up to the legends."""
    width, height = figure.get_figwidth(), figure.get_figheight()
    end = width - LEGEND_INCHES - 0.18 if right is None else right
    return figure.add_axes((left / width, bottom / height, (end - left) / width, (top - bottom) / height))


def save_figure(figure: Figure, folder: pathlib.Path, name: str) -> tuple[pathlib.Path, pathlib.Path]:
    """Writes ``name.png`` and ``name.svg``; returns their paths."""
    png, svg = folder / f"{name}.png", folder / f"{name}.svg"
    figure.savefig(png, format="png", metadata=PNG_METADATA)
    figure.savefig(svg, format="svg", metadata=SVG_METADATA)
    return png, svg


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


def add_legend(figure: Figure, handles: Sequence[Any], title: str, top: float) -> float:
    """A legend whose upper edge is at ``top``; returns where the next one may begin."""
    left = 1 - LEGEND_INCHES / figure.get_figwidth()
    figure.legend(
        handles=handles,
        title=title,
        loc="upper left",
        bbox_to_anchor=(left, top),
        borderaxespad=0,
        alignment="left",
    )
    return top - (LEGEND_LINE_INCHES * (len(handles) + 1) + 0.22) / figure.get_figheight()


def _handle(name: str, marker: str, inside: Any, edge: Any) -> Line2D:
    return Line2D([], [], linestyle="none", marker=marker, markerfacecolor=inside, markeredgecolor=edge, label=name)


def line_handle(name: str, style: Any, colour: str = "#666666") -> Line2D:
    """A legend's entry of a line."""
    return Line2D([], [], linestyle=style, color=colour, label=name)


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
