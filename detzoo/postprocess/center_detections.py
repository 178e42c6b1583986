"""CenterNet's detections: the peaks of the heatmap, with size and offset of their cell (floor 2).

Zhou et al., arXiv:1904.07850, section 4.1: peaks instead of the suppression of overlapping boxes.
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from detzoo.contracts import CENTER_STRIDE, CenterPredictions, Detections, Tensor
from detzoo.layers.resample import spatial_shape
from detzoo.ops import boxes
from detzoo.ops.nms import NmsLimits
from detzoo.ops.peaks import Peaks, best_cells, corners_of, suppress_slopes, values_at
from detzoo.postprocess.dense_detections import image_windows, select_detections


@dataclasses.dataclass(frozen=True)
class CenterDetections:
    """Turns maps into detections.

    Differs from the Object Detection API: a centre in the padding is no detection. There the mask of the image counts
    cells as pixels, so that it masks nothing.
    """

    max_detections: int = 100
    kernel_size: int = 3  # cells; side of the neighbourhood of which a centre is the maximum
    limits: NmsLimits | None = None  # limits of a suppression among the peaks; None for none, as in the paper

    def __call__(
        self, predictions: CenterPredictions, true_shapes: Tensor, padded_shape: tuple[Tensor | int, Tensor | int]
    ) -> Detections:
        """Returns the detections of a batch; true_shapes int32 [B, 2] are the pixels that each image covers."""
        logits = predictions.maps["object_center"][-1]
        peaks = best_cells(self._in_image(suppress_slopes(logits, self.kernel_size), true_shapes), self.max_detections)
        found = self._detections(peaks, predictions, true_shapes, padded_shape)
        return found if self.limits is None else self._suppress(found, true_shapes, self.limits)

    def _in_image(self, peaks: Tensor, true_shapes: Tensor) -> Tensor:
        """Returns -inf at peaks that start outside the image."""
        rows, columns = (tf.range(cells) * CENTER_STRIDE for cells in spatial_shape(peaks))
        is_row = rows < true_shapes[:, :1]
        is_column = columns < true_shapes[:, 1:]
        inside = is_row[:, :, tf.newaxis] & is_column[:, tf.newaxis, :]
        return tf.where(inside[..., tf.newaxis], peaks, -float("inf"))

    def _detections(
        self,
        peaks: Peaks,
        predictions: CenterPredictions,
        true_shapes: Tensor,
        padded_shape: tuple[Tensor | int, Tensor | int],
    ) -> Detections:
        maps = predictions.maps
        is_filled = tf.math.is_finite(peaks.scores)
        num_valid = tf.reduce_sum(tf.cast(is_filled, tf.int32), axis=1)
        is_row = is_filled[..., tf.newaxis]
        centers = corners_of(peaks.cells, spatial_shape(maps["object_center"][-1])[1])
        centers += values_at(maps["box/offset"][-1], peaks.cells)
        halves = tf.maximum(values_at(maps["box/scale"][-1], peaks.cells), 0.0) / 2.0
        pixels = CENTER_STRIDE * tf.concat([centers - halves, centers + halves], axis=-1)
        boxes_norm = pixels / tf.tile(tf.cast(tf.stack(padded_shape), tf.float32), [2])
        windows = image_windows(true_shapes, padded_shape)[:, tf.newaxis]
        boxes_norm = boxes.change_coordinate_frame(boxes.clip(boxes_norm, windows), windows)
        return Detections(
            boxes_norm=tf.where(is_row, boxes_norm, 0.0),
            scores=tf.sigmoid(peaks.scores),
            classes=peaks.channels,
            num_valid=num_valid,
            multiclass_scores=tf.where(is_row, tf.sigmoid(values_at(maps["object_center"][-1], peaks.cells)), 0.0),
        )

    def _suppress(self, found: Detections, true_shapes: Tensor, limits: NmsLimits) -> Detections:
        """Suppresses overlapping boxes among the peaks, each with the score of its class only."""
        num_classes = found.multiclass_scores.shape[-1]
        own_scores = found.scores[..., tf.newaxis] * tf.one_hot(found.classes, num_classes)
        whole = image_windows(true_shapes, (1, 1)) * 0.0 + tf.constant([0.0, 0.0, 1.0, 1.0])
        kept = select_detections(found.boxes_norm, own_scores, whole, limits, has_background_column=False)
        all_scores = tf.gather(found.multiclass_scores, kept.anchor_indices, batch_dims=1)
        is_filled = tf.range(limits.max_total_detections) < kept.num_valid[:, tf.newaxis]
        return found._replace(
            boxes_norm=kept.boxes_norm,
            scores=kept.scores,
            classes=kept.classes,
            num_valid=kept.num_valid,
            multiclass_scores=tf.where(is_filled[..., tf.newaxis], all_scores, 0.0),
        )
