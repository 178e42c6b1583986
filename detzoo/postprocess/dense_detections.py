"""Final detections of a dense head: decode, score, suppress (floor 2)."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from detzoo.contracts import Detections, Predictions, Tensor
from detzoo.ops import boxes
from detzoo.ops.box_coder import BoxCoder
from detzoo.ops.nms import NmsLimits, boxes_of_pairs, class_agnostic_nms, per_class_nms
from detzoo.postprocess.scores import ScoreConverter


@dataclasses.dataclass(frozen=True)
class DenseDetections:
    """Turns raw predictions into detections."""

    box_coder: BoxCoder  # decoder of the boxes
    score_converter: ScoreConverter  # converter of logits to scores
    limits: NmsLimits  # limits of the suppression
    has_background_column: bool = True  # True if column 0 of the logits is the background, which is never detected
    is_class_agnostic: bool = False  # suppresses across all classes, each box with its best class only

    def __call__(
        self, predictions: Predictions, true_shapes: tf.Tensor, padded_shape: tuple[Tensor | int, Tensor | int]
    ) -> Detections:
        """Returns the detections of a batch; ``raw_boxes_norm`` are fractions of the padded input, not clipped.

        ``true_shapes`` int32 [B, 2] are the pixels of the padded input that each image covers.
        """
        return select_detections(
            self.box_coder.decode(predictions.box_deltas, predictions.anchors_norm),
            self.score_converter(predictions.class_logits),
            image_windows(true_shapes, padded_shape),
            self.limits,
            has_background_column=self.has_background_column,
            is_class_agnostic=self.is_class_agnostic,
        )


def image_windows(true_shapes: tf.Tensor, padded_shape: tuple[Tensor | int, Tensor | int]) -> tf.Tensor:
    """Returns the part of the padded input that each image covers, float32 [B, 4] in fractions of the padded input."""
    true_sizes = tf.cast(true_shapes, tf.float32) / tf.cast(tf.stack(padded_shape), tf.float32)
    return tf.concat([tf.zeros_like(true_sizes), true_sizes], axis=-1)


def whole_image_windows(num_images: Tensor | int) -> tf.Tensor:
    """Returns ``image_windows`` of images that fill the input, float32 [B, 4]."""
    return tf.tile(tf.constant([[0.0, 0.0, 1.0, 1.0]]), [num_images, 1])


def select_detections(
    raw_boxes: tf.Tensor,
    raw_scores: tf.Tensor,
    windows: tf.Tensor,
    limits: NmsLimits,
    has_background_column: bool = True,
    is_class_agnostic: bool = False,
    takes_part: tf.Tensor | None = None,
) -> Detections:
    """Suppresses boxes and collects the detections.

    Args:
        raw_boxes: float32 [B, A, 4], or [B, A, K, 4] for separate boxes per class.
        raw_scores: float32 [B, A, C].
        windows: float32 [B, 4] from ``image_windows``.
        limits: Limits of the suppression.
        has_background_column: True if column 0 of the scores is the background.
        is_class_agnostic: Suppresses across all classes.
        takes_part: bool [B, A], True for boxes that may be detected; None for all.

    Returns:
        Detections; ``raw_boxes_norm`` is ``raw_boxes``.
    """
    class_scores = raw_scores[..., 1:] if has_background_column else raw_scores
    if takes_part is not None:
        class_scores = tf.where(takes_part[..., tf.newaxis], class_scores, 0.0)
    suppress = class_agnostic_nms if is_class_agnostic else per_class_nms
    selection = suppress(raw_boxes, class_scores, windows, limits)

    is_filled = tf.range(limits.max_total_detections) < selection.num_valid[:, tf.newaxis]
    is_filled = is_filled[..., tf.newaxis]
    chosen_boxes = boxes_of_pairs(raw_boxes, selection.anchor_indices, selection.classes)
    windows = windows[:, tf.newaxis, :]
    chosen_boxes = boxes.change_coordinate_frame(boxes.clip(chosen_boxes, windows), windows)
    multiclass_scores = tf.gather(raw_scores, selection.anchor_indices, batch_dims=1)
    return Detections(
        boxes_norm=tf.where(is_filled, chosen_boxes, 0.0),
        scores=selection.scores,
        classes=selection.classes,
        num_valid=selection.num_valid,
        multiclass_scores=tf.where(is_filled, multiclass_scores, 0.0),
        anchor_indices=selection.anchor_indices,
        raw_boxes_norm=raw_boxes,
        raw_scores=raw_scores,
    )
