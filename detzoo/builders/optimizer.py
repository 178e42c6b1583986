"""``train_config.optimizer`` of a configuration -> a Keras optimizer with its learning rate schedule (floor 4).

Schedules and hyper-parameters are those of the Object Detection API; step 0 is the first step of a run.

References:
    Momentum: Sutskever et al., ICML 2013. RMSProp: Tieleman and Hinton, 2012. Adam: arXiv:1412.6980. Cosine decay:
    SGDR, arXiv:1608.03983, equation 5.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from detzoo.config import pb
from detzoo.contracts import Tensor
from detzoo.errors import ConfigError

# TensorFlow 1's RMSPropOptimizer, with which all published rms_prop configs were trained, starts its mean square here.
RMS_PROP_INITIAL_MEAN_SQUARE = 1.0


class ConstantRate(keras.optimizers.schedules.LearningRateSchedule):
    """The same rate at every step."""

    def __init__(self, rate: float) -> None:
        self.rate = rate

    def __call__(self, step: Tensor) -> Tensor:
        """The rate, float32 scalar."""
        return tf.constant(self.rate, tf.float32)

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this schedule."""
        return {"rate": self.rate}


class ExponentialRate(keras.optimizers.schedules.LearningRateSchedule):
    """A burn-in at a constant rate, then ``initial * factor ** (steps since / decay_steps)``, never below a minimum.

    Args:
        initial: Rate at the end of the burn-in.
        decay_steps: Steps in which the rate is multiplied by ``factor`` once, counted from the end of the burn-in.
        factor: See above.
        staircase: Whether the exponent is rounded down to a whole number.
        burnin_rate: Rate of the burn-in; 0 stands for ``initial``.
        burnin_steps: Length of the burn-in.
        minimum: Lower bound, of the burn-in too.
    """

    def __init__(
        self,
        initial: float,
        decay_steps: int,
        factor: float,
        staircase: bool = True,
        burnin_rate: float = 0.0,
        burnin_steps: int = 0,
        minimum: float = 0.0,
    ) -> None:
        self.initial, self.decay_steps, self.factor, self.staircase = initial, decay_steps, factor, staircase
        self.burnin_rate, self.burnin_steps, self.minimum = burnin_rate or initial, burnin_steps, minimum

    def __call__(self, step: Tensor) -> Tensor:
        """The rate at ``step``, float32 scalar."""
        step = tf.cast(step, tf.float32)
        exponent = (step - self.burnin_steps) / self.decay_steps
        decayed = self.initial * tf.pow(self.factor, tf.floor(exponent) if self.staircase else exponent)
        return tf.maximum(tf.where(step < self.burnin_steps, self.burnin_rate, decayed), self.minimum)

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this schedule."""
        names = ("initial", "decay_steps", "factor", "staircase", "burnin_rate", "burnin_steps", "minimum")
        return {name: getattr(self, name) for name in names}


class ManualStepRate(keras.optimizers.schedules.LearningRateSchedule):
    """A constant rate between given steps.

    Args:
        boundaries: Steps at which the rate changes, ascending.
        rates: One more than boundaries; ``rates[i + 1]`` holds from ``boundaries[i]`` on.
        warmup: Whether the rate goes linearly from ``rates[0]`` at step 0 to ``rates[1]`` at ``boundaries[0]``.
    """

    def __init__(self, boundaries: list[int], rates: list[float], warmup: bool = False) -> None:
        self.boundaries, self.rates, self.warmup = list(boundaries), list(rates), warmup

    def __call__(self, step: Tensor) -> Tensor:
        """The rate at ``step``, float32 scalar."""
        step = tf.cast(step, tf.float32)
        stage = tf.reduce_sum(tf.cast(step >= tf.constant(self.boundaries, tf.float32), tf.int32))
        rate = tf.gather(tf.constant(self.rates, tf.float32), stage)
        if not self.warmup or self.boundaries[0] == 0:
            return rate
        slope = (self.rates[1] - self.rates[0]) / self.boundaries[0]
        return tf.where(step < self.boundaries[0], self.rates[0] + slope * step, rate)

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this schedule."""
        return {"boundaries": self.boundaries, "rates": self.rates, "warmup": self.warmup}


class CosineRate(keras.optimizers.schedules.LearningRateSchedule):
    """A linear warm-up, an optional plateau, half a cosine down to 0 at ``total_steps``, and 0 after that.

    Args:
        base: The highest rate.
        total_steps: Where the rate reaches 0.
        warmup_rate: Rate at step 0.
        warmup_steps: Step at which ``base`` is reached.
        hold_steps: Steps after the warm-up that stay at ``base``.
    """

    def __init__(
        self, base: float, total_steps: int, warmup_rate: float = 0.0, warmup_steps: int = 0, hold_steps: int = 0
    ) -> None:
        self.base, self.total_steps, self.warmup_rate = base, total_steps, warmup_rate
        self.warmup_steps, self.hold_steps = warmup_steps, hold_steps

    def __call__(self, step: Tensor) -> Tensor:
        """The rate at ``step``, float32 scalar."""
        step = tf.cast(step, tf.float32)
        decay_start = self.warmup_steps + self.hold_steps
        progress = (step - decay_start) / max(self.total_steps - decay_start, 1)
        rate = 0.5 * self.base * (1.0 + tf.cos(math.pi * progress))
        rate = tf.where(step <= decay_start, self.base, rate)
        if self.warmup_steps > 0:
            slope = (self.base - self.warmup_rate) / self.warmup_steps
            rate = tf.where(step < self.warmup_steps, self.warmup_rate + slope * step, rate)
        return tf.where(step > self.total_steps, 0.0, rate)

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this schedule."""
        names = ("base", "total_steps", "warmup_rate", "warmup_steps", "hold_steps")
        return {name: getattr(self, name) for name in names}


class RmsProp(keras.optimizers.RMSprop):
    """RMSProp whose running mean square starts at 1, as TensorFlow 1's does; epsilon is added inside the root."""

    def build(self, variables: list[Any]) -> None:
        """Creates the slots."""
        if self.built:
            return
        super().build(variables)
        for mean_square in self._velocities:
            mean_square.assign(tf.fill(mean_square.shape, tf.cast(RMS_PROP_INITIAL_MEAN_SQUARE, mean_square.dtype)))


