"""Computes losses of one binary example and their derivatives, over the example's probability or logit.

Lin et al., "Focal loss for dense object detection", arXiv:1708.02002: figure 1 (equation 4), figures 5 and 6 (appendix
A and B). The numbers come from the losses that detectors train with and from automatic differentiation, not from the
paper's formulas, so the figures show what training does.

An example has a logit x and a label y of 1 or -1. The signed logit x_t = y x and p_t = sigmoid(x_t) are high if the
example is classified well. Alpha is omitted, as in the paper's figures, because it only scales.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from detzoo.errors import UsageError
from detzoo.losses.classification import ClassificationLoss, FocalStar, SigmoidFocal

# Figure 1.
FIGURE_1_GAMMAS = (0.0, 0.5, 1.0, 2.0, 5.0)
# Figures 5 and 6: (gamma, beta) of FL*. Versions of the paper's table 3 give gamma 2 a beta of 0.1 or of 1, which is
# also the default of `focal_star`. Both are drawn, and (4, 0), which is as steep as a focal loss.
FIGURE_5_STARS = ((2.0, 1.0), (2.0, 0.1), (4.0, 0.0))
FIGURE_5_GAMMA = 2.0
LOGIT_RANGE = 5.0
_STEPS = 1000


class LossCurves(NamedTuple):
    """Losses at S points of one variable."""

    variable: str  # "p_t" or "x_t"
    points: np.ndarray  # float64 [S], ascending
    losses: dict[str, np.ndarray]  # name -> float64 [S]
    derivatives: dict[str, np.ndarray]  # name -> float64 [S], by x for an example of label 1


def focal_losses(gammas: Sequence[float] = FIGURE_1_GAMMAS) -> dict[str, ClassificationLoss]:
    """Returns the focal loss with several gammas, by the names in legends; gamma 0 is cross entropy."""
    return {f"γ = {gamma:g}": SigmoidFocal(gamma, alpha=None) for gamma in gammas}


def loss_variants(gamma: float, stars: Sequence[tuple[float, float]]) -> dict[str, ClassificationLoss]:
    """Returns cross entropy, the focal loss (FL), and FL* with several (gamma, beta), by the names in legends."""
    return {
        "CE": SigmoidFocal(0.0, alpha=None),
        f"FL γ = {gamma:g}": SigmoidFocal(gamma, alpha=None),
        **{f"FL* γ = {steep:g}, β = {shift:g}": FocalStar(steep, shift) for steep, shift in stars},
    }


def curves_over_probability(losses: Mapping[str, ClassificationLoss]) -> LossCurves:
    """Returns curves over p_t, without 0 and 1, for which the logit is infinite."""
    points = np.linspace(0.0, 1.0, _STEPS + 1)[1:-1]
    return _curves("p_t", points, np.log(points / (1.0 - points)), losses)


def curves_over_logit(losses: Mapping[str, ClassificationLoss], reach: float = LOGIT_RANGE) -> LossCurves:
    """Returns curves over x_t, from -``reach`` to ``reach``."""
    points = np.linspace(-reach, reach, _STEPS + 1)
    return _curves("x_t", points, points, losses)


def loss_and_derivative(loss: ClassificationLoss, signed_logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the loss of each example, x_t [S], and its derivative by the logit of label 1: two float64 [S].

    For label -1, the derivative has the other sign.
    """
    logits = tf.constant(signed_logits[:, np.newaxis], tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        values = loss(logits, tf.ones_like(logits))
    derivatives = tape.gradient(values, logits)[:, 0]  # each loss depends on its own logit only
    return values.numpy().astype(np.float64), derivatives.numpy().astype(np.float64)


def _curves(
    variable: str, points: np.ndarray, signed_logits: np.ndarray, losses: Mapping[str, ClassificationLoss]
) -> LossCurves:
    found = {name: loss_and_derivative(loss, signed_logits) for name, loss in losses.items()}
    return LossCurves(
        variable,
        points,
        {name: values for name, (values, _) in found.items()},
        {name: derivatives for name, (_, derivatives) in found.items()},
    )


def parse_stars(words: Sequence[str]) -> list[tuple[float, float]]:
    """Parses (gamma, beta) from words such as "2:1", gamma above 0; raises a UsageError for others."""
    stars = []
    for word in words:
        numbers = _finite(word.split(":"))
        if len(numbers) != 2 or numbers[0] <= 0.0:
            raise UsageError(
                f"--focal_star has {word!r}; accepted: GAMMA:BETA, two numbers, gamma above 0, such as 2:1"
            )
        stars.append((numbers[0], numbers[1]))
    return stars


def parse_gammas(words: Sequence[str]) -> list[float]:
    """Parses gammas of 0 or more from words such as "0.5", each once; raises a UsageError for others."""
    for word in words:
        if min(_finite([word]), default=-1.0) < 0.0:
            raise UsageError(
                f"--gammas has {word!r}; accepted: numbers of 0 or more with commas between, e.g. 0,0.5,1,2"
            )
    return list(dict.fromkeys(map(float, words)))


def _finite(words: Sequence[str]) -> list[float]:
    """Returns the numbers; [] if a word is not a finite number."""
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        return []
    return numbers if np.all(np.isfinite(numbers)) else []
