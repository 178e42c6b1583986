"""Arithmetic on boxes: areas, overlaps, clipping and changes of coordinates (floor 1).

Boxes are [ymin, xmin, ymax, xmax] in the last axis, in any unit that both arguments share. A degenerate box (no extent
in y or in x) has area 0 and overlaps nothing; no function here divides by zero.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def area(boxes: tf.Tensor) -> tf.Tensor:
    """Returns the areas float32 [...] of boxes [..., 4], at least 0 for ymin <= ymax and xmin <= xmax."""
    ymin, xmin, ymax, xmax = tf.unstack(boxes, axis=-1)
    return (ymax - ymin) * (xmax - xmin)


def is_valid(boxes: tf.Tensor) -> tf.Tensor:
    """Returns bool [...], True for those of boxes [..., 4] that are finite and extend in both directions."""
    ymin, xmin, ymax, xmax = tf.unstack(boxes, axis=-1)
    finite = tf.reduce_all(tf.math.is_finite(boxes), axis=-1)
    return finite & (ymax > ymin) & (xmax > xmin)


def pairwise_intersection(boxes_a: tf.Tensor, boxes_b: tf.Tensor) -> tf.Tensor:
    """Returns the intersection areas float32 [..., N, M] of boxes [..., N, 4] with boxes [..., M, 4]."""
    ymin_a, xmin_a, ymax_a, xmax_a = tf.split(boxes_a, 4, axis=-1)  # [..., N, 1]
    ymin_b, xmin_b, ymax_b, xmax_b = (tf.expand_dims(side, -2) for side in tf.unstack(boxes_b, axis=-1))  # [..., 1, M]
    height = tf.maximum(tf.minimum(ymax_a, ymax_b) - tf.maximum(ymin_a, ymin_b), 0.0)
    width = tf.maximum(tf.minimum(xmax_a, xmax_b) - tf.maximum(xmin_a, xmin_b), 0.0)
    return height * width


def pairwise_iou(boxes_a: tf.Tensor, boxes_b: tf.Tensor) -> tf.Tensor:
    """Computes the intersection over union of boxes [..., N, 4] with boxes [..., M, 4].

    Returns:
        float32 [..., N, M] in [0, 1]; 0 for an empty union.
    """
    intersection = pairwise_intersection(boxes_a, boxes_b)
    union = tf.expand_dims(area(boxes_a), -1) + tf.expand_dims(area(boxes_b), -2) - intersection
    return tf.math.divide_no_nan(intersection, union)


def _aligned_intersection_and_union(boxes_a: tf.Tensor, boxes_b: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    top_left = tf.maximum(boxes_a[..., :2], boxes_b[..., :2])
    bottom_right = tf.minimum(boxes_a[..., 2:], boxes_b[..., 2:])
    extent = tf.maximum(bottom_right - top_left, 0.0)
    intersection = extent[..., 0] * extent[..., 1]
    return intersection, area(boxes_a) + area(boxes_b) - intersection


def aligned_iou(boxes_a: tf.Tensor, boxes_b: tf.Tensor) -> tf.Tensor:
    """Computes the intersection over union of the boxes [..., 4] at the same index of two arrays.

    Returns:
        float32 [...] in [0, 1]; 0 for an empty union.
    """
    intersection, union = _aligned_intersection_and_union(boxes_a, boxes_b)
    return tf.math.divide_no_nan(intersection, union)


def aligned_giou(boxes_a: tf.Tensor, boxes_b: tf.Tensor) -> tf.Tensor:
    """Computes the generalised IoU (Rezatofighi et al., arXiv:1902.09630) of boxes [..., 4] at the same index.

    Returns:
        float32 [...] in (-1, 1]: the IoU minus the share of the smallest enclosing box that neither covers.
    """
    intersection, union = _aligned_intersection_and_union(boxes_a, boxes_b)
    enclosing_sides = tf.maximum(boxes_a[..., 2:], boxes_b[..., 2:]) - tf.minimum(boxes_a[..., :2], boxes_b[..., :2])
    enclosing = enclosing_sides[..., 0] * enclosing_sides[..., 1]
    return tf.math.divide_no_nan(intersection, union) - tf.math.divide_no_nan(enclosing - union, enclosing)


def clip(boxes: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    """Clips boxes [..., 4] to the sides of windows [..., 4]; a box outside becomes degenerate on the border."""
    low = tf.concat([window[..., :2], window[..., :2]], axis=-1)
    high = tf.concat([window[..., 2:], window[..., 2:]], axis=-1)
    return tf.maximum(tf.minimum(boxes, high), low)


def change_coordinate_frame(boxes: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    """Returns boxes [..., 4] as fractions of a window [..., 4], which itself becomes [0, 0, 1, 1].

    A window without extent gives zeros.
    """
    origin = tf.concat([window[..., :2], window[..., :2]], axis=-1)
    extent = window[..., 2:] - window[..., :2]
    return tf.math.divide_no_nan(boxes - origin, tf.concat([extent, extent], axis=-1))


def of_canvas(boxes_norm: tf.Tensor, shape_px: tuple[Any, Any], other_px: tuple[Any, Any]) -> tf.Tensor:
    """Converts fractions [..., 4] of a canvas of (height, width) to fractions of another with the same top left corner.

    Returns:
        float32 [..., 4]; ``boxes_norm`` itself if both canvases have the same static size.
    """
    if all(isinstance(side, int) for side in (*shape_px, *other_px)) and tuple(shape_px) == tuple(other_px):
        return boxes_norm
    factors = tf.cast(tf.stack(shape_px), tf.float32) / tf.cast(tf.stack(other_px), tf.float32)
    return boxes_norm * tf.tile(factors, [2])


def to_px(boxes_norm: tf.Tensor, shape_px: tf.Tensor) -> tf.Tensor:
    """Converts boxes [..., 4] from fractions of an image to pixels; ``shape_px`` [..., 2] is (height, width)."""
    sides = tf.cast(shape_px, tf.float32)
    return boxes_norm * tf.concat([sides, sides], axis=-1)
