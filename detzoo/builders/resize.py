"""``image_resizer`` of a config -> the resizer that training, evaluation and the exported model share (floor 5).

The padding around an image is the one that its detector was trained with. The one-stage detectors of the Object
Detection API normalize an image before they resize and pad it. Their padding is 0 in the extractor's input: the color
in the middle of its scale (ImageNet's mean, or gray). Its two-stage detectors and CenterNet pad first, with black.
"""

from __future__ import annotations

from detzoo.builders.features import pixel_scale
from detzoo.builders.spp import build_classifier_resizer
from detzoo.config import pb
from detzoo.config.check.parts import check_resizer
from detzoo.config.check.pipeline import require
from detzoo.config.support import lookup_ssd_extractor
from detzoo.data.resize import (
    ConditionalShapeResizer,
    FixedShapeResizer,
    IdentityResizer,
    KeepAspectRatioResizer,
    PadToMultipleResizer,
    Resizer,
)
from detzoo.features.normalization import RAW, PixelScale

RESIZE_METHODS = {
    pb.BILINEAR: "bilinear",
    pb.NEAREST_NEIGHBOR: "nearest",
    pb.BICUBIC: "bicubic",
    pb.AREA: "area",
}


def build_model_resizer(model: pb.DetectionModel) -> Resizer:
    """Builds the resizer of a ``pb.DetectionModel``, with the padding that its detector expects.

    Raises:
        ConfigError: A value breaks a rule of ``detzoo config check``; the message names its field.
    """
    if model.HasField("spp_classifier"):
        return build_classifier_resizer(model.spp_classifier)
    if model.HasField("spp_net"):  # resizes images itself, to several sizes
        return IdentityResizer()
    if model.HasField("ssd"):
        extractor = lookup_ssd_extractor(model.ssd.feature_extractor.type)
        return build_resizer(model.ssd.image_resizer, pixel_scale(extractor))
    return build_resizer(getattr(model, str(model.WhichOneof("model"))).image_resizer)


def build_resizer(config: pb.ImageResizer, padding_scale: PixelScale = RAW) -> Resizer:
    """Builds the resizer of a ``pb.ImageResizer``: image [H, W, 3] -> (padded image float32, true shape int32 [2]).

    ``padding_scale`` is the scale of ``per_channel_pad_value``: RGB 0..255 in a two-stage detector, the extractor's
    normalized input in a one-stage detector. Its 0 is the padding if that field is not set.

    Raises:
        ConfigError: No resizer is chosen, or a value breaks a rule of ``detzoo config check``.
    """
    require(config, "image_resizer", check_resizer)
    kind = config.WhichOneof("image_resizer_oneof")
    if kind == "fixed_shape_resizer":
        fixed = config.fixed_shape_resizer
        method = RESIZE_METHODS[fixed.resize_method]
        return FixedShapeResizer(method, fixed.convert_to_grayscale, fixed.height, fixed.width)
    if kind == "keep_aspect_ratio_resizer":
        keep = config.keep_aspect_ratio_resizer
        return KeepAspectRatioResizer(
            RESIZE_METHODS[keep.resize_method],
            keep.convert_to_grayscale,
            keep.min_dimension,
            keep.max_dimension,
            keep.pad_to_max_dimension,
            tuple(keep.training_min_dimensions),
            pad_value=padding_scale.colour_of(tuple(keep.per_channel_pad_value) or (0.0, 0.0, 0.0)),
        )
    if kind == "conditional_shape_resizer":
        conditional = config.conditional_shape_resizer
        return ConditionalShapeResizer(
            RESIZE_METHODS[conditional.resize_method],
            conditional.convert_to_grayscale,
            conditional.size_threshold,
            conditional.condition == pb.ConditionalShapeResizer.GREATER,
            pad_value=padding_scale.zero,
        )
    if kind == "pad_to_multiple_resizer":
        multiple = config.pad_to_multiple_resizer
        return PadToMultipleResizer(
            convert_to_grayscale=multiple.convert_to_grayscale,
            multiple=multiple.multiple,
            pad_value=padding_scale.zero,
        )
    return IdentityResizer(pad_value=padding_scale.zero)
