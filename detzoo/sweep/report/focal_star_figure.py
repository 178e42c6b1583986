"""Figure 7 of arXiv:1708.02002: which steepness and shift of FL* train well, over the loss curve of each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize

from detzoo.config.names import counted
from detzoo.figures import add_axes, new_figure
from detzoo.sweep.measured import Row
from detzoo.sweep.report.seeds import axes_of, mean_rows
from detzoo.sweep.report.style import Drawing, left_out, rows_with

GAMMA, BETA = "focal_star_gamma", "focal_star_beta"  # names of the sweep's axes
REACH, HIGHEST_LOSS = 5.0, 5.0  # of the figure's axes
PERCENT = 100.0
_COLOURS = LinearSegmentedColormap.from_list("accuracy", ["#C9C9C9", "#3B6FB6"])  # blue trains well, as in the paper


def varies_focal_star(rows: Sequence[Row]) -> bool:
    """Returns True if the sweep has both axes."""
    return any({GAMMA, BETA} <= axes_of(row).keys() for row in rows)


def focal_star(rows: Sequence[Row], metric: str) -> Drawing:
    """Figure 7: FL* = log(1 + exp(-(gamma x + beta))) / gamma over the signed logit x, coloured by the accuracy."""
    shown = [row for row in mean_rows(rows_with(rows, metric)) if {GAMMA, BETA} <= axes_of(row).keys()]
    shown = sorted(shown, key=lambda row: row[metric])  # the best on top
    values = [PERCENT * row[metric] for row in shown]
    figure = new_figure()
    axes = add_axes(figure, 0.55, 0.6, 4.4, 7.0)
    scale = ScalarMappable(Normalize(values[0], max(values[-1], values[0] + 1e-6)), _COLOURS)
    logits = np.linspace(-REACH, REACH, 400)
    for row, value in zip(shown, values, strict=True):
        gamma, beta = (float(axes_of(row)[name]) for name in (GAMMA, BETA))
        losses = np.logaddexp(0.0, -(gamma * logits + beta)) / gamma
        axes.plot(logits, losses, color=scale.to_rgba(value), linewidth=1.3, gid="curve")
    axes.set(xlim=(-REACH, REACH), ylim=(0, HIGHEST_LOSS), xlabel="signed logit, x_t = y x", ylabel="loss")
    figure.colorbar(scale, ax=axes, label=f"{metric}, %")
    best = axes_of(shown[-1])
    caption = f"{counted(len(shown), 'training')}; the best has γ = {best[GAMMA]} and β = {best[BETA]} with {metric} "
    return Drawing(figure, f"{caption}{values[-1]:.1f} %." + left_out(rows, rows_with(rows, metric)))
