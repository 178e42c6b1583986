"""Width of the Gaussian that CenterNet draws around the centre of a box (floor 1)."""

from __future__ import annotations

import tensorflow as tf

from detzoo.contracts import Tensor


def gaussian_sigma(sizes: Tensor, min_overlap: float) -> Tensor:
    """Returns the standard deviation of the Gaussian of boxes with sizes [..., 2], in the sizes' unit.

    Differs from CornerNet's derivation: r is the root that its code computes, 4 * min_overlap times the smallest r with
    ``h w / ((h + 2 r) (w + 2 r)) = min_overlap``. All published CenterNets are trained with it.
    """
    height, width = tf.unstack(sizes, axis=-1)
    half = min_overlap * (height + width)
    radius = tf.sqrt(half**2 + 4.0 * min_overlap * (1.0 - min_overlap) * height * width) - half
    return (2.0 * tf.maximum(tf.floor(radius), 0.0) + 1.0) / 6.0
