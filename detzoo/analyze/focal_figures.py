"""Figures 1, 4, 5 and 6 of arXiv:1708.02002, from the curves and distributions of this package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from detzoo.analyze.loss_curves import LossCurves
from detzoo.analyze.loss_distribution import FRACTIONS, CumulativeLoss
from detzoo.figures import add_axes, add_legend, line_handle, new_axes, new_figure

# Blue for cross entropy, then what differs from it more and more; told apart by colour-blind readers, too.
COLOURS = ("#3B6FB6", "#E08A1E", "#2E9E6B", "#C8463C", "#7B5AA6", "#8C6D4F", "#5F6B73")
_LINE_WIDTH = 1.6
_WELL_CLASSIFIED = 0.6  # figure 1's shading starts here
_HIGHEST_LOSS = 5.0
_SHADE = "#F1F4F0"
_WORDS = "#6B7268"


def focal_loss_figure(curves: LossCurves) -> Figure:
    """Figure 1: the loss over the probability of the true class."""
    figure = new_figure()
    axes = new_axes(figure)
    axes.axvspan(_WELL_CLASSIFIED, 1.0, color=_SHADE, zorder=0)
    axes.text(0.8, 0.57 * _HIGHEST_LOSS, "well classified\nexamples", ha="center", color=_WORDS)
    _draw(axes, curves.points, curves.losses)
    axes.set(xlim=(0, 1), ylim=(0, _HIGHEST_LOSS), xlabel="probability of the true class, p_t", ylabel="loss")
    _explain(figure, curves.losses, "focal loss")
    return figure


def variants_figure(curves: LossCurves) -> Figure:
    """Figure 5: cross entropy and variants of the focal loss over the signed logit."""
    figure, axes = _logit_axes(curves)
    _draw(axes, curves.points, curves.losses)
    axes.set(ylim=(0, _HIGHEST_LOSS), ylabel="loss")
    _explain(figure, curves.losses, "loss")
    return figure


def derivatives_figure(curves: LossCurves) -> Figure:
    """Figure 6: derivatives of the losses of figure 5 by the logit of an example of label 1."""
    figure, axes = _logit_axes(curves)
    _draw(axes, curves.points, curves.derivatives)
    lowest = min(float(values.min()) for values in curves.derivatives.values())
    axes.set(ylim=(min(-1.05, 1.05 * lowest), 0.05), ylabel="derivative of the loss by x")
    _explain(figure, curves.derivatives, "loss")
    return figure


def distribution_figure(losses: Mapping[str, Mapping[float, CumulativeLoss]]) -> Figure:
    """Figure 4: the share of the loss that the easiest positives and the easiest negatives bear."""
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
