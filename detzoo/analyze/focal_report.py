"""Draws figures 1, 4, 5 and 6 of arXiv:1708.02002 and writes the files of ``detzoo analyze focal``.

Each figure is a PNG, an SVG and a CSV file; figure 4 also comes as a table.
"""

from __future__ import annotations

import csv
import io
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from detzoo.analyze.loss_curves import (
    FIGURE_5_GAMMA,
    LossCurves,
    curves_over_logit,
    curves_over_probability,
    focal_losses,
    loss_variants,
)
from detzoo.analyze.loss_distribution import FRACTIONS, CumulativeLoss
from detzoo.figures import add_axes, add_legend, figure_settings, line_handle, new_axes, new_figure, save_figure
from detzoo.folders import write_atomically

# Blue for cross entropy, then losses in the order of their distance from it; distinct for colour-blind readers, too.
COLOURS = ("#3B6FB6", "#E08A1E", "#2E9E6B", "#C8463C", "#7B5AA6", "#8C6D4F", "#5F6B73")
_LINE_WIDTH = 1.6
_WELL_CLASSIFIED = 0.6  # figure 1's shading starts here
_HIGHEST_LOSS = 5.0
_SHADE = "#F1F4F0"
_WORDS = "#6B7268"

# Shares that the paper's text discusses: "approximately 20 % of the hardest positives", and the few hard negatives.
HARDEST = {"positives": (0.5, 0.2, 0.05), "negatives": (0.2, 0.01, 0.001)}
_DIGITS = 9  # enough to distinguish any two float32


def write_curves(
    folder: pathlib.Path, stars: Sequence[tuple[float, float]], gamma: float = FIGURE_5_GAMMA
) -> list[pathlib.Path]:
    """Writes figures 1, 5 and 6 into an existing folder and returns their PNG and CSV files.

    ``stars`` are (gamma, beta) of each FL*; ``gamma`` is that of the focal loss in figures 5 and 6.
    """
    focal = curves_over_probability(focal_losses())
    variants = curves_over_logit(loss_variants(gamma, stars))
    with figure_settings():
        figures = {
            "figure_1_focal_loss": (_focal_loss_figure(focal), focal, focal.losses),
            "figure_5_loss_variants": (_variants_figure(variants), variants, variants.losses),
            "figure_6_derivatives": (_derivatives_figure(variants), variants, variants.derivatives),
        }
        return [
            file
            for name, (figure, curves, values) in figures.items()
            for file in _write(folder, name, figure, {curves.variable: curves.points, **values})
        ]


def write_distribution(
    folder: pathlib.Path, losses: Mapping[str, Mapping[float, CumulativeLoss]]
) -> list[pathlib.Path]:
    """Writes figure 4; returns its PNG and CSV files."""
    columns = {"share of examples": FRACTIONS}
    for kind, by_gamma in losses.items():
        columns |= {f"{kind} γ = {gamma:g}": loss.of_easiest(FRACTIONS) for gamma, loss in by_gamma.items()}
    with figure_settings():
        return _write(folder, "figure_4_cumulative_loss", _distribution_figure(losses), columns)


def format_distribution(losses: Mapping[str, Mapping[float, CumulativeLoss]]) -> str:
    """Formats a table of the hardest examples' shares of the loss, in percent."""
    heads = [f"{100 * fraction:g} % of {kind}" for kind in losses for fraction in HARDEST[kind]]
    lines = ["share of the loss from the hardest", "  ".join([f"{'γ':>5}", *heads])]
    for gamma in next(iter(losses.values())):
        shares = [losses[kind][gamma].of_hardest(fraction) for kind in losses for fraction in HARDEST[kind]]
        cells = [f"{f'{100 * share:.1f} %':>{len(head)}}" for share, head in zip(shares, heads, strict=True)]
        lines.append("  ".join([f"{gamma:>5g}", *cells]))
    return "\n".join(lines)


