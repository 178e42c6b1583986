"""Peaks of heatmaps: the cells that are a maximum of their neighbourhood (floor 1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from detzoo.contracts import Tensor

ROUNDING = 1e-6  # of scores


class Peaks(NamedTuple):
    """The best peaks of each image, best first. Rows past the last peak have the score -inf and index 0."""

    scores: Tensor  # float32 [B, M], values of the map
    cells: Tensor  # int32 [B, M], y * w + x
    channels: Tensor  # int32 [B, M]


def suppress_slopes(maps: Tensor, kernel_size: int = 3) -> Tensor:
    """Returns maps with -inf at each cell that is not the maximum of its channel's neighbourhood.

    Cells outside the map do not count, so that a maximum at the border is a peak. Neighbours that are equal up to
    ``ROUNDING`` are all peaks, as in the Object Detection API: rounding does not decide on flat parts such as padding.

    Args:
        maps: float32 [B, h, w, C], scores in [0, 1].
        kernel_size: Side of the neighbourhood in cells; 1 keeps every cell.
    """
    if kernel_size == 1:
        return maps
    highest = tf.nn.max_pool2d(maps, kernel_size, strides=1, padding="SAME")
    return tf.where(highest - maps < ROUNDING, maps, -float("inf"))


def best_cells(maps: Tensor, max_peaks: int, is_valid: Tensor) -> Peaks:
    """Returns the highest values over all valid cells and all channels of each image.

    The best M values lie in the M cells with the highest maxima over the channels. Only the values of these cells are
    sorted, in the order of the cells, so that equal values rank as in a sort of the whole map.

    Args:
        maps: float32 [B, h, w, C] with -inf where no peak is.
        max_peaks: Number M of rows.
        is_valid: bool [B, h, w].
    """
    num_images, num_channels = tf.shape(maps)[0], maps.shape[-1]
    highest = tf.where(is_valid, tf.reduce_max(maps, axis=-1), -float("inf"))
    highest = tf.reshape(highest, [num_images, -1])
    cells = tf.sort(tf.math.top_k(highest, tf.minimum(max_peaks, tf.shape(highest)[1])).indices)
    is_peak = tf.gather(tf.math.is_finite(highest), cells, batch_dims=1)
    values = tf.where(is_peak[..., tf.newaxis], values_at(maps, cells), -float("inf"))
    values = tf.reshape(values, [num_images, -1])
    missing = tf.maximum(max_peaks - tf.shape(values)[1], 0)
    values = tf.pad(values, [[0, 0], [0, missing]], constant_values=-float("inf"))
    scores, indices = tf.math.top_k(values, max_peaks)
    indices = tf.where(tf.math.is_inf(scores), 0, indices)
    found = tf.gather(cells, indices // num_channels, batch_dims=1)
    return Peaks(scores, tf.where(tf.math.is_inf(scores), 0, found), indices % num_channels)


def values_at(maps: Tensor | Callable[[Tensor], Tensor], cells: Tensor) -> Tensor:
    """Returns the channels [B, M, C] at cells int32 [B, M] of maps [B, h, w, C], or of a function of the cells."""
    if callable(maps):
        return maps(cells)
    flat = tf.reshape(maps, [tf.shape(maps)[0], -1, maps.shape[-1]])
    return tf.gather(flat, cells, batch_dims=1)


def surroundings(maps: Tensor, cells: Tensor, size: tuple[int, int]) -> Tensor:
    """Cuts out the neighbourhood of each cell, with zeros outside the map.

    Args:
        maps: float32 [B, h, w, C].
        cells: int32 [B, M].
        size: (height, width) in cells. Like the kernel of a convolution, an even size reaches farther down and right.

    Returns:
        float32 [B * M, *size, C].
    """
    height, width = (maps.shape[axis] or tf.shape(maps)[axis] for axis in (1, 2))
    rows, columns = (tf.range(side) - (side - 1) // 2 for side in size)
    y = (cells // width)[..., tf.newaxis, tf.newaxis] + rows[:, tf.newaxis]
    x = (cells % width)[..., tf.newaxis, tf.newaxis] + columns
    is_inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    near = tf.where(is_inside, y * width + x, 0)
    values = values_at(maps, tf.reshape(near, [tf.shape(cells)[0], -1]))
    shape = [-1, *size, maps.shape[-1]]
    return tf.reshape(values, shape) * tf.cast(tf.reshape(is_inside, [-1, *size, 1]), maps.dtype)


def corners_of(cells: Tensor, width: Tensor | int) -> Tensor:
    """Returns the top left corner (y, x) of cells int32 [B, M] of a map of that width, float32 [B, M, 2]."""
    return tf.cast(tf.stack([cells // width, cells % width], axis=-1), tf.float32)
