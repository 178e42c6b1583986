"""The learning rate of a config before anything runs: its peak, and the highest that its batch size bears."""

from __future__ import annotations

from typing import Any

# Highest rates an image of the batch. The published configurations of the Object Detection API use at most 0.0016 with
# momentum (typically 0.0006; 0.08 at 128 images) and 0.00017 with RMSProp (0.004 at 24 images, epsilon 1).
HIGHEST_RATE_PER_IMAGE = {"momentum_optimizer": 0.002, "rms_prop_optimizer": 0.0005}
HIGHEST_ADAM_RATE = 0.003  # whatever the batch size: Adam's step does not grow with the gradient


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
        return max(schedule.learning_rate_base, schedule.warmup_learning_rate)
    return 0.0


def learning_rate_warning(optimizer: Any, batch_size: int) -> str:
    """Why the peak rate of a ``pb.Optimizer`` is too high for ``batch_size`` images a step; "" where it is not."""
    name, _, _, _ = chosen_schedule(optimizer)
    peak = peak_learning_rate(optimizer)
    if name == "adam_optimizer":
        highest = HIGHEST_ADAM_RATE
    elif name in HIGHEST_RATE_PER_IMAGE:
        highest = HIGHEST_RATE_PER_IMAGE[name] * batch_size
    else:
        return ""
    if peak <= highest:
        return ""
    return (
        f"a learning rate of {peak:g} is high for {batch_size} images a step and may end in NaN; with {name} at most "
        f"about {highest:g} (rates of a large batch are scaled down with the batch size)"
    )
