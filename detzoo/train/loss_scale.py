"""Dynamic loss scaling for float16 (Micikevicius et al., arXiv:1710.03740, section 3.2).

Keras's LossScaleOptimizer sums gradients over replicas itself, after its clipping; here clipping by the global norm
needs the sum first, so the scale is part of the train step.
"""

from __future__ import annotations

import tensorflow as tf

from detzoo.contracts import Tensor

# Keras's LossScaleOptimizer has the same numbers.
INITIAL_SCALE = 2.0**15
GROWTH_STEPS = 2000
MINIMUM_SCALE = 1.0


class LossScale:
    """The factor of the loss: halved when gradients overflow (that step is skipped), doubled after 2000 good steps."""

    def __init__(self) -> None:
        self.scale = tf.Variable(INITIAL_SCALE, trainable=False, name="loss_scale")
        self.finite_steps = tf.Variable(0, dtype=tf.int64, trainable=False, name="finite_steps")

    def update(self, finite: Tensor) -> None:
        """Notes whether a step's gradients were finite; in cross-replica context."""
        grown = finite & (self.finite_steps + 1 >= GROWTH_STEPS)
        factor = tf.where(finite, tf.where(grown, 2.0, 1.0), 0.5)
        self.finite_steps.assign(tf.where(finite & ~grown, self.finite_steps + 1, 0))
        self.scale.assign(tf.maximum(self.scale * factor, MINIMUM_SCALE))
