"""The files of ``detzoo analyze focal``: a PNG, an SVG and a CSV for each figure, and the table of figure 4."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from detzoo.analyze import focal_figures
from detzoo.analyze.loss_curves import (
    FIGURE_5_GAMMA,
    LossCurves,
    curves_over_logit,
    curves_over_probability,
    focal_losses,
    loss_variants,
)
from detzoo.analyze.loss_distribution import FRACTIONS, CumulativeLoss
from detzoo.analyze.tables import write_columns
from detzoo.figures import figure_settings, save_figure

# What the paper's text looks at: "approximately 20 % of the hardest positives", and the few hard negatives.
HARDEST = {"positives": (0.5, 0.2, 0.05), "negatives": (0.2, 0.01, 0.001)}


def write_curves(
    folder: pathlib.Path, stars: Sequence[tuple[float, float]], gamma: float = FIGURE_5_GAMMA
) -> list[pathlib.Path]:
    """Writes figures 1, 5 and 6.

    Args:
        folder: exists.
        stars: (gamma, beta) of each FL*.
        gamma: of the FL beside them.

    Returns:
        The PNG and CSV files.
    """
    focal = curves_over_probability(focal_losses())
    variants = curves_over_logit(loss_variants(gamma, stars))
    return [
        *_write(
            folder, "figure_1_focal_loss", lambda: focal_figures.focal_loss_figure(focal), _over(focal, focal.losses)
        ),
        *_write(
            folder,
            "figure_5_loss_variants",
            lambda: focal_figures.variants_figure(variants),
            _over(variants, variants.losses),
        ),
        *_write(
            folder,
            "figure_6_derivatives",
            lambda: focal_figures.derivatives_figure(variants),
            _over(variants, variants.derivatives),
        ),
    ]


def write_distribution(
    folder: pathlib.Path, losses: Mapping[str, Mapping[float, CumulativeLoss]]
) -> list[pathlib.Path]:
    """Writes figure 4; returns its PNG and CSV files."""
    columns = {"share of examples": FRACTIONS}
    for kind, by_gamma in losses.items():
        columns |= {f"{kind} γ = {gamma:g}": loss.of_easiest(FRACTIONS) for gamma, loss in by_gamma.items()}
    return _write(folder, "figure_4_cumulative_loss", lambda: focal_figures.distribution_figure(losses), columns)


def format_distribution(losses: Mapping[str, Mapping[float, CumulativeLoss]]) -> str:
    """A table of the shares of the loss that the hardest examples bear, in percent."""
    heads = [f"{100 * fraction:g} % of {kind}" for kind in losses for fraction in HARDEST[kind]]
    lines = ["loss borne by the hardest", "  ".join([f"{'γ':>5}", *heads])]
    for gamma in next(iter(losses.values())):
        shares = [losses[kind][gamma].of_hardest(fraction) for kind in losses for fraction in HARDEST[kind]]
        cells = [f"{f'{100 * share:.1f} %':>{len(head)}}" for share, head in zip(shares, heads, strict=True)]
        lines.append("  ".join([f"{gamma:>5g}", *cells]))
    return "\n".join(lines)


def _over(curves: LossCurves, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {curves.variable: curves.points, **values}


def _write(
    folder: pathlib.Path, name: str, draw: Callable[[], Figure], columns: Mapping[str, Any]
) -> list[pathlib.Path]:
    with figure_settings():
        png, _ = save_figure(draw(), folder, name)
    return [png, write_columns(folder / f"{name}.csv", {_plain(title): column for title, column in columns.items()})]


def _plain(title: str) -> str:
    """A legend's words as the name of a column: "FL* γ = 2, β = 1" as "FL* gamma=2 beta=1"."""
    return title.replace("γ", "gamma").replace("β", "beta").replace(" = ", "=").replace(",", "")