def build_optimizer(config: pb.Optimizer) -> keras.optimizers.Optimizer:
    """The optimizer of a ``pb.Optimizer``; ``weight_decay`` is decoupled, in units of the learning rate.

    Differs from the Object Detection API on TF2: ``rms_prop_optimizer.decay`` is the decay of the mean square, as on
    TF1, because TF2 took it for a decay of the learning rate, which ends every run after a few steps.

    Raises:
        ConfigError: no optimizer or no learning rate is chosen, or its numbers contradict each other.
    """
    kind = config.WhichOneof("optimizer")
    if kind is None:
        raise ConfigError(f"train_config.optimizer is empty; choose one of {', '.join(sorted(_OPTIMIZERS))}")
    branch = getattr(config, kind)
    optimizer = _OPTIMIZERS[kind](branch, build_schedule(branch.learning_rate))
    optimizer.weight_decay = config.weight_decay or None
    return optimizer


def build_schedule(config: pb.LearningRate) -> keras.optimizers.schedules.LearningRateSchedule:
    """The schedule of a ``pb.LearningRate``: step (int or tensor) -> rate, float32 scalar.

    Raises:
        ConfigError: no schedule is chosen, or its numbers contradict each other.
    """
    kind = config.WhichOneof("learning_rate")
    if kind is None:
        raise ConfigError(f"the optimizer's learning_rate is empty; choose one of {', '.join(sorted(_SCHEDULES))}")
    return _SCHEDULES[kind](getattr(config, kind))


def moving_average_decay(config: pb.Optimizer) -> float | None:
    """The decay of the weights' moving average that a ``pb.Optimizer`` asks for, None for no average."""
    return config.moving_average_decay if config.use_moving_average and config.moving_average_decay > 0 else None


def _rms_prop(config: pb.RMSPropOptimizer, schedule: Any) -> keras.optimizers.Optimizer:
    momentum = config.momentum_optimizer_value
    return RmsProp(schedule, rho=config.decay, momentum=momentum, epsilon=config.epsilon, name="rms_prop")


def _momentum(config: pb.MomentumOptimizer, schedule: Any) -> keras.optimizers.Optimizer:
    return keras.optimizers.SGD(schedule, momentum=config.momentum_optimizer_value, name="momentum")


def _adam(config: pb.AdamOptimizer, schedule: Any) -> keras.optimizers.Optimizer:
    return keras.optimizers.Adam(schedule, epsilon=config.epsilon, name="adam")


def _constant(config: pb.ConstantLearningRate) -> ConstantRate:
    return ConstantRate(config.learning_rate)


def _exponential(config: pb.ExponentialDecayLearningRate) -> ExponentialRate:
    if config.decay_steps == 0:
        raise ConfigError("exponential_decay_learning_rate.decay_steps must be above 0")
    return ExponentialRate(
        config.initial_learning_rate,
        config.decay_steps,
        config.decay_factor,
        config.staircase,
        config.burnin_learning_rate,
        config.burnin_steps,
        config.min_learning_rate,
    )


def _manual_step(config: pb.ManualStepLearningRate) -> ManualStepRate:
    boundaries = [stage.step for stage in config.schedule]
    if not boundaries:
        raise ConfigError("manual_step_learning_rate has no schedule { step learning_rate }; one rate needs none of it")
    if any(later <= earlier for earlier, later in itertools.pairwise(boundaries)):
        raise ConfigError(f"manual_step_learning_rate: the steps {boundaries} must ascend")
    rates = [config.initial_learning_rate, *(stage.learning_rate for stage in config.schedule)]
    return ManualStepRate(boundaries, rates, config.warmup)


def _cosine(config: pb.CosineDecayLearningRate) -> CosineRate:
    warmup_steps, hold_steps = config.warmup_steps, config.hold_base_rate_steps
    if warmup_steps and config.learning_rate_base < config.warmup_learning_rate:
        raise ConfigError(
            f"cosine_decay_learning_rate: warmup_learning_rate {config.warmup_learning_rate:g} is above "
            f"learning_rate_base {config.learning_rate_base:g}"
        )
    if config.total_steps < warmup_steps + hold_steps:
        raise ConfigError(
            f"cosine_decay_learning_rate: total_steps {config.total_steps} is less than warmup_steps {warmup_steps} + "
            f"hold_base_rate_steps {hold_steps}"
        )
    return CosineRate(
        config.learning_rate_base, config.total_steps, config.warmup_learning_rate, warmup_steps, hold_steps
    )


_OPTIMIZERS: dict[str, Callable[[Any, Any], keras.optimizers.Optimizer]] = {
    "rms_prop_optimizer": _rms_prop,
    "momentum_optimizer": _momentum,
    "adam_optimizer": _adam,
}
_SCHEDULES: dict[str, Callable[[Any], keras.optimizers.schedules.LearningRateSchedule]] = {
    "constant_learning_rate": _constant,
    "exponential_decay_learning_rate": _exponential,
    "manual_step_learning_rate": _manual_step,
    "cosine_decay_learning_rate": _cosine,
}
