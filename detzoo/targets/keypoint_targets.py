"""Targets of CenterNet's keypoints: a Gaussian around each, offsets near it, and vectors from the centre (floor 2).

Zhou et al., arXiv:1904.07850, section 4 ("human pose estimation").
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from detzoo.contracts import Groundtruth, KeypointTargets, KeypointTask, Tensor, Vectors
from detzoo.ops import boxes
from detzoo.ops.gaussians import gaussian_sigma
from detzoo.targets.center_targets import (
    Shape,
    cast,
    cell_indices,
    centers_and_sizes,
    covered,
    gaussians,
    in_cells,
    in_image,
)

MIN_OVERLAP = 0.7  # of the box's Gaussian, of which each keypoint's is a multiple


@dataclasses.dataclass(frozen=True)
class KeypointAssigner:
    """Assigns the keypoints of a task to cells."""

    task: KeypointTask
    radius: int = 0  # cells; offsets and regression are learned at all cells within this distance

    def __call__(
        self, groundtruth: Groundtruth, map_shape: Shape, true_shapes: Tensor, padded_shape: Shape
    ) -> KeypointTargets:
        """Returns the targets of a batch; arguments as for ``CenterAssigner``, with keypoints."""
        columns = list(self.task.columns)
        points = in_cells(tf.gather(groundtruth.keypoints_norm, columns, axis=2), padded_shape)
        is_labelled = tf.gather(groundtruth.keypoint_visibility, columns, axis=2) > 0
        is_labelled &= tf.reduce_all(tf.math.is_finite(points), axis=-1)
        points = tf.where(is_labelled[..., tf.newaxis], points, 0.0)
        is_object = (groundtruth.classes == self.task.class_index) & ~groundtruth.is_crowd
        is_object &= boxes.is_valid(groundtruth.boxes_norm)
        weights = cast(is_labelled) * tf.where(is_object, groundtruth.weights, 0.0)[..., tf.newaxis]  # [B, N, P]
        boxes_in_cells = in_cells(groundtruth.boxes_norm, padded_shape)
        centers, sizes = centers_and_sizes(boxes_in_cells)
        num_keypoints = len(columns)
        sigma = gaussian_sigma(sizes, MIN_OVERLAP)[..., tf.newaxis] * tf.constant(self.task.deviations)
        numbers = tf.broadcast_to(tf.range(num_keypoints), tf.shape(weights))
        heatmap = gaussians(
            _flat_pairs(tf.floor(points)), _flat(sigma), _flat(numbers), _flat(weights), map_shape, num_keypoints
        )
        unlabelled = covered(boxes_in_cells, cast(weights < 1e-3), map_shape)
        starts = tf.broadcast_to(centers[:, :, tf.newaxis], tf.shape(points))
        return KeypointTargets(
            heatmap=heatmap,
            heatmap_weights=cast(in_image(true_shapes, map_shape)[..., tf.newaxis] & ~unlabelled),
            num_keypoints=tf.reduce_sum(weights),
            offsets=self._vectors(points, points, numbers, weights, map_shape),
            regression=self._vectors(starts, points, numbers, weights, map_shape),
        )

    def _vectors(self, starts: Tensor, ends: Tensor, numbers: Tensor, weights: Tensor, map_shape: Shape) -> Vectors:
        """Returns the vectors from the cells around ``starts`` [B, N, P, 2] to ``ends``."""
        steps = range(-self.radius, self.radius + 1)
        near = tf.constant([(y, x) for y in steps for x in steps if y**2 + x**2 <= self.radius**2], tf.float32)
        corners = tf.floor(starts)[..., tf.newaxis, :] + near  # [B, N, P, R, 2]
        last = tf.cast(tf.stack(map_shape), tf.float32) - 1.0
        is_inside = tf.reduce_all((corners >= 0.0) & (corners <= last), axis=-1)
        corners = tf.clip_by_value(corners, 0.0, last)
        values = ends[..., tf.newaxis, :] - corners
        repeated = [tf.broadcast_to(x[..., tf.newaxis], tf.shape(is_inside)) for x in (numbers, weights)]
        weights = repeated[1] * cast(is_inside)
        cells = cell_indices(corners, map_shape)
        return Vectors(_flat(cells), _flat(repeated[0]), _flat_pairs(values), _flat(weights))


def _flat(values: Tensor) -> Tensor:
    """Reshapes [B, ...] to [B, S]."""
    return tf.reshape(values, [tf.shape(values)[0], -1])


def _flat_pairs(values: Tensor) -> Tensor:
    """Reshapes [B, ..., 2] to [B, S, 2]."""
    return tf.reshape(values, [tf.shape(values)[0], -1, 2])
