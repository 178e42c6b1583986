"""Final detections of a second stage: decode, score, suppress (floor 2)."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from detzoo.contracts import Detections, Proposals, RegionPredictions, Tensor
from detzoo.ops import boxes
from detzoo.ops.box_coder import BoxCoder
from detzoo.ops.nms import NmsLimits
from detzoo.postprocess.dense_detections import image_windows, select_detections
from detzoo.postprocess.scores import ScoreConverter


@dataclasses.dataclass(frozen=True)
class RegionDetections:
    """Turns the predictions for regions into detections."""

    box_coder: BoxCoder  # decoder of the boxes
    score_converter: ScoreConverter  # converter of K + 1 logits to scores
    limits: NmsLimits  # limits of the suppression
    is_class_agnostic: bool = False  # suppresses across all classes, each region with its best class only

    def __call__(
        self,
        predictions: RegionPredictions,
        true_shapes: tf.Tensor,
        padded_shape: tuple[Tensor | int, Tensor | int],
    ) -> Detections:
        """Returns the detections of a batch.

        ``true_shapes`` int32 [B, 2] are the pixels of the padded input that each image covers.

        Returns:
            Detections; ``anchor_indices`` are rows of the proposals. ``raw_boxes_norm`` are the boxes of each region's
            best class as fractions of the true image, clipped to it, as in the Object Detection API.
        """
        regions = predictions.proposals
        windows = image_windows(true_shapes, padded_shape)
        decoded = self.box_coder.decode(predictions.box_deltas, regions.boxes_norm[:, :, tf.newaxis])
        scores = self.score_converter(predictions.class_logits)
        own_box = decoded.shape[2] == 1
        detections = select_detections(
            decoded[:, :, 0] if own_box else decoded,
            scores,
            windows,
            self.limits,
            is_class_agnostic=self.is_class_agnostic,
            takes_part=is_region(regions),
        )
        raw = decoded[:, :, 0] if own_box else tf.gather(decoded, tf.argmax(scores[..., 1:], axis=-1), batch_dims=2)
        windows = windows[:, tf.newaxis]
        return detections._replace(raw_boxes_norm=boxes.change_coordinate_frame(boxes.clip(raw, windows), windows))


def proposals_as_detections(
    predictions: RegionPredictions, true_shapes: tf.Tensor, padded_shape: tuple[Tensor | int, Tensor | int]
) -> Detections:
    """Returns the proposals of a first stage alone as detections of class 0, in fractions of the true image."""
    proposals = predictions.proposals
    windows = image_windows(true_shapes, padded_shape)[:, tf.newaxis]
    moved = boxes.change_coordinate_frame(proposals.boxes_norm, windows)
    none = tf.zeros_like(proposals.scores, tf.int32)
    both = tf.stack([1.0 - proposals.scores, proposals.scores], axis=-1)
    filled = is_region(proposals)[..., tf.newaxis]
    return Detections(
        boxes_norm=tf.where(filled, moved, 0.0),
        scores=proposals.scores,
        classes=none,
        num_valid=proposals.num_valid,
        multiclass_scores=tf.where(filled, both, 0.0),
        anchor_indices=tf.where(filled[..., 0], tf.range(tf.shape(none)[1]), none),
        raw_boxes_norm=moved,
        raw_scores=both,
    )


def is_region(regions: Proposals) -> tf.Tensor:
    """Returns bool [B, R], False for rows of padding."""
    return tf.range(tf.shape(regions.boxes_norm)[1]) < regions.num_valid[:, tf.newaxis]
