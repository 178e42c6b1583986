"""Codes of boxes relative to anchors, the regression targets of a network (floor 1).

``decode`` inverts ``encode`` for every box with extent. Degenerate boxes and anchors, and arbitrarily large size codes,
give finite numbers, never NaN or infinity.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol

import tensorflow as tf

# Keeps logarithms and quotients finite (value of the Object Detection API).
_EPSILON = 1e-8
# exp(30) = 1e13: squares of such sizes are finite in float32, and trained networks stay far below.
# Differs from the Object Detection API, which does not bound the exponent, so that boxes can overflow to infinity.
_MAX_LOG_SIZE_RATIO = 30.0


class BoxCoder(Protocol):
    """The interface of box coders."""

    @property
    def code_size(self) -> int:
        """Number of values of a code."""

    def encode(self, boxes: tf.Tensor, anchors: tf.Tensor) -> tf.Tensor:
        """Returns the codes float32 [..., code_size] of ``boxes`` [..., 4] relative to ``anchors`` [..., 4]."""

    def decode(self, deltas: tf.Tensor, anchors: tf.Tensor) -> tf.Tensor:
        """Returns the boxes [..., 4] of codes [..., code_size] relative to ``anchors`` [..., 4]."""


def _centers_and_sizes(boxes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    ymin, xmin, ymax, xmax = tf.unstack(boxes, axis=-1)
    height = ymax - ymin
    width = xmax - xmin
    return ymin + 0.5 * height, xmin + 0.5 * width, height, width


def _from_centers(y: tf.Tensor, x: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    half_height, half_width = 0.5 * height, 0.5 * width
    return tf.stack([y - half_height, x - half_width, y + half_height, x + half_width], axis=-1)


def _bounded_exp(log_ratio: tf.Tensor) -> tf.Tensor:
    return tf.exp(tf.minimum(log_ratio, _MAX_LOG_SIZE_RATIO))


@dataclasses.dataclass(frozen=True)
class FasterRcnnBoxCoder:
    """[ty, tx, th, tw]: shift of the centre in anchor sizes, log of the size ratio (Faster R-CNN, section 3.1.2)."""

    scale_factors: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)  # factors of ty, tx, th, tw
    code_size: int = dataclasses.field(default=4, init=False)

    def encode(self, boxes: tf.Tensor, anchors: tf.Tensor) -> tf.Tensor:
        """See ``BoxCoder.encode``."""
        anchor_y, anchor_x, anchor_height, anchor_width = _centers_and_sizes(anchors)
        y, x, height, width = _centers_and_sizes(boxes)
        anchor_height, anchor_width = anchor_height + _EPSILON, anchor_width + _EPSILON
        code = [
            (y - anchor_y) / anchor_height,
            (x - anchor_x) / anchor_width,
            tf.math.log((height + _EPSILON) / anchor_height),
            tf.math.log((width + _EPSILON) / anchor_width),
        ]
        return tf.stack(code, axis=-1) * tf.constant(self.scale_factors)

    def decode(self, deltas: tf.Tensor, anchors: tf.Tensor) -> tf.Tensor:
        """See ``BoxCoder.decode``."""
        anchor_y, anchor_x, anchor_height, anchor_width = _centers_and_sizes(anchors)
        ty, tx, th, tw = tf.unstack(deltas / tf.constant(self.scale_factors), axis=-1)
        return _from_centers(
            ty * anchor_height + anchor_y,
            tx * anchor_width + anchor_x,
            _bounded_exp(th) * anchor_height,
            _bounded_exp(tw) * anchor_width,
        )


@dataclasses.dataclass(frozen=True)
class MeanStddevBoxCoder:
    """The differences of the corner coordinates to the anchor's, divided by one standard deviation (MultiBox)."""

    stddev: float = 0.01  # divisor, in the unit of the boxes
    code_size: int = dataclasses.field(default=4, init=False)

    def encode(self, boxes: tf.Tensor, anchors: tf.Tensor) -> tf.Tensor:
        """See ``BoxCoder.encode``."""
        return (boxes - anchors) / self.stddev

    def decode(self, deltas: tf.Tensor, anchors: tf.Tensor) -> tf.Tensor:
        """See ``BoxCoder.decode``."""
        return deltas * self.stddev + anchors


@dataclasses.dataclass(frozen=True)
class SquareBoxCoder:
    """[ty, tx, tl] for boxes that are replaced by squares of side sqrt(height * width).

    ``decode`` inverts ``encode`` for square boxes; for other boxes it keeps centre and area.
    """

    scale_factors: tuple[float, float, float] = (10.0, 10.0, 5.0)  # factors of ty, tx, tl
    code_size: int = dataclasses.field(default=3, init=False)

    def encode(self, boxes: tf.Tensor, anchors: tf.Tensor) -> tf.Tensor:
        """See ``BoxCoder.encode``."""
        anchor_y, anchor_x, anchor_height, anchor_width = _centers_and_sizes(anchors)
        y, x, height, width = _centers_and_sizes(boxes)
        anchor_side = tf.sqrt(anchor_height * anchor_width) + _EPSILON
        side = tf.sqrt(height * width) + _EPSILON
        code = [(y - anchor_y) / anchor_side, (x - anchor_x) / anchor_side, tf.math.log(side / anchor_side)]
        return tf.stack(code, axis=-1) * tf.constant(self.scale_factors)

    def decode(self, deltas: tf.Tensor, anchors: tf.Tensor) -> tf.Tensor:
        """See ``BoxCoder.decode``."""
        anchor_y, anchor_x, anchor_height, anchor_width = _centers_and_sizes(anchors)
        ty, tx, tl = tf.unstack(deltas / tf.constant(self.scale_factors), axis=-1)
        anchor_side = tf.sqrt(anchor_height * anchor_width)
        side = _bounded_exp(tl) * anchor_side
        return _from_centers(ty * anchor_side + anchor_y, tx * anchor_side + anchor_x, side, side)
