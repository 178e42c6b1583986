"""Non-maximum suppression: exact per class and class-agnostic, over batches (floor 1).

``per_class_nms`` returns the result of the exhaustive procedure (greedy suppression in every class with a limit of
boxes per class, then the best of all classes), without running it over all A x K scores.

A prefix suffices. Order all pairs (anchor, class) above the score threshold by falling score, ties by anchor, then by
class; a prefix is the first n pairs. Greedy suppression visits the pairs of a class in this order. Its decision for a
pair depends on earlier pairs of the same class only, and so does the limit of boxes per class. Hence suppression over a
prefix selects exactly the pairs of the prefix that the exhaustive procedure selects, and all its other pairs come later
in the order. So a prefix that yields the requested number of detections yields the exhaustive ones, and a prefix of
every pair above the threshold is exhaustive. Any other prefix is replaced by a longer one, finally by the exhaustive
procedure.

The n pairs of a prefix are on the n anchors whose best classes score highest, so a search among A numbers and one among
n x K replace one among A x K.

Suppression over the prefix is one CombinedNonMaxSuppression for the whole batch. Its order among equal scores is not
defined, so its input are ranks (first of n pairs: n, last: 1) instead of scores. The ranks in its output also identify
the selected pairs, which the operation does not return.

Graphs for other runtimes (``detzoo.ops.graph_form``) have a single prefix of at least ``_FIXED_PREFIX`` pairs, and of
``_FIXED_PREFIX_PER_DETECTION`` per requested detection. If it yields fewer detections than requested, although more
pairs are above the threshold, detections that score less than the last pair of the prefix are missing.

Differs from the Object Detection API, which orders equal scores of different classes by class.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import tensorflow as tf

from detzoo.ops import boxes as box_ops
from detzoo.ops.graph_form import GraphForm, graph_form

# Lengths of the prefixes to try. The first suffices for most images.
_PREFIX_LENGTHS = (512, 4096, 16384)
# In graphs with a single prefix. Longer ones cost more: of 172,530 pairs, 1024 are found in 0.4 ms, 4096 in 2 ms.
_FIXED_PREFIX = 1024
_FIXED_PREFIX_PER_DETECTION = 10

# Half of the smallest rank: separates ranks from the zeros of excluded pairs.
_RANK_THRESHOLD = 0.5

# Boxes that take part in one suppression for all classes are limited to [-1, 2] and moved apart by multiples of 4.
_LOW, _HIGH, _CELL = -1.0, 2.0, 4.0


class Selection(NamedTuple):
    """The detections that suppression keeps, best first, padded with zeros."""

    scores: tf.Tensor  # float32 [B, M]
    classes: tf.Tensor  # int32 [B, M]
    anchor_indices: tf.Tensor  # int32 [B, M]
    num_valid: tf.Tensor  # int32 [B]


@dataclasses.dataclass(frozen=True)
class NmsLimits:
    """Thresholds and limits of a suppression."""

    score_threshold: float = 0.0  # only scores above it, and above 0, are used
    iou_threshold: float = 0.6  # a box is dropped if its IoU with a better one of its class is above this
    max_detections_per_class: int = 100  # largest number of boxes of a class
    max_total_detections: int = 100  # M, number of boxes of all classes
    # 0 for hard suppression. Above 0, the score of overlapping boxes is multiplied by exp(-IoU**2 / (2 sigma)) (Bodla
    # et al., arXiv:1704.04503) and ``iou_threshold`` is not used.
    soft_nms_sigma: float = 0.0


def per_class_nms(boxes: tf.Tensor, scores: tf.Tensor, windows: tf.Tensor, limits: NmsLimits) -> Selection:
    """Suppresses boxes within each class, then selects the best of all classes.

    Boxes without area inside their window suppress others and count for their class's limit, but are not selected.

    Args:
        boxes: float32 [B, A, 4], or [B, A, K, 4] for separate boxes per class.
        scores: float32 [B, A, K], without background.
        windows: float32 [B, 4], in the unit of the boxes.
        limits: Thresholds and limits.

    Returns:
        Selection with M = ``limits.max_total_detections`` rows.
    """
    if limits.soft_nms_sigma > 0:  # changes the order of scores, so no prefix is safe
        return _exhaustive_nms(boxes, scores, windows, limits)
    if graph_form() is not GraphForm.TENSORFLOW:
        length = max(_FIXED_PREFIX, _FIXED_PREFIX_PER_DETECTION * limits.max_total_detections)
        return _prefix_nms(boxes, scores, windows, limits, length)[0]

    def try_prefix(attempt: int) -> Selection:
        if attempt == len(_PREFIX_LENGTHS):
            return _exhaustive_nms(boxes, scores, windows, limits)
        length = _PREFIX_LENGTHS[attempt]
        selection, is_exact = _prefix_nms(boxes, scores, windows, limits, length)
        num_anchors = scores.shape[1]
        if num_anchors is not None and num_anchors * scores.shape[2] <= length:
            return selection
        return tf.cond(is_exact, lambda: selection, lambda: try_prefix(attempt + 1))

    return try_prefix(0)


def class_agnostic_nms(boxes: tf.Tensor, scores: tf.Tensor, windows: tf.Tensor, limits: NmsLimits) -> Selection:
    """Suppresses boxes across all classes, each box with its best class only.

    Arguments and result are those of ``per_class_nms``; ``max_detections_per_class`` is not used.
    """
    limits = dataclasses.replace(limits, max_detections_per_class=limits.max_total_detections)
    classes = tf.argmax(scores, axis=-1, output_type=tf.int32)
    if boxes.shape.rank == 4:
        boxes = tf.gather(boxes, classes, batch_dims=2)
    selection = per_class_nms(boxes, tf.reduce_max(scores, axis=-1, keepdims=True), windows, limits)
    classes = tf.gather(classes, selection.anchor_indices, batch_dims=1)
    is_filled = tf.range(selection.scores.shape[1]) < selection.num_valid[:, tf.newaxis]
    return selection._replace(classes=tf.where(is_filled, classes, 0))


def _first_pairs(scores: tf.Tensor, length: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the first pairs in the order of the module's docstring: scores, anchors and classes, each [B, n].

    n is the smaller of ``length`` and the number of all pairs.
    """
    num_anchors, num_classes = _size(scores, 1), scores.shape[2]
    count = _smaller(length, num_anchors)
    best, anchors = tf.math.top_k(tf.reduce_max(scores, axis=-1), count)
    lowest = best[:, -1:]
    # Anchors that tie with the lowest chosen one, but are not chosen, come after this index. So pairs of this score are
    # in order up to this index only. At least n pairs remain: the best of each anchor.
    last_known = tf.reduce_max(tf.where(best == lowest, anchors, -1), axis=-1, keepdims=True)
    anchors = tf.sort(anchors, axis=-1)
    candidates = tf.gather(scores, anchors, batch_dims=1)
    is_unknown = (candidates == lowest[..., tf.newaxis]) & (anchors > last_known)[..., tf.newaxis]
    if count is not num_anchors:  # else every anchor is chosen
        candidates = tf.where(is_unknown & (count < num_anchors), -1.0, candidates)
    flat = tf.reshape(candidates, [-1, count * num_classes])
    pair_scores, pairs = tf.math.top_k(flat, _smaller(length, count * num_classes))
    return pair_scores, tf.gather(anchors, pairs // num_classes, batch_dims=1), pairs % num_classes


def _size(tensor: tf.Tensor, axis: int) -> int | tf.Tensor:
    return tensor.shape[axis] if tensor.shape[axis] is not None else tf.shape(tensor)[axis]


def _smaller(length: int, size: int | tf.Tensor) -> int | tf.Tensor:
    return min(length, size) if isinstance(size, int) else tf.minimum(length, size)


def _prefix_nms(
    boxes: tf.Tensor, scores: tf.Tensor, windows: tf.Tensor, limits: NmsLimits, length: int
) -> tuple[Selection, tf.Tensor]:
    """Suppresses the first ``length`` pairs. Also returns a bool scalar: True if the result is the exhaustive one."""
    pair_scores, anchors, classes = _first_pairs(scores, length)
    pair_boxes = boxes_of_pairs(boxes, anchors, classes)
    num_pairs, num_classes = tf.shape(pair_scores)[1], scores.shape[2]
    takes_part = pair_scores > max(limits.score_threshold, 0.0)
    ranks = tf.cast(tf.range(num_pairs, 0, -1), tf.float32) * tf.cast(takes_part, tf.float32)
    suppress = _suppress_moved if graph_form() is GraphForm.PORTABLE else _suppress_fused
    kept_ranks = suppress(pair_boxes, classes, ranks, num_classes, limits, length)
    positions = num_pairs - tf.cast(kept_ranks, tf.int32)
    positions = tf.where(kept_ranks > 0, positions, 0)
    is_visible = tf.gather(_are_visible(pair_boxes, windows), positions, batch_dims=1)
    kept_ranks = tf.where(is_visible, kept_ranks, 0.0)
    kept_ranks, order = tf.math.top_k(kept_ranks, limits.max_total_detections)
    positions = tf.gather(positions, order, batch_dims=1)
    selection = _pick(pair_scores, classes, anchors, positions, kept_ranks > 0)
    is_complete = (pair_scores[:, -1] <= max(limits.score_threshold, 0.0)) | (
        num_pairs >= _size(scores, 1) * num_classes
    )
    return selection, tf.reduce_all(is_complete | (selection.num_valid == limits.max_total_detections))


def _suppress_fused(
    boxes: tf.Tensor, classes: tf.Tensor, ranks: tf.Tensor, num_classes: int, limits: NmsLimits, length: int
) -> tf.Tensor:
    """Suppresses pairs within each class. Returns the ranks of the kept ones, padded with zeros, float32 [B, kept]."""
    max_kept = max(min(length, num_classes * limits.max_detections_per_class), limits.max_total_detections)
    kept = tf.image.combined_non_max_suppression(
        boxes[:, :, tf.newaxis, :],
        tf.one_hot(classes, num_classes) * ranks[..., tf.newaxis],
        max_output_size_per_class=limits.max_detections_per_class,
        max_total_size=max_kept,
        iou_threshold=limits.iou_threshold,
        score_threshold=_RANK_THRESHOLD,
        clip_boxes=False,
    )
    return tf.ensure_shape(kept.nmsed_scores, [ranks.shape[0], max_kept])


def _suppress_moved(
    boxes: tf.Tensor, classes: tf.Tensor, ranks: tf.Tensor, num_classes: int, limits: NmsLimits, length: int
) -> tf.Tensor:
    """Suppresses pairs as ``_suppress_fused``, by one suppression for all classes and images.

    Their boxes are moved to separate cells of a square grid, which rounds coordinates by up to
    2.4e-7 sqrt(images x classes), in fractions of the image. Overlaps ignore the part of a box that is farther outside
    of the image than its size.
    """
    del length
    num_images, num_pairs = tf.unstack(tf.shape(ranks))
    cells = tf.range(num_images)[:, tf.newaxis] * num_classes + classes
    columns = tf.cast(tf.math.ceil(tf.sqrt(tf.cast(num_images * num_classes, tf.float32))), tf.int32)
    corners = tf.cast(tf.stack([cells // columns, cells % columns], axis=-1), tf.float32)
    moved = tf.clip_by_value(boxes, _LOW, _HIGH) + _CELL * tf.tile(corners, [1, 1, 2])
    all_ranks = tf.reshape(ranks, [-1])
    kept = tf.image.non_max_suppression(
        tf.reshape(moved, [-1, 4]), all_ranks, num_images * num_pairs, limits.iou_threshold, _RANK_THRESHOLD
    )
    of_cell = tf.one_hot(tf.gather(tf.reshape(cells, [-1]), kept), num_images * num_classes)
    places = tf.reduce_sum(tf.cumsum(of_cell, axis=0) * of_cell, axis=-1)  # from 1: the kept boxes are best first
    kept_ranks = tf.where(places <= limits.max_detections_per_class, tf.gather(all_ranks, kept), 0.0)
    is_of_image = kept // num_pairs == tf.range(num_images)[:, tf.newaxis]
    return tf.pad(tf.where(is_of_image, kept_ranks, 0.0), [[0, 0], [0, limits.max_total_detections]])


def boxes_of_pairs(boxes: tf.Tensor, anchors: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
    """Returns the boxes [B, n, 4] of pairs (anchor, class) [B, n], from boxes [B, A, 4] or [B, A, K, 4]."""
    if boxes.shape.rank == 3:
        return tf.gather(boxes, anchors, batch_dims=1)
    num_classes = boxes.shape[2]
    flat = tf.reshape(boxes, [tf.shape(boxes)[0], -1, 4])
    return tf.gather(flat, anchors * num_classes + classes, batch_dims=1)


def _pick(
    scores: tf.Tensor, classes: tf.Tensor, anchors: tf.Tensor, positions: tf.Tensor, is_filled: tf.Tensor
) -> Selection:
    return Selection(
        scores=tf.where(is_filled, tf.gather(scores, positions, batch_dims=1), 0.0),
        classes=tf.where(is_filled, tf.gather(classes, positions, batch_dims=1), 0),
        anchor_indices=tf.where(is_filled, tf.gather(anchors, positions, batch_dims=1), 0),
        num_valid=tf.reduce_sum(tf.cast(is_filled, tf.int32), axis=-1),
    )


def _are_visible(boxes: tf.Tensor, windows: tf.Tensor) -> tf.Tensor:
    """Returns bool [B, N], True for boxes [B, N, 4] with area inside their image's window."""
    return box_ops.area(box_ops.clip(boxes, windows[:, tf.newaxis, :])) > 0


def _exhaustive_nms(boxes: tf.Tensor, scores: tf.Tensor, windows: tf.Tensor, limits: NmsLimits) -> Selection:
    """Suppresses all boxes class by class, hard or soft."""
    num_classes, limit = scores.shape[2], limits.max_detections_per_class
    batch_size = tf.shape(scores)[0]
    class_scores = tf.reshape(tf.transpose(scores, [0, 2, 1]), [batch_size * num_classes, _size(scores, 1)])

    @tf.autograph.experimental.do_not_convert
    def suppress(arguments: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        row, row_scores = arguments
        of_image = boxes[row // num_classes]
        anchors, kept_scores = tf.image.non_max_suppression_with_scores(
            of_image if boxes.shape.rank == 3 else of_image[:, row % num_classes],
            row_scores,
            limit,
            iou_threshold=limits.iou_threshold,
            score_threshold=max(limits.score_threshold, 0.0),
            soft_nms_sigma=limits.soft_nms_sigma,
        )
        missing = [[0, limit - tf.size(anchors)]]
        return tf.pad(anchors, missing), tf.pad(kept_scores, missing)

    anchors, kept_scores = tf.map_fn(
        suppress,
        (tf.range(batch_size * num_classes), class_scores),
        fn_output_signature=(tf.TensorSpec([limit], tf.int32), tf.TensorSpec([limit], tf.float32)),
    )
    shape = [batch_size, num_classes * limit]
    anchors, kept_scores = tf.reshape(anchors, shape), tf.reshape(kept_scores, shape)
    classes = tf.broadcast_to(tf.repeat(tf.range(num_classes), limit), shape)
    kept_scores = tf.where(_are_visible(boxes_of_pairs(boxes, anchors, classes), windows), kept_scores, 0.0)
    padding = [[0, 0], [0, max(limits.max_total_detections - num_classes * limit, 0)]]
    anchors, classes, kept_scores = (tf.pad(x, padding) for x in (anchors, classes, kept_scores))
    tie_order = tf.argsort(anchors, axis=-1, stable=True)  # within an anchor the classes are already in order
    ordered_scores = tf.gather(kept_scores, tie_order, batch_dims=1)
    best, order = tf.math.top_k(ordered_scores, limits.max_total_detections)
    positions = tf.gather(tie_order, order, batch_dims=1)
    return _pick(kept_scores, classes, anchors, positions, best > 0)
