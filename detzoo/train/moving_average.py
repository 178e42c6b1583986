"""Exponential moving averages of a detector's variables, for evaluation and export."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping

import tensorflow as tf

from detzoo.contracts import Tensor


class MovingAverage:
    """average <- decay * average + (1 - decay) * variable, after every step.

    Differs from the Object Detection API: the decay is min(decay, (1 + step) / (10 + step)), as TensorFlow's
    ExponentialMovingAverage offers it, because with 0.9999 alone a run of a few thousand steps would be evaluated with
    little more than its initial weights. The statistics of batch normalisation are averaged along with the weights
    that they belong to.

    Args:
        variables: path -> variable, floats.
        decay: In (0, 1).
        strategy: Averages live where its variables do.
    """

    def __init__(self, variables: Mapping[str, tf.Variable], decay: float, strategy: tf.distribute.Strategy) -> None:
        self._variables = dict(variables)
        self._decay = decay
        self._strategy = strategy
        with strategy.scope():
            self.averages = {
                path: tf.Variable(tf.identity(variable), trainable=False, name="average")
                for path, variable in self._variables.items()
            }

    def reset(self) -> None:
        """Starts anew from the variables' present values."""
        self.adopt(self._variables)

    def adopt(self, paths: Iterable[str]) -> None:
        """Sets some averages to the variables' present values."""
        for path in paths:
            self.averages[path].assign(tf.identity(self._variables[path]))

    def update(self, step: Tensor) -> None:
        """Follows the variables; in cross-replica context, inside the traced step. ``step`` counts finished steps."""
        done = tf.cast(step, tf.float32)
        rate = 1.0 - tf.minimum(self._decay, (1.0 + done) / (10.0 + done))

        def follow(average: tf.Variable, variable: Tensor, rate: Tensor) -> None:
            average.assign_sub(rate * (average - variable))

        for path, variable in self._variables.items():
            self._strategy.extended.update(self.averages[path], follow, args=(variable, rate), group=False)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Within, the detector's variables hold their averages."""
        kept = {path: variable.numpy() for path, variable in self._variables.items()}
        try:
            for path, variable in self._variables.items():
                variable.assign(self.averages[path].numpy())
            yield
        finally:
            for path, variable in self._variables.items():
                variable.assign(kept[path])
