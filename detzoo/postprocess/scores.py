"""From logits to scores (floor 2)."""

from __future__ import annotations

import dataclasses
import enum

import tensorflow as tf


class ScoreFunction(enum.Enum):
    """What turns a logit into a score."""

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
    """Scores of class columns.

    Attributes:
        function: applied to the columns of each anchor.
        logit_scale: divides the logits first, above 0.
    """

    function: ScoreFunction = ScoreFunction.SIGMOID
    logit_scale: float = 1.0

    def __call__(self, class_logits: tf.Tensor) -> tf.Tensor:
        """Scores float32 [..., C] of logits [..., C], the background column included."""
        if self.logit_scale != 1.0:
            class_logits = class_logits / self.logit_scale
        return _FUNCTIONS[self.function](class_logits)
