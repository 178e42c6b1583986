"""``data_augmentation_options`` of a configuration -> the augmentations of the input pipeline, in their order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from detzoo.data.batches import Augmentation
from detzoo.errors import ConfigError


def build_augmentations(steps: Iterable[Any]) -> list[Augmentation]:
    """The augmentations of the ``pb.PreprocessingStep``s, one each.

    Raises:
        ConfigError: a step is empty, or its kind is not supported; names what is.
    """
    return [_build_step(index, step) for index, step in enumerate(steps)]


def _build_step(index: int, step: Any) -> Augmentation:
    kind = step.WhichOneof("preprocessing_step")
    where = f"train_config.data_augmentation_options[{index}]"
    if kind is None:
        raise ConfigError(f"{where} is empty; choose one of {', '.join(sorted(_BUILDERS))}")
    if kind not in _BUILDERS:
        raise ConfigError(f"{where}: {kind} is not supported; accepted are {', '.join(sorted(_BUILDERS))}")
    return _BUILDERS[kind](getattr(step, kind))


_BUILDERS: dict[str, Any] = {}
