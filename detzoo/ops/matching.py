"""Matches ground truth with anchors: similarities, and two matchers (floor 1).

All functions here process one image: N ground-truth rows against A anchors, with ``valid_rows`` false for padding,
crowd and degenerate boxes. Invalid rows match nothing. N may be 0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Protocol

import tensorflow as tf

from detzoo.contracts import AnchorState, Assignment
from detzoo.ops import boxes

# float32 [N, 4] and [A, 4] -> float32 [N, A], higher for more similar boxes.
Similarity = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

# Below the similarity of any boxes that touch the unit square.
_NO_SIMILARITY = -1e9

# An anchor with at least half of its area in a crowd region is neither positive nor negative (COCO's rule for crowd
# regions: intersection over the detection's area, with the IoU threshold .5 of its easiest metric).
CROWD_IOA_THRESHOLD = 0.5


def iou_similarity(gt_boxes: tf.Tensor, anchors: tf.Tensor) -> tf.Tensor:
    """Returns the intersection over union [N, A]."""
    return boxes.pairwise_iou(gt_boxes, anchors)


def ioa_similarity(gt_boxes: tf.Tensor, anchors: tf.Tensor) -> tf.Tensor:
    """Returns the share of each anchor's area in each ground-truth box [N, A]; 0 for anchors without area."""
    return tf.math.divide_no_nan(boxes.pairwise_intersection(gt_boxes, anchors), boxes.area(anchors)[tf.newaxis, :])


def negative_squared_distance(gt_boxes: tf.Tensor, anchors: tf.Tensor) -> tf.Tensor:
    """Returns minus the squared distance of the four corner coordinates [N, A], at most 0."""
    difference = gt_boxes[:, tf.newaxis, :] - anchors[tf.newaxis, :, :]
    return -tf.reduce_sum(tf.square(difference), axis=-1)


@dataclasses.dataclass(frozen=True)
class ThresholdedIou:
    """Similarity [N, A] of 1 for an IoU above a threshold, else 0."""

    iou_threshold: float = 0.5

    def __call__(self, gt_boxes: tf.Tensor, anchors: tf.Tensor) -> tf.Tensor:
        """Returns the similarity of every ground-truth box [N, 4] with every anchor [A, 4]."""
        return tf.cast(boxes.pairwise_iou(gt_boxes, anchors) > self.iou_threshold, tf.float32)


class Matcher(Protocol):
    """The interface of both matchers."""

    def __call__(
        self, similarity: tf.Tensor, valid_rows: tf.Tensor, forced_rows: tf.Tensor | None = None
    ) -> Assignment:
        """Assigns each anchor.

        Args:
            similarity: float32 [N, A].
            valid_rows: bool [N], rows that may match.
            forced_rows: bool [N], valid rows that may claim their best anchor; None for all valid rows.
        """


@dataclasses.dataclass(frozen=True)
class ArgmaxMatcher:
    """Matches each anchor with its most similar row, if the similarity reaches a threshold."""

    matched_threshold: float | None = 0.5  # smallest similarity of positive anchors; None makes every anchor positive
    # Anchors below it are negative, those between the two thresholds ignored; None for ``matched_threshold``.
    unmatched_threshold: float | None = None
    negatives_lower_than_unmatched: bool = True  # False swaps the two: negative between the thresholds, ignored below
    # Matches each row with its most similar anchor, independent of the thresholds. The first of two rows that claim
    # one anchor gets it.
    force_match_for_each_row: bool = False

    def __call__(
        self, similarity: tf.Tensor, valid_rows: tf.Tensor, forced_rows: tf.Tensor | None = None
    ) -> Assignment:
        """See ``Matcher.__call__``."""
        similarity, valid_rows = _with_spare_row(similarity, valid_rows)
        similarity = tf.where(valid_rows[:, tf.newaxis], similarity, _NO_SIMILARITY)
        gt_index = tf.argmax(similarity, axis=0, output_type=tf.int32)
        state = self._state(tf.reduce_max(similarity, axis=0))
        if self.force_match_for_each_row:
            may_force = valid_rows if forced_rows is None else valid_rows & tf.pad(forced_rows, [[0, 1]])
            forced = _best_row_of_forced_columns(similarity, may_force)
            is_forced = forced < tf.shape(similarity)[0]
            gt_index = tf.where(is_forced, forced, gt_index)
            state = tf.where(is_forced, int(AnchorState.POSITIVE), state)
        return Assignment(state, tf.where(state == AnchorState.POSITIVE, gt_index, 0))

    def _state(self, best: tf.Tensor) -> tf.Tensor:
        exists = best > _NO_SIMILARITY
        if self.matched_threshold is None:
            return tf.where(exists, int(AnchorState.POSITIVE), int(AnchorState.NEGATIVE))
        unmatched = self.matched_threshold if self.unmatched_threshold is None else self.unmatched_threshold
        low, between = AnchorState.NEGATIVE, AnchorState.IGNORE
        if not self.negatives_lower_than_unmatched:
            low, between = between, low
        state = tf.where(best < unmatched, int(low), int(between))
        state = tf.where(best >= self.matched_threshold, int(AnchorState.POSITIVE), state)
        # Without any row, every anchor is background under all thresholds.
        return tf.where(exists, state, int(AnchorState.NEGATIVE))


