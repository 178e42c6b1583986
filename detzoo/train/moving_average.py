"""Exponential moving averages of a detector's variables, for evaluation and export."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping

import tensorflow as tf

from detzoo.contracts import Tensor


class MovingAverage:
    """Averages of variables: average <- decay * average + (1 - decay) * variable, after every step.

    The statistics of batch normalisation are averaged together with the weights.

    Differs from the Object Detection API: the decay is min(decay, (1 + step) / (10 + step)), as in TensorFlow's
    ExponentialMovingAverage, because with 0.9999 alone short runs would be evaluated with almost their initial
    weights.

    Args:
        variables: Path to floating-point variable.
        decay: Decay in (0, 1).
        strategy: Strategy of the variables.
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
        """Sets all averages to the current values of the variables."""
        self.adopt(self._variables)

    def adopt(self, paths: Iterable[str]) -> None:
        """Sets some averages to the current values of the variables."""
        for path in paths:
            self.averages[path].assign(tf.identity(self._variables[path]))

    def update(self, step: Tensor) -> None:
        """Updates the averages in the traced step, in cross-replica context. ``step`` counts finished steps."""
        done = tf.cast(step, tf.float32)
        rate = 1.0 - tf.minimum(self._decay, (1.0 + done) / (10.0 + done))

        def follow(average: tf.Variable, variable: Tensor, rate: Tensor) -> None:
            average.assign_sub(rate * (average - variable))

        for path, variable in self._variables.items():
            self._strategy.extended.update(self.averages[path], follow, args=(variable, rate), group=False)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Sets the detector's variables to their averages in its context."""
        kept = {path: variable.numpy() for path, variable in self._variables.items()}
        try:
            for path, variable in self._variables.items():
                variable.assign(self.averages[path].numpy())
            yield
        finally:
            for path, variable in self._variables.items():
                variable.assign(kept[path])
