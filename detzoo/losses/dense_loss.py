"""The loss of a dense head, from predictions and targets (floor 2)."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from detzoo.contracts import AnchorState, LossTerm, Predictions, Targets
from detzoo.losses.classification import ClassificationLoss, class_targets, with_background
from detzoo.losses.hard_examples import HardExampleMiner
from detzoo.losses.localization import LocalizationLoss
from detzoo.ops.box_coder import BoxCoder
from detzoo.ops.sampling import balanced_sample


@dataclasses.dataclass(frozen=True)
class DenseLoss:
    """Sums classification over positive and negative anchors, and localisation over positive ones."""

    classification: ClassificationLoss  # loss of logits
    localization: LocalizationLoss  # loss of codes
    box_coder: BoxCoder  # decoder of boxes for the miner
    has_background_column: bool = True  # True if column 0 of the logits is the background
    # Sets a negative's target to zero in every column, instead of one in column 0.
    encode_background_as_zeros: bool = False
    classification_weight: float = 1.0  # factor of the classification term
    localization_weight: float = 1.0  # factor of the localisation term
    normalize_by_num_matches: bool = True  # divides both terms by the weight of all positives; else they are plain sums
    normalize_localization_by_code_size: bool = False  # also divides the localisation term by the length of a code
    miner: HardExampleMiner | None = None  # choice of hard examples, or None
    # Share of positives in a random sample of the anchors; None for all anchors.
    positive_sample_fraction: float | None = None

    def __call__(self, predictions: Predictions, targets: Targets) -> dict[str, LossTerm]:
        """Returns the terms "localization" and "classification" over this replica's images.

        The normalizer of plain sums is 0: the global value divides by at least 1.
        """
        targets = self._sampled(targets)
        localization, classification = self.anchor_losses(predictions, targets)
        if self.miner is not None:
            boxes = self.box_coder.decode(predictions.box_deltas, predictions.anchors_norm)
            chosen = self.miner(localization, classification, boxes, targets.state)
            localization, classification = localization * chosen, classification * chosen
        normalizer = tf.reduce_sum(targets.box_weights) if self.normalize_by_num_matches else tf.constant(0.0)
        code_size = predictions.box_deltas.shape[-1] if self.normalize_localization_by_code_size else 1
        localization_factor = self.localization_weight / code_size
        return {
            "localization": LossTerm(localization_factor * tf.reduce_sum(localization), normalizer),
            "classification": LossTerm(self.classification_weight * tf.reduce_sum(classification), normalizer),
        }

    def anchor_losses(self, predictions: Predictions, targets: Targets) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the weighted localisation and classification loss of every anchor, float32 [B, A] each."""
        localization = self.localization(predictions.box_deltas, targets.box_deltas, predictions.anchors_norm)
        one_hot = self._one_hot(targets, predictions.class_logits.shape[-1])
        classification = self.classification(predictions.class_logits, one_hot)
        return localization * targets.box_weights, classification * targets.class_weights

    def _one_hot(self, targets: Targets, num_columns: int) -> tf.Tensor:
        """Returns class targets float32 [B, A, C]; merged boxes have several ones."""
        num_classes = num_columns - int(self.has_background_column)
        labels = class_targets(targets.classes, num_classes, targets.gt_index, targets.label_sets)
        if not self.has_background_column:
            return labels
        return with_background(labels, targets.classes, self.encode_background_as_zeros)

    def _sampled(self, targets: Targets) -> Targets:
        if self.positive_sample_fraction is None:
            return targets
        counts = targets.class_weights > 0
        is_positive = targets.state == AnchorState.POSITIVE
        sample = balanced_sample(counts & is_positive, counts & ~is_positive, None, self.positive_sample_fraction)
        chosen = tf.cast(sample, tf.float32)
        return targets._replace(class_weights=targets.class_weights * chosen, box_weights=targets.box_weights * chosen)
