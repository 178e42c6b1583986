"""Curves of the losses against the closed forms of arXiv:1708.02002, appendix B, and against numbers of its text."""

import numpy as np
import pytest

from detzoo.analyze.loss_curves import (
    curves_over_logit,
    curves_over_probability,
    focal_losses,
    loss_and_derivative,
    loss_variants,
    parse_gammas,
    parse_stars,
)
from detzoo.errors import UsageError
from detzoo.losses.classification import FocalStar, SigmoidFocal, sigmoid_cross_entropy

LOGITS = np.linspace(-8.0, 8.0, 161)  # x_t; y = 1, so that x is the same


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def test_derivative_of_cross_entropy():
    # Equation 9: y (p_t - 1).
    for loss in (sigmoid_cross_entropy, SigmoidFocal(0.0, None)):
        _, derivatives = loss_and_derivative(loss, LOGITS)
        np.testing.assert_allclose(derivatives, sigmoid(LOGITS) - 1.0, atol=1e-5)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
def test_derivative_of_the_focal_loss(gamma):
    # Equation 10: y (1 - p_t)^gamma (gamma p_t log p_t + p_t - 1).
    p = sigmoid(LOGITS)
    _, derivatives = loss_and_derivative(SigmoidFocal(gamma, None), LOGITS)
    np.testing.assert_allclose(derivatives, (1 - p) ** gamma * (gamma * p * np.log(p) + p - 1), atol=1e-5)


@pytest.mark.parametrize(("gamma", "beta"), [(2.0, 1.0), (2.0, 0.1), (4.0, 0.0)])
def test_derivative_of_the_other_form(gamma, beta):
    # Equation 11: y (p_t* - 1) with p_t* = sigmoid(gamma x_t + beta).
    _, derivatives = loss_and_derivative(FocalStar(gamma, beta), LOGITS)
    np.testing.assert_allclose(derivatives, sigmoid(gamma * LOGITS + beta) - 1.0, atol=1e-5)


def test_derivatives_are_slopes_of_the_curves():
    curves = curves_over_logit(loss_variants(2.0, [(2.0, 1.0)]))
    for name, losses in curves.losses.items():
        slopes = np.gradient(losses, curves.points)
        np.testing.assert_allclose(slopes[1:-1], curves.derivatives[name][1:-1], atol=1e-3)


def test_how_much_less_easy_examples_count():
    # Section 3.2: with gamma 2 the loss of an example with p_t = 0.9 is 100 times smaller than the cross entropy, with
    # 0.968 about 1000 times smaller, and with 0.5 4 times smaller.
    logits = np.log(np.array([0.9, 0.968, 0.5]) / np.array([0.1, 0.032, 0.5]))
    cross_entropy, _ = loss_and_derivative(SigmoidFocal(0.0, None), logits)
    focal, _ = loss_and_derivative(SigmoidFocal(2.0, None), logits)
    np.testing.assert_allclose(cross_entropy / focal, [100.0, 1 / 0.032**2, 4.0], rtol=1e-4)


def test_figure_1_is_over_probabilities():
    curves = curves_over_probability(focal_losses([0.0, 2.0]))
    assert curves.variable == "p_t"
    half = np.flatnonzero(np.isclose(curves.points, 0.5))[0]
    # -log(1/2), and a quarter of it.
    assert curves.losses["γ = 0"][half] == pytest.approx(np.log(2.0), rel=1e-5)
    assert curves.losses["γ = 2"][half] == pytest.approx(np.log(2.0) / 4, rel=1e-5)


def test_figure_5_has_each_loss():
    curves = curves_over_logit(loss_variants(2.0, [(4.0, 0.0)]), reach=3.0)
    assert (curves.variable, curves.points[0], curves.points[-1]) == ("x_t", -3.0, 3.0)
    middle = len(curves.points) // 2  # x_t = 0: -log(1/2), a quarter of it by gamma 2, and by FL* divided by 4
    values = {name: losses[middle] for name, losses in curves.losses.items()}
    log_2 = pytest.approx(np.log(2.0), rel=1e-5)
    quarter = pytest.approx(np.log(2.0) / 4, rel=1e-5)
    assert values == {"CE": log_2, "FL γ = 2": quarter, "FL* γ = 4, β = 0": quarter}


def test_words_of_the_flags():
    assert parse_stars(["2:1", "4:-0.5"]) == [(2.0, 1.0), (4.0, -0.5)]
    assert parse_gammas(["0", "0.5", "0"]) == [0.0, 0.5]


@pytest.mark.parametrize("word", ["2", "0:1", "-1:1", "2:b", "2:1:1", "nan:1", "2:inf"])
def test_a_star_that_is_none(word):
    with pytest.raises(UsageError, match="accepted: GAMMA:BETA, two numbers, gamma above 0"):
        parse_stars([word])


@pytest.mark.parametrize("word", ["", "a", "-1", "inf", "nan"])
def test_a_gamma_that_is_none(word):
    with pytest.raises(UsageError, match="accepted: numbers of 0 or more"):
        parse_gammas([word])
