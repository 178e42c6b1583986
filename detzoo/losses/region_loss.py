"""The losses of proposals, regions and masks, of two-stage detectors and of mask proposal networks (floor 2).

Each is averaged over an image's sample, then over the images, as in the Object Detection API.

References:
    Ren et al., arXiv:1506.01497, equation 1. Girshick, arXiv:1504.08083, equation 1. Shrivastava et al.,
    arXiv:1604.03540 (hard examples). He et al., arXiv:1703.06870, section 3 (masks).
    Lin et al., arXiv:1612.03144, appendix A (mask proposals: masks weigh ten times as much as scores). Pinheiro et al.,
    arXiv:1506.06204, equation 1 (binary logistic regression of both, masks of positives only).
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from detzoo.contracts import (
    AnchorState,
    Groundtruth,
    LossTerm,
    MaskProposalPredictions,
    MaskTargets,
    Predictions,
    Proposals,
    RegionTargets,
    Targets,
)
from detzoo.losses.classification import ClassificationLoss, class_targets, with_background
from detzoo.losses.hard_examples import HardExampleMiner
from detzoo.losses.localization import LocalizationLoss
from detzoo.ops.box_coder import BoxCoder


def mean_over_images(losses: tf.Tensor, counts: tf.Tensor, weight: float) -> LossTerm:
    """Returns the weighted mean over images of each image's sum of losses [B, R] by its count [B] (at least 1)."""
    divisors = tf.maximum(tf.cast(counts, tf.float32), 1.0)
    total = weight * tf.reduce_sum(tf.reduce_sum(losses, axis=1) / divisors)
    return LossTerm(total, tf.cast(tf.shape(losses)[0], tf.float32))


@dataclasses.dataclass(frozen=True)
class ProposalLoss:
    """Objectness of the sampled anchors, and localisation of the positive ones."""

    objectness: ClassificationLoss  # loss of two logits, background first
    localization: LocalizationLoss  # loss of codes
    objectness_weight: float = 1.0  # factor of the objectness term
    localization_weight: float = 1.0  # factor of the localisation term

    def __call__(self, predictions: Predictions, targets: Targets) -> dict[str, LossTerm]:
        """Returns the two terms over this replica's images, for ``targets`` from ``ProposalTargets``."""
        one_hot = tf.one_hot(tf.cast(targets.state == AnchorState.POSITIVE, tf.int32), 2)
        objectness = self.objectness(predictions.class_logits, one_hot) * targets.class_weights
        localization = self.localization(predictions.box_deltas, targets.box_deltas, predictions.anchors_norm)
        counts = tf.reduce_sum(tf.cast(targets.state != AnchorState.IGNORE, tf.float32), axis=1)
        return {
            "rpn_localization": mean_over_images(localization * targets.box_weights, counts, self.localization_weight),
            "rpn_objectness": mean_over_images(objectness, counts, self.objectness_weight),
        }


@dataclasses.dataclass(frozen=True)
class RegionLoss:
    """Classification of every region, and localisation of the positive ones."""

    classification: ClassificationLoss  # loss of K + 1 logits, background first
    localization: LocalizationLoss  # loss of codes
    box_coder: BoxCoder  # decoder of boxes for the miner
    classification_weight: float = 1.0  # factor of the classification term
    localization_weight: float = 1.0  # factor of the localisation term
    miner: HardExampleMiner | None = None  # choice of hard examples; None for all regions

    def __call__(
        self, box_deltas: tf.Tensor, class_logits: tf.Tensor, regions: Proposals, targets: RegionTargets
    ) -> dict[str, LossTerm]:
        """Returns the two terms over this replica's images, of deltas [B, R, 1 or K, 4] and logits [B, R, K + 1]."""
        own_deltas = of_class(box_deltas, targets.classes)
        labels = class_targets(targets.classes, class_logits.shape[-1] - 1, targets.gt_index, targets.label_sets)
        one_hot = with_background(labels, targets.classes)
        classification = self.classification(class_logits, one_hot) * targets.class_weights
        localization = self.localization(own_deltas, targets.box_deltas, regions.boxes_norm) * targets.box_weights
        if self.miner is not None:
            chosen = self._hard_regions(self.miner, localization, classification, own_deltas, regions, targets)
            localization, classification = localization * chosen, classification * chosen
        return {
            "localization": mean_over_images(localization, regions.num_valid, self.localization_weight),
            "classification": mean_over_images(classification, regions.num_valid, self.classification_weight),
        }

    def _hard_regions(
        self,
        miner: HardExampleMiner,
        localization: tf.Tensor,
        classification: tf.Tensor,
        own_deltas: tf.Tensor,
        regions: Proposals,
        targets: RegionTargets,
    ) -> tf.Tensor:
        """Returns the miner's choice, float32 [B, R]. Rows of padding have the lowest hardness."""
        is_region = targets.class_weights > 0
        state = tf.where(
            is_region,
            tf.where(targets.classes >= 0, int(AnchorState.POSITIVE), int(AnchorState.NEGATIVE)),
            int(AnchorState.IGNORE),
        )
        decoded = self.box_coder.decode(own_deltas, regions.boxes_norm)
        return miner(localization, tf.where(is_region, classification, -1.0), decoded, state)


