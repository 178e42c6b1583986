"""``data_augmentation_options`` of a config -> the augmentations of the input pipeline, in their order (floor 5)."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from detzoo.builders.resize import RESIZE_METHODS
from detzoo.config import pb
from detzoo.config.check.pipeline import require
from detzoo.config.check.training import check_augmentation
from detzoo.data.augment import color, crop, geometry, objects, policy
from detzoo.data.augment.apply import Augmentation
from detzoo.data.augment.crop import CropLimits, PadLimits


def build_augmentations(steps: Iterable[pb.PreprocessingStep]) -> list[Augmentation]:
    """Builds one augmentation per ``pb.PreprocessingStep``; raises a ConfigError that names a field with a problem."""
    built = []
    for index, step in enumerate(steps):
        require(step, f"train_config.data_augmentation_options[{index}]", check_augmentation)
        kind = str(step.WhichOneof("preprocessing_step"))
        built.append(_BUILDERS[kind](getattr(step, kind)))
    return built


def _fields_of(function: Callable[..., Any]) -> Callable[[Any], Augmentation]:
    """Returns a builder that passes fields of the message to the keyword arguments of the same names."""
    parameters = inspect.signature(function).parameters.values()
    names = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    return lambda config: functools.partial(function, **{name: getattr(config, name) for name in names})


def _triple(values: Sequence[float]) -> tuple[float, float, float] | None:
    """Returns three numbers, or None if the field is not set."""
    return (values[0], values[1], values[2]) if values else None


def _pair(values: Sequence[float], default: tuple[float, float]) -> tuple[float, float]:
    """Returns (height, width), or the default if the field is not set."""
    return (values[0], values[1]) if values else default


def _crop_limits(config: Any, aspect_ratio_range: tuple[float, float] | None = None) -> CropLimits:
    """Returns the limits of a crop message. ``aspect_ratio_range`` is for a message without aspect ratios."""
    return CropLimits(
        config.min_object_covered,
        aspect_ratio_range or (config.min_aspect_ratio, config.max_aspect_ratio),
        (config.min_area, config.max_area),
        config.overlap_thresh,
        config.clip_boxes,
        config.random_coef,
    )


def _pad_limits(config: Any, color: tuple[float, float, float] | None) -> PadLimits:
    return PadLimits(
        _pair(config.min_padded_size_ratio, (1.0, 1.0)), _pair(config.max_padded_size_ratio, (2.0, 2.0)), color
    )


def _jitter_boxes(config: pb.RandomJitterBoxes) -> Augmentation:
    mode = type(config).JitterMode.Name(config.jitter_mode)
    return functools.partial(objects.random_jitter_boxes, ratio=config.ratio, mode=mode)


def _pad_image(config: pb.RandomPadImage) -> Augmentation:
    least = (config.min_image_height, config.min_image_width) if config.HasField("min_image_height") else None
    most = (config.max_image_height, config.max_image_width) if config.HasField("max_image_height") else None
    pad_color = _triple(config.pad_color)
    return functools.partial(geometry.random_pad_image, min_size=least, max_size=most, pad_color=pad_color)


def _absolute_pad_image(config: pb.RandomAbsolutePadImage) -> Augmentation:
    return functools.partial(
        geometry.random_absolute_pad_image,
        max_height_padding=config.max_height_padding,
        max_width_padding=config.max_width_padding,
        pad_color=_triple(config.pad_color),
    )


def _resize_image(config: pb.ResizeImage) -> Augmentation:
    method = RESIZE_METHODS[pb.ResizeType.Value(type(config).Method.Name(config.method))]
    return functools.partial(
        geometry.resize_image_to, new_height=config.new_height, new_width=config.new_width, method=method
    )


def _crop_pad_image(config: pb.RandomCropPadImage) -> Augmentation:
    padding = _pad_limits(config, _triple(config.pad_color))
    return functools.partial(crop.random_crop_pad_image, limits=_crop_limits(config), padding=padding)


def _choices(config: Any, aspect_ratio_range: tuple[float, float] | None = None) -> dict[str, Any]:
    """Returns the argument ``choices`` of SSD's crops; {} for the default of a message without operations."""
    choices = [_crop_limits(operation, aspect_ratio_range) for operation in config.operations]
    return {"choices": choices} if choices else {}


