"""Classification losses of every anchor, computed from logits (floor 2).

Each is a function of logits [..., A, C] and one-hot (or all-zero) targets [..., A, C] to losses [..., A], summed over
the columns; weights of anchors are the caller's business. All are finite for any finite logit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import tensorflow as tf

# float32 [..., A, C] logits and targets -> float32 [..., A].
ClassificationLoss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def with_background(labels: tf.Tensor, classes: tf.Tensor, as_zeros: bool = False) -> tf.Tensor:
    """The targets of the classes behind a column of the background.

    Args:
        labels: float32 [B, A, K], from ``class_targets``.
        classes: int32 [B, A], -1 where there is no object.
        as_zeros: Whether the background's column stays 0.

    Returns:
        float32 [B, A, 1 + K].
    """
    is_background = tf.cast(classes < 0, labels.dtype)[..., tf.newaxis]
    return tf.concat([tf.zeros_like(is_background) if as_zeros else is_background, labels], axis=-1)


def class_targets(
    classes: tf.Tensor, num_classes: int, gt_index: tf.Tensor | None = None, label_sets: tf.Tensor | tuple[()] = ()
) -> tf.Tensor:
    """1 for the class of each anchor or region, or for all of its labels where boxes with several were merged.

    Args:
        classes: int32 [B, A], -1 where there is no object.
        num_classes: K.
        gt_index: int32 [B, A], row of the object; needed with ``label_sets`` only.
        label_sets: bool [B, N, K'], K' <= K, the labels of each object; () where each has one.

    Returns:
        float32 [B, A, K], zeros where there is no object.
    """
    if isinstance(label_sets, tuple):
        return tf.one_hot(classes, num_classes)
    # A row more, so that an image without objects has one to be gathered; columns for classes that no label map names.
    padded = tf.pad(tf.cast(label_sets, tf.float32), [[0, 0], [0, 1], [0, num_classes - label_sets.shape[-1]]])
    labels = tf.gather(padded, gt_index, batch_dims=1)
    return tf.where(classes[..., tf.newaxis] >= 0, labels, 0.0)


def _signed(logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """x_t (Focal loss, appendix A): the logit x where the target is 1 and -x where it is 0."""
    return (2.0 * targets - 1.0) * logits


def _alpha_t(targets: tf.Tensor, alpha: float) -> tf.Tensor:
    return (2.0 * alpha - 1.0) * targets + (1.0 - alpha)


def sigmoid_cross_entropy(logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Binary cross entropy, -log(p_t), of every column."""
    return tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(targets, logits), axis=-1)


@dataclasses.dataclass(frozen=True)
class AlphaBalancedSigmoidCrossEntropy:
    """-alpha_t log(p_t) (Focal loss, equation 3).

    Attributes:
        alpha: weight of the positive target, in [0, 1]; 1 - alpha is that of negative ones.
    """

    alpha: float = 0.25

    def __call__(self, logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        """Losses [..., A] of logits and targets [..., A, C]."""
        losses = tf.nn.sigmoid_cross_entropy_with_logits(targets, logits)
        return tf.reduce_sum(_alpha_t(targets, self.alpha) * losses, axis=-1)


@dataclasses.dataclass(frozen=True)
class SigmoidFocal:
    """-alpha_t (1 - p_t)**gamma log(p_t) (Lin et al., "Focal loss for dense object detection", equation 5).

    With s = softplus(-x_t), log(p_t) is -s and log(1 - p_t) is -(s + x_t): one softplus and one exp, no logarithm of a
    rounded probability.

    Attributes:
        gamma: how strongly well classified columns are weighted down, at least 0.
        alpha: weight of the positive target; None for no balancing.
    """

    gamma: float = 2.0
    alpha: float | None = 0.25

    def __call__(self, logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        """Losses [..., A] of logits and targets [..., A, C]."""
        signed = _signed(logits, targets)
        losses = tf.math.softplus(-signed)
        if self.gamma:
            losses *= tf.exp(-self.gamma * (losses + signed))
        if self.alpha is not None:
            losses *= _alpha_t(targets, self.alpha)
        return tf.reduce_sum(losses, axis=-1)


@dataclasses.dataclass(frozen=True)
class FocalStar:
    """FL* = -log(sigmoid(gamma x_t + beta)) / gamma (Focal loss, appendix A).

    Attributes:
        gamma: steepness, above 0.
        beta: shift of the logit.
        alpha: weight of the positive target; None for no balancing.
    """

    gamma: float = 2.0
    beta: float = 1.0
    alpha: float | None = None

    def __call__(self, logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        """Losses [..., A] of logits and targets [..., A, C]."""
        losses = tf.math.softplus(-(self.gamma * _signed(logits, targets) + self.beta)) / self.gamma
        if self.alpha is not None:
            losses *= _alpha_t(targets, self.alpha)
        return tf.reduce_sum(losses, axis=-1)


@dataclasses.dataclass(frozen=True)
class SoftmaxCrossEntropy:
    """Cross entropy of one class against all others; the background has to be one of the columns.

    Attributes:
        logit_scale: divides the logits, above 0; higher means a flatter distribution.
    """

    logit_scale: float = 1.0

    def __call__(self, logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        """Losses [..., A] of logits and targets [..., A, C]."""
        return tf.nn.softmax_cross_entropy_with_logits(targets, logits / self.logit_scale)


@dataclasses.dataclass(frozen=True)
class BootstrappedSigmoidCrossEntropy:
    """Binary cross entropy against a mixture of target and own prediction, for noisy labels (Reed et al., 1412.6596).

    Attributes:
        alpha: share of the target in the mixture, in [0, 1].
        is_hard: mix with the predicted decision (0 or 1) instead of the probability.
    """

    alpha: float
    is_hard: bool = False

    def __call__(self, logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        """Losses [..., A] of logits and targets [..., A, C]."""
        predicted = tf.cast(logits > 0.0, tf.float32) if self.is_hard else tf.sigmoid(logits)
        mixture = self.alpha * targets + (1.0 - self.alpha) * predicted
        return tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(mixture, logits), axis=-1)