@dataclasses.dataclass(frozen=True)
class MaskLoss:
    """Binary cross entropy of the positive regions' masks of the true class, averaged over the cells.

    Differs from the Object Detection API: the mean over the images, not the sum, as for every other term.
    """

    weight: float = 1.0  # factor of the term

    def __call__(
        self, mask_logits: tf.Tensor, regions: Proposals, targets: RegionTargets, groundtruth: Groundtruth
    ) -> dict[str, LossTerm]:
        """Returns the term over this replica's images, of logits float32 [B, R, h, w, 1 or K].

        The masks of the ground truth are uint8 [B, N, H, W] of the padded input.
        """
        masks = true_masks(groundtruth, targets.gt_index, regions.boxes_norm, tuple(mask_logits.shape[2:4]))
        logits = of_class(tf.transpose(mask_logits, [0, 1, 4, 2, 3]), targets.classes)
        cells = tf.nn.sigmoid_cross_entropy_with_logits(masks, logits)
        losses = tf.reduce_mean(cells, axis=[2, 3]) * targets.box_weights
        return {"mask": mean_over_images(losses, tf.reduce_sum(targets.box_weights, axis=1), self.weight)}


@dataclasses.dataclass(frozen=True)
class MaskProposalLoss:
    """Objectness at the sampled locations, and the masks of the positive ones.

    Scores are averaged over an image's sample, masks over its positives and the cells of each; both then over images.
    """

    mask_weight: float = 10.0  # factor of the term of the masks
    score_weight: float = 1.0  # factor of the term of the scores

    def __call__(
        self, predictions: MaskProposalPredictions, targets: MaskTargets, groundtruth: Groundtruth
    ) -> dict[str, LossTerm]:
        """Returns the terms "mask" and "score" over this replica's images.

        The chosen locations of the predictions are the sampled positives, with a score below 0 in padding.
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


def true_masks(
    groundtruth: Groundtruth, gt_index: tf.Tensor, boxes_norm: tf.Tensor, mask_size: tuple[int, int]
) -> tf.Tensor:
    """Returns the part of an object's mask in each box, float32 [B, R, *mask_size] in [0, 1]; 0 outside the input.

    Args:
        groundtruth: Ground truth with masks uint8 [B, N, H, W] of the padded input.
        gt_index: int32 [B, R], row of each box's object.
        boxes_norm: float32 [B, R, 4], fractions of the padded input.
        mask_size: (height, width) of a mask, in cells.
    """
    num_images, num_objects, height, width = tf.unstack(tf.shape(groundtruth.masks))
    # One more mask, for images without objects.
    images = tf.pad(tf.reshape(groundtruth.masks, [-1, height, width, 1]), [[0, 1], [0, 0], [0, 0], [0, 0]])
    rows = tf.reshape(gt_index + tf.range(num_images)[:, tf.newaxis] * num_objects, [-1])
    rows = tf.minimum(rows, num_images * num_objects)
    flat = tf.image.crop_and_resize(images, tf.reshape(boxes_norm, [-1, 4]), rows, mask_size)
    return tf.reshape(flat, [num_images, -1, *mask_size])


def of_class(values: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
    """Returns values [B, R, Q, ...] at each row's class [B, R]; the first entry if Q is 1 or the class is -1."""
    if values.shape[2] == 1:
        return values[:, :, 0]
    return tf.gather(values, tf.maximum(classes, 0), batch_dims=2)
