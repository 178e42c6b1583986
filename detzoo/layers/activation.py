"""Activations that Keras's TensorFlow backend computes with a gradient that keeps every graph (floor 1)."""

from __future__ import annotations

import keras
import tensorflow as tf

from detzoo.contracts import Tensor
from detzoo.gradients import with_gradient


@keras.saving.register_keras_serializable(package="detzoo")
def swish(x: Tensor) -> Tensor:
    """Returns ``x * sigmoid(x)``; the gradient computes the sigmoid again rather than keep it."""
    return with_gradient(x * tf.sigmoid(x), [x], _swish_gradient)


def _swish_gradient(upstream: Tensor, x: Tensor) -> Tensor:
    with tf.control_dependencies([upstream]):  # else the forward pass's sigmoid is shared, and kept until then
        sigmoid = tf.sigmoid(x)
    return upstream * (sigmoid * (1.0 + x * (1.0 - sigmoid)))
