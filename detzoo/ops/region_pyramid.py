"""A pyramid of bins over thousands of windows of one map (floor 1).

He et al., "Spatial pyramid pooling", arXiv:1406.4729: section 4.1 and appendix A, "Mapping a window to feature maps"
and "Implementation of pooling bins". Between the convolutions of SPP-net's detector and its fully connected layers:

    windows_px --choose_scales--> scale --window_cells--> cells --pool_windows--> [N, bins, C]

A network whose cell (0, 0) looks at the place ``offset`` and whose stride is S sees its cell k at ``offset + k S``.
Places are continuous: pixel i covers [i, i + 1), so its centre is i + 0.5.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from detzoo.ops import boxes
from detzoo.ops.bin_maxima import bin_edges, bin_maxima, cover


def choose_scales(
    windows_px: tf.Tensor, shape_px: tf.Tensor, shorter_sides: Sequence[int], window_size: int = 224
) -> tf.Tensor:
    """The scale of the image at which each window has the number of pixels nearest to ``window_size`` squared.

    Args:
        windows_px: float32 [..., 4], pixels of the image.
        shape_px: number [2], (height, width) of the image.
        shorter_sides: shorter side in pixels that the image has at each scale.
        window_size: side of the square in pixels.

    Returns:
        int32 [...], positions in ``shorter_sides``; of equally near ones the first.
    """
    factors = tf.constant(list(shorter_sides), tf.float32) / tf.cast(tf.reduce_min(shape_px), tf.float32)
    areas = boxes.area(windows_px)[..., tf.newaxis] * tf.square(factors)
    return tf.argmin(tf.abs(areas - float(window_size) ** 2), axis=-1, output_type=tf.int32)


def window_cells(
    windows_px: tf.Tensor, map_shape: tf.Tensor, stride_px: tf.Tensor | float, offset_px: tf.Tensor | float
) -> tf.Tensor:
    """The cells of a map that belong to windows: those that look at places inside of them (appendix A).

    The first is floor((start - offset) / S) + 1, the last ceil((end - offset) / S) - 1. A window too small to hold the
    place of any cell gets the cell that looks nearest to its centre, one outside of the map the nearest cells of it.

    Args:
        windows_px: float32 [..., 4], pixels of the network's input.
        map_shape: int32 [2], or [..., 2]: (height, width) of the map.
        stride_px: S, pixels from a cell to the next.
        offset_px: where the first cell looks, pixels from the input's top left corner.

    Returns:
        int32 [..., 4], [first row, first column, end row, end column], the ends not included; at least one cell.
    """
    places = (windows_px - offset_px) / stride_px
    start, end = places[..., :2], places[..., 2:]
    first = tf.floor(start) + 1.0
    last = tf.math.ceil(end) - 1.0
    middle = tf.floor(0.5 * (start + end) + 0.5)
    is_empty = last < first
    limits = tf.cast(map_shape, tf.float32) - 1.0
    first = tf.clip_by_value(tf.where(is_empty, middle, first), 0.0, limits)
    last = tf.clip_by_value(tf.where(is_empty, middle, last), 0.0, limits)
    return tf.cast(tf.concat([first, last + 1.0], axis=-1), tf.int32)


def pool_windows(
    features: tf.Tensor, cells: tf.Tensor, image_indices: tf.Tensor, pyramid_bins: Sequence[int]
) -> tf.Tensor:
    """The maxima of the bins of windows, of every level of a pyramid.

    Of the n rows of a window, bin i of h takes those from floor(i n / h) to before ceil((i + 1) n / h); columns alike.
    So no bin is empty: a window with fewer rows than bins has the same row in several of them.

    A level whose bins are unions of a finer level's (3, 2 and 1 of 6) is made of that level, the others are
    ``bin_maxima``.

    Args:
        features: number [B, H, W, C], of any height and width.
        cells: int32 [N, 4], [first row, first column, end row, end column] on the map, of ``window_cells``.
        image_indices: int32 [N], the image of each window.
        pyramid_bins: bins a side of each level.

    Returns:
        [N, sum of the squares of ``pyramid_bins``, C] in the features' type: level by level in the order given, the
        bins of a level row by row. A ``detzoo.ops.roi_crop.Crop``, once the levels are given, but for its rank.

    Raises:
        ValueError: no level, or one below 1.
    """
    if not pyramid_bins or min(pyramid_bins) < 1:
        raise ValueError(f"pyramid_bins is {list(pyramid_bins)}; at least one level of 1 or more bins a side is needed")
    pooled: dict[int, tf.Tensor] = {}
    for bins in sorted(set(pyramid_bins), reverse=True):
        finer = next((level for level in pooled if level % bins == 0), None)
        if finer is None:
            pooled[bins] = _pool_level(features, cells, image_indices, bins)
        else:
            pooled[bins] = _pool_again(pooled[finer], bins)
    channels = features.shape[-1]
    levels = [tf.reshape(pooled[bins], [-1, bins * bins, channels]) for bins in pyramid_bins]
    return levels[0] if len(levels) == 1 else tf.concat(levels, axis=1)


def _pool_again(finer: tf.Tensor, bins: int) -> tf.Tensor:
    """[N, n, n, C] to [N, bins, bins, C]; n is a multiple of ``bins``."""
    size, channels = finer.shape[1], finer.shape[-1]
    grouped = tf.reshape(finer, [-1, bins, size // bins, bins, size // bins, channels])
    return tf.reduce_max(grouped, axis=[2, 4])


def _pool_level(features: tf.Tensor, cells: tf.Tensor, image_indices: tf.Tensor, bins: int) -> tf.Tensor:
    """The maxima [N, bins, bins, C] of one level."""
    rows, columns = (cover(*bin_edges(cells[:, axis], cells[:, axis + 2] - cells[:, axis], bins)) for axis in (0, 1))
    return bin_maxima(features, rows, columns, image_indices)
