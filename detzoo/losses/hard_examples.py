"""Which anchors count: hard example mining (floor 2).

Covers OHEM (Shrivastava et al., arXiv:1604.03540: a fixed number of the hardest, after suppression of near-duplicates)
and the 3:1 rule of SSD (arXiv:1512.02325, section 2.2: all positives and the hardest negatives), alone or together.
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from detzoo.contracts import AnchorState


@dataclasses.dataclass(frozen=True)
class HardExampleMiner:
    """Chooses the anchors of highest loss, image by image.

    Greedy suppression of the decoded boxes, best meaning highest loss, gives at most ``num_hard_examples`` anchors;
    then, from the hardest down, negatives past ``max_negatives_per_positive`` times the chosen positives are dropped.

    Attributes:
        num_hard_examples: chosen an image before the ratio is applied; None for no limit.
        iou_threshold: a box that overlaps a harder one by more is not chosen; 1 for no suppression.
        classification_weight: of the classification loss in what "hard" means.
        localization_weight: of the localisation loss in what "hard" means.
        max_negatives_per_positive: None for no ratio.
        min_negatives_per_image: negatives allowed whatever the number of positives; needs the ratio.
    """

    num_hard_examples: int | None = 64
    iou_threshold: float = 0.7
    classification_weight: float = 1.0
    localization_weight: float = 1.0
    max_negatives_per_positive: int | None = None
    min_negatives_per_image: int = 0

    def __call__(
        self, localization: tf.Tensor, classification: tf.Tensor, boxes: tf.Tensor, state: tf.Tensor
    ) -> tf.Tensor:
        """The choice; no gradient flows through it.

        Args:
            localization: float32 [B, A], losses.
            classification: float32 [B, A], losses.
            boxes: float32 [B, A, 4], decoded.
            state: int32 [B, A] of AnchorState.

        Returns:
            float32 [B, A], 1 for chosen anchors.
        """
        hardness = self.classification_weight * classification + self.localization_weight * localization
        return tf.map_fn(
            lambda image: self._choose(*image),
            (tf.stop_gradient(hardness), tf.stop_gradient(boxes), state),
            fn_output_signature=tf.TensorSpec(hardness.shape[1:], tf.float32),
        )

    def _choose(self, hardness: tf.Tensor, boxes: tf.Tensor, state: tf.Tensor) -> tf.Tensor:
        num_anchors = tf.size(hardness)
        limit = num_anchors if self.num_hard_examples is None else tf.minimum(self.num_hard_examples, num_anchors)
        if self.iou_threshold >= 1.0:
            chosen = tf.math.top_k(hardness, limit).indices
        else:
            chosen = tf.image.non_max_suppression(boxes, hardness, limit, self.iou_threshold)
        keep = tf.ones_like(chosen, tf.bool)
        if self.max_negatives_per_positive is not None:
            chosen_state = tf.gather(state, chosen)
            is_positive = chosen_state == AnchorState.POSITIVE
            num_positives = tf.reduce_sum(tf.cast(is_positive, tf.int32))
            allowed = tf.maximum(self.max_negatives_per_positive * num_positives, self.min_negatives_per_image)
            negative_rank = tf.cumsum(tf.cast(chosen_state == AnchorState.NEGATIVE, tf.int32))
            keep = is_positive | (negative_rank <= allowed)
        return tf.scatter_nd(chosen[:, tf.newaxis], tf.cast(keep, tf.float32), [num_anchors])
