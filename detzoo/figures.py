"""The canvas of all figures: one style, legends on the right, reproducible files.

matplotlib without pyplot's global state, and nothing about the content of a figure.
"""

from __future__ import annotations

import contextlib
import pathlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

SETTINGS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that pictures are the same on all machines
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
    # Files are reproducible, and a dollar in a name is no formula.
    "svg.hashsalt": "detzoo",
    "svg.fonttype": "path",
    "text.parse_math": False,
}
# By default files have the time and the version of matplotlib.
SVG_METADATA = {"Date": None, "Creator": "detzoo"}
PNG_METADATA = {"Software": "detzoo"}
DOTS_PER_INCH = 150
WIDTH, HEIGHT = 7.4, 4.6  # inches: two columns of a journal
LEGEND_INCHES = 1.72  # of the width, for the legends on the right of the axes
LEGEND_LINE_INCHES = 0.165  # at the font size of legends


@contextlib.contextmanager
def figure_settings(extra_font: str = "") -> Iterator[None]:
    """Applies the settings above to figures that are made, drawn and written in this context.

    Args:
        extra_font: Font file for letters that DejaVu Sans lacks; "" for none.
    """
    families = [SETTINGS["font.family"]]
    if extra_font:
        font_manager.fontManager.addfont(extra_font)
        families.append(font_manager.get_font(extra_font).family_name)
    with matplotlib.rc_context({**SETTINGS, "font.family": families}), warnings.catch_warnings():
        # A name in a script that the font lacks shows as boxes, which is no error of the figure.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def new_figure(width: float = WIDTH, height: float = HEIGHT) -> Figure:
    """Returns an empty figure of ``width`` x ``height`` inches, with a canvas for measurements."""
    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH)
    FigureCanvasAgg(figure)
    return figure


def new_axes(figure: Figure) -> Axes:
    """Adds one pair of axes with space for legends on the right."""
    return add_axes(figure, 0.55, 0.72, figure.get_figheight() - 0.15)


def add_axes(figure: Figure, bottom: float, left: float, top: float, right: float | None = None) -> Axes:
    """Adds axes between these edges, in inches from the lower left corner; ``right`` defaults to the legends' edge."""
    width, height = figure.get_figwidth(), figure.get_figheight()
    end = width - LEGEND_INCHES - 0.18 if right is None else right
    return figure.add_axes((left / width, bottom / height, (end - left) / width, (top - bottom) / height))


def save_figure(figure: Figure, folder: pathlib.Path, name: str) -> tuple[pathlib.Path, pathlib.Path]:
    """Writes ``name.png`` and ``name.svg``; returns their paths."""
    png, svg = folder / f"{name}.png", folder / f"{name}.svg"
    figure.savefig(png, format="png", metadata=PNG_METADATA)
    figure.savefig(svg, format="svg", metadata=SVG_METADATA)
    return png, svg


def add_legend(figure: Figure, handles: Sequence[Any], title: str, top: float) -> float:
    """Adds a legend with its upper edge at ``top``. Returns the upper edge of the next legend."""
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


def line_handle(name: str, style: Any, colour: str = "#666666") -> Line2D:
    """Returns a legend's entry of a line."""
    return Line2D([], [], linestyle=style, color=colour, label=name)
