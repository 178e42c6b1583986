"""The steps of learned policies that change values only: uint8 [H, W, 3], seed, level as a fraction -> uint8.

The names have the meaning of Pillow's ImageOps and ImageEnhance.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from detzoo.contracts import Tensor
from detzoo.data.augment.apply import uniforms
from detzoo.data.resize import to_gray

_FILL = 128
_SOLARIZE_THRESHOLD = 128
_CUTOUT_PX = 100.0  # half the side of the square at the highest level


def gray_rectangle(image: Tensor, center: Tensor, half_sides: Tensor) -> Tensor:
    """Grays the pixels within ``half_sides`` of ``center`` (float32 [2], in pixels)."""
    size = tf.shape(image)[:2]
    rows, columns = (tf.cast(tf.range(size[axis]), tf.float32) + 0.5 - center[axis] for axis in (0, 1))
    inside = (tf.abs(rows)[:, tf.newaxis] < half_sides[0]) & (tf.abs(columns) < half_sides[1])
    return tf.where(inside[..., tf.newaxis], tf.cast(_FILL, image.dtype), image)


def _cutout(image: Tensor, seed: Tensor, fraction: Tensor | float) -> Tensor:
    """Grays a square around a random pixel."""
    center = tf.stack(uniforms(seed, 2)) * tf.cast(tf.shape(image)[:2], tf.float32)
    return gray_rectangle(image, center, tf.stack([_CUTOUT_PX * fraction] * 2))


def _blend(low: Tensor, image: Tensor, fraction: Tensor | float) -> Tensor:
    """Mixes ``low`` (factor 0) and the image (factor 1) by a factor of 0.1 to 1.9."""
    factor = 0.1 + 1.8 * fraction
    start = tf.cast(low, tf.float32)
    mixed = start + factor * (tf.cast(image, tf.float32) - start)
    return tf.cast(tf.clip_by_value(mixed, 0.0, 255.0), tf.uint8)


def _truncated(number: Tensor | float) -> Tensor:
    """Truncates to int32; a whole number with a rounding error keeps its value."""
    return tf.cast(tf.floor(number + 1e-4), tf.int32)


def _contrast(image: Tensor, seed: Tensor, fraction: Tensor | float) -> Tensor:
    """Differs from the Object Detection API, whose mean gray is the number of pixels / 256 by mistake."""
    return _blend(tf.fill(tf.shape(image), tf.reduce_mean(to_gray(image))), image, fraction)


def _sharpness(image: Tensor, seed: Tensor, fraction: Tensor | float) -> Tensor:
    """Blends with a smoothed image; the border stays."""
    kernel = tf.constant([[1.0, 1.0, 1.0], [1.0, 5.0, 1.0], [1.0, 1.0, 1.0]]) / 13.0
    kernel = tf.tile(kernel[:, :, tf.newaxis, tf.newaxis], [1, 1, 3, 1])
    values = tf.cast(image, tf.float32)
    padded = tf.pad(values, [[1, 1], [1, 1], [0, 0]])
    smooth = tf.nn.depthwise_conv2d(padded[tf.newaxis], kernel, [1, 1, 1, 1], "VALID")[0]
    rows, columns = tf.range(tf.shape(image)[0])[:, tf.newaxis], tf.range(tf.shape(image)[1])
    inner = (rows > 0) & (rows < tf.shape(image)[0] - 1) & (columns > 0) & (columns < tf.shape(image)[1] - 1)
    return _blend(tf.where(inner[..., tf.newaxis], smooth, values), image, fraction)


def _equalize(image: Tensor, seed: Tensor, fraction: Tensor | float) -> Tensor:
    """Makes all values of a channel about equally frequent."""
    channels = []
    for channel in tf.unstack(tf.cast(image, tf.int32), num=3, axis=-1):
        counts = tf.math.bincount(tf.reshape(channel, [-1]), minlength=256, maxlength=256)
        last = tf.reduce_max(channel)
        step = (tf.size(channel) - tf.gather(counts, last)) // 255
        table = (tf.cumsum(counts, exclusive=True) + step // 2) // tf.maximum(step, 1)
        table = tf.where(step > 0, tf.clip_by_value(table, 0, 255), tf.range(256))
        channels.append(tf.gather(table, channel))
    return tf.cast(tf.stack(channels, axis=-1), tf.uint8)


def _auto_contrast(image: Tensor, seed: Tensor, fraction: Tensor | float) -> Tensor:
    """Stretches each channel to 0..255."""
    values = tf.cast(image, tf.float32)
    low, high = tf.reduce_min(values, axis=[0, 1]), tf.reduce_max(values, axis=[0, 1])
    scale = 255.0 / tf.maximum(high - low, 1.0)
    stretched = tf.where(high > low, (values - low) * scale, values)
    return tf.cast(tf.clip_by_value(stretched, 0.0, 255.0), tf.uint8)


def _solarize(image: Tensor, seed: Tensor, fraction: Tensor | float) -> Tensor:
    """Inverts what is at or above the threshold 256 * level."""
    threshold = _truncated(256.0 * fraction)
    return tf.where(tf.cast(image, tf.int32) < threshold, image, 255 - image)


def _solarize_add(image: Tensor, seed: Tensor, fraction: Tensor | float) -> Tensor:
    """Adds up to 110 to what is below 128."""
    values = tf.cast(image, tf.int32)
    brighter = tf.minimum(values + _truncated(110.0 * fraction), 255)
    return tf.cast(tf.where(values < _SOLARIZE_THRESHOLD, brighter, values), tf.uint8)


def _posterize(image: Tensor, seed: Tensor, fraction: Tensor | float) -> Tensor:
    """Keeps the highest 4 * level bits."""
    dropped = 8 - _truncated(4.0 * fraction)
    values = tf.cast(image, tf.int32)
    return tf.cast(tf.bitwise.left_shift(tf.bitwise.right_shift(values, dropped), dropped), tf.uint8)


STEPS: dict[str, Callable[[Tensor, Tensor, Any], Tensor]] = {
    "AutoContrast": _auto_contrast,
    "Brightness": lambda image, seed, fraction: _blend(tf.zeros_like(image), image, fraction),
    "Color": lambda image, seed, fraction: _blend(to_gray(image), image, fraction),
    "Contrast": _contrast,
    "Cutout": _cutout,
    "Equalize": _equalize,
    "Posterize": _posterize,
    "Sharpness": _sharpness,
    "Solarize": _solarize,
    "SolarizeAdd": _solarize_add,
}