def _ssd_random_crop_pad(config: pb.SSDRandomCropPad) -> Augmentation:
    if not config.operations:
        return crop.ssd_random_crop_pad
    paddings = [
        _pad_limits(operation, (operation.pad_color_r, operation.pad_color_g, operation.pad_color_b))
        for operation in config.operations
    ]
    return functools.partial(crop.ssd_random_crop_pad, paddings=paddings, **_choices(config))


def _ssd_fixed_aspect_ratio(config: pb.SSDRandomCropFixedAspectRatio) -> Augmentation:
    ratio = config.aspect_ratio
    choices = _choices(config, (ratio, ratio))
    return functools.partial(crop.ssd_random_crop_fixed_aspect_ratio, aspect_ratio=ratio, **choices)


def _ssd_pad_fixed_aspect_ratio(config: pb.SSDRandomCropPadFixedAspectRatio) -> Augmentation:
    return functools.partial(
        crop.ssd_random_crop_pad_fixed_aspect_ratio,
        aspect_ratio=config.aspect_ratio,
        padding=_pad_limits(config, None),
        **_choices(config),
    )


def _drop_label(config: pb.DropLabelProbabilistically) -> Augmentation:
    return functools.partial(
        objects.drop_label_probabilistically,
        dropped_class=config.label - 1,
        drop_probability=config.drop_probability,
    )


def _remap_labels(config: pb.RemapLabels) -> Augmentation:
    originals = [label - 1 for label in config.original_labels]
    return functools.partial(objects.remap_labels, original_classes=originals, new_class=config.new_label - 1)


_BUILDERS: dict[str, Callable[[Any], Augmentation]] = {
    "adjust_gamma": _fields_of(color.adjust_gamma),
    "autoaugment_image": _fields_of(policy.autoaugment_image),
    "drop_label_probabilistically": _drop_label,
    "normalize_image": _fields_of(color.normalize_image),
    "random_absolute_pad_image": _absolute_pad_image,
    "random_adjust_brightness": _fields_of(color.random_adjust_brightness),
    "random_adjust_contrast": _fields_of(color.random_adjust_contrast),
    "random_adjust_hue": _fields_of(color.random_adjust_hue),
    "random_adjust_saturation": _fields_of(color.random_adjust_saturation),
    "random_black_patches": _fields_of(color.random_black_patches),
    "random_crop_image": lambda config: functools.partial(crop.random_crop_image, limits=_crop_limits(config)),
    "random_crop_pad_image": _crop_pad_image,
    "random_crop_to_aspect_ratio": _fields_of(crop.random_crop_to_aspect_ratio),
    "random_distort_color": _fields_of(color.random_distort_color),
    "random_downscale_to_target_pixels": _fields_of(geometry.random_downscale_to_target_pixels),
    "random_horizontal_flip": _fields_of(geometry.random_horizontal_flip),
    "random_image_scale": _fields_of(geometry.random_image_scale),
    "random_jitter_boxes": _jitter_boxes,
    "random_jpeg_quality": _fields_of(color.random_jpeg_quality),
    "random_pad_image": _pad_image,
    "random_patch_gaussian": _fields_of(color.random_patch_gaussian),
    "random_pca_color": _fields_of(color.random_pca_color),
    "random_pixel_value_scale": _fields_of(color.random_pixel_value_scale),
    "random_resize_method": _fields_of(geometry.random_resize_method),
    "random_rgb_to_gray": _fields_of(color.random_rgb_to_gray),
    "random_rotation90": _fields_of(geometry.random_rotation90),
    "random_scale_crop_and_pad_to_square": _fields_of(geometry.random_scale_crop_and_pad_to_square),
    "random_self_concat_image": _fields_of(geometry.random_self_concat_image),
    "random_square_crop_by_scale": _fields_of(geometry.random_square_crop_by_scale),
    "random_vertical_flip": _fields_of(geometry.random_vertical_flip),
    "remap_labels": _remap_labels,
    "resize_image": _resize_image,
    "rgb_to_gray": _fields_of(color.rgb_to_gray),
    "ssd_random_crop": lambda config: functools.partial(crop.ssd_random_crop, **_choices(config)),
    "ssd_random_crop_fixed_aspect_ratio": _ssd_fixed_aspect_ratio,
    "ssd_random_crop_pad": _ssd_random_crop_pad,
    "ssd_random_crop_pad_fixed_aspect_ratio": _ssd_pad_fixed_aspect_ratio,
    "subtract_channel_mean": lambda config: functools.partial(color.subtract_channel_mean, means=list(config.means)),
}
