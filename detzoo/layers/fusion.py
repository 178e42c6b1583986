"""The weighted sum of maps with a learned weight per map (floor 1).

References:
    Tan, Pang and Le, EfficientDet, arXiv:1911.09070, section 3.3 (weighted feature fusion).
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from detzoo.contracts import Tensor

FAST_EPSILON = 0.0001  # section 3.3: keeps the fast normalisation finite


@keras.saving.register_keras_serializable(package="detzoo")
class WeightedSum(keras.layers.Layer):
    """Adds n maps [B, H, W, C] of equal shape, each multiplied by a learned number.

    Args:
        method: Function of the n learned weights w: "fast_attention" is ReLU(w) / (sum of ReLU(w) + 0.0001),
            "weighted_sum" is w itself, and "attention" is the Object Detection API's softmax.
        **kwargs: Arguments of ``keras.layers.Layer``.

    Differs from the paper, section 3.3, softmax-based fusion: in the Object Detection API the softmax of "attention"
    runs over an axis of length 1, so that every weight is 1 and none learns. Its checkpoints were trained so, and
    ``detzoo config check`` warns of it.
    """

    def __init__(self, method: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.method = method

    def build(self, input_shape: list[tuple[int | None, ...]]) -> None:
        """Creates the weights [n, 1], of ones; the shape and the name are those of the original's checkpoints."""
        self.combine_weights = self.add_weight(
            shape=(len(input_shape), 1), initializer="ones", name="bifpn_combine_weights", autocast=False
        )

    def call(self, inputs: list[Tensor]) -> Tensor:
        """Adds the maps."""
        weights = _FACTORS[self.method](tf.convert_to_tensor(self.combine_weights))
        factors = tf.unstack(tf.cast(weights[:, 0], inputs[0].dtype))
        first, *others = (x * factor for x, factor in zip(inputs, factors, strict=True))
        for term in others:
            first = first + term
        return first

    def compute_output_shape(self, input_shape: list[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        """Returns the shape of each input."""
        return input_shape[0]


def _fast(weights: Tensor) -> Tensor:
    positive = tf.nn.relu(weights)
    return positive / (tf.reduce_sum(positive) + FAST_EPSILON)


_FACTORS = {"fast_attention": _fast, "weighted_sum": tf.identity, "attention": tf.nn.softmax}
