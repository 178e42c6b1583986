"""The maxima of bins of thousands of boxes of one map (floor 1): what RoI pooling and the spatial pyramid share.

The maxima over runs of 2**i x 2**j cells are computed once for a map, as far as bins are that large; each bin is
covered by four of them. There is no loop over boxes.
"""

from __future__ import annotations

import functools
import itertools
from typing import NamedTuple

import tensorflow as tf


class Runs(NamedTuple):
    """Two runs of 2**exponent cells that cover each bin along an axis."""

    first: tf.Tensor  # int32 [N, bins], where the first run starts
    second: tf.Tensor  # int32 [N, bins], where the second run starts; it ends where the bin ends
    exponents: tf.Tensor  # int32 [N, bins]


def bin_edges(first: tf.Tensor, extent: tf.Tensor, num_bins: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Where bins start and end along an axis: bin i of h from floor(i n / h) to before ceil((i + 1) n / h).

    Args:
        first: int32 [N], the first cell of each box.
        extent: int32 [N], its number n of cells, at least 1.
        num_bins: h.

    Returns:
        Starts and ends, the ends not included, int32 [N, num_bins].
    """
    numbers, start = tf.range(num_bins), first[:, tf.newaxis]
    cells = extent[:, tf.newaxis]
    return start + numbers * cells // num_bins, start - (
        -(numbers + 1) * cells
    ) // num_bins  # minus floor of minus: ceil


def cover(start: tf.Tensor, end: tf.Tensor) -> Runs:
    """The runs that cover bins.

    Args:
        start: int32 [N, bins].
        end: int32 [N, bins], not included; above ``start``.
    """
    size = end - start
    powers = tf.constant([2**exponent for exponent in range(1, 31)], tf.int32)
    exponents = tf.reshape(tf.searchsorted(powers, tf.reshape(size, [-1]), side="right"), tf.shape(size))
    return Runs(start, end - tf.bitwise.left_shift(tf.ones_like(exponents), exponents), exponents)


def bin_maxima(features: tf.Tensor, rows: Runs, columns: Runs, image_indices: tf.Tensor) -> tf.Tensor:
    """The maximum of each channel in each bin; of equal cells one gets the gradient.

    Memory: as many copies of the map as the largest bins have pairs of exponents, and four times the result.

    Args:
        features: number [B, H, W, C], of any height and width.
        rows: of bins [N, h], on the map.
        columns: of bins [N, w], on the map.
        image_indices: int32 [N], the image of each box.

    Returns:
        [N, h, w, C] in the features' type.
    """
    num_row_exponents, num_column_exponents = (_count(runs.exponents) for runs in (rows, columns))
    tall = _running_maxima(features, num_row_exponents, axis=1)  # [I, B, H, W, C]
    table = _running_maxima(tall, num_column_exponents, axis=3)  # [J, I, B, H, W, C]
    shape = tf.shape(features)
    window = columns.exponents[:, tf.newaxis, :] * num_row_exponents + rows.exponents[:, :, tf.newaxis]
    base = (window * shape[0] + image_indices[:, tf.newaxis, tf.newaxis]) * (shape[1] * shape[2])
    flat = tf.reshape(table, [-1, features.shape[-1]])
    maxima = [
        tf.gather(flat, base + row[:, :, tf.newaxis] * shape[2] + column[:, tf.newaxis, :])
        for row, column in itertools.product(rows[:2], columns[:2])
    ]
    return functools.reduce(tf.maximum, maxima)


def _count(exponents: tf.Tensor) -> tf.Tensor:
    """One more than the largest exponent; 1 where there are no boxes."""
    return tf.reduce_max(tf.concat([[0], tf.reshape(exponents, [-1])], 0)) + 1


def _running_maxima(features: tf.Tensor, count: tf.Tensor, axis: int) -> tf.Tensor:
    """The maxima of 2**k neighbours along an axis, from each cell on, for all k below ``count``: [count, ...].

    Runs that leave the map go on at its other side; no bin has such a run.
    """
    maxima = tf.TensorArray(features.dtype, size=count, element_shape=features.shape)

    def double(exponent: tf.Tensor, current: tf.Tensor, found: tf.TensorArray) -> tuple[tf.Tensor, ...]:
        found = found.write(exponent, current)
        shift = tf.bitwise.left_shift(1, exponent)
        return exponent + 1, tf.maximum(current, tf.roll(current, -shift, axis=axis)), found

    _, _, maxima = tf.while_loop(
        lambda exponent, current, found: exponent < count,
        double,
        (0, features, maxima),
        shape_invariants=(tf.TensorShape([]), features.shape, None),
    )
    return maxima.stack()
