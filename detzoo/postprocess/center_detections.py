"""CenterNet's detections: the peaks of the heatmap, with size and offset of their cell (floor 2).

Zhou et al., arXiv:1904.07850, section 4.1: peaks instead of the suppression of overlapping boxes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import tensorflow as tf

from detzoo.contracts import CENTER_STRIDE, CenterPredictions, Detections, Tensor
from detzoo.layers.resample import spatial_shape
from detzoo.ops import boxes
from detzoo.ops.nms import NmsLimits
from detzoo.ops.peaks import Peaks, best_cells, corners_of, suppress_slopes, values_at
from detzoo.postprocess.dense_detections import image_windows, select_detections
from detzoo.postprocess.keypoints import KeypointSearch


@dataclasses.dataclass(frozen=True)
class CenterDetections:
    """Turns maps into detections.

    Differs from the Object Detection API: a centre in the padding is no detection. There the mask of the image counts
    cells as pixels, so that it masks nothing.
    """

    max_detections: int = 100
    kernel_size: int = 3  # cells; side of the neighbourhood of which a centre is the maximum
    keypoints: tuple[KeypointSearch, ...] = ()  # one for each class with keypoints
    limits: NmsLimits | None = None  # limits of a suppression among the peaks; None for none, as in the paper

    def __call__(
        self, predictions: CenterPredictions, true_shapes: Tensor, padded_shape: tuple[Tensor | int, Tensor | int]
    ) -> Detections:
        """Returns the detections of a batch; true_shapes int32 [B, 2] are the pixels that each image covers."""
        scores = tf.sigmoid(predictions.maps["object_center"][-1])
        peaks = suppress_slopes(scores, self.kernel_size)
        peaks = best_cells(peaks, self.max_detections, _in_image(spatial_shape(peaks), true_shapes))
        found = self._detections(peaks, predictions, true_shapes, padded_shape)
        found = found if self.limits is None else self._suppress(found, true_shapes, self.limits)
        return self._rescore(found) if any(search.rescores for search in self.keypoints) else found

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
        in_cells = tf.concat([centers - halves, centers + halves], axis=-1)
        boxes_norm = CENTER_STRIDE * in_cells / tf.tile(tf.cast(tf.stack(padded_shape), tf.float32), [2])
        windows = image_windows(true_shapes, padded_shape)[:, tf.newaxis]
        boxes_norm = boxes.change_coordinate_frame(boxes.clip(boxes_norm, windows), windows)
        found = Detections(
            boxes_norm=tf.where(is_row, boxes_norm, 0.0),
            scores=tf.maximum(peaks.scores, 0.0),
            classes=peaks.channels,
            num_valid=num_valid,
            multiclass_scores=tf.where(is_row, tf.sigmoid(values_at(maps["object_center"][-1], peaks.cells)), 0.0),
        )
        return self._with_keypoints(found, maps, peaks, in_cells, true_shapes) if self.keypoints else found

    def _with_keypoints(
        self, found: Detections, maps: Mapping[str, Sequence[Tensor]], peaks: Peaks, boxes: Tensor, true_shapes: Tensor
    ) -> Detections:
        """Adds the keypoints of each object of a class that has some; ``boxes`` [B, M, 4] are in cells."""
        sides = tf.cast(tf.stack(spatial_shape(maps[self.keypoints[0].task.head("heatmap")][-1])), tf.float32)
        boxes = tf.clip_by_value(boxes, 0.0, tf.tile(sides, [2]))
        num_columns = 1 + max(column for search in self.keypoints for column in search.task.columns)
        points, scores = tf.zeros([1, 1, num_columns, 2]), tf.zeros([1, 1, num_columns])
        scale = CENTER_STRIDE / tf.cast(true_shapes, tf.float32)[:, tf.newaxis, tf.newaxis]
        for search in self.keypoints:
            own, own_scores = search(maps, peaks.cells, boxes)
            own *= scale
            if search.clips:
                clipped = tf.clip_by_value(own, 0.0, 1.0)
                own, own_scores = clipped, tf.where(tf.reduce_all(own == clipped, axis=-1), own_scores, 0.0)
            placed = tf.one_hot(search.task.columns, num_columns)  # [P, T]
            is_own = (peaks.channels == search.task.class_index) & tf.math.is_finite(peaks.scores)
            is_own = tf.cast(is_own, tf.float32)[..., tf.newaxis]
            points += tf.einsum("bmpd,pt->bmtd", own, placed) * is_own[..., tf.newaxis]
            scores += tf.einsum("bmp,pt->bmt", own_scores, placed) * is_own
        return found._replace(keypoints_norm=points, keypoint_scores=scores)

    def _rescore(self, found: Detections) -> Detections:
        """Multiplies the scores of objects by those of their keypoints, and sorts the objects again."""
        scores = found.scores
        for search in self.keypoints:
            if search.rescores:
                own = tf.gather(found.keypoint_scores, list(search.task.columns), axis=2)
                scores = tf.where(found.classes == search.task.class_index, search.rescored(scores, own), scores)
        is_filled = tf.range(tf.shape(scores)[1]) < found.num_valid[:, tf.newaxis]
        order = tf.argsort(tf.where(is_filled, scores, -1.0), direction="DESCENDING", stable=True)
        sorted_rows = {
            name: tf.gather(value, order, batch_dims=1)
            for name, value in found._replace(scores=scores)._asdict().items()
            if name != "num_valid" and not isinstance(value, tuple)
        }
        return found._replace(**sorted_rows)

    def _suppress(self, found: Detections, true_shapes: Tensor, limits: NmsLimits) -> Detections:
        """Suppresses overlapping boxes among the peaks, each with the score of its class only."""
        num_classes = found.multiclass_scores.shape[-1]
        own_scores = found.scores[..., tf.newaxis] * tf.one_hot(found.classes, num_classes)
        whole = image_windows(true_shapes, (1, 1)) * 0.0 + tf.constant([0.0, 0.0, 1.0, 1.0])
        kept = select_detections(found.boxes_norm, own_scores, whole, limits, has_background_column=False)
        all_scores = tf.gather(found.multiclass_scores, kept.anchor_indices, batch_dims=1)
        is_filled = tf.range(limits.max_total_detections) < kept.num_valid[:, tf.newaxis]
        if self.keypoints:
            rows = tf.cast(is_filled, tf.float32)[..., tf.newaxis]
            points, scores = (
                tf.gather(x, kept.anchor_indices, batch_dims=1) for x in (found.keypoints_norm, found.keypoint_scores)
            )
            found = found._replace(keypoints_norm=points * rows[..., tf.newaxis], keypoint_scores=scores * rows)
        return found._replace(
            boxes_norm=kept.boxes_norm,
            scores=kept.scores,
            classes=kept.classes,
            num_valid=kept.num_valid,
            multiclass_scores=tf.where(is_filled[..., tf.newaxis], all_scores, 0.0),
        )


def _in_image(map_shape: tuple[Tensor | int, Tensor | int], true_shapes: Tensor) -> Tensor:
    """Returns bool [B, h, w], True for cells that start within the image."""
    rows, columns = (tf.range(cells) * CENTER_STRIDE for cells in map_shape)
    is_row = rows < true_shapes[:, :1]
    is_column = columns < true_shapes[:, 1:]
    return is_row[:, :, tf.newaxis] & is_column[:, tf.newaxis, :]
