"""The losses of a mask proposal network: of its scores and of its masks (floor 2).

References:
    Lin et al., arXiv:1612.03144, appendix A (masks weigh ten times what scores do); Pinheiro et al., arXiv:1506.06204,
    equation 1 (binary logistic regression of both, masks of positives only).
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from detzoo.contracts import AnchorState, Groundtruth, LossTerm, MaskProposalPredictions, MaskTargets
from detzoo.losses.region_loss import mean_over_images


@dataclasses.dataclass(frozen=True)
class MaskProposalLoss:
    """Object or not at the sampled locations, and the masks of the positive ones.

    Each is averaged over an image's sample first (scores: all of it, masks: its positives, each the mean over its
    cells) and over the images then.

    Attributes:
        mask_weight: factor of the term of the masks.
        score_weight: factor of the term of the scores.
    """

    mask_weight: float = 10.0
    score_weight: float = 1.0

    def __call__(
        self, predictions: MaskProposalPredictions, targets: MaskTargets, groundtruth: Groundtruth
    ) -> dict[str, LossTerm]:
        """The two terms over this replica's images.

        Args:
            predictions: whose chosen locations are the sampled positives, with a score below 0 in rows of padding.
            targets: [B, A].
            groundtruth: with masks uint8 [B, N, H, W] of the padded input.
        """
        is_positive = tf.cast(targets.state == AnchorState.POSITIVE, tf.float32)
        scores = tf.nn.sigmoid_cross_entropy_with_logits(is_positive, predictions.score_logits) * targets.weights
        num_sampled = tf.reduce_sum(tf.cast(targets.state != AnchorState.IGNORE, tf.float32), axis=1)
        wanted = true_masks(predictions, targets, groundtruth)
        cells = tf.nn.sigmoid_cross_entropy_with_logits(wanted, predictions.mask_logits)
        is_filled = tf.cast(predictions.scores >= 0.0, tf.float32)
        weights = tf.gather(targets.weights, predictions.chosen, batch_dims=1) * is_filled
        masks = tf.reduce_mean(cells, axis=[2, 3]) * weights
        return {
            "mask": mean_over_images(masks, tf.reduce_sum(is_filled, axis=1), self.mask_weight),
            "score": mean_over_images(scores, num_sampled, self.score_weight),
        }


def true_masks(predictions: MaskProposalPredictions, targets: MaskTargets, groundtruth: Groundtruth) -> tf.Tensor:
    """What the masks of the chosen locations should be, float32 [B, R, h, w] in [0, 1]; 0 outside of the input.

    Only meaningful where a chosen location is positive; all others show the first object of their image.
    """
    num_images, num_objects, height, width = tf.unstack(tf.shape(groundtruth.masks))
    size = tuple(predictions.mask_logits.shape[2:4])
    # One more mask, so that an image without any object has one to be cropped.
    images = tf.pad(tf.reshape(groundtruth.masks, [-1, height, width, 1]), [[0, 1], [0, 0], [0, 0], [0, 0]])
    objects = tf.gather(targets.gt_index, predictions.chosen, batch_dims=1)
    rows = tf.reshape(objects + tf.range(num_images)[:, tf.newaxis] * num_objects, [-1])
    rows = tf.minimum(rows, num_images * num_objects)
    windows = tf.reshape(tf.gather(predictions.windows_norm, predictions.chosen), [-1, 4])
    return tf.reshape(tf.image.crop_and_resize(images, windows, rows, size), [num_images, -1, *size])
