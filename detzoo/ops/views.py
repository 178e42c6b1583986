"""Where the windows of multi-view testing stand on an image (floor 1): centre, corners, middles of the sides."""

from __future__ import annotations

import tensorflow as tf

from detzoo.contracts import Tensor

# Places of a window, in halves of the room that it leaves: (down, right).
CENTER_AND_CORNERS = ((1, 1), (0, 0), (0, 2), (2, 0), (2, 2))
WITH_SIDES = (*CENTER_AND_CORNERS, (0, 1), (1, 0), (1, 2), (2, 1))


def window_origins(shape_px: Tensor, side_px: int, places: tuple[tuple[int, int], ...]) -> Tensor:
    """The top left pixels of square windows of an image.

    Args:
        shape_px: int32 [2], (height, width) of the image, each at least ``side_px``.
        side_px: side of the windows.
        places: ``CENTER_AND_CORNERS`` or ``WITH_SIDES``.

    Returns:
        int32 [V, 2], (row, column), V the number of places; the centre's is rounded down.
    """
    return (shape_px - side_px) * tf.constant(places, tf.int32) // 2


def num_distinct(shape_px: Tensor, side_px: int, places: tuple[tuple[int, int], ...]) -> Tensor:
    """How many of the windows differ, int32 scalar: as many along an axis that leaves room, one along another."""
    rows, columns = (len({place[axis] for place in places}) for axis in (0, 1))
    has_rows, has_columns = tf.unstack(shape_px > side_px)
    return tf.where(has_rows, tf.where(has_columns, len(places), rows), tf.where(has_columns, columns, 1))
