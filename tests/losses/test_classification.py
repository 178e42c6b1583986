"""Classification losses: known values, closed-form gradients, stability."""

import numpy as np
import pytest
import tensorflow as tf

from detzoo.losses import classification

LOGITS = np.float32([[2.0, -1.0, 0.5], [-3.0, 0.1, 1.5]])
TARGETS = np.float32([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
ALL = [
    classification.sigmoid_cross_entropy,
    classification.AlphaBalancedSigmoidCrossEntropy(0.25),
    classification.SigmoidFocal(2.0, 0.25),
    classification.SigmoidFocal(0.0, None),
    classification.FocalStar(2.0, 1.0),
    classification.FocalStar(2.0, 1.0, 0.25),
    classification.SoftmaxCrossEntropy(2.0),
    classification.BootstrappedSigmoidCrossEntropy(0.8),
    classification.BootstrappedSigmoidCrossEntropy(0.8, is_hard=True),
]


def _sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x.astype(np.float64)))


def _p_t():
    probability = _sigmoid(LOGITS)
    return np.where(TARGETS == 1, probability, 1 - probability)


def _alpha_t(alpha):
    return np.where(TARGETS == 1, alpha, 1 - alpha)


def _gradient(loss):
    logits = tf.constant(LOGITS)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        total = tf.reduce_sum(loss(logits, tf.constant(TARGETS)))
    return tape.gradient(total, logits).numpy()


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (classification.sigmoid_cross_entropy, lambda p: -np.log(p)),
        (classification.AlphaBalancedSigmoidCrossEntropy(0.75), lambda p: -_alpha_t(0.75) * np.log(p)),
        (classification.SigmoidFocal(2.0, 0.25), lambda p: -_alpha_t(0.25) * (1 - p) ** 2 * np.log(p)),
        (classification.SigmoidFocal(0.5, None), lambda p: -((1 - p) ** 0.5) * np.log(p)),
        (classification.SigmoidFocal(0.0, 0.25), lambda p: -_alpha_t(0.25) * np.log(p)),
    ],
)
def test_values(loss, expected):
    np.testing.assert_allclose(loss(LOGITS, TARGETS), expected(_p_t()).sum(-1), rtol=1e-5)


def test_focal_star_value():
    signed = np.where(TARGETS == 1, LOGITS, -LOGITS)
    expected = -np.log(_sigmoid(2.0 * signed + 0.5)) / 2.0
    np.testing.assert_allclose(classification.FocalStar(2.0, 0.5)(LOGITS, TARGETS), expected.sum(-1), rtol=1e-5)
    balanced = classification.FocalStar(2.0, 0.5, alpha=0.25)(LOGITS, TARGETS)
    np.testing.assert_allclose(balanced, (_alpha_t(0.25) * expected).sum(-1), rtol=1e-5)


def test_softmax_value_and_logit_scale():
    targets = np.float32([[0.0, 1.0]])
    # Logits (0, 2 ln 3) / 2: probabilities 1/4 and 3/4.
    logits = np.float32([[0.0, 2 * np.log(3.0)]])
    loss = classification.SoftmaxCrossEntropy(logit_scale=2.0)(logits, targets)
    np.testing.assert_allclose(loss, [-np.log(0.75)], rtol=1e-5)


def test_bootstrapped_mixes_target_and_prediction():
    # Target 1, probability 1/2 (logit 0): every mixture costs ln 2. Logit ln 3, p = .75, share .6 of the target:
    # soft mixture .6 + .4 * .75 = .9; hard mixture 1.
    logits, targets = np.float32([[0.0], [np.log(3.0)]]), np.ones([2, 1], np.float32)
    soft = classification.BootstrappedSigmoidCrossEntropy(0.6)(logits, targets)
    hard = classification.BootstrappedSigmoidCrossEntropy(0.6, is_hard=True)(logits, targets)
    np.testing.assert_allclose(soft, [np.log(2), -0.9 * np.log(0.75) - 0.1 * np.log(0.25)], rtol=1e-5)
    np.testing.assert_allclose(hard[1], -np.log(0.75), rtol=1e-5)


def test_closed_form_gradients_of_the_focal_loss_paper():
    p, sign = _p_t(), 2 * TARGETS - 1
    np.testing.assert_allclose(_gradient(classification.sigmoid_cross_entropy), sign * (p - 1), atol=1e-6)
    for gamma in (0.5, 2.0, 5.0):
        expected = sign * (1 - p) ** gamma * (gamma * p * np.log(p) + p - 1)
        np.testing.assert_allclose(_gradient(classification.SigmoidFocal(gamma, None)), expected, atol=1e-6)
    star = _sigmoid(2.0 * sign * LOGITS + 0.5)
    np.testing.assert_allclose(_gradient(classification.FocalStar(2.0, 0.5)), sign * (star - 1), atol=1e-6)


@pytest.mark.parametrize("loss", ALL)
def test_huge_logits_give_finite_losses_and_gradients(loss):
    logits = tf.constant([[1e4, -1e4, 0.0], [-80.0, 80.0, 80.0]])
    targets = tf.constant([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        losses = loss(logits, targets)
    assert np.isfinite(losses).all()
    assert np.isfinite(tape.gradient(losses, logits)).all()


@pytest.mark.parametrize("loss", ALL)
def test_batches_and_graphs_give_the_same(loss):
    logits, targets = np.stack([LOGITS, -LOGITS]), np.stack([TARGETS, TARGETS])
    losses = loss(logits, targets).numpy()
    assert losses.shape == (2, 2)
    np.testing.assert_allclose(losses[1], loss(-LOGITS, TARGETS), rtol=1e-6)
    np.testing.assert_allclose(tf.function(loss)(tf.constant(logits), tf.constant(targets)), losses, rtol=1e-6)
