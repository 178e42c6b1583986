"""Places the windows of multi-view testing on an image (floor 1): centre, corners, middles of the sides."""

from __future__ import annotations

import tensorflow as tf

from detzoo.contracts import Tensor

# Places of a window as (down, right), in halves of the space around it.
CENTER_AND_CORNERS = ((1, 1), (0, 0), (0, 2), (2, 0), (2, 2))
WITH_SIDES = (*CENTER_AND_CORNERS, (0, 1), (1, 0), (1, 2), (2, 1))


def window_origins(shape_px: Tensor, side_px: int, places: tuple[tuple[int, int], ...]) -> Tensor:
    """Returns the top left pixels of square windows of an image: int32 [V, 2], (row, column), rounded down.

    The image's (height, width) is at least ``side_px``; the V places are ``CENTER_AND_CORNERS`` or ``WITH_SIDES``.
    """
    return (shape_px - side_px) * tf.constant(places, tf.int32) // 2


def num_distinct(shape_px: Tensor, side_px: int, places: tuple[tuple[int, int], ...]) -> Tensor:
    """Returns the number of different windows, int32 scalar. An axis without space around the window has one place."""
    rows, columns = (len({place[axis] for place in places}) for axis in (0, 1))
    has_rows, has_columns = tf.unstack(shape_px > side_px)
    return tf.where(has_rows, tf.where(has_columns, len(places), rows), tf.where(has_columns, columns, 1))
