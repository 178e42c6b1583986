"""Chooses the regions that train the second stage of a detector, with their targets (floor 2).

proposals (and the true boxes) -> assignment by IoU -> a random minibatch -> regions to crop, with their targets

References:
    Girshick, arXiv:1504.08083, section 2.3 (minibatch, a quarter positive). Ren et al., arXiv:1506.01497. Lin et al.,
    arXiv:1612.03144, section 5.2 (512 regions). Shrivastava et al., arXiv:1604.03540 (all regions, the hard count).
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from detzoo.contracts import AnchorState, Groundtruth, Proposals, RegionTargets
from detzoo.ops import boxes
from detzoo.ops.sampling import balanced_sample
from detzoo.targets.anchor_targets import AnchorTargets


@dataclasses.dataclass(frozen=True)
class RegionSampler:
    """Chooses and labels the regions of a batch.

    Differs from the Object Detection API: true boxes may be added to the proposals, because an untrained first stage
    yields no positives (as in the authors' code of Faster R-CNN).
    """

    assign: AnchorTargets  # matching by IoU, with .5 for both thresholds in the papers
    sample_size: int | None = 64  # regions per image; None keeps all, for hard example mining
    positive_fraction: float = 0.25  # largest share of positives in the sample
    add_groundtruth: bool = True  # adds the true boxes to the regions

    def __call__(
        self, proposals: Proposals, groundtruth: Groundtruth, seed: tf.Tensor | None = None
    ) -> tuple[Proposals, RegionTargets]:
        """Returns the regions to classify and their targets. No gradient flows to either.

        Rows of padding, crowd regions and proposals mostly inside one are never negative. If all regions of an image
        are ignored, its sample is empty. A seed, int [2], makes the sample reproducible.

        Returns:
            Regions [B, S, 4] (S = ``sample_size``, or R, or R + N), the sampled ones first, and their targets.
        """
        candidates, usable = self._candidates(proposals, groundtruth)
        targets = self.assign(candidates.boxes_norm, groundtruth, usable)
        positive = (targets.state == AnchorState.POSITIVE) & (targets.class_weights > 0)
        negative = targets.state == AnchorState.NEGATIVE
        if self.sample_size is None:
            chosen = positive | negative
            size = chosen.shape[1] if chosen.shape[1] is not None else tf.shape(chosen)[1]
        else:
            chosen = balanced_sample(positive, negative, self.sample_size, self.positive_fraction, seed)
            size = self.sample_size
        rows, num_chosen = _first_rows(chosen, size)
        is_row = tf.range(size) < num_chosen[:, tf.newaxis]

        def pick(values: tf.Tensor) -> tf.Tensor:
            picked = tf.gather(values, rows, batch_dims=1)
            mask = is_row if picked.shape.rank == 2 else is_row[..., tf.newaxis]
            return tf.stop_gradient(tf.where(mask, picked, tf.zeros_like(picked)))

        regions = Proposals(pick(candidates.boxes_norm), pick(candidates.scores), num_chosen)
        classes = tf.where(is_row, tf.gather(targets.classes, rows, batch_dims=1), -1)
        return regions, RegionTargets(
            box_deltas=pick(targets.box_deltas),
            classes=classes,
            class_weights=pick(targets.class_weights),
            box_weights=pick(targets.box_weights),
            gt_index=pick(targets.gt_index),
            label_sets=groundtruth.label_sets,
        )

    def _candidates(self, proposals: Proposals, groundtruth: Groundtruth) -> tuple[Proposals, tf.Tensor]:
        """Returns all regions, and bool [B, R or R + N], False for rows of padding."""
        is_proposal = tf.range(tf.shape(proposals.boxes_norm)[1]) < proposals.num_valid[:, tf.newaxis]
        if not self.add_groundtruth:
            return proposals, is_proposal
        is_object = (groundtruth.classes >= 0) & ~groundtruth.is_crowd & boxes.is_valid(groundtruth.boxes_norm)
        everything = Proposals(
            tf.concat([proposals.boxes_norm, groundtruth.boxes_norm], axis=1),
            tf.concat([proposals.scores, tf.zeros_like(groundtruth.weights)], axis=1),
            proposals.num_valid,
        )
        return everything, tf.concat([is_proposal, is_object], axis=1)


def _first_rows(chosen: tf.Tensor, size: int | tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the rows of the true entries of ``chosen`` bool [B, R], int32 [B, size] in order, and their count [B]."""
    missing = tf.maximum(size - tf.shape(chosen)[1], 0)
    chosen = tf.pad(chosen, [[0, 0], [0, missing]])
    rows = tf.argsort(tf.cast(~chosen, tf.int32), axis=-1, stable=True)[:, :size]
    rows = tf.ensure_shape(rows, [chosen.shape[0], size if isinstance(size, int) else None])
    last = tf.shape(chosen)[1] - missing - 1
    return tf.minimum(rows, last), tf.reduce_sum(tf.cast(chosen, tf.int32), axis=-1)
