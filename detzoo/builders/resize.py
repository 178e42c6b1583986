"""``image_resizer`` of a configuration -> the resizer that training, evaluation and the exported model share."""

from __future__ import annotations

from typing import Any

from detzoo.config import pb
from detzoo.data.resize import (
    ConditionalShapeResizer,
    FixedShapeResizer,
    IdentityResizer,
    KeepAspectRatioResizer,
    PadToMultipleResizer,
    Resizer,
)
from detzoo.errors import ConfigError

RESIZE_METHODS = {
    pb.BILINEAR: "bilinear",
    pb.NEAREST_NEIGHBOR: "nearest",
    pb.BICUBIC: "bicubic",
    pb.AREA: "area",
}


def build_resizer(config: Any) -> Resizer:
    """The resizer of a ``pb.ImageResizer``.

    Args:
        config: the model's ``image_resizer``.

    Returns:
        A callable from an image [H, W, 3] to (padded image float32, true shape int32 [2]), with ``static_shape`` and
        ``masks``.

    Raises:
        ConfigError: no resizer is chosen, or its sizes contradict each other.
    """
    kind = config.WhichOneof("image_resizer_oneof")
    if kind is None:
        raise ConfigError(f"image_resizer is empty; choose one of {', '.join(sorted(_BUILDERS))}")
    return _BUILDERS[kind](getattr(config, kind))


def _fixed_shape(config: Any) -> Resizer:
    if config.height <= 0 or config.width <= 0:
        raise ConfigError(f"fixed_shape_resizer: height {config.height} and width {config.width} must be above 0")
    return FixedShapeResizer(
        RESIZE_METHODS[config.resize_method], config.convert_to_grayscale, config.height, config.width
    )


def _keep_aspect_ratio(config: Any) -> Resizer:
    if not 0 < config.min_dimension <= config.max_dimension:
        raise ConfigError(
            f"keep_aspect_ratio_resizer: min_dimension {config.min_dimension} must be above 0 and at most "
            f"max_dimension {config.max_dimension}"
        )
    pad_value = tuple(config.per_channel_pad_value) or (0.0, 0.0, 0.0)
    if len(pad_value) != 3:
        raise ConfigError(f"keep_aspect_ratio_resizer: per_channel_pad_value has {len(pad_value)} values; it takes 3")
    return KeepAspectRatioResizer(
        RESIZE_METHODS[config.resize_method],
        config.convert_to_grayscale,
        config.min_dimension,
        config.max_dimension,
        config.pad_to_max_dimension,
        pad_value,
    )


def _identity(config: Any) -> Resizer:
    del config
    return IdentityResizer()


def _conditional_shape(config: Any) -> Resizer:
    conditions = {config.GREATER: True, config.SMALLER: False}
    if config.condition not in conditions:
        raise ConfigError("conditional_shape_resizer: condition is INVALID; use GREATER or SMALLER")
    return ConditionalShapeResizer(
        RESIZE_METHODS[config.resize_method],
        config.convert_to_grayscale,
        config.size_threshold,
        conditions[config.condition],
    )


def _pad_to_multiple(config: Any) -> Resizer:
    if config.multiple <= 0:
        raise ConfigError(f"pad_to_multiple_resizer: multiple is {config.multiple}; it must be above 0")
    return PadToMultipleResizer(convert_to_grayscale=config.convert_to_grayscale, multiple=config.multiple)


_BUILDERS = {
    "fixed_shape_resizer": _fixed_shape,
    "keep_aspect_ratio_resizer": _keep_aspect_ratio,
    "identity_resizer": _identity,
    "conditional_shape_resizer": _conditional_shape,
    "pad_to_multiple_resizer": _pad_to_multiple,
}
