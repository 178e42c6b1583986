"""The losses of a mask proposal network's scores and masks (floor 2).

References:
    Lin et al., arXiv:1612.03144, appendix A (masks weigh ten times as much as scores). Pinheiro et al.,
    arXiv:1506.06204, equation 1 (binary logistic regression of both, masks of positives only).
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from detzoo.contracts import AnchorState, Groundtruth, LossTerm, MaskProposalPredictions, MaskTargets
from detzoo.losses.region_loss import mean_over_images, true_masks


@dataclasses.dataclass(frozen=True)
class MaskProposalLoss:
    """Objectness at the sampled locations, and the masks of the positive ones.

    Scores are averaged over an image's sample, masks over its positives and the cells of each; both then over images.

    Attributes:
        mask_weight: Factor of the term of the masks.
        score_weight: Factor of the term of the scores.
    """

    mask_weight: float = 10.0
    score_weight: float = 1.0

    def __call__(
        self, predictions: MaskProposalPredictions, targets: MaskTargets, groundtruth: Groundtruth
    ) -> dict[str, LossTerm]:
        """Returns the terms "mask" and "score" over this replica's images.

        Args:
            predictions: Predictions whose chosen locations are the sampled positives, with a score below 0 in padding.
            targets: [B, A].
            groundtruth: Ground truth with masks uint8 [B, N, H, W] of the padded input.
        """
        is_positive = tf.cast(targets.state == AnchorState.POSITIVE, tf.float32)
        scores = tf.nn.sigmoid_cross_entropy_with_logits(is_positive, predictions.score_logits) * targets.weights
        num_sampled = tf.reduce_sum(tf.cast(targets.state != AnchorState.IGNORE, tf.float32), axis=1)
        objects = tf.gather(targets.gt_index, predictions.chosen, batch_dims=1)
        windows = tf.gather(predictions.windows_norm, predictions.chosen)
        expected = true_masks(groundtruth, objects, windows, tuple(predictions.mask_logits.shape[2:4]))
        cells = tf.nn.sigmoid_cross_entropy_with_logits(expected, predictions.mask_logits)
        is_filled = tf.cast(predictions.scores >= 0.0, tf.float32)
        weights = tf.gather(targets.weights, predictions.chosen, batch_dims=1) * is_filled
        masks = tf.reduce_mean(cells, axis=[2, 3]) * weights
        return {
            "mask": mean_over_images(masks, tf.reduce_sum(is_filled, axis=1), self.mask_weight),
            "score": mean_over_images(scores, num_sampled, self.score_weight),
        }
