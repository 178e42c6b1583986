"""Classification losses per anchor, computed from logits (floor 2).

Each loss is a function of logits [..., A, C] and one-hot (or all-zero) targets [..., A, C] that returns losses
[..., A], summed over the columns. Callers weight the anchors. All losses are finite for any finite logit.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import tensorflow as tf

# float32 [..., A, C] logits and targets -> float32 [..., A].
ClassificationLoss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

MAX_LOGIT = math.log(1.0 / 1e-4 - 1.0)  # of a probability that heatmaps are clipped to


def with_background(labels: tf.Tensor, classes: tf.Tensor, as_zeros: bool = False) -> tf.Tensor:
    """Prepends the column of the background to class targets. Returns float32 [B, A, 1 + K].

    Takes labels [B, A, K] of ``class_targets`` and classes [B, A], -1 without an object; ``as_zeros`` keeps it 0.
    """
    is_background = tf.cast(classes < 0, labels.dtype)[..., tf.newaxis]
    return tf.concat([tf.zeros_like(is_background) if as_zeros else is_background, labels], axis=-1)


def class_targets(
    classes: tf.Tensor, num_classes: int, gt_index: tf.Tensor | None = None, label_sets: tf.Tensor | tuple[()] = ()
) -> tf.Tensor:
    """Returns class targets float32 [B, A, K]: 1 for the class, or all labels, of each anchor or region.

    Args:
        classes: int32 [B, A], -1 without an object; such rows are zeros.
        num_classes: Number K of classes.
        gt_index: int32 [B, A], row of the object; needed with ``label_sets`` only.
        label_sets: bool [B, N, K'], K' <= K, the labels of each merged box; () if each has one.
    """
    if isinstance(label_sets, tuple):
        return tf.one_hot(classes, num_classes)
    # One more row, for images without objects, and columns for classes that are missing in the label map.
    padded = tf.pad(tf.cast(label_sets, tf.float32), [[0, 0], [0, 1], [0, num_classes - label_sets.shape[-1]]])
    labels = tf.gather(padded, gt_index, batch_dims=1)
    return tf.where(classes[..., tf.newaxis] >= 0, labels, 0.0)


def _signed(logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Returns x_t (Focal loss, appendix A): the logit x for a target of 1, -x for a target of 0."""
    return (2.0 * targets - 1.0) * logits


def _alpha_t(targets: tf.Tensor, alpha: float) -> tf.Tensor:
    return (2.0 * alpha - 1.0) * targets + (1.0 - alpha)


def sigmoid_cross_entropy(logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Returns the binary cross entropy, -log(p_t), summed over the columns."""
    return tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(targets, logits), axis=-1)


@dataclasses.dataclass(frozen=True)
class AlphaBalancedSigmoidCrossEntropy:
    """-alpha_t log(p_t) (Focal loss, equation 3)."""

    alpha: float = 0.25  # weight of positive targets, in [0, 1]; negative ones have 1 - alpha

    def __call__(self, logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        """Returns losses [..., A] of logits and targets [..., A, C]."""
        losses = tf.nn.sigmoid_cross_entropy_with_logits(targets, logits)
        return tf.reduce_sum(_alpha_t(targets, self.alpha) * losses, axis=-1)


@dataclasses.dataclass(frozen=True)
class SigmoidFocal:
    """-alpha_t (1 - p_t)**gamma log(p_t) (Lin et al., "Focal loss for dense object detection", equation 5).

    With s = softplus(-x_t), log(p_t) is -s and log(1 - p_t) is -(s + x_t). This needs one softplus and one exp, and no
    logarithm of a rounded probability.
    """

    gamma: float = 2.0  # exponent that reduces the weight of well classified columns, at least 0
    alpha: float | None = 0.25  # weight of positive targets; None for no balancing

    def __call__(self, logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        """Returns losses [..., A] of logits and targets [..., A, C]."""
        signed = _signed(logits, targets)
        losses = tf.math.softplus(-signed)
        if self.gamma:
            losses *= tf.exp(-self.gamma * (losses + signed))
        if self.alpha is not None:
            losses *= _alpha_t(targets, self.alpha)
        return tf.reduce_sum(losses, axis=-1)


@dataclasses.dataclass(frozen=True)
class FocalStar:
    """FL* = -log(sigmoid(gamma x_t + beta)) / gamma (Focal loss, appendix A)."""

    gamma: float = 2.0  # steepness, above 0
    beta: float = 1.0  # shift of the logit
    alpha: float | None = None  # weight of positive targets; None for no balancing

    def __call__(self, logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        """Returns losses [..., A] of logits and targets [..., A, C]."""
        losses = tf.math.softplus(-(self.gamma * _signed(logits, targets) + self.beta)) / self.gamma
        if self.alpha is not None:
            losses *= _alpha_t(targets, self.alpha)
        return tf.reduce_sum(losses, axis=-1)


@dataclasses.dataclass(frozen=True)
class SoftmaxCrossEntropy:
    """Cross entropy of one class against all others; one of the columns must be the background."""

    logit_scale: float = 1.0  # divisor of the logits, above 0; higher values flatten the distribution

    def __call__(self, logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        """Returns losses [..., A] of logits and targets [..., A, C]."""
        return tf.nn.softmax_cross_entropy_with_logits(targets, logits / self.logit_scale)


@dataclasses.dataclass(frozen=True)
class BootstrappedSigmoidCrossEntropy:
    """Binary cross entropy against a mixture of target and prediction, for noisy labels (Reed et al., 1412.6596)."""

    alpha: float  # share of the target in the mixture, in [0, 1]
    is_hard: bool = False  # mixes with the predicted decision (0 or 1) instead of the probability

    def __call__(self, logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        """Returns losses [..., A] of logits and targets [..., A, C]."""
        predicted = tf.cast(logits > 0.0, tf.float32) if self.is_hard else tf.sigmoid(logits)
        mixture = self.alpha * targets + (1.0 - self.alpha) * predicted
        return tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(mixture, logits), axis=-1)


@dataclasses.dataclass(frozen=True)
class PenaltyReducedFocal:
    """CenterNet's focal loss of a heatmap: arXiv:1904.07850, equation 1, without the factor 1 / N.

    It is -(1 - p)^alpha log p where the target t is 1, else -(1 - t)^beta p^alpha log(1 - p). As in the Object
    Detection API, p is clipped to [1e-4, 1 - 1e-4]. Differs from it: the gradient passes the clip, because otherwise
    nothing corrects a confident error.
    """

    alpha: float = 2.0
    beta: float = 4.0

    def __call__(self, logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        """Returns the loss of each cell, summed over the channels."""
        return tf.reduce_sum(self.values(logits, targets), axis=-1)

    def values(self, logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        """Returns the loss of each value, of the shape of ``logits``."""
        clipped = tf.clip_by_value(logits, -MAX_LOGIT, MAX_LOGIT)
        logits += tf.stop_gradient(clipped - logits)
        log_p, log_not_p = -tf.nn.softplus(-logits), -tf.nn.softplus(logits)
        positive = tf.exp(self.alpha * log_not_p) * log_p
        negative = tf.pow(1.0 - targets, self.beta) * tf.exp(self.alpha * log_p) * log_not_p
        return -tf.where(targets == 1.0, positive, negative)
