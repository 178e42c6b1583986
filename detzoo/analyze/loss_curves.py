"""Losses of one binary example and their derivatives, over its probability or its logit.

Lin et al., "Focal loss for dense object detection", arXiv:1708.02002: figure 1 (equation 4), figures 5 and 6 (appendix
A and B). The numbers come from the losses that detectors train with and from automatic differentiation, not from the
paper's formulas: what the figures show is what a training does.

An example has a logit x and a label y of 1 or -1; x_t = y x and p_t = sigmoid(x_t), so that both are high where the
example is classified well. Alpha is left out, as in the paper's figures: it only scales.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from detzoo.errors import UsageError
from detzoo.losses.classification import ClassificationLoss, FocalStar, SigmoidFocal

# Figure 1.
FIGURE_1_GAMMAS = (0.0, 0.5, 1.0, 2.0, 5.0)
# Figures 5 and 6: (gamma, beta) of FL*. Texts of the paper's table 3 differ on the beta that goes with gamma 2: 0.1, or
# 1 as implementations of FL* have it and `focal_star` by default. Both are drawn, and (4, 0), as steep as an FL.
FIGURE_5_STARS = ((2.0, 1.0), (2.0, 0.1), (4.0, 0.0))
FIGURE_5_GAMMA = 2.0
LOGIT_RANGE = 5.0
_STEPS = 1000


class NamedLoss(NamedTuple):
    """A loss and what a legend calls it."""

    name: str
    loss: ClassificationLoss


class LossCurves(NamedTuple):
    """Losses over one variable. S points."""

    variable: str  # "p_t" or "x_t"
    points: np.ndarray  # float64 [S], ascending
    losses: dict[str, np.ndarray]  # name -> float64 [S]
    derivatives: dict[str, np.ndarray]  # name -> float64 [S], by x for an example of label 1


def focal_losses(gammas: Sequence[float] = FIGURE_1_GAMMAS) -> list[NamedLoss]:
    """The focal loss with several gammas; 0 is cross entropy."""
    return [NamedLoss(f"γ = {gamma:g}", SigmoidFocal(gamma, alpha=None)) for gamma in gammas]


def loss_variants(gamma: float, stars: Sequence[tuple[float, float]]) -> list[NamedLoss]:
    """Cross entropy, FL and FL* with several (gamma, beta)."""
    return [
        NamedLoss("CE", SigmoidFocal(0.0, alpha=None)),
        NamedLoss(f"FL γ = {gamma:g}", SigmoidFocal(gamma, alpha=None)),
        *(NamedLoss(f"FL* γ = {steep:g}, β = {shift:g}", FocalStar(steep, shift)) for steep, shift in stars),
    ]


def curves_over_probability(losses: Sequence[NamedLoss]) -> LossCurves:
    """Curves over p_t, between 0 and 1 (where the logit would be infinite)."""
    points = np.linspace(0.0, 1.0, _STEPS + 1)[1:-1]
    return _curves("p_t", points, np.log(points / (1.0 - points)), losses)


def curves_over_logit(losses: Sequence[NamedLoss], reach: float = LOGIT_RANGE) -> LossCurves:
    """Curves over x_t, from -``reach`` to ``reach``."""
    points = np.linspace(-reach, reach, _STEPS + 1)
    return _curves("x_t", points, points, losses)


def loss_and_derivative(loss: ClassificationLoss, signed_logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The loss of each example, and its derivative by the logit of an example of label 1.

    The derivative of an example of label -1 is the same with the other sign.

    Args:
        loss: of logits and targets [..., A, C].
        signed_logits: [S], x_t.

    Returns:
        Two float64 [S].
    """
    logits = tf.constant(signed_logits[:, np.newaxis], tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        values = loss(logits, tf.ones_like(logits))
    derivatives = tape.gradient(values, logits)[:, 0]  # each loss depends on its own logit only
    return values.numpy().astype(np.float64), derivatives.numpy().astype(np.float64)


def _curves(variable: str, points: np.ndarray, signed_logits: np.ndarray, losses: Sequence[NamedLoss]) -> LossCurves:
    found = {name: loss_and_derivative(loss, signed_logits) for name, loss in losses}
    return LossCurves(
        variable,
        points,
        {name: values for name, (values, _) in found.items()},
        {name: derivatives for name, (_, derivatives) in found.items()},
    )


def parse_stars(words: Sequence[str]) -> list[tuple[float, float]]:
    """(gamma, beta) of words such as "2:1".

    Raises:
        UsageError: a word that is no pair of numbers, or a gamma that is not above 0.
    """
    stars = []
    for word in words:
        try:
            gamma, beta = (float(part) for part in word.split(":"))
        except ValueError:
            gamma = beta = float("nan")
        if not (0.0 < gamma < float("inf") and abs(beta) < float("inf")):
            raise UsageError(f"--focal_star: {word!r}; accepted: GAMMA:BETA, two numbers, gamma above 0, such as 2:1")
        stars.append((gamma, beta))
    return stars


def parse_gammas(words: Sequence[str]) -> list[float]:
    """Gammas of words such as "0.5".

    Raises:
        UsageError: a word that is no number, or one below 0.
    """
    gammas = []
    for word in words:
        try:
            gamma = float(word)
        except ValueError:
            gamma = float("nan")
        if not 0.0 <= gamma < float("inf"):
            raise UsageError(
                f"--gammas: {word!r}; accepted: numbers of 0 or more with commas between, such as 0,0.5,1,2"
            )
        gammas.append(gamma)
    return list(dict.fromkeys(gammas))
