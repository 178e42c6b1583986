"""RMSProp as TensorFlow 1 computes it.

References:
    Tieleman and Hinton, 2012.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

# TensorFlow 1's RMSPropOptimizer, with which all published rms_prop configs were trained, starts its mean square here.
INITIAL_MEAN_SQUARE = 1.0


class RmsProp(keras.optimizers.RMSprop):
    """RMSProp whose running mean square starts at 1, as TensorFlow 1's does; epsilon is added inside the root."""

    def build(self, variables: list[Any]) -> None:
        """Creates the slots."""
        if self.built:
            return
        super().build(variables)
        for mean_square in self._velocities:
            mean_square.assign(tf.fill(mean_square.shape, tf.cast(INITIAL_MEAN_SQUARE, mean_square.dtype)))
