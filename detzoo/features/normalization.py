"""Normalises pixel values: functions from RGB 0..255 to an extractor's input, and the colours that become 0 and 1.

The ImageNet weights of the classification networks follow three conventions. Inception and MobileNet read [-1, 1]. VGG
and ResNet read values minus the mean of ImageNet's pixels (github.com/ksimonyan, VGG's read-me). EfficientNet reads
values minus this mean, divided by their standard deviation.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from detzoo.contracts import Tensor

IMAGENET_MEAN_RGB = (123.68, 116.779, 103.939)
STANDARD_MEAN = (0.485, 0.456, 0.406)  # of RGB in 0..1
STANDARD_DEVIATION = (0.229, 0.224, 0.225)


class PixelScale(NamedTuple):
    """A normalisation ``(colour - zero) / unit`` of colours in RGB 0..255."""

    zero: tuple[float, float, float]  # the colour that becomes 0
    unit: tuple[float, float, float]  # distance from it to the colour that becomes 1

    def colour_of(self, normalized: tuple[float, float, float]) -> tuple[float, ...]:
        """Returns the colour whose three channels become ``normalized``."""
        return tuple(zero + unit * value for zero, unit, value in zip(self.zero, self.unit, normalized, strict=True))


RAW = PixelScale((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
MINUS_ONE_TO_ONE = PixelScale((127.5, 127.5, 127.5), (127.5, 127.5, 127.5))
IMAGENET_MEAN = PixelScale(IMAGENET_MEAN_RGB, (1.0, 1.0, 1.0))
IMAGENET_STANDARD = PixelScale(
    (255.0 * STANDARD_MEAN[0], 255.0 * STANDARD_MEAN[1], 255.0 * STANDARD_MEAN[2]),
    (255.0 * STANDARD_DEVIATION[0], 255.0 * STANDARD_DEVIATION[1], 255.0 * STANDARD_DEVIATION[2]),
)


def to_minus_one_to_one(images: Tensor) -> Tensor:
    """Maps float [..., 3] of 0..255 to [-1, 1]."""
    return images * (2.0 / 255.0) - 1.0


def subtract_imagenet_mean(images: Tensor) -> Tensor:
    """Subtracts the mean colour of ImageNet from float [..., 3] of 0..255; the channels stay in RGB order."""
    images = tf.convert_to_tensor(images)
    return images - tf.constant(IMAGENET_MEAN_RGB, images.dtype)


def subtract_caffe_mean(images: Tensor) -> Tensor:
    """Subtracts the mean colour of ImageNet from float [..., 3] of 0..255; the channels change to BGR, as in Caffe."""
    return tf.reverse(subtract_imagenet_mean(images), axis=[-1])


def standardize_imagenet(images: Tensor) -> Tensor:
    """Maps float [..., 3] of 0..255 to mean 0 and deviation 1 over the pixels of ImageNet."""
    images = tf.convert_to_tensor(images)
    return (images - tf.constant(IMAGENET_STANDARD.zero, images.dtype)) / tf.constant(
        IMAGENET_STANDARD.unit, images.dtype
    )
