"""CenterNet's keypoints: regressed from each centre, then moved to a peak of the heatmap nearby (floor 2).

Zhou et al., arXiv:1904.07850, section 4 ("human pose estimation"). The rankings of the peaks are the Object Detection
API's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import tensorflow as tf

from detzoo.contracts import KeypointTask, Tensor
from detzoo.layers.resample import spatial_shape
from detzoo.ops.gaussians import gaussian_sigma
from detzoo.ops.peaks import corners_of, suppress_slopes, values_at

MIN_DISTANCE, BY_DISTANCE, BY_SCALED_DISTANCE, BY_GAUSSIAN = RANKINGS = (
    "min_distance",
    "score_distance_ratio",
    "score_scaled_distance_ratio",
    "gaussian_weighted",
)
_FAR = 1e5  # cells; distance of a candidate below the threshold
_MIN_OVERLAP = 0.7  # of the Gaussian of "gaussian_weighted"


@dataclasses.dataclass(frozen=True)
class KeypointSearch:
    """Finds the keypoints of detected objects."""

    task: KeypointTask
    num_candidates: int = 100  # peaks per keypoint
    kernel_size: int = 3  # cells; side of the neighbourhood of which a candidate is the maximum
    score_threshold: float = 0.1  # least score of a candidate
    unmatched_score: float = 0.1  # score of a keypoint that stays where it was regressed
    box_scale: float = 1.2  # candidates lie in the box times this factor
    search_scale: float = 0.3  # largest distance of a candidate, as a fraction of the longer side of the scaled box
    ranking: str = MIN_DISTANCE
    distance_offset: float = 1.0  # cells, of "score_distance_ratio"
    distance_multiplier: float = 0.1  # fraction of the longer side, of "score_scaled_distance_ratio"
    deviation_multiplier: float = 1.0  # of "gaussian_weighted"
    clips: bool = False  # moves keypoints outside the image to its border, with score 0
    rescores: bool = False  # an object's score is multiplied by the mean score of its keypoints
    rescoring_threshold: float = 0.0  # keypoints up to this score do not count in that mean

    def __call__(self, maps: Mapping[str, Sequence[Tensor]], cells: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Returns keypoints [B, M, P, 2] in cells and their scores [B, M, P].

        Args:
            maps: Raw predictions, see ``CenterPredictions``.
            cells: int32 [B, M], cells of the objects' centres.
            boxes: float32 [B, M, 4], boxes in cells.
        """
        heatmap = maps[self.task.head("heatmap")][-1]
        candidates, scores = self._candidates(heatmap, maps[self.task.head("offset")][-1])  # [B, C, P, 2], [B, C, P]
        vectors = values_at(maps[self.task.head("regression")][-1], cells)
        regressed = tf.reshape(vectors, [*_leading(cells), len(self.task.columns), 2])
        regressed += corners_of(cells, spatial_shape(heatmap)[1])[:, :, tf.newaxis]
        distances = tf.norm(regressed[:, :, tf.newaxis] - candidates[:, tf.newaxis], axis=-1)  # [B, M, C, P]
        is_candidate = (scores >= self.score_threshold)[:, tf.newaxis]
        distances = tf.where(is_candidate, distances, _FAR)
        ranks = self._ranks(scores[:, tf.newaxis], distances, boxes)
        best = tf.argmax(ranks, axis=2, output_type=tf.int32)  # [B, M, P]
        chosen, found = _choose(candidates, best), _choose(scores[..., tf.newaxis], best)[..., 0]
        if self.ranking == BY_GAUSSIAN:
            found = tf.reduce_max(ranks, axis=2)
        is_near = self._is_near(chosen, tf.reduce_min(distances, axis=2), boxes) & (found >= self.score_threshold)
        points = tf.where(is_near[..., tf.newaxis], chosen, regressed)
        return points, tf.where(is_near, found, self.unmatched_score)

    def _candidates(self, logits: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the best peaks of each keypoint, in cells [B, C, P, 2], and their scores [B, C, P]."""
        num_keypoints = logits.shape[-1]
        peaks = suppress_slopes(tf.sigmoid(logits), self.kernel_size)
        flat = tf.transpose(tf.reshape(peaks, [tf.shape(peaks)[0], -1, num_keypoints]), [0, 2, 1])
        missing = tf.maximum(self.num_candidates - tf.shape(flat)[2], 0)
        flat = tf.pad(flat, [[0, 0], [0, 0], [0, missing]], constant_values=-float("inf"))
        scores, cells = tf.math.top_k(flat, self.num_candidates)  # [B, P, C]
        cells = tf.where(tf.math.is_inf(scores), 0, cells)
        vectors = values_at(offsets, tf.reshape(cells, [tf.shape(cells)[0], -1]))
        vectors = tf.reshape(vectors, [-1, num_keypoints, self.num_candidates, vectors.shape[-1] // 2, 2])
        if vectors.shape[3] == 1:  # for all keypoints
            vectors = vectors[:, :, :, 0]
        else:
            vectors = tf.einsum("bpckd,pk->bpcd", vectors, tf.eye(num_keypoints))
        points = corners_of(cells, spatial_shape(logits)[1]) + vectors
        return tf.transpose(points, [0, 2, 1, 3]), tf.transpose(tf.maximum(scores, 0.0), [0, 2, 1])

    def _ranks(self, scores: Tensor, distances: Tensor, boxes: Tensor) -> Tensor:
        """Returns the ranks of candidates [B, M, C, P], the highest is the best."""
        if self.ranking == MIN_DISTANCE:
            return -distances
        if self.ranking == BY_DISTANCE:
            return scores / (distances + self.distance_offset)
        sizes = boxes[..., 2:] - boxes[..., :2]
        if self.ranking == BY_SCALED_DISTANCE:
            longer = tf.reduce_max(sizes, axis=-1)[..., tf.newaxis, tf.newaxis]
            return scores / (distances + self.distance_multiplier * longer)
        deviations = self.deviation_multiplier * tf.constant(self.task.deviations)
        sigma = gaussian_sigma(sizes, _MIN_OVERLAP)[..., tf.newaxis, tf.newaxis] * deviations
        return scores * tf.exp(-(distances**2) / (2.0 * sigma**2))

    def _is_near(self, points: Tensor, distances: Tensor, boxes: Tensor) -> Tensor:
        """Returns bool [B, M, P], True for points [B, M, P, 2] in the scaled box and within the search radius."""
        low, high = tf.split(boxes, 2, axis=-1)
        centers, halves = (low + high) / 2.0, self.box_scale * (high - low) / 2.0
        is_inside = tf.reduce_all(
            (points >= (centers - halves)[:, :, tf.newaxis]) & (points <= (centers + halves)[:, :, tf.newaxis]), axis=-1
        )
        radius = self.search_scale * 2.0 * tf.reduce_max(halves, axis=-1)
        return is_inside & (distances <= radius[..., tf.newaxis])

    def rescored(self, scores: Tensor, keypoint_scores: Tensor) -> Tensor:
        """Returns the scores [B, M] of objects times the mean of their keypoints' [B, M, P] above the threshold."""
        is_counted = tf.cast(keypoint_scores > self.rescoring_threshold, tf.float32)
        return scores * tf.math.divide_no_nan(
            tf.reduce_sum(keypoint_scores * is_counted, axis=-1), tf.reduce_sum(is_counted, axis=-1)
        )


def _choose(candidates: Tensor, best: Tensor) -> Tensor:
    """Returns [B, M, P, D], for each object and keypoint one of the candidates [B, C, P, D]."""
    by_keypoint = tf.transpose(candidates, [0, 2, 1, 3])
    chosen = tf.gather(by_keypoint, tf.transpose(best, [0, 2, 1]), batch_dims=2)
    return tf.transpose(chosen, [0, 2, 1, 3])


def _leading(cells: Tensor) -> tuple[Tensor, Tensor | int]:
    return tf.shape(cells)[0], cells.shape[1] or tf.shape(cells)[1]
