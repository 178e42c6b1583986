"""Layers of 2014's classification networks that Keras lacks: local response normalisation, the spatial pyramid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from detzoo.contracts import Tensor
from detzoo.ops.spatial_pyramid import num_bins, spatial_pyramid

# Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep convolutional neural networks" (2012), section 3.3.
LRN_RADIUS, LRN_BIAS, LRN_ALPHA, LRN_BETA = 2, 2.0, 1e-4, 0.75

_SERIALIZATION_PACKAGE = "detzoo"


@keras.saving.register_keras_serializable(package=_SERIALIZATION_PACKAGE)
class LocalResponseNormalization(keras.layers.Layer):
    """Divides each channel by (2 + 1e-4 x the sum of squares of itself and two channels either side) ** 0.75.

    The channels past the ends count as 0. Computed in float32 under every dtype policy.
    """

    def call(self, inputs: Tensor) -> Tensor:
        """Normalises ``inputs`` [B, H, W, C]."""
        x = tf.cast(inputs, tf.float32)
        x = tf.nn.local_response_normalization(x, LRN_RADIUS, LRN_BIAS, LRN_ALPHA, LRN_BETA)
        return tf.cast(x, inputs.dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The input's shape."""
        return input_shape


@keras.saving.register_keras_serializable(package=_SERIALIZATION_PACKAGE)
class SpatialPyramid(keras.layers.Layer):
    """``detzoo.ops.spatial_pyramid`` as a layer: [B, H, W, C] -> [B, sum(n * n) * C].

    Args:
        bins: bins a side of each level.
        **kwargs: Arguments of ``keras.layers.Layer``.
    """

    def __init__(self, bins: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bins = tuple(bins)

    def call(self, inputs: Tensor) -> Tensor:
        """Pools ``inputs``."""
        return spatial_pyramid(inputs, self.bins)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """[B, sum(n * n) * C]."""
        channels = input_shape[-1]
        return (input_shape[0], None if channels is None else num_bins(self.bins) * channels)

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this layer."""
        return {**super().get_config(), "bins": self.bins}