def _write(folder: pathlib.Path, name: str, figure: Figure, columns: Mapping[str, np.ndarray]) -> list[pathlib.Path]:
    """Saves a figure and its numbers. Column names are those of the legend in ASCII, such as "FL* gamma=2 beta=1"."""
    png, _ = save_figure(figure, folder, name)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        title.replace("γ", "gamma").replace("β", "beta").replace(" = ", "=").replace(",", "") for title in columns
    )
    writer.writerows([f"{value:.{_DIGITS}g}" for value in row] for row in zip(*columns.values(), strict=True))
    file = folder / f"{name}.csv"
    write_atomically(file, text.getvalue())
    return [png, file]


def _focal_loss_figure(curves: LossCurves) -> Figure:
    """Draws figure 1, the loss over the probability of the true class."""
    figure = new_figure()
    axes = new_axes(figure)
    axes.axvspan(_WELL_CLASSIFIED, 1.0, color=_SHADE, zorder=0)
    axes.text(0.8, 0.57 * _HIGHEST_LOSS, "well classified\nexamples", ha="center", color=_WORDS)
    _draw(axes, curves.points, curves.losses)
    axes.set(xlim=(0, 1), ylim=(0, _HIGHEST_LOSS), xlabel="probability of the true class, p_t", ylabel="loss")
    _explain(figure, curves.losses, "focal loss")
    return figure


def _variants_figure(curves: LossCurves) -> Figure:
    """Draws figure 5, cross entropy and variants of the focal loss over the signed logit."""
    figure, axes = _logit_axes(curves)
    _draw(axes, curves.points, curves.losses)
    axes.set(ylim=(0, _HIGHEST_LOSS), ylabel="loss")
    _explain(figure, curves.losses, "loss")
    return figure


def _derivatives_figure(curves: LossCurves) -> Figure:
    """Draws figure 6, derivatives of the losses of figure 5 by the logit of an example of label 1."""
    figure, axes = _logit_axes(curves)
    _draw(axes, curves.points, curves.derivatives)
    lowest = min(float(values.min()) for values in curves.derivatives.values())
    axes.set(ylim=(min(-1.05, 1.05 * lowest), 0.05), ylabel="derivative of the loss by x")
    _explain(figure, curves.derivatives, "loss")
    return figure


def _distribution_figure(losses: Mapping[str, Mapping[float, CumulativeLoss]]) -> Figure:
    """Draws figure 4, the share of the loss over the share of the examples, the easiest first."""
    figure = new_figure(9.2, 3.9)
    for number, (kind, by_gamma) in enumerate(losses.items()):
        left = 0.72 + 3.55 * number
        axes = add_axes(figure, 0.55, left, 3.55, left + 2.95)
        _draw(axes, FRACTIONS, {f"{gamma:g}": loss.of_easiest(FRACTIONS) for gamma, loss in by_gamma.items()})
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel=f"share of the {kind}, the easiest first", title=kind)
        axes.set_ylabel("share of their focal loss")
    gammas = next(iter(losses.values()))
    _explain(figure, [f"γ = {gamma:g}" for gamma in gammas], "focal loss")
    return figure


def _logit_axes(curves: LossCurves) -> tuple[Figure, Axes]:
    figure = new_figure()
    axes = new_axes(figure)
    axes.axvspan(0.0, float(curves.points[-1]), color=_SHADE, zorder=0)
    axes.text(0.97, 0.57, "classified\ncorrectly", ha="right", color=_WORDS, transform=axes.transAxes)
    axes.set(xlim=(float(curves.points[0]), float(curves.points[-1])), xlabel="signed logit, x_t = y x")
    return figure, axes


def _draw(axes: Axes, points: np.ndarray, values: Mapping[str, np.ndarray]) -> None:
    for number, column in enumerate(values.values()):
        axes.plot(points, column, color=COLOURS[number % len(COLOURS)], linewidth=_LINE_WIDTH)


def _explain(figure: Figure, names: Sequence[str] | Mapping[str, object], title: str) -> None:
    handles = [line_handle(name, "-", COLOURS[number % len(COLOURS)]) for number, name in enumerate(names)]
    add_legend(figure, handles, title, 0.96)
