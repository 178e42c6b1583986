"""The maxima of bins of thousands of boxes on one map (floor 1), for RoI pooling and the spatial pyramid of windows.

The maxima over runs of 2**i x 2**j cells, up to the size of the largest bin, are computed once per map. Four of them
cover each bin, so there is no loop over boxes.
"""

from __future__ import annotations

import functools
import itertools
from typing import NamedTuple

import tensorflow as tf


class Runs(NamedTuple):
    """Two runs of 2**exponent cells that cover each bin along an axis."""

    first: tf.Tensor  # int32 [N, bins], start of the first run
    second: tf.Tensor  # int32 [N, bins], start of the second run, which ends at the end of the bin
    exponents: tf.Tensor  # int32 [N, bins]


def bin_edges(first: tf.Tensor, extent: tf.Tensor, num_bins: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns starts and ends [N, h] of bins: bin i of h from floor(i n / h) to before ceil((i + 1) n / h).

    ``first`` int32 [N] is each box's first cell along an axis, ``extent`` int32 [N] its number n of cells, at least 1.
    """
    numbers, start, cells = tf.range(num_bins), first[:, tf.newaxis], extent[:, tf.newaxis]
    ends = start - (-(numbers + 1) * cells) // num_bins  # minus floor of minus: ceil
    return start + numbers * cells // num_bins, ends


def cover(start: tf.Tensor, end: tf.Tensor) -> Runs:
    """Returns the runs that cover bins from ``start`` to before ``end``, int32 [N, bins] each, not empty."""
    size = end - start
    powers = tf.constant([2**exponent for exponent in range(1, 31)], tf.int32)
    exponents = tf.reshape(tf.searchsorted(powers, tf.reshape(size, [-1]), side="right"), tf.shape(size))
    return Runs(start, end - tf.bitwise.left_shift(tf.ones_like(exponents), exponents), exponents)


def bin_maxima(features: tf.Tensor, rows: Runs, columns: Runs, image_indices: tf.Tensor) -> tf.Tensor:
    """Returns the maximum of each channel in each bin, [N, h, w, C]; of equal cells one gets the gradient.

    Memory: a copy of the map for each pair of exponents of the largest bins, and four times the result.

    Args:
        features: number [B, H, W, C], of any height and width.
        rows: Runs [N, h] of the bins' rows, on the map.
        columns: Runs [N, w] of the bins' columns, on the map.
        image_indices: int32 [N], image of each box.
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
    """Returns one more than the largest exponent; 1 without boxes."""
    return tf.reduce_max(tf.concat([[0], tf.reshape(exponents, [-1])], 0)) + 1


def _running_maxima(features: tf.Tensor, count: tf.Tensor, axis: int) -> tf.Tensor:
    """Returns the maxima of 2**k neighbours along an axis, from each cell on, for all k below ``count``: [count, ...].

    Runs that leave the map wrap around; no bin has such a run.
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
