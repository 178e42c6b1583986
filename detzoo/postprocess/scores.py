"""Converts logits to scores (floor 2)."""

from __future__ import annotations

import dataclasses
import enum

import tensorflow as tf


class ScoreFunction(enum.Enum):
    """The function from logits to scores."""

    IDENTITY = "identity"
    SIGMOID = "sigmoid"
    SOFTMAX = "softmax"


_FUNCTIONS = {
    ScoreFunction.IDENTITY: tf.identity,
    ScoreFunction.SIGMOID: tf.sigmoid,
    ScoreFunction.SOFTMAX: tf.nn.softmax,
}


@dataclasses.dataclass(frozen=True)
class ScoreConverter:
    """Converts the logits of class columns."""

    function: ScoreFunction = ScoreFunction.SIGMOID  # function of the columns of each anchor
    logit_scale: float = 1.0  # divisor of the logits, above 0

    def __call__(self, class_logits: tf.Tensor) -> tf.Tensor:
        """Returns scores float32 [..., C] of logits [..., C], including the background column."""
        if self.logit_scale != 1.0:
            class_logits = class_logits / self.logit_scale
        return _FUNCTIONS[self.function](class_logits)
