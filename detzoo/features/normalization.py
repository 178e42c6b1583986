"""What an extractor expects of pixel values: functions from RGB 0..255 to its input.

References:
    The two conventions of the classification networks' ImageNet weights: Inception and MobileNet see [-1, 1]; VGG and
    ResNet see values minus the mean of ImageNet's pixels (github.com/ksimonyan, VGG's read-me).
"""

from __future__ import annotations

import tensorflow as tf

from detzoo.contracts import Tensor

IMAGENET_MEAN_RGB = (123.68, 116.779, 103.939)


def to_minus_one_to_one(images: Tensor) -> Tensor:
    """Maps float [..., 3] of 0..255 to [-1, 1]."""
    return images * (2.0 / 255.0) - 1.0


def subtract_imagenet_mean(images: Tensor) -> Tensor:
    """Subtracts the mean colour of ImageNet from float [..., 3] of 0..255; the channels stay in RGB order."""
    images = tf.convert_to_tensor(images)
    return images - tf.constant(IMAGENET_MEAN_RGB, images.dtype)
