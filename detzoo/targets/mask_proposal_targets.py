"""Chooses the locations that train a mask proposal network, each with its object (floor 2).

An object belongs to the head and level whose size is nearest to its longer side, in log space. A location of that head
and level is positive if the object's centre is within one cell of it; all other locations are negative. A random sample
of both trains the scores, and the positives of the sample train the masks.

Differs from arXiv:1612.03144, appendix A: locations in the padding, in a crowd, or in an object without a mask are
ignored, because the paper does not define their target. Of several objects near a location, the nearest counts. If
there are fewer positives than the paper's 1:3, negatives fill the sample, as in its RPN.
"""

from __future__ import annotations

import dataclasses
import math

import tensorflow as tf

from detzoo.contracts import AnchorState, Groundtruth, MaskTargets
from detzoo.ops import boxes
from detzoo.ops.sampling import balanced_sample
from detzoo.ops.sliding_windows import Locations, nearest_scale
from detzoo.targets.anchor_targets import count_to_last


@dataclasses.dataclass(frozen=True)
class MaskProposalTargets:
    """A sampled minibatch of locations per image."""

    # Longer side of the objects of each head and level, ``SlidingWindows.object_sides_px``.
    scales_px: tuple[float, ...]
    sample_size: int = 128  # number of sampled locations per image
    positive_fraction: float = 0.25  # largest share of positives in the sample

    @property
    def max_positives(self) -> int:
        """The largest number of positives of an image."""
        return int(self.sample_size * self.positive_fraction)

    def __call__(
        self,
        locations: Locations,
        groundtruth: Groundtruth,
        true_shapes: tf.Tensor,
        padded_shape: tf.Tensor,
        seed: tf.Tensor | None = None,
    ) -> MaskTargets:
        """Returns the targets of a batch. No gradient flows through them.

        ``true_shapes`` int32 [B, 2] are the pixels of the padded input that each image covers. A seed is an int [2].

        Raises:
            ValueError: The ground truth has no masks.
        """
        if groundtruth.masks.shape[-1] == 0:
            raise ValueError("the ground truth has no masks; set load_instance_masks: true in train_input_reader")
        has_mask = tf.reduce_max(groundtruth.masks, axis=[2, 3]) > 0
        # One image after the other, because the distances of a whole batch are hundreds of megabytes.
        known = (groundtruth.boxes_norm, groundtruth.classes, groundtruth.weights, groundtruth.is_crowd, has_mask)
        row = tf.TensorSpec(locations.scales.shape, tf.int32)
        state, gt_index = tf.map_fn(
            tf.autograph.experimental.do_not_convert(
                lambda image: self._assign(locations, boxes.to_px(image[0], padded_shape), *image[1:])
            ),
            (*known, true_shapes),
            fn_output_signature=(row, row),
            parallel_iterations=2,
        )
        is_positive, is_negative = state == AnchorState.POSITIVE, state == AnchorState.NEGATIVE
        sample = balanced_sample(is_positive, is_negative, self.sample_size, self.positive_fraction, seed)
        padded_weights = tf.pad(groundtruth.weights, [[0, 0], [0, 1]])  # row 0 must exist
        weights = tf.where(is_positive, tf.gather(padded_weights, gt_index, batch_dims=1), 1.0)
        return MaskTargets(
            state=tf.where(sample, state, int(AnchorState.IGNORE)),
            gt_index=gt_index,
            weights=weights * tf.cast(sample, tf.float32),
        )

    def positives(self, targets: MaskTargets) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the sampled positives of each image: int32 [B, R], and bool [B, R], R = ``max_positives``.

        The bools are False for rows of padding.
        """
        chosen = tf.cast(targets.state == AnchorState.POSITIVE, tf.int32)
        padded = tf.pad(chosen, [[0, 0], [0, self.max_positives]])  # there may be fewer locations than R
        found, rows = tf.math.top_k(padded, self.max_positives)
        return tf.where(found > 0, rows, 0), found > 0

    def _assign(
        self,
        locations: Locations,
        gt_boxes_px: tf.Tensor,
        gt_classes: tf.Tensor,
        gt_weights: tf.Tensor,
        is_crowd: tf.Tensor,
        has_mask: tf.Tensor,
        true_shape: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns state and row of the object, int32 [A] each, of one image."""
        is_object = (gt_classes >= 0) & boxes.is_valid(gt_boxes_px)
        num_rows = count_to_last(is_object)  # without the padding behind the last object
        gt_boxes_px, is_object = gt_boxes_px[:num_rows], is_object[:num_rows]
        can_match = is_object & ~is_crowd[:num_rows] & has_mask[:num_rows] & (gt_weights[:num_rows] > 0)
        low, high = tf.split(gt_boxes_px, 2, axis=-1)
        middles = 0.5 * (low + high)
        own_scale = nearest_scale(tf.reduce_max(high - low, axis=-1), self.scales_px)
        offsets = locations.centers_px[:, tf.newaxis] - middles  # [A, N, 2]
        is_near = tf.reduce_all(tf.abs(offsets) <= locations.cells_px[:, tf.newaxis, tf.newaxis], axis=-1)
        is_own = is_near & (locations.scales[:, tf.newaxis] == own_scale) & can_match
        distances = tf.where(is_own, tf.reduce_sum(offsets**2, axis=-1), math.inf)
        # One more column that matches nothing, for images without objects.
        distances = tf.pad(distances, [[0, 0], [0, 1]], constant_values=math.inf)
        is_positive = tf.reduce_any(is_own, axis=-1)
        gt_index = tf.where(is_positive, tf.argmin(distances, axis=-1, output_type=tf.int32), 0)
        centers = locations.centers_px[:, tf.newaxis]
        is_inside = tf.reduce_all((centers >= low) & (centers <= high), axis=-1)
        is_unknown = tf.reduce_any(is_inside & is_object & ~can_match, axis=-1)
        is_padding = tf.reduce_any(locations.centers_px >= tf.cast(true_shape, tf.float32), axis=-1)
        state = tf.where(is_unknown, int(AnchorState.IGNORE), int(AnchorState.NEGATIVE))
        state = tf.where(is_positive, int(AnchorState.POSITIVE), state)
        return tf.where(is_padding, int(AnchorState.IGNORE), state), gt_index
