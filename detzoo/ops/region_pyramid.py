"""A pyramid of bins over thousands of windows of one map (floor 1).

He et al., "Spatial pyramid pooling", arXiv:1406.4729: section 4.1 and appendix A, "Mapping a window to feature maps"
and "Implementation of pooling bins". Between the convolutions of SPP-net's detector and its fully connected layers:

    windows_px --choose_scales--> scale --window_cells--> cells --pool_windows--> [N, bins, C]

In a network of stride S whose cell 0 is centred at ``offset``, cell k is centred at ``offset + k S``. Coordinates are
continuous: pixel i covers [i, i + 1), so its centre is i + 0.5.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from detzoo.ops import boxes
from detzoo.ops.bin_maxima import bin_edges, bin_maxima, cover


def choose_scales(
    windows_px: tf.Tensor, shape_px: tf.Tensor, shorter_sides: Sequence[int], window_size: int = 224
) -> tf.Tensor:
    """Returns the scale at which the area of each window is nearest to ``window_size`` squared, int32 [...].

    Args:
        windows_px: float32 [..., 4], pixels of the image.
        shape_px: number [2], (height, width) of the image.
        shorter_sides: Shorter side of the image at each scale, in pixels; the first of equally near ones is taken.
        window_size: Side of the square in pixels.
    """
    factors = tf.constant(list(shorter_sides), tf.float32) / tf.cast(tf.reduce_min(shape_px), tf.float32)
    areas = boxes.area(windows_px)[..., tf.newaxis] * tf.square(factors)
    return tf.argmin(tf.abs(areas - float(window_size) ** 2), axis=-1, output_type=tf.int32)


def window_cells(
    windows_px: tf.Tensor, map_shape: tf.Tensor, stride_px: tf.Tensor | float, offset_px: tf.Tensor | float
) -> tf.Tensor:
    """Returns the cells of a map whose centres are inside windows (appendix A).

    The first is floor((start - offset) / S) + 1, the last ceil((end - offset) / S) - 1. A window without the centre of
    any cell gets the cell nearest to its centre, and a window outside the map the nearest cells of the map.

    Args:
        windows_px: float32 [..., 4], pixels of the network's input.
        map_shape: int32 [2], or [..., 2]: (height, width) of the map.
        stride_px: S, pixels between neighbouring cells.
        offset_px: Centre of the first cell, in pixels from the input's top left corner.

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
    """Returns the maxima of the bins of windows, at every level of a pyramid.

    Bin i of h takes, of the n rows of a window, those from floor(i n / h) to before ceil((i + 1) n / h); columns follow
    the same rule. So no bin is empty: with fewer rows than bins, a row is in several bins.

    A level whose bins are unions of a finer level's bins (3, 2 and 1 of 6) is computed from that level.

    Args:
        features: number [B, H, W, C], of any height and width.
        cells: int32 [N, 4] from ``window_cells``: [first row, first column, end row, end column] on the map.
        image_indices: int32 [N], image of each window.
        pyramid_bins: Bins per side of each level.

    Returns:
        [N, sum of the squares of ``pyramid_bins``, C] in the features' type: level by level in the given order, the
        bins of a level row by row.

    Raises:
        ValueError: No level, or a level below 1.
    """
    if not pyramid_bins or min(pyramid_bins) < 1:
        raise ValueError(
            f"pyramid_bins is {list(pyramid_bins)}; at least one level of 1 or more bins per side is needed"
        )
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
    """Pools [N, n, n, C] to [N, bins, bins, C]; n is a multiple of ``bins``."""
    size, channels = finer.shape[1], finer.shape[-1]
    grouped = tf.reshape(finer, [-1, bins, size // bins, bins, size // bins, channels])
    return tf.reduce_max(grouped, axis=[2, 4])


def _pool_level(features: tf.Tensor, cells: tf.Tensor, image_indices: tf.Tensor, bins: int) -> tf.Tensor:
    """Returns the maxima [N, bins, bins, C] of one level."""
    rows, columns = (cover(*bin_edges(cells[:, axis], cells[:, axis + 2] - cells[:, axis], bins)) for axis in (0, 1))
    return bin_maxima(features, rows, columns, image_indices)