@dataclasses.dataclass(frozen=True)
class BipartiteMatcher:
    """Assigns one anchor to each valid row, greedily from the most similar pair down. Other anchors are negative."""

    def __call__(
        self, similarity: tf.Tensor, valid_rows: tf.Tensor, forced_rows: tf.Tensor | None = None
    ) -> Assignment:
        """See ``Matcher.__call__``; only rows in ``forced_rows`` take part."""
        if forced_rows is not None:
            valid_rows = valid_rows & forced_rows
        similarity, valid_rows = _with_spare_row(similarity, valid_rows)
        remaining = tf.where(valid_rows[:, tf.newaxis], similarity, _NO_SIMILARITY)
        num_anchors = tf.shape(similarity)[1]
        rounds = tf.minimum(tf.reduce_sum(tf.cast(valid_rows, tf.int32)), num_anchors)

        def match_best_pair(step: tf.Tensor, remaining: tf.Tensor, row_of_anchor: tf.Tensor) -> tuple:
            best = tf.argmax(tf.reshape(remaining, [-1]), output_type=tf.int32)
            row, anchor = best // num_anchors, best % num_anchors
            row_of_anchor = tf.tensor_scatter_nd_update(row_of_anchor, [[anchor]], [row])
            taken = (tf.range(tf.shape(remaining)[0]) == row)[:, tf.newaxis] | (tf.range(num_anchors) == anchor)
            return step + 1, tf.where(taken, _NO_SIMILARITY, remaining), row_of_anchor

        _, _, row_of_anchor = tf.while_loop(
            lambda step, *_: step < rounds,
            match_best_pair,
            (tf.constant(0), remaining, tf.fill([num_anchors], -1)),
            shape_invariants=(tf.TensorShape([]), tf.TensorShape([None, None]), tf.TensorShape([None])),
        )
        row_of_anchor = tf.ensure_shape(row_of_anchor, similarity.shape[1:])
        matched = row_of_anchor >= 0
        state = tf.where(matched, int(AnchorState.POSITIVE), int(AnchorState.NEGATIVE))
        return Assignment(state, tf.where(matched, row_of_anchor, 0))


def _with_spare_row(similarity: tf.Tensor, valid_rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Appends an invalid row, so that a maximum over the rows exists for an image without boxes, too."""
    return tf.pad(similarity, [[0, 1], [0, 0]]), tf.pad(valid_rows, [[0, 1]])


def _best_row_of_forced_columns(similarity: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Returns, per column, the first of ``rows`` with its maximum there, or a number past the last row: int32 [A]."""
    num_rows, num_columns = tf.unstack(tf.shape(similarity))
    best_column = tf.argmax(similarity, axis=1, output_type=tf.int32)
    claims = tf.where(rows, tf.range(num_rows), num_rows)
    claimed = tf.math.unsorted_segment_min(
        claims, best_column, num_columns
    )  # the largest int for a column without claims
    return tf.ensure_shape(claimed, similarity.shape[1:])


def ignore_crowd(assignment: Assignment, anchors: tf.Tensor, crowd_boxes: tf.Tensor, is_crowd: tf.Tensor) -> Assignment:
    """Changes negative anchors with at least ``CROWD_IOA_THRESHOLD`` of their area in a crowd region to ignored ones.

    Takes the assignment [A] of one image, anchors [A, 4] and boxes [N, 4] in one unit; only crowd boxes count.
    """
    crowd_boxes = tf.boolean_mask(crowd_boxes, is_crowd)
    covered = tf.reduce_max(ioa_similarity(tf.pad(crowd_boxes, [[0, 1], [0, 0]]), anchors), axis=0)
    ignored = (covered >= CROWD_IOA_THRESHOLD) & (assignment.state == AnchorState.NEGATIVE)
    return assignment._replace(state=tf.where(ignored, int(AnchorState.IGNORE), assignment.state))
