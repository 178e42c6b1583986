"""``image_resizer`` of a configuration -> the resizer that training, evaluation and the exported model share.

What lies outside an image is what its detector was trained with. The one-stage detectors of the Object Detection API
normalise an image before they resize and pad it: the padding is 0 in the extractor's input, the colour in the middle of
its scale (ImageNet's mean, or grey). Its two-stage detectors pad first: the padding is black.
"""

from __future__ import annotations

from detzoo.builders.features import pixel_scale
from detzoo.builders.spp_classifier import build_classifier_resizer
from detzoo.config import pb
from detzoo.config.support import lookup_ssd_extractor
from detzoo.data.resize import (
    ConditionalShapeResizer,
    FixedShapeResizer,
    IdentityResizer,
    KeepAspectRatioResizer,
    PadToMultipleResizer,
    Resizer,
)
from detzoo.errors import ConfigError
from detzoo.features.normalization import PixelScale

RESIZE_METHODS = {
    pb.BILINEAR: "bilinear",
    pb.NEAREST_NEIGHBOR: "nearest",
    pb.BICUBIC: "bicubic",
    pb.AREA: "area",
}


_BLACK_AND_ONE = PixelScale((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def build_model_resizer(model: pb.DetectionModel) -> Resizer:
    """The resizer of a ``pb.DetectionModel``, with the padding that its detector expects.

    Raises:
        ConfigError: as ``build_resizer``, or a feature extractor that is not in the table.
    """
    chosen = getattr(model, model.WhichOneof("model"))
    if model.HasField("spp_classifier"):
        return build_classifier_resizer(chosen)
    if model.HasField("spp_net"):  # resizes images itself, to several sizes
        return IdentityResizer()
    if not model.HasField("ssd"):
        return build_resizer(chosen.image_resizer)
    return build_resizer(chosen.image_resizer, pixel_scale(lookup_ssd_extractor(chosen.feature_extractor.type)))


def build_resizer(config: pb.ImageResizer, padding_scale: PixelScale = _BLACK_AND_ONE) -> Resizer:
    """The resizer of a ``pb.ImageResizer``.

    Args:
        config: the model's ``image_resizer``.
        padding_scale: the scale that ``per_channel_pad_value`` is given in, whose 0 is the padding where there is none;
            RGB 0..255 in a two-stage detector, the extractor's normalised input in a one-stage detector.

    Returns:
        A callable from an image [H, W, 3] to (padded image float32, true shape int32 [2]), with ``static_shape`` and
        ``masks``.

    Raises:
        ConfigError: no resizer is chosen, or its sizes contradict each other.
    """
    kind = config.WhichOneof("image_resizer_oneof")
    if kind is None:
        raise ConfigError(f"image_resizer is empty; choose one of {', '.join(sorted(_BUILDERS))}")
    return _BUILDERS[kind](getattr(config, kind), padding_scale)


def _fixed_shape(config: pb.FixedShapeResizer, padding_scale: PixelScale) -> Resizer:
    del padding_scale
    if config.height <= 0 or config.width <= 0:
        raise ConfigError(f"fixed_shape_resizer: height {config.height} and width {config.width} must be above 0")
    return FixedShapeResizer(
        RESIZE_METHODS[config.resize_method], config.convert_to_grayscale, config.height, config.width
    )


def _keep_aspect_ratio(config: pb.KeepAspectRatioResizer, padding_scale: PixelScale) -> Resizer:
    if not 0 < config.min_dimension <= config.max_dimension:
        raise ConfigError(
            f"keep_aspect_ratio_resizer: min_dimension {config.min_dimension} must be above 0 and at most "
            f"max_dimension {config.max_dimension}"
        )
    if not all(0 < side <= config.max_dimension for side in config.training_min_dimensions):
        raise ConfigError(
            f"keep_aspect_ratio_resizer: training_min_dimensions {list(config.training_min_dimensions)} must be above "
            f"0 and at most max_dimension {config.max_dimension}"
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
        tuple(config.training_min_dimensions),
        pad_value=padding_scale.colour_of(pad_value),
    )


def _identity(config: pb.IdentityResizer, padding_scale: PixelScale) -> Resizer:
    del config
    return IdentityResizer(pad_value=padding_scale.zero)


def _conditional_shape(config: pb.ConditionalShapeResizer, padding_scale: PixelScale) -> Resizer:
    conditions = {config.GREATER: True, config.SMALLER: False}
    if config.condition not in conditions:
        raise ConfigError("conditional_shape_resizer: condition is INVALID; use GREATER or SMALLER")
    return ConditionalShapeResizer(
        RESIZE_METHODS[config.resize_method],
        config.convert_to_grayscale,
        config.size_threshold,
        conditions[config.condition],
        pad_value=padding_scale.zero,
    )


def _pad_to_multiple(config: pb.PadToMultipleResizer, padding_scale: PixelScale) -> Resizer:
    if config.multiple <= 0:
        raise ConfigError(f"pad_to_multiple_resizer: multiple is {config.multiple}; it must be above 0")
    return PadToMultipleResizer(
        convert_to_grayscale=config.convert_to_grayscale, multiple=config.multiple, pad_value=padding_scale.zero
    )


_BUILDERS = {
    "fixed_shape_resizer": _fixed_shape,
    "keep_aspect_ratio_resizer": _keep_aspect_ratio,
    "identity_resizer": _identity,
    "conditional_shape_resizer": _conditional_shape,
    "pad_to_multiple_resizer": _pad_to_multiple,
}
