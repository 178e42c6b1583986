"""Square windows at every location of a pyramid, each for objects of one size (floor 1).

A head of a mask proposal network slides over every level. At level l it predicts objects whose longer side is
``factor * min_object_size_px * 2**(l - 2)`` pixels, in a slightly larger square window around the centre of the cell.
The order of the locations is: head, level, row, column.

References:
    Lin et al., arXiv:1612.03144, appendix A: objects of 32 to 512 pixels on P2 to P6 with windows of 40 to 640, and
    sqrt(2) times that for the second head.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

_FIRST_LEVEL = 2  # level of objects of min_object_size_px
_SMALLEST_SIDE_PX = 1e-3  # lower bound of an object's side, so that its logarithm is finite


class Locations(NamedTuple):
    """The A locations of all heads and levels, in pixels of the padded input."""

    centers_px: tf.Tensor  # float32 [A, 2], (y, x)
    cells_px: tf.Tensor  # float32 [A], side of a cell, the level's stride
    scales: tf.Tensor  # int32 [A], row of SlidingWindows.object_sides_px
    windows_px: tf.Tensor  # float32 [A, 4]


@dataclasses.dataclass(frozen=True)
class SlidingWindows:
    """The windows of some heads over some levels."""

    levels: tuple[int, ...]  # levels of the pyramid, ascending
    head_factors: tuple[float, ...] = (1.0,)  # factor of the object size of each head
    min_object_size_px: float = 32.0  # longer side of the objects of level 2, for a factor of 1
    window_scale: float = 1.25  # ratio of a window's side to the longer side of its objects

    @property
    def object_sides_px(self) -> tuple[float, ...]:
        """Longer side of the objects of each head and level, in the order of the locations."""
        return tuple(
            factor * self.min_object_size_px * 2.0 ** (level - _FIRST_LEVEL)
            for factor in self.head_factors
            for level in self.levels
        )

    def __call__(self, feature_shapes: Sequence[tuple[Any, Any]]) -> Locations:
        """Returns all locations, from the (height, width) of each level's map in cells, ints or scalar tensors."""
        if len(feature_shapes) != len(self.levels):
            raise ValueError(f"{len(feature_shapes)} feature maps for the levels {list(self.levels)}")
        centers, cells, scales, windows = [], [], [], []
        for scale, side in enumerate(self.object_sides_px):
            number = scale % len(self.levels)
            height, width = feature_shapes[number]
            stride = float(2 ** self.levels[number])
            y, x = ((tf.cast(tf.range(count), tf.float32) + 0.5) * stride for count in (height, width))
            grid = tf.reshape(tf.stack(tf.meshgrid(y, x, indexing="ij"), axis=-1), [-1, 2])
            half = 0.5 * self.window_scale * side
            centers.append(grid)
            cells.append(tf.fill(tf.shape(grid)[:1], stride))
            scales.append(tf.fill(tf.shape(grid)[:1], scale))
            windows.append(tf.concat([grid - half, grid + half], axis=-1))
        return Locations(*(tf.concat(parts, axis=0) for parts in (centers, cells, scales, windows)))


def nearest_scale(object_sides_px: tf.Tensor, scales_px: Sequence[float]) -> tf.Tensor:
    """Returns the index of the first scale that is nearest to sides [...] in log space, int32 [...]."""
    sides = tf.math.log(tf.maximum(object_sides_px, _SMALLEST_SIDE_PX))
    distances = tf.abs(sides[..., tf.newaxis] - tf.math.log(tf.constant(scales_px, tf.float32)))
    return tf.argmin(distances, axis=-1, output_type=tf.int32)


def gather_locations(maps: Sequence[tf.Tensor], rows: tf.Tensor) -> tf.Tensor:
    """Gathers rows [B, R] of cells of maps [B, H, W, C] as from their concatenation, without copying all: [B, R, C]."""
    found, first = None, tf.constant(0)
    for x in maps:
        flat = tf.reshape(x, [tf.shape(x)[0], -1, x.shape[-1]])
        count = tf.shape(flat)[1]
        inside = (rows >= first) & (rows < first + count)
        cells = tf.gather(flat, tf.where(inside, rows - first, 0), batch_dims=1)
        own = tf.where(inside[..., tf.newaxis], cells, tf.zeros([], cells.dtype))
        found, first = (own if found is None else found + own), first + count
    return found
