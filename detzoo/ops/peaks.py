"""Peaks of heatmaps: the cells that are a maximum of their neighbourhood (floor 1)."""

from __future__ import annotations

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


def best_cells(maps: Tensor, max_peaks: int) -> Peaks:
    """Returns the highest values over all cells and channels of each image.

    Args:
        maps: float32 [B, h, w, C] with -inf where no peak is.
        max_peaks: Number M of rows.
    """
    num_channels = maps.shape[-1]
    flat = tf.reshape(maps, [tf.shape(maps)[0], -1])
    missing = tf.maximum(max_peaks - tf.shape(flat)[1], 0)
    flat = tf.pad(flat, [[0, 0], [0, missing]], constant_values=-float("inf"))
    scores, indices = tf.math.top_k(flat, max_peaks)
    indices = tf.where(tf.math.is_inf(scores), 0, indices)
    return Peaks(scores, indices // num_channels, indices % num_channels)


def values_at(maps: Tensor, cells: Tensor) -> Tensor:
    """Returns the channels [B, M, C] of maps [B, h, w, C] at cells int32 [B, M]."""
    flat = tf.reshape(maps, [tf.shape(maps)[0], -1, maps.shape[-1]])
    return tf.gather(flat, cells, batch_dims=1)


def corners_of(cells: Tensor, width: Tensor | int) -> Tensor:
    """Returns the top left corner (y, x) of cells int32 [B, M] of a map of that width, float32 [B, M, 2]."""
    return tf.cast(tf.stack([cells // width, cells % width], axis=-1), tf.float32)
