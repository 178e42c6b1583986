"""Attention of the regions of an image to a memory of features, for Context R-CNN (floor 1).

References:
    Beery et al., arXiv:1912.03538, section 4.3.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from detzoo.contracts import Tensor

_NEVER = -1e5  # logit of a feature that is padding, as in the Object Detection API


@keras.saving.register_keras_serializable(package="detzoo")
class MemoryAttention(keras.layers.Layer):
    """Means of values, weighted by the softmax of cosine / temperature between a query and the keys.

    Called with ``[queries, keys, values, num_queries, num_keys]``, shapes [B, R, D], [B, N, D], [B, N, D], int32 [B]
    and int32 [B]; returns [B, R, D] in float32. Queries, keys and values are scaled to length 1. Rows past the number
    of keys have no effect. Without any key the result is 0.

    Args:
        temperature: Divisor of the cosines.
        **kwargs: Arguments of ``keras.layers.Layer``.
    """

    def __init__(self, temperature: float, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.temperature = temperature

    def call(self, inputs: list[Tensor]) -> Tensor:
        """Computes the weighted means."""
        *features, num_queries, num_keys = inputs
        queries, keys, values = (tf.nn.l2_normalize(tf.cast(x, tf.float32), axis=-1) for x in features)
        is_query = tf.sequence_mask(num_queries, tf.shape(queries)[1], tf.float32)[..., tf.newaxis]
        is_key = tf.sequence_mask(num_keys, tf.shape(keys)[1])
        cosines = tf.matmul(queries * is_query, keys, transpose_b=True)
        logits = tf.where(is_key[:, tf.newaxis], cosines, _NEVER) / self.temperature
        return tf.matmul(tf.nn.softmax(logits), values * tf.cast(is_key, tf.float32)[..., tf.newaxis])

    def compute_output_shape(self, input_shape: list[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        """Returns the shape of the queries."""
        return tuple(input_shape[0])

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild this layer."""
        return {**super().get_config(), "temperature": self.temperature}


@keras.saving.register_keras_serializable(package="detzoo")
class RegionMeans(keras.layers.Layer):
    """Means over the cells of regions, by image: ``[regions [B * R, h, w, C], any [B, ...]]`` -> [B, R, C]."""

    def call(self, inputs: list[Tensor]) -> Tensor:
        """Averages the cells."""
        regions, of_images = inputs
        means = tf.reduce_mean(regions, axis=[1, 2])
        return tf.reshape(means, [tf.shape(of_images)[0], -1, means.shape[-1]])

    def compute_output_shape(self, input_shape: list[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        """Returns [B, R, C] with R unknown."""
        return (input_shape[1][0], None, input_shape[0][-1])


@keras.saving.register_keras_serializable(package="detzoo")
class AddToRegions(keras.layers.Layer):
    """Adds a vector to every cell of a region: ``[regions [B * R, h, w, C], vectors [B, R, C]]`` -> the regions."""

    def call(self, inputs: list[Tensor]) -> Tensor:
        """Adds the vectors."""
        regions, vectors = inputs
        return regions + tf.reshape(tf.cast(vectors, regions.dtype), [-1, 1, 1, vectors.shape[-1]])

    def compute_output_shape(self, input_shape: list[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        """Returns the shape of the regions."""
        return tuple(input_shape[0])
