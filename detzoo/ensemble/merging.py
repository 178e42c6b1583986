"""Merges detections of one image from several sources: their union, then non-maximum suppression in every class.

A source is one model on one view of the image. See the trade-offs paper (arXiv:1611.10012), "State-of-the-art detection
on COCO" and appendix A. Two options are added, both off by default:

box voting    A kept box becomes the mean of the boxes around it, weighted by their scores (Gidaris and Komodakis,
              arXiv:1505.01749, equation 7). Its score stays.
mean scores   A kept box gets the mean over the sources of their best score around it, or 0 for a source without a box
              there. An object that one of five models finds ranks below one that all find. Sources whose view cuts
              the box off are not counted. Each box counts for the nearest kept box only, so that a second box on the
              same object does not profit from the first. (Plain suppression gives the best score.)
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from detzoo.ensemble.description import MEAN_SCORE, MergeOptions
from detzoo.ensemble.views import WHOLE_IMAGE_NORM, are_cut
from detzoo.ops.boxes import pairwise_iou
from detzoo.ops.nms import NmsLimits, per_class_nms


class Source(NamedTuple):
    """One model on one view."""

    weight: float = 1.0  # factor of its scores, in (0, 1]
    window_norm: tuple[float, float, float, float] = WHOLE_IMAGE_NORM  # the view, in fractions of the image


class Candidates(NamedTuple):
    """Detections of all sources in one image, A of them in any order."""

    boxes_norm: np.ndarray  # float32 [A, 4], fractions of the image (any unit if every source sees the whole image)
    scores: np.ndarray  # float32 [A], before weights are applied
    classes: np.ndarray  # int [A], from 0
    sources: np.ndarray  # int [A], rows of the list of sources


def join_sources(found: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Candidates:
    """Joins boxes, scores and classes of each source."""
    boxes, scores, classes = (np.concatenate(column) for column in zip(*found))
    return Candidates(boxes, scores, classes, np.repeat(np.arange(len(found)), [len(each) for _, each, _ in found]))


class Merged(NamedTuple):
    """The M kept detections, best first."""

    boxes_norm: np.ndarray  # float32 [M, 4]
    scores: np.ndarray  # float32 [M]
    classes: np.ndarray  # int32 [M]
    rows: np.ndarray  # int [M], rows of the candidates


def merge(candidates: Candidates, sources: Sequence[Source], options: MergeOptions) -> Merged:
    """Merges the candidates of one image.

    Returns:
        At most ``options.max_detections`` rows, best first. Mean scores reorder the rows that suppression keeps by best
        score.
    """
    weights = np.array([source.weight for source in sources], np.float32)
    boxes, classes = np.asarray(candidates.boxes_norm, np.float32), np.asarray(candidates.classes, np.int32)
    scores = np.asarray(candidates.scores, np.float32) * weights[candidates.sources]
    if not len(scores):
        return Merged(np.zeros([0, 4], np.float32), scores, classes, np.zeros(0, np.int64))
    # The next power of two, so that one traced function serves images with different highest classes.
    select = _selector(1 << max(4, int(classes.max()).bit_length()), options)
    rows = select(tf.constant(boxes), tf.constant(scores), tf.constant(classes)).numpy()
    merged = Merged(boxes[rows], scores[rows], classes[rows], rows)
    if not (options.box_voting or options.scores == MEAN_SCORE):
        return merged
    overlaps = pairwise_iou(tf.constant(merged.boxes_norm), tf.constant(boxes)).numpy()
    overlaps = np.where(merged.classes[:, np.newaxis] == classes, overlaps, -1.0)
    overlaps[np.arange(len(rows)), rows] = 1.0  # the overlap with itself may be rounded to less
    are_around = overlaps >= options.vote_iou_threshold
    are_around &= scores > options.score_threshold
    if options.box_voting:
        votes = np.where(are_around, scores, 0.0)
        means = votes @ boxes.astype(np.float64) / votes.sum(axis=1, keepdims=True)
        merged = merged._replace(boxes_norm=means.astype(np.float32))
    if options.scores == MEAN_SCORE:
        are_own = are_around & (overlaps.argmax(axis=0) == np.arange(len(rows))[:, np.newaxis])
        best = _best_by_source(np.where(are_own, scores, 0.0), candidates.sources, len(sources))
        merged = _with_mean_scores(merged, best, sources)
    return merged


def _best_by_source(votes: np.ndarray, sources: np.ndarray, num_sources: int) -> np.ndarray:
    """Returns the greatest of the votes [M, A] per source: [M, S], 0 for a source without a vote."""
    best = np.zeros([num_sources, len(votes)], np.float32)
    np.maximum.at(best, sources, votes.T)
    return best.T


def _with_mean_scores(merged: Merged, best: np.ndarray, sources: Sequence[Source]) -> Merged:
    """Replaces scores by weighted means over the sources that see the whole box, and sorts again."""
    weights = np.array([source.weight for source in sources])
    sees = np.stack([~are_cut(merged.boxes_norm, source.window_norm) for source in sources], axis=1) | (best > 0)
    means = best.sum(axis=1) / (sees * weights).sum(axis=1)  # the scores have been multiplied by the weights
    order = np.argsort(-means, kind="stable")
    boxes, _, classes, rows = merged
    return Merged(boxes[order], means[order].astype(np.float32), classes[order], rows[order])


@functools.lru_cache(maxsize=32)
def _selector(num_classes: int, options: MergeOptions) -> Callable[..., tf.Tensor]:
    """Returns a traced function from boxes [A, 4], scores [A] and classes [A] to the rows that suppression keeps."""
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


def merge_images(same_image: Sequence[Any], weights: Sequence[float], options: MergeOptions) -> Any:
    """Merges the stored detections of several evaluations in one image; no model runs.

    ``same_image`` is the image from each evaluation: a named tuple with boxes_px [D, 4], scores [D], classes [D] and
    masks (D of them, or None), next to the ground truth.

    Returns:
        The image of the first evaluation with the merged detections, with masks if all have them.
    """
    candidates = join_sources([(image.boxes_px, image.scores, image.classes) for image in same_image])
    merged = merge(candidates, [Source(weight) for weight in weights], options)
    masks = None
    if all(image.masks is not None for image in same_image):
        joined = [mask for image in same_image for mask in image.masks]
        masks = [joined[row] for row in merged.rows]
    first = same_image[0]
    return first._replace(boxes_px=merged.boxes_norm, scores=merged.scores, classes=merged.classes, masks=masks)
