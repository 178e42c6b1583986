"""Learning-rate schedules: step -> rate. Step 0 is the first step of a run.

All are the Object Detection API's but ``PlateauRate``.

References:
    Cosine decay: SGDR, arXiv:1608.03983, equation 5.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import keras
import tensorflow as tf

from detzoo.contracts import Tensor


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule whose fields are its arguments."""

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild this schedule."""
        return dict(vars(self))


@dataclasses.dataclass(eq=False)
class ConstantRate(Schedule):
    """The same rate at every step."""

    rate: float

    def __call__(self, step: Tensor) -> Tensor:
        """Returns the rate, float32 scalar."""
        return tf.constant(self.rate, tf.float32)


@dataclasses.dataclass(eq=False)
class ExponentialRate(Schedule):
    """A burn-in at a constant rate, then ``initial * factor ** (steps since / decay_steps)``, never below a minimum."""

    initial: float  # rate at the end of the burn-in
    decay_steps: int  # steps in which the rate is multiplied by ``factor`` once, counted from the end of the burn-in
    factor: float  # per ``decay_steps``
    staircase: bool = True  # True if the exponent is rounded down to a whole number
    burnin_rate: float = 0.0  # rate of the burn-in; 0 stands for ``initial``
    burnin_steps: int = 0  # length of the burn-in
    minimum: float = 0.0  # lower bound, also during the burn-in

    def __call__(self, step: Tensor) -> Tensor:
        """Returns the rate at ``step``, float32 scalar."""
        step = tf.cast(step, tf.float32)
        exponent = (step - self.burnin_steps) / self.decay_steps
        decayed = self.initial * tf.pow(self.factor, tf.floor(exponent) if self.staircase else exponent)
        rate = tf.where(step < self.burnin_steps, self.burnin_rate or self.initial, decayed)
        return tf.maximum(rate, self.minimum)


@dataclasses.dataclass(eq=False)
class ManualStepRate(Schedule):
    """A constant rate between given steps."""

    boundaries: list[int]  # steps at which the rate changes, ascending
    rates: list[float]  # one more than boundaries; ``rates[i + 1]`` holds from ``boundaries[i]`` on
    # True if the rate rises linearly from ``rates[0]`` at step 0 to ``rates[1]`` at ``boundaries[0]``.
    warmup: bool = False

    def __call__(self, step: Tensor) -> Tensor:
        """Returns the rate at ``step``, float32 scalar."""
        step = tf.cast(step, tf.float32)
        stage = tf.reduce_sum(tf.cast(step >= tf.constant(self.boundaries, tf.float32), tf.int32))
        rate = tf.gather(tf.constant(self.rates, tf.float32), stage)
        if not self.warmup or self.boundaries[0] == 0:
            return rate
        slope = (self.rates[1] - self.rates[0]) / self.boundaries[0]
        return tf.where(step < self.boundaries[0], self.rates[0] + slope * step, rate)


@dataclasses.dataclass(eq=False)
class CosineRate(Schedule):
    """A linear warm-up, an optional plateau, half a cosine down to 0 at ``total_steps``, and 0 after that."""

    base: float  # the highest rate
    total_steps: int  # step at which the rate reaches 0
    warmup_rate: float = 0.0  # rate at step 0
    warmup_steps: int = 0  # step at which ``base`` is reached
    hold_steps: int = 0  # steps after the warm-up that stay at ``base``

    def __call__(self, step: Tensor) -> Tensor:
        """Returns the rate at ``step``, float32 scalar."""
        step = tf.cast(step, tf.float32)
        decay_start = self.warmup_steps + self.hold_steps
        progress = (step - decay_start) / max(self.total_steps - decay_start, 1)
        rate = 0.5 * self.base * (1.0 + tf.cos(math.pi * progress))
        rate = tf.where(step <= decay_start, self.base, rate)
        if self.warmup_steps > 0:
            slope = (self.base - self.warmup_rate) / self.warmup_steps
            rate = tf.where(step < self.warmup_steps, self.warmup_rate + slope * step, rate)
        return tf.where(step > self.total_steps, 0.0, rate)


@dataclasses.dataclass(eq=False)
class PlateauRate(Schedule):
    """``initial * factor ** num_drops``, never below a minimum; the training loop counts the drops."""

    initial: float  # rate before the first drop
    factor: float  # per drop
    minimum: float = 0.0  # lower bound
    num_drops: tf.Variable = dataclasses.field(
        default_factory=lambda: tf.Variable(0.0, trainable=False, name="num_drops")
    )

    def __call__(self, step: Tensor) -> Tensor:
        """Returns the rate after the drops so far, float32 scalar."""
        return tf.maximum(self.initial * tf.pow(self.factor, self.num_drops), self.minimum)
