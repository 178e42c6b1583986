"""Suppression of one image's boxes in operations that LiteRT runs fast, for detections in a TFLite file.

    scores of all anchors -> the best pairs (anchor, class) -> decode their boxes -> NON_MAX_SUPPRESSION_V4 -> rows

The pairs are a prefix in the sense of ``detzoo.ops.nms``, in the order of falling scores. Greedy suppression decides
about a pair by earlier pairs only, so the rows are exactly the first rows of a suppression of all pairs. Rows are
missing at the end if the prefix yields fewer than the requested detections although more pairs score above the
threshold. With a detector trained on COCO and a threshold of 1e-8, one hundred detections take 270 pairs in the median
image and at most 570; the prefix has at least 1,024. Detectors with at most that many pairs are never cut.

The pairs of all classes go through one suppression, with the boxes of each class moved to a separate cell of a square
grid. This rounds coordinates by up to 2e-7 sqrt(classes), in fractions of the image.

Differs from the interpreter's operation TFLite_Detection_PostProcess, which decodes and sorts all anchors for each
class: 31 ms of the 41 ms of SSD MobileNet v2 300 with 90 classes. With n threads, it also skips class n (TensorFlow
issue 56058).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import tensorflow as tf

from detzoo.contracts import Tensor
from detzoo.ops import boxes as box_ops
from detzoo.ops.nms import NmsLimits

# The largest of these numbers counts. With few classes, more pairs are suppressed, and longer prefixes cost less.
_PAIRS, _PAIRS_PER_DETECTION, _PAIRS_TIMES_CLASSES = 1024, 10, 4096

# Boxes without area inside the image take part, but fill no row. A quarter more boxes are kept, to fill all rows.
_SPARE_SHARE, _LEAST_SPARE = 0.25, 32

# Moved boxes are limited to [-1, 2] and their cells are 4 wide, a power of two.
_LOW, _HIGH, _CELL = -1.0, 2.0, 4.0


class Pairs(NamedTuple):
    """Pairs (anchor, class) in the order of falling scores, n of them."""

    scores: Tensor  # float32 [n]
    anchors: Tensor  # int32 [n]
    classes: Tensor  # int32 [n]


def prefix_length(limits: NmsLimits, num_classes: int) -> int:
    """Returns the number of pairs in the prefix of a detector that has so many."""
    return max(_PAIRS, _PAIRS_PER_DETECTION * limits.max_total_detections, _PAIRS_TIMES_CLASSES // num_classes)


def best_pairs(scores: Tensor, limits: NmsLimits, is_class_agnostic: bool) -> Pairs:
    """Returns the best pairs of scores [1, A, K]; each anchor's best class only, if the suppression is class-agnostic.

    The n best pairs are on the n anchors whose best classes score highest.
    """
    _, num_anchors, num_classes = scores.shape
    length = prefix_length(limits, 1 if is_class_agnostic else num_classes)
    num_chosen = min(length, num_anchors)
    best, anchors = tf.math.top_k(tf.reduce_max(scores, axis=-1), num_chosen)
    anchors = tf.reshape(anchors, [num_chosen])
    rows = tf.reshape(tf.gather(scores, anchors, axis=1), [num_chosen, num_classes])
    if is_class_agnostic:
        return Pairs(tf.reshape(best, [num_chosen]), anchors, tf.argmax(rows, axis=1, output_type=tf.int32))
    best, pairs = tf.math.top_k(tf.reshape(rows, [-1]), min(length, num_chosen * num_classes))
    return Pairs(best, tf.gather(anchors, pairs // num_classes), pairs % num_classes)


def suppress(
    boxes: Tensor, pairs: Pairs, limits: NmsLimits, num_classes: int, is_class_agnostic: bool
) -> tuple[Tensor, Tensor]:
    """Selects the pairs to return, per class or across all classes.

    Boxes without area inside the image suppress others and count for their class's limit, but are not returned.

    Args:
        boxes: float32 [n, 4] of the pairs, fractions of the image.
        pairs: The pairs in their order.
        limits: Thresholds and limits.
        num_classes: Number of classes.
        is_class_agnostic: Suppress across all classes, without ``max_detections_per_class``.

    Returns:
        Places of the pairs, int32 [M], best first, and bool [M], true for filled rows; M is ``max_total_detections``.
    """
    num_rows, num_given = limits.max_total_detections, boxes.shape[0]
    has_class_limit = not is_class_agnostic and limits.max_detections_per_class < num_rows
    spare = max(_LEAST_SPARE, math.ceil(_SPARE_SHARE * num_rows))
    num_kept = max(num_given if has_class_limit else min(num_rows + spare, num_given), num_rows)
    kept, count = tf.raw_ops.NonMaxSuppressionV4(
        boxes=boxes if is_class_agnostic else _move_apart(boxes, pairs.classes, num_classes),
        scores=pairs.scores,
        max_output_size=num_kept,
        iou_threshold=limits.iou_threshold,
        score_threshold=max(limits.score_threshold, 0.0),
        pad_to_max_output_size=True,
    )
    kept = tf.ensure_shape(kept, [num_kept])
    is_kept = tf.range(num_kept) < count
    if has_class_limit:
        of_class = tf.one_hot(tf.gather(pairs.classes, kept), num_classes)
        rank_in_class = tf.reduce_sum(tf.cumsum(of_class, axis=0) * of_class, axis=1)
        is_kept &= rank_in_class <= limits.max_detections_per_class
    is_kept &= box_ops.area(tf.clip_by_value(tf.gather(boxes, kept), 0.0, 1.0)) > 0
    places = tf.where(is_kept, tf.range(num_kept, 0, -1), 0)
    places, order = tf.math.top_k(places, num_rows)
    return tf.gather(kept, order), places > 0


def _move_apart(boxes: Tensor, classes: Tensor, num_classes: int) -> Tensor:
    columns = math.ceil(math.sqrt(num_classes))
    corners = tf.cast(tf.stack([classes // columns, classes % columns], axis=1), tf.float32)
    return tf.clip_by_value(boxes, _LOW, _HIGH) + _CELL * tf.tile(corners, [1, 2])
