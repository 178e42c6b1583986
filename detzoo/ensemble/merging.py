"""Many detections of one image become one list: the union of all sources, and suppression in every class.

Trade-offs paper (arXiv:1611.10012), "State-of-the-art detection on COCO" and appendix A: the boxes of all models and
crops are joined, and non-maximum suppression decides. A source is one model on one view of the image. Two things are
added, both off unless they are asked for:

box voting    a kept box becomes the mean of the boxes around it, weighted by their scores (Gidaris and Komodakis,
              arXiv:1505.01749, equation 7); its score stays.
mean scores   a kept box gets the mean over the sources of the best score that each has around it, 0 where a source
              finds nothing there: what only one of five models believes in falls below what all believe in. A source
              whose view cuts the box off has no say, and each box speaks for the nearest kept one alone, else a second
              box on the same object would be praised for the first. (The best score is what plain suppression gives.)
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from detzoo.ensemble.options import MEAN_SCORE, MergeOptions
from detzoo.ensemble.views import WHOLE_IMAGE_NORM, are_cut
from detzoo.ops.boxes import pairwise_iou
from detzoo.ops.nms import NmsLimits, per_class_nms


class Source(NamedTuple):
    """One model on one view."""

    weight: float = 1.0  # factor of its scores, in (0, 1]
    window_norm: tuple[float, float, float, float] = WHOLE_IMAGE_NORM  # the view, in fractions of the image


class Candidates(NamedTuple):
    """What all sources found in one image, A of them in any order."""

    boxes_norm: np.ndarray  # float32 [A, 4], fractions of the image (any unit where every source sees all of it)
    scores: np.ndarray  # float32 [A], as the source gave them
    classes: np.ndarray  # int [A], from 0
    sources: np.ndarray  # int [A], rows of the list of sources


class Merged(NamedTuple):
    """What is left of them, best first, M of them."""

    boxes_norm: np.ndarray  # float32 [M, 4]
    scores: np.ndarray  # float32 [M]
    classes: np.ndarray  # int32 [M]
    rows: np.ndarray  # int [M], the candidate that each was


def merge(candidates: Candidates, sources: Sequence[Source], options: MergeOptions) -> Merged:
    """Merges the candidates of one image.

    Args:
        candidates: in fractions of the image.
        sources: what ``candidates.sources`` counts.
        options: thresholds and rules.

    Returns:
        At most ``options.max_detections``, best first. With mean scores these are the best by best score, in the order
        of the mean.
    """
    weights = np.array([source.weight for source in sources], np.float32)
    boxes, classes = np.asarray(candidates.boxes_norm, np.float32), np.asarray(candidates.classes, np.int32)
    scores = np.asarray(candidates.scores, np.float32) * weights[candidates.sources]
    if not len(scores):
        return Merged(np.zeros([0, 4], np.float32), scores, classes, np.zeros(0, np.int64))
    select = _selector(_rounded_up(int(classes.max()) + 1), options)
    rows = select(tf.constant(boxes), tf.constant(scores), tf.constant(classes)).numpy()
    merged = Merged(boxes[rows], scores[rows], classes[rows], rows)
    if not (options.box_voting or options.scores == MEAN_SCORE):
        return merged
    overlaps = pairwise_iou(tf.constant(merged.boxes_norm), tf.constant(boxes)).numpy()
    overlaps = np.where(merged.classes[:, np.newaxis] == classes, overlaps, -1.0)
    overlaps[np.arange(len(rows)), rows] = 1.0  # whatever its overlap with itself is rounded to
    are_around = overlaps >= options.vote_iou_threshold
    are_around &= scores > options.score_threshold
    voted = _voted_boxes(boxes, np.where(are_around, scores, 0.0)) if options.box_voting else merged.boxes_norm
    merged = merged._replace(boxes_norm=voted)
    if options.scores == MEAN_SCORE:
        are_own = are_around & (overlaps.argmax(axis=0) == np.arange(len(rows))[:, np.newaxis])
        best = _best_by_source(np.where(are_own, scores, 0.0), candidates.sources, len(sources))
        merged = _with_mean_scores(merged, best, sources)
    return merged


def _voted_boxes(boxes: np.ndarray, votes: np.ndarray) -> np.ndarray:
    """Means of boxes [A, 4] weighted by votes [M, A], whose rows have a vote each: [M, 4]."""
    return (votes @ boxes.astype(np.float64) / votes.sum(axis=1, keepdims=True)).astype(np.float32)


def _best_by_source(votes: np.ndarray, sources: np.ndarray, num_sources: int) -> np.ndarray:
    """The greatest of the votes [M, A] of each source: [M, S], 0 for a source without a vote."""
    best = np.zeros([num_sources, len(votes)], np.float32)
    np.maximum.at(best, sources, votes.T)
    return best.T


def _with_mean_scores(merged: Merged, best: np.ndarray, sources: Sequence[Source]) -> Merged:
    """Scores become weighted means over the sources that see the whole of each box; ordered again."""
    weights = np.array([source.weight for source in sources])
    sees = np.stack([~are_cut(merged.boxes_norm, source.window_norm) for source in sources], axis=1) | (best > 0)
    means = best.sum(axis=1) / (sees * weights).sum(axis=1)  # the scores have been multiplied by the weights
    order = np.argsort(-means, kind="stable")
    boxes, _, classes, rows = merged
    return Merged(boxes[order], means[order].astype(np.float32), classes[order], rows[order])


def _rounded_up(count: int) -> int:
    """The next power of two: one traced function serves images whose highest classes differ."""
    return 1 << max(4, (count - 1).bit_length())


@functools.lru_cache(maxsize=32)
def _selector(num_classes: int, options: MergeOptions) -> Callable[..., tf.Tensor]:
    """A traced function: boxes [A, 4], scores [A], classes [A] -> rows that suppression keeps, best first."""
    limits = NmsLimits(
        score_threshold=options.score_threshold,
        iou_threshold=options.iou_threshold,
        max_detections_per_class=options.max_detections,
        max_total_detections=options.max_detections,
    )

    def select(boxes: tf.Tensor, scores: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
        of_classes = tf.one_hot(classes, num_classes) * scores[:, tf.newaxis]
        window = tf.stack([tf.reduce_min(boxes[:, :2], 0), tf.reduce_max(boxes[:, 2:], 0)])
        selection = per_class_nms(boxes[tf.newaxis], of_classes[tf.newaxis], tf.reshape(window, [1, 4]), limits)
        return selection.anchor_indices[0, : selection.num_valid[0]]

    specs = [tf.TensorSpec([None, 4], tf.float32), tf.TensorSpec([None], tf.float32), tf.TensorSpec([None], tf.int32)]
    return tf.function(select, input_signature=specs, autograph=False)
