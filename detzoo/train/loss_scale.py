"""Dynamic loss scaling for float16 (Micikevicius et al., arXiv:1710.03740, section 3.2).

Keras's LossScaleOptimizer sums gradients over replicas after clipping. Clipping by the global norm needs the sum first,
so the scale is part of the training step here.
"""

from __future__ import annotations

import tensorflow as tf

from detzoo.contracts import Tensor

# Keras's LossScaleOptimizer has the same numbers.
INITIAL_SCALE = 2.0**15
GROWTH_STEPS = 2000
MINIMUM_SCALE = 1.0


class LossScale:
    """Factor of the loss, halved when gradients overflow (the step is skipped) and doubled after 2000 good steps."""

    def __init__(self) -> None:
        self.scale = tf.Variable(INITIAL_SCALE, trainable=False, name="loss_scale")
        self.finite_steps = tf.Variable(0, dtype=tf.int64, trainable=False, name="finite_steps")

    def update(self, finite: Tensor) -> None:
        """Updates the scale by whether a step's gradients were finite, in cross-replica context."""
        grown = finite & (self.finite_steps + 1 >= GROWTH_STEPS)
        factor = tf.where(finite, tf.where(grown, 2.0, 1.0), 0.5)
        self.finite_steps.assign(tf.where(finite & ~grown, self.finite_steps + 1, 0))
        self.scale.assign(tf.maximum(self.scale * factor, MINIMUM_SCALE))
