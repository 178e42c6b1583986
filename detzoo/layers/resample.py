"""Layers that change the size of a map to that of another, or to a multiple (floor 1).

Unlike stock layers, they handle sizes that are odd, not square, or unknown until the image arrives.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from detzoo.contracts import Tensor


@keras.saving.register_keras_serializable(package="detzoo")
class UpsampleLike(keras.layers.Layer):
    """Doubles a map by nearest neighbour and cuts it to the size of a finer map.

    Called with ``[coarse, fine]``, shapes [B, h, w, C] and [B, H, W, D] with H <= 2h and W <= 2w; returns [B, H, W, C].
    A finer map of odd size H has a coarser map of (H + 1) / 2 rows; the surplus row (column) is cut off at the end.
    """

    def call(self, inputs: list[Tensor]) -> Tensor:
        """Upsamples the first map to the size of the second."""
        coarse, fine = inputs
        coarse_height, coarse_width = spatial_shape(coarse)
        height, width = spatial_shape(fine)
        # For twice the size this equals half_pixel_centers=True, which few other runtimes have.
        doubled = tf.compat.v1.image.resize_nearest_neighbor(coarse, (2 * coarse_height, 2 * coarse_width))
        return doubled[:, :height, :width, :]

    def compute_output_shape(self, input_shape: list[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        """Returns [B, H, W, C], with the coarse map's channels and the fine map's size."""
        coarse, fine = input_shape
        return (coarse[0], fine[1], fine[2], coarse[3])


@keras.saving.register_keras_serializable(package="detzoo")
class PadToMultiple(keras.layers.Layer):
    """Pads [B, H, W, C] with zeros at the bottom and right until H and W are multiples of ``multiple``.

    Args:
        multiple: Divisor of the padded sizes, 1 or more.
        **kwargs: Arguments of ``keras.layers.Layer``.
    """

    def __init__(self, multiple: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.multiple = multiple

    def call(self, inputs: Tensor) -> Tensor:
        """Pads ``inputs``."""
        return pad_to_multiple(inputs, self.multiple)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the padded shape."""
        batch, height, width, channels = input_shape
        padded = [None if size is None else size + -size % self.multiple for size in (height, width)]
        return (batch, *padded, channels)


@keras.saving.register_keras_serializable(package="detzoo")
class ResizeBilinear(keras.layers.Layer):
    """Resizes [B, h, w, C] to [B, *size, C], with coinciding corner cells of both maps.

    Args:
        size: (height, width) in cells.
        **kwargs: Arguments of ``keras.layers.Layer``.
    """

    def __init__(self, size: tuple[int, int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size = tuple(size)

    def call(self, inputs: Tensor) -> Tensor:
        """Resizes ``inputs``."""
        resized = tf.compat.v1.image.resize_bilinear(inputs, self.size, align_corners=True)
        return tf.cast(resized, inputs.dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns [B, *size, C]."""
        return (input_shape[0], *self.size, input_shape[-1])


def spatial_shape(x: Tensor) -> tuple[Any, Any]:
    """Returns (height, width) of [B, H, W, C], as ints for static sizes and scalar tensors for others."""
    dynamic = tf.shape(x)
    return tuple(dynamic[axis] if x.shape[axis] is None else x.shape[axis] for axis in (1, 2))


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Pads [B, H, W, C] with zeros at the bottom and right until H and W are multiples of ``multiple``."""
    height, width = spatial_shape(x)
    # Not -height % multiple: tf2onnx converts the remainder of positive numbers only.
    bottom, right = ((multiple - size % multiple) % multiple for size in (height, width))
    return tf.pad(x, [[0, 0], [0, bottom], [0, right], [0, 0]])
