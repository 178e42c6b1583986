"""Selection of the variables of a detector that train, and of those that are frozen."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from detzoo.errors import ConfigError
from detzoo.layers.normalization import BatchNorm

_DECAYED_NAMES = ("kernel", "depthwise_kernel", "pointwise_kernel", "embeddings")


def select_trainable(detector: Any, update_patterns: Sequence[str], freeze_patterns: Sequence[str]) -> list[Any]:
    """Returns the variables that train; all others become untrainable (``variable.trainable = False``).

    Variables that a freeze pattern matches do not change by a single bit. Batch normalisation with matched statistics
    normalises with these statistics in training, too, and does not update them.

    Args:
        detector: Built detector; untrainable layers stay untrainable.
        update_patterns: If there are any, only variables with a path that one matches (``re.search``) train.
        freeze_patterns: Variables with a path that one matches do not train.

    Raises:
        ConfigError: A pattern is no regular expression or matches no variable, or nothing is left to train.
    """
    update = _compile(detector, update_patterns, "update_trainable_variables")
    freeze = _compile(detector, freeze_patterns, "freeze_variables")
    kept = []
    for variable in detector.trainable_variables:
        wanted = not update or any(pattern.search(variable.path) for pattern in update)
        if wanted and not any(pattern.search(variable.path) for pattern in freeze):
            kept.append(variable)
        else:
            variable.trainable = False
    for layer in detector._flatten_layers(include_self=False):
        if isinstance(layer, BatchNorm) and any(pattern.search(layer.moving_mean.path) for pattern in freeze):
            layer.train_statistics = False
    if not kept:
        raise ConfigError(
            "train_config.freeze_variables and update_trainable_variables leave nothing to train; parts of this model: "
            f"{', '.join(_parts(detector))}"
        )
    return kept


def is_frozen(path: str, freeze_patterns: Sequence[str]) -> bool:
    """Returns whether one of the patterns of ``freeze_variables`` matches a variable's path."""
    return any(re.search(pattern, path) for pattern in filter(None, freeze_patterns))


def has_weight_decay(variable: Any) -> bool:
    """Returns whether decoupled weight decay applies: to kernels, but not to biases and scales of normalisation."""
    return variable.path.rsplit("/", 1)[-1] in _DECAYED_NAMES


def is_bias(variable: Any) -> bool:
    """Returns whether ``bias_grad_multiplier`` applies."""
    return variable.path.rsplit("/", 1)[-1] == "bias"


def _compile(detector: Any, patterns: Sequence[str], field: str) -> list[re.Pattern[str]]:
    compiled = []
    for pattern in filter(None, patterns):
        try:
            expression = re.compile(pattern)
        except re.error as problem:
            raise ConfigError(f"train_config.{field}: '{pattern}' is not a regular expression: {problem}") from None
        if not any(expression.search(variable.path) for variable in detector.variables):
            first = detector.variables[0].path
            raise ConfigError(
                f"train_config.{field}: '{pattern}' finds no variable. Paths look like {first}. Parts of this model: "
                f"{', '.join(_parts(detector))}"
            )
        compiled.append(expression)
    return compiled


def _parts(detector: Any) -> list[str]:
    return sorted({"/".join(variable.path.split("/")[:-1]).split("/")[0] for variable in detector.variables})
