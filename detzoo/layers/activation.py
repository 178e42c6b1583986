"""Replaces activations whose gradient in Keras's TensorFlow backend keeps every graph in memory (floor 1)."""

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
