"""Selects the proposals of a second stage from the raw output of the first (floor 2).

References:
    Ren et al., arXiv:1506.01497, section 3.3 (suppression at IoU .7, then the best). Lin et al., arXiv:1612.03144,
    section 5.1 (one suppression over all levels).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import tensorflow as tf

from detzoo.contracts import Predictions, Proposals
from detzoo.ops import boxes
from detzoo.ops.box_coder import BoxCoder
from detzoo.ops.nms import NmsLimits, per_class_nms


@dataclasses.dataclass(frozen=True)
class ProposalSelection:
    """Decodes, scores and suppresses."""

    box_coder: BoxCoder  # decoder of the boxes
    limits: NmsLimits  # limits of the suppression at inference
    training_limits: NmsLimits  # limits of the suppression in training
    pre_nms_top_k: int = 0  # number of best anchors per level that enter the suppression; 0 for all

    def __call__(
        self,
        predictions: Predictions,
        windows: tf.Tensor,
        level_sizes: Sequence[int | tf.Tensor],
        training: bool = False,
        usable: tf.Tensor | None = None,
    ) -> Proposals:
        """Returns the proposals of a batch, clipped to its windows, float32 [B, 4]. No gradient flows through them.

        ``level_sizes`` are the numbers of anchors of each level, in the order of the predictions. Anchors that are not
        ``usable``, bool [B, A], do not propose.
        """
        scores = tf.nn.softmax(tf.stop_gradient(predictions.class_logits))[..., 1]
        if usable is not None:
            scores = tf.where(usable, scores, 0.0)
        deltas, anchors = tf.stop_gradient(predictions.box_deltas), predictions.anchors_norm
        if self.pre_nms_top_k:
            rows = _best_of_levels(scores, level_sizes, self.pre_nms_top_k)
            scores = tf.gather(scores, rows, batch_dims=1)
            deltas = tf.gather(deltas, rows, batch_dims=1)
            anchors = tf.gather(anchors, rows)
        decoded = self.box_coder.decode(deltas, anchors)
        limits = self.training_limits if training else self.limits
        selection = per_class_nms(decoded, scores[..., tf.newaxis], windows, limits)
        chosen = boxes.clip(tf.gather(decoded, selection.anchor_indices, batch_dims=1), windows[:, tf.newaxis])
        is_filled = tf.range(limits.max_total_detections) < selection.num_valid[:, tf.newaxis]
        return Proposals(tf.where(is_filled[..., tf.newaxis], chosen, 0.0), selection.scores, selection.num_valid)


def _best_of_levels(scores: tf.Tensor, level_sizes: Sequence[int | tf.Tensor], top_k: int) -> tf.Tensor:
    """Returns the rows of the best ``top_k`` anchors of each level, in order of the anchors: int32 [B, levels * k]."""
    rows, start = [], 0
    for size in level_sizes:
        count = min(top_k, size) if isinstance(size, int) else tf.minimum(top_k, size)
        best = tf.math.top_k(scores[:, start : start + size], count).indices
        rows.append(tf.sort(best, axis=-1) + start)
        start = start + size
    return tf.concat(rows, axis=1)
