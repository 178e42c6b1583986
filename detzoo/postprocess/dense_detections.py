"""Final detections of a dense head: decode, score, suppress (floor 2)."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from detzoo.contracts import Detections, Predictions, Tensor
from detzoo.ops import boxes
from detzoo.ops.box_coder import BoxCoder
from detzoo.ops.nms import NmsLimits, class_agnostic_nms, per_class_nms
from detzoo.postprocess.scores import ScoreConverter


@dataclasses.dataclass(frozen=True)
class DenseDetections:
    """Turns raw predictions into detections.

    Attributes:
        box_coder: decodes the boxes.
        score_converter: logits to scores.
        limits: of the suppression.
        has_background_column: column 0 of the logits is the background, which is never detected.
        is_class_agnostic: suppress among the boxes of all classes, each with its best class only.
    """

    box_coder: BoxCoder
    score_converter: ScoreConverter
    limits: NmsLimits
    has_background_column: bool = True
    is_class_agnostic: bool = False

    def __call__(
        self, predictions: Predictions, true_shapes: tf.Tensor, padded_shape: tuple[Tensor | int, Tensor | int]
    ) -> Detections:
        """Detections of a batch.

        Args:
            predictions: float32 [B, A, ...].
            true_shapes: int32 [B, 2], pixels of the padded input that each image covers.
            padded_shape: (height, width) of the padded input.

        Returns:
            Detections; ``raw_boxes_norm`` are fractions of the padded input, not clipped.
        """
        raw_boxes = self.box_coder.decode(predictions.box_deltas, predictions.anchors_norm)
        raw_scores = self.score_converter(predictions.class_logits)
        class_scores = raw_scores[..., 1:] if self.has_background_column else raw_scores
        true_sizes = tf.cast(true_shapes, tf.float32) / tf.cast(tf.stack(padded_shape), tf.float32)
        windows = tf.concat([tf.zeros_like(true_sizes), true_sizes], axis=-1)
        suppress = class_agnostic_nms if self.is_class_agnostic else per_class_nms
        selection = suppress(raw_boxes, class_scores, windows, self.limits)

        is_filled = tf.range(self.limits.max_total_detections) < selection.num_valid[:, tf.newaxis]
        is_filled = is_filled[..., tf.newaxis]
        chosen_boxes = tf.gather(raw_boxes, selection.anchor_indices, batch_dims=1)
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
