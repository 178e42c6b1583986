"""``train_config.optimizer`` of a config -> a Keras optimizer with its learning-rate schedule (floor 5).

Schedules and hyperparameters are those of the Object Detection API.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from detzoo.config import pb
from detzoo.config.check.pipeline import require
from detzoo.config.check.training import check_optimizer
from detzoo.optim.fused import Adam, Momentum, RmsProp
from detzoo.optim.schedules import (
    ConstantRate,
    CosineRate,
    ExponentialRate,
    ManualStepRate,
    PlateauRate,
    Schedule,
)


def build_optimizer(config: pb.Optimizer) -> keras.optimizers.Optimizer:
    """Builds the optimizer of a ``pb.Optimizer``. ``weight_decay`` is decoupled, in units of the learning rate.

    Differs from the Object Detection API on TF2: ``rms_prop_optimizer.decay`` is the decay of the mean square, as on
    TF1, because TF2 took it for a decay of the learning rate, which ends every run after a few steps.

    Raises:
        ConfigError: A value breaks a rule of ``detzoo config check``; the message names its field.
    """
    require(config, "train_config.optimizer", check_optimizer)
    kind = config.WhichOneof("optimizer")
    branch = getattr(config, kind)
    optimizer = _OPTIMIZERS[kind](branch, build_schedule(branch.learning_rate))
    optimizer.weight_decay = config.weight_decay or None
    return optimizer


def build_schedule(config: pb.LearningRate) -> Schedule:
    """Builds the schedule of a checked ``pb.LearningRate``: step (int or tensor) -> rate, float32 scalar."""
    kind = config.WhichOneof("learning_rate")
    return _SCHEDULES[kind](getattr(config, kind))


def moving_average_decay(config: pb.Optimizer) -> float | None:
    """Returns the decay of the weights' moving average that a ``pb.Optimizer`` asks for, None for no average."""
    return config.moving_average_decay if config.use_moving_average and config.moving_average_decay > 0 else None


def _exponential(config: pb.ExponentialDecayLearningRate) -> ExponentialRate:
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
    rates = [config.initial_learning_rate, *(stage.learning_rate for stage in config.schedule)]
    return ManualStepRate([stage.step for stage in config.schedule], rates, config.warmup)


def _cosine(config: pb.CosineDecayLearningRate) -> CosineRate:
    return CosineRate(
        config.learning_rate_base,
        config.total_steps,
        config.warmup_learning_rate,
        config.warmup_steps,
        config.hold_base_rate_steps,
    )


_OPTIMIZERS: dict[str, Callable[[Any, Schedule], keras.optimizers.Optimizer]] = {
    "rms_prop_optimizer": lambda config, rate: RmsProp(
        rate, rho=config.decay, momentum=config.momentum_optimizer_value, epsilon=config.epsilon, name="rms_prop"
    ),
    "momentum_optimizer": lambda config, rate: Momentum(
        rate, momentum=config.momentum_optimizer_value, name="momentum"
    ),
    "adam_optimizer": lambda config, rate: Adam(rate, epsilon=config.epsilon, name="adam"),
}
_SCHEDULES: dict[str | None, Callable[[Any], Schedule]] = {
    "constant_learning_rate": lambda config: ConstantRate(config.learning_rate),
    "exponential_decay_learning_rate": _exponential,
    "manual_step_learning_rate": _manual_step,
    "cosine_decay_learning_rate": _cosine,
    "plateau_learning_rate": lambda config: PlateauRate(
        config.initial_learning_rate, config.factor, config.min_learning_rate
    ),
}
