"""The learning rate of a config before anything runs: its peak, and the highest that its batch size bears."""

from __future__ import annotations

import math
from typing import Any

# The published configs with momentum 0.9 use at most 0.0016 an image of the batch (SSD MobileNet v2 300: 0.8 for 512
# images); twice that, in terms of rate / (1 - momentum), is where the warning begins.
MAX_EFFECTIVE_RATE_PER_IMAGE = 2 * 0.0016 / (1 - 0.9)
# Adam's published 0.001 belongs to batches of 128, and common practice to batches of 8; its steps do not grow with the
# gradient, so that the bound grows with the square root of the batch.
MAX_ADAM_RATE_PER_ROOT_IMAGE = 0.0005


def chosen_schedule(optimizer: Any) -> tuple[str, Any, str, Any]:
    """(optimizer's name, its message, schedule's name, its message) of a ``pb.Optimizer``; "" and None where unset."""
    name = optimizer.WhichOneof("optimizer")
    if name is None:
        return "", None, "", None
    chosen = getattr(optimizer, name)
    schedule = chosen.learning_rate.WhichOneof("learning_rate")
    return name, chosen, schedule or "", getattr(chosen.learning_rate, schedule) if schedule else None


def peak_learning_rate(optimizer: Any) -> float:
    """The highest learning rate of a ``pb.Optimizer``'s schedule; 0 where there is none."""
    _, _, name, schedule = chosen_schedule(optimizer)
    if name == "constant_learning_rate":
        return schedule.learning_rate
    if name == "exponential_decay_learning_rate":
        return max(schedule.initial_learning_rate, schedule.burnin_learning_rate)
    if name == "manual_step_learning_rate":
        return max([schedule.initial_learning_rate, *(step.learning_rate for step in schedule.schedule)])
    if name == "cosine_decay_learning_rate":
        return max(schedule.learning_rate_base, schedule.warmup_learning_rate if schedule.warmup_steps else 0.0)
    return 0.0


def learning_rate_warning(optimizer: Any, batch_size: int) -> str:
    """Why the peak rate of a ``pb.Optimizer`` is too high for ``batch_size`` images a step; "" where it is not."""
    name, chosen, _, _ = chosen_schedule(optimizer)
    if chosen is None:
        return ""
    peak = peak_learning_rate(optimizer)
    if name == "adam_optimizer":
        highest = MAX_ADAM_RATE_PER_ROOT_IMAGE * math.sqrt(batch_size)
    else:
        highest = MAX_EFFECTIVE_RATE_PER_IMAGE * (1.0 - chosen.momentum_optimizer_value) * batch_size
    if peak <= highest:
        return ""
    return (
        f"a learning rate of {peak:g} is high for {batch_size} images a step and may end in NaN; published "
        f"configs stay below {highest:.2g} for it (half the batch wants half the rate)"
    )
