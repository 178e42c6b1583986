"""Keras optimizers whose update of a variable is one TensorFlow operation.

Keras writes an update as ten to twenty operations. They are most of what tracing a training step takes, and each reads
and writes the whole variable. Slots, hyperparameters and checkpoint paths are those of Keras.

References:
    Momentum: Sutskever et al., ICML 2013. RMSProp: Tieleman and Hinton, 2012. Adam: arXiv:1412.6980.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from detzoo.contracts import Tensor

# TensorFlow 1's RMSPropOptimizer, with which all published rms_prop configs were trained, starts its mean square here.
INITIAL_MEAN_SQUARE = 1.0


class Momentum(keras.optimizers.SGD):
    """Stochastic gradient descent with momentum; momentum 0 stands for plain descent."""

    def update_step(self, gradient: Tensor, variable: Any, learning_rate: Tensor) -> None:
        """Updates one variable and its slot."""
        var = _handle(variable)
        rate, gradient = tf.cast(learning_rate, variable.dtype), tf.cast(gradient, variable.dtype)
        if self.momentum == 0:
            tf.raw_ops.ResourceApplyGradientDescent(var=var, alpha=rate, delta=gradient)
            return
        accum = _handle(self.momentums[self._get_variable_index(variable)])
        momentum = tf.constant(self.momentum, variable.dtype)
        tf.raw_ops.ResourceApplyKerasMomentum(var=var, accum=accum, lr=rate, grad=gradient, momentum=momentum)


class RmsProp(keras.optimizers.RMSprop):
    """RMSProp whose running mean square starts at 1, as TensorFlow 1's does; epsilon is added inside the root."""

    def build(self, variables: list[Any]) -> None:
        """Creates the slots."""
        if self.built:
            return
        super().build(variables)
        for mean_square in self._velocities:
            mean_square.assign(tf.fill(mean_square.shape, tf.cast(INITIAL_MEAN_SQUARE, mean_square.dtype)))

    def update_step(self, gradient: Tensor, variable: Any, learning_rate: Tensor) -> None:
        """Updates one variable and its slots."""
        if self.momentum == 0:  # the operation needs a slot for it
            super().update_step(gradient, variable, learning_rate)
            return
        index, dtype = self._get_variable_index(variable), variable.dtype
        tf.raw_ops.ResourceApplyRMSProp(
            var=_handle(variable),
            ms=_handle(self._velocities[index]),
            mom=_handle(self._momentums[index]),
            lr=tf.cast(learning_rate, dtype),
            rho=tf.constant(self.rho, dtype),
            momentum=tf.constant(self.momentum, dtype),
            epsilon=tf.constant(self.epsilon, dtype),
            grad=tf.cast(gradient, dtype),
        )


class Adam(keras.optimizers.Adam):
    """Adam."""

    def update_step(self, gradient: Tensor, variable: Any, learning_rate: Tensor) -> None:
        """Updates one variable and its slots."""
        index, dtype = self._get_variable_index(variable), variable.dtype
        steps = tf.cast(self.iterations.value + 1, dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=_handle(variable),
            m=_handle(self._momentums[index]),
            v=_handle(self._velocities[index]),
            beta1_power=tf.pow(tf.constant(self.beta_1, dtype), steps),
            beta2_power=tf.pow(tf.constant(self.beta_2, dtype), steps),
            lr=tf.cast(learning_rate, dtype),
            beta1=tf.constant(self.beta_1, dtype),
            beta2=tf.constant(self.beta_2, dtype),
            epsilon=tf.constant(self.epsilon, dtype),
            grad=tf.cast(gradient, dtype),
        )


def _handle(variable: Any) -> Tensor:
    """Returns the resource of a variable of Keras or TensorFlow; of a distributed one, that of the current replica."""
    return (variable.value if isinstance(variable, keras.Variable) else variable).handle
