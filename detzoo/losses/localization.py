"""Localisation losses per anchor (floor 2).

Each loss is a function of predicted and target codes [..., A, code size] and the anchors [A, 4] that returns losses
[..., A]. Callers weight the anchors. Only losses of decoded boxes read the anchors.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from detzoo.ops import boxes
from detzoo.ops.box_coder import BoxCoder

# predicted codes, target codes, anchors_norm -> float32 [..., A].
LocalizationLoss = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]


@dataclasses.dataclass(frozen=True)
class SmoothL1:
    """x**2 / 2 where |x| <= delta, else delta (|x| - delta / 2), summed over the code (Fast R-CNN, equation 3)."""

    delta: float = 1.0  # end of the parabola, above 0

    def __call__(self, predicted: tf.Tensor, target: tf.Tensor, anchors_norm: tf.Tensor) -> tf.Tensor:
        """Returns losses [..., A]."""
        distance = tf.abs(predicted - target)
        near = tf.minimum(distance, self.delta)
        return tf.reduce_sum(near * (distance - 0.5 * near), axis=-1)


def weighted_l2(predicted: tf.Tensor, target: tf.Tensor, anchors_norm: tf.Tensor) -> tf.Tensor:
    """Returns half the squared distance of the codes, [..., A].

    Differs from the Object Detection API, which also squares the anchor's weight.
    """
    return 0.5 * tf.reduce_sum(tf.math.squared_difference(predicted, target), axis=-1)


def l1(predicted: tf.Tensor, target: tf.Tensor, anchors_norm: tf.Tensor) -> tf.Tensor:
    """Returns the sum of absolute differences of the codes, [..., A]."""
    return tf.reduce_sum(tf.abs(predicted - target), axis=-1)


@dataclasses.dataclass(frozen=True)
class OneMinusIou:
    """1 - IoU (or GIoU) of the decoded boxes.

    Differs from the Object Detection API, which uses the codes as boxes.
    """

    box_coder: BoxCoder  # decoder of the codes
    is_generalized: bool = False  # uses the generalised IoU, which has a gradient for disjoint boxes

    def __call__(self, predicted: tf.Tensor, target: tf.Tensor, anchors_norm: tf.Tensor) -> tf.Tensor:
        """Returns losses [..., A], in [0, 1] (generalised: [0, 2))."""
        overlap = boxes.aligned_giou if self.is_generalized else boxes.aligned_iou
        predicted_boxes = self.box_coder.decode(predicted, anchors_norm)
        return 1.0 - overlap(predicted_boxes, self.box_coder.decode(target, anchors_norm))


@dataclasses.dataclass(frozen=True)
class SumOfLosses:
    """Weighted sum of losses, such as smooth L1 plus IoU (Huang et al., arXiv:1611.10012, table 5)."""

    terms: tuple[tuple[float, LocalizationLoss], ...]  # factor and loss of each term

    def __call__(self, predicted: tf.Tensor, target: tf.Tensor, anchors_norm: tf.Tensor) -> tf.Tensor:
        """Returns losses [..., A]."""
        return tf.add_n([weight * loss(predicted, target, anchors_norm) for weight, loss in self.terms])
