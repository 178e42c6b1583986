"""Spatial pyramid pooling of whole maps: maps of any size -> vectors of one length (floor 1).

He et al., arXiv:1406.4729, section 2.2. A pyramid of levels (6, 3, 2, 1) divides a map of any size into 6 x 6, 3 x 3,
2 x 2 and 1 x 1 bins and keeps the maximum of each: 50 numbers per channel.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from detzoo.contracts import Tensor


def spatial_pyramid(features: Tensor, bins: Sequence[int]) -> Tensor:
    """Returns the maximum of each channel in each bin of each level.

    Along an axis of ``a`` cells, bin i of n covers the cells from floor(i a / n) to before ceil((i + 1) a / n), the
    rule of the paper's appendix A. If n divides a or a - 1, as all levels of the paper's 13 x 13 map do, this is
    section 2.3's sliding window of ceil(a / n) cells with stride floor(a / n).

    Differs from arXiv:1406.4729, section 2.3: for other sizes its windows miss the last cells of the map (4 bins of 10
    cells end at cell 9), or are more than n (9 windows of 2 cells for 6 bins of 10 cells). The bins here always cover
    the map, and there are always n.

    In a map with fewer cells than bins, every bin has at least one cell, and neighbouring bins share cells: bins 0 to 5
    of two cells read the cells 0, 0, 0, 1, 1, 1.

    Args:
        features: number [B, H, W, C]; H and W at least 1, known or not.
        bins: Bins per side of each level, each 1 or more.

    Returns:
        [B, sum(n * n) * C] in the features' type: level by level in the order of ``bins``, then bin by bin in rows,
        then channel by channel. Equal cells of a bin share its gradient.

    Raises:
        ValueError: No level, a level below 1, or a map without cells.
    """
    if not bins or min(bins) < 1:
        raise ValueError(f"spatial_pyramid received the levels {list(bins)}; give at least one, each 1 or more")
    if 0 in features.shape[1:3]:
        raise ValueError(f"spatial_pyramid received a map without cells, {features.shape}; the image is too small")
    levels = [_pool(_pool(features, count, axis=1), count, axis=2) for count in bins]
    channels = features.shape[-1]
    flat = [tf.reshape(level, [-1, count * count * channels]) for level, count in zip(levels, bins, strict=True)]
    return tf.concat(flat, axis=1)


def num_bins(bins: Sequence[int]) -> int:
    """Returns the number of bins of all levels, the length of ``spatial_pyramid``'s vectors for one channel."""
    return sum(count * count for count in bins)


def _pool(features: Tensor, count: int, axis: int) -> Tensor:
    """Returns the maxima of ``count`` bins along an axis of [B, H, W, C]."""
    size = features.shape[axis]
    size = tf.shape(features)[axis] if size is None else size
    pooled = []
    for index in range(count):
        first, end = index * size // count, -(-(index + 1) * size // count)
        cells = features[:, first:end] if axis == 1 else features[:, :, first:end]
        pooled.append(tf.reduce_max(cells, axis=axis))
    return tf.stack(pooled, axis=axis)
