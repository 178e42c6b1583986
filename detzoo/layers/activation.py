"""Activations that Keras lacks, or whose gradient in its TensorFlow backend keeps every graph in memory (floor 1)."""

from __future__ import annotations

import keras
import tensorflow as tf

from detzoo.contracts import Tensor
from detzoo.gradients import with_gradient


@keras.saving.register_keras_serializable(package="detzoo")
def swish(x: Tensor) -> Tensor:
    """Returns ``x * sigmoid(x)``; the gradient recomputes the sigmoid, which saves memory."""
    return with_gradient(x * tf.sigmoid(x), [x], _swish_gradient)


def _swish_gradient(upstream: Tensor, x: Tensor) -> Tensor:
    with tf.control_dependencies([upstream]):  # else TensorFlow reuses, and so keeps, the forward pass's sigmoid
        sigmoid = tf.sigmoid(x)
    return upstream * (sigmoid * (1.0 + x * (1.0 - sigmoid)))


@keras.saving.register_keras_serializable(package="detzoo")
def hard_swish(x: Tensor) -> Tensor:
    """Returns ``x * ReLU6(x + 3) / 6``, in the operations that converters replace by one (arXiv:1905.02244, 5.2)."""
    return x * tf.nn.relu6(x + 3.0) * (1.0 / 6.0)


@keras.saving.register_keras_serializable(package="detzoo")
def hard_sigmoid(x: Tensor) -> Tensor:
    """Returns ``ReLU6(x + 3) / 6``, with the rounded sixth of the networks that MobileNet v3's authors published."""
    return tf.nn.relu6(x + 3.0) * 0.16667
