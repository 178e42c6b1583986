"""Hard example mining: chooses the anchors that train (floor 2).

OHEM (Shrivastava et al., arXiv:1604.03540) takes a fixed number of the hardest anchors, after suppression of
near-duplicates. The 3:1 rule of SSD (arXiv:1512.02325, section 2.2) takes all positives and the hardest negatives. The
Object Detection API combines both, and so does "OHEM 1:3" of the focal loss paper (arXiv:1708.02002, section 5.1),
which reserves places for positives. That paper does not define its minibatch: here it is the choice in one image.
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from detzoo.contracts import AnchorState

# Candidates per allowed negative, so that the first attempt replaces those that suppression removes.
_SPARE_NEGATIVES = 2


@dataclasses.dataclass(frozen=True)
class HardExampleMiner:
    """Chooses the anchors of highest loss, image by image.

    Greedy suppression of the decoded boxes by falling loss leaves at most ``num_hard_examples`` anchors. Of these, from
    the hardest down, negatives past ``max_negatives_per_positive`` times the chosen positives are dropped. With
    ``reserve_positives`` the ratio r comes first: of all anchors that suppression leaves, the hardest
    ``num_hard_examples // (1 + r)`` positives are chosen, and r of the hardest negatives for each of them.
    """

    num_hard_examples: int | None = 64  # anchors per image before the ratio is applied; None for no limit
    iou_threshold: float = 0.7  # a box with a higher IoU with a harder one is not chosen; 1 for no suppression
    classification_weight: float = 1.0  # weight of the classification loss in the hardness
    localization_weight: float = 1.0  # weight of the localisation loss in the hardness
    max_negatives_per_positive: int | None = None  # ratio r; None for no ratio
    min_negatives_per_image: int = 0  # negatives that are allowed for any number of positives; needs the ratio
    # Reserves a share of the examples for positives; needs ``num_hard_examples`` and the ratio.
    reserve_positives: bool = False

    @property
    def max_positives(self) -> int | None:
        """Places reserved for positives; None for no limit."""
        if not self.reserve_positives or self.num_hard_examples is None:
            return None
        return self.num_hard_examples // (1 + (self.max_negatives_per_positive or 0))

    def __call__(
        self, localization: tf.Tensor, classification: tf.Tensor, boxes: tf.Tensor, state: tf.Tensor
    ) -> tf.Tensor:
        """Returns float32 [B, A], 1 for chosen anchors. With a ratio, ignored anchors are never chosen.

        No gradient flows through the choice. Losses are float32 [B, A], ``boxes`` decoded, ``state`` of AnchorState.
        """
        hardness = self.classification_weight * classification + self.localization_weight * localization
        return tf.map_fn(
            tf.autograph.experimental.do_not_convert(lambda image: self._choose(*image)),
            (tf.stop_gradient(hardness), tf.stop_gradient(boxes), state),
            fn_output_signature=tf.TensorSpec(hardness.shape[1:], tf.float32),
        )

    def _choose(self, hardness: tf.Tensor, boxes: tf.Tensor, state: tf.Tensor) -> tf.Tensor:
        num_anchors = tf.size(hardness)
        limit = num_anchors
        if self.num_hard_examples is not None and not self.reserve_positives:
            limit = tf.minimum(self.num_hard_examples, num_anchors)
        is_positive, is_negative = state == AnchorState.POSITIVE, state == AnchorState.NEGATIVE
        if self.iou_threshold >= 1.0:
            chosen = tf.math.top_k(hardness, limit).indices
        elif self.max_negatives_per_positive is None:
            chosen = tf.image.non_max_suppression(boxes, hardness, limit, self.iou_threshold)
        else:
            chosen = self._suppress_prefix(hardness, boxes, is_positive, is_negative, limit)
        keep = tf.ones_like(chosen, tf.bool)
        if self.max_negatives_per_positive is not None:
            keep_positive = tf.gather(is_positive, chosen)
            num_positives = self._chosen_positives(keep_positive)
            keep = _first(keep_positive, num_positives)
            keep |= _first(tf.gather(is_negative, chosen), self._allowed_negatives(num_positives))
        return tf.scatter_nd(chosen[:, tf.newaxis], tf.cast(keep, tf.float32), [num_anchors])

    def _allowed_negatives(self, num_positives: tf.Tensor) -> tf.Tensor:
        allowed = tf.maximum((self.max_negatives_per_positive or 0) * num_positives, self.min_negatives_per_image)
        if not self.reserve_positives or self.num_hard_examples is None:
            return allowed
        return tf.minimum(allowed, self.num_hard_examples - num_positives)

    def _suppress_prefix(
        self,
        hardness: tf.Tensor,
        boxes: tf.Tensor,
        is_positive: tf.Tensor,
        is_negative: tf.Tensor,
        limit: tf.Tensor,
    ) -> tf.Tensor:
        """Suppresses boxes down to the easiest positive and the last negative that can be kept.

        Suppression visits boxes from the hardest down, so its decisions for the first n do not depend on the rest. For
        high IoU thresholds its time grows with n squared: 58 ms for all 1917 anchors of a small SSD.
        """
        order = tf.argsort(hardness, direction="DESCENDING", stable=True)
        quota = self._allowed_negatives(self._chosen_positives(is_positive))  # an upper bound of the allowed number
        positions = tf.range(1, tf.size(order) + 1)
        last_positive = tf.reduce_max(tf.where(tf.gather(is_positive, order), positions, 0))
        negatives_before = tf.cumsum(tf.cast(tf.gather(is_negative, order), tf.int32))
        enough_negatives = _count(negatives_before < _SPARE_NEGATIVES * quota) + 1
        first = order[: tf.maximum(last_positive, enough_negatives)]

        def suppress(candidates: tf.Tensor, limit: tf.Tensor) -> tf.Tensor:
            subset = tf.gather(boxes, candidates), tf.gather(hardness, candidates)
            return tf.gather(candidates, tf.image.non_max_suppression(*subset, limit, self.iou_threshold))

        chosen = suppress(first, limit)
        # Suppression has visited every positive, so the number of allowed negatives is final.
        allowed = self._allowed_negatives(self._chosen_positives(tf.gather(is_positive, chosen)))
        is_filled = (_count(tf.gather(is_negative, chosen)) >= allowed) | (tf.size(chosen) == limit)
        is_decided = is_filled | (tf.size(first) == tf.size(order))
        num_ignored = tf.size(order) - _count(is_positive | is_negative)
        enough = tf.minimum(limit, tf.size(chosen) + allowed + num_ignored)
        return tf.cond(is_decided, lambda: chosen, lambda: suppress(order, enough))

    def _chosen_positives(self, is_positive: tf.Tensor) -> tf.Tensor:
        num_positives = _count(is_positive)
        return num_positives if self.max_positives is None else tf.minimum(num_positives, self.max_positives)


def _first(mask: tf.Tensor, limit: tf.Tensor | int) -> tf.Tensor:
    """Returns the mask with its first ``limit`` true entries only."""
    return mask & (tf.cumsum(tf.cast(mask, tf.int32)) <= limit)


def _count(mask: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(mask, tf.int32))
