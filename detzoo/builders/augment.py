"""``data_augmentation_options`` of a configuration -> the augmentations of the input pipeline, in their order."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from detzoo.builders.resize import RESIZE_METHODS
from detzoo.config import pb
from detzoo.data.augment import color, crop, geometry, objects, policy
from detzoo.data.augment.apply import Augmentation
from detzoo.data.augment.crop import CropLimits, PadLimits
from detzoo.errors import ConfigError

# Steps of the schema that have no meaning here, and why.
_REFUSED = {
    "scale_boxes_to_pixel_coordinates": "boxes are fractions of the image throughout; remove this step",
    "convert_class_logits_to_softmax": "records with scores for several classes are not read; remove this step",
}


def build_augmentations(steps: Iterable[pb.PreprocessingStep]) -> list[Augmentation]:
    """The augmentations of the ``pb.PreprocessingStep``s, one each.

    Raises:
        ConfigError: a step is empty, its kind is not supported (the message names what is), or its numbers contradict
            each other.
    """
    return [_build_step(index, step) for index, step in enumerate(steps)]


def _build_step(index: int, step: pb.PreprocessingStep) -> Augmentation:
    kind = step.WhichOneof("preprocessing_step")
    where = f"train_config.data_augmentation_options[{index}]"
    accepted = f"accepted are {', '.join(sorted(_BUILDERS))}"
    if kind is None:
        raise ConfigError(f"{where} is empty; {accepted}")
    if kind not in _BUILDERS:
        reason = f": {_REFUSED[kind]}" if kind in _REFUSED else ""
        raise ConfigError(f"{where}: {kind} is not supported{reason}; {accepted}")
    try:
        return _BUILDERS[kind](getattr(step, kind))
    except ConfigError as error:
        raise ConfigError(f"{where}.{kind}: {error}") from None


def _with_fields(function: Callable[..., Any], *names: str) -> Callable[[Any], Augmentation]:
    """A builder that hands fields of the message to arguments of the same names."""

    def build(config: Any) -> Augmentation:
        return functools.partial(function, **{name: getattr(config, name) for name in names})

    return build


def _ordered(low: float, high: float, name: str) -> tuple[float, float]:
    if low > high:
        raise ConfigError(f"the minimum of {name}, {low:g}, is above its maximum, {high:g}")
    return low, high


def _triple(values: Sequence[float], name: str) -> tuple[float, float, float] | None:
    """Three numbers, or None where the field is not set."""
    if values and len(values) != 3:
        raise ConfigError(f"{name} has {len(values)} values; it takes 3 (RGB, 0..255)")
    return (values[0], values[1], values[2]) if values else None


def _pair(values: Sequence[float], name: str, default: tuple[float, float]) -> tuple[float, float]:
    """(height, width), or the default where the field is not set."""
    if values and len(values) != 2:
        raise ConfigError(f"{name} has {len(values)} values; it takes 2 (height, width)")
    return (values[0], values[1]) if values else default


def _crop_limits(config: Any, aspect_ratio_range: tuple[float, float] | None = None) -> CropLimits:
    """The limits of a crop message; one without aspect ratios gets them as an argument."""
    ratios = aspect_ratio_range or _ordered(config.min_aspect_ratio, config.max_aspect_ratio, "aspect_ratio")
    areas = _ordered(config.min_area, config.max_area, "area")
    if ratios[0] <= 0.0:
        raise ConfigError(f"min_aspect_ratio is {ratios[0]:g}; aspect ratios (width / height) are above 0")
    if not 0.0 < areas[0] <= areas[1] <= 1.0:
        raise ConfigError(f"min_area {areas[0]:g} and max_area {areas[1]:g} must be above 0 and at most 1")
    return CropLimits(
        config.min_object_covered, ratios, areas, config.overlap_thresh, config.clip_boxes, config.random_coef
    )


def _pad_limits(config: Any, color: tuple[float, float, float] | None) -> PadLimits:
    return PadLimits(
        _pair(config.min_padded_size_ratio, "min_padded_size_ratio", (1.0, 1.0)),
        _pair(config.max_padded_size_ratio, "max_padded_size_ratio", (2.0, 2.0)),
        color,
    )


def _normalize_image(config: pb.NormalizeImage) -> Augmentation:
    if config.original_minval == config.original_maxval:
        raise ConfigError("original_minval and original_maxval are equal; give the range of the values, such as 0, 255")
    names = ("original_minval", "original_maxval", "target_minval", "target_maxval")
    return _with_fields(color.normalize_image, *names)(config)


def _subtract_channel_mean(config: pb.SubtractChannelMean) -> Augmentation:
    means = _triple(config.means, "means")
    if means is None:
        raise ConfigError("means is empty; give 3 values, one a channel")
    return functools.partial(color.subtract_channel_mean, means=means)


def _distort_color(config: pb.RandomDistortColor) -> Augmentation:
    if config.color_ordering not in (0, 1):
        raise ConfigError(f"color_ordering is {config.color_ordering}; it is 0 or 1")
    return functools.partial(color.random_distort_color, color_ordering=config.color_ordering)


def _jitter_boxes(config: pb.RandomJitterBoxes) -> Augmentation:
    mode = type(config).JitterMode.Name(config.jitter_mode)
    return functools.partial(objects.random_jitter_boxes, ratio=config.ratio, mode=mode)


def _pad_image(config: pb.RandomPadImage) -> Augmentation:
    sizes: dict[str, tuple[int, int] | None] = {}
    color = _triple(config.pad_color, "pad_color")
    for bound in ("min", "max"):
        fields = (f"{bound}_image_height", f"{bound}_image_width")
        given = [config.HasField(field) for field in fields]
        if given[0] != given[1]:
            raise ConfigError(f"give both or neither of {fields[0]} and {fields[1]}")
        sizes[bound] = (getattr(config, fields[0]), getattr(config, fields[1])) if given[0] else None
    return functools.partial(geometry.random_pad_image, min_size=sizes["min"], max_size=sizes["max"], pad_color=color)


def _absolute_pad_image(config: pb.RandomAbsolutePadImage) -> Augmentation:
    return functools.partial(
        geometry.random_absolute_pad_image,
        max_height_padding=config.max_height_padding,
        max_width_padding=config.max_width_padding,
        pad_color=_triple(config.pad_color, "pad_color"),
    )


def _check_target(height: int, width: int) -> None:
    if min(height, width) <= 0:
        raise ConfigError(f"the target height {height} and width {width} must be above 0")


def _resize_image(config: pb.ResizeImage) -> Augmentation:
    name = type(config).Method.Name(config.method)
    method = RESIZE_METHODS[pb.ResizeType.Value(name)]
    _check_target(config.new_height, config.new_width)
    return functools.partial(
        geometry.resize_image_to, new_height=config.new_height, new_width=config.new_width, method=method
    )


def _resize_method(config: pb.RandomResizeMethod) -> Augmentation:
    _check_target(config.target_height, config.target_width)
    return _with_fields(geometry.random_resize_method, "target_height", "target_width")(config)


def _crop_image(config: pb.RandomCropImage) -> Augmentation:
    return functools.partial(crop.random_crop_image, limits=_crop_limits(config))


def _crop_pad_image(config: pb.RandomCropPadImage) -> Augmentation:
    padding = _pad_limits(config, _triple(config.pad_color, "pad_color"))
    return functools.partial(crop.random_crop_pad_image, limits=_crop_limits(config), padding=padding)


def _ssd_random_crop(config: pb.SSDRandomCrop) -> Augmentation:
    if not config.operations:
        return crop.ssd_random_crop
    choices = [_crop_limits(operation) for operation in config.operations]
    return functools.partial(crop.ssd_random_crop, choices=choices)


def _ssd_random_crop_pad(config: pb.SSDRandomCropPad) -> Augmentation:
    if not config.operations:
        return crop.ssd_random_crop_pad
    choices = [_crop_limits(operation) for operation in config.operations]
    paddings = [
        _pad_limits(operation, (operation.pad_color_r, operation.pad_color_g, operation.pad_color_b))
        for operation in config.operations
    ]
    return functools.partial(crop.ssd_random_crop_pad, choices=choices, paddings=paddings)


def _ssd_fixed_aspect_ratio(config: pb.SSDRandomCropFixedAspectRatio) -> Augmentation:
    ratio = config.aspect_ratio
    augmentation = functools.partial(crop.ssd_random_crop_fixed_aspect_ratio, aspect_ratio=ratio)
    if not config.operations:
        return augmentation
    return functools.partial(
        augmentation, choices=[_crop_limits(operation, (ratio, ratio)) for operation in config.operations]
    )


def _ssd_pad_fixed_aspect_ratio(config: pb.SSDRandomCropPadFixedAspectRatio) -> Augmentation:
    augmentation = functools.partial(
        crop.ssd_random_crop_pad_fixed_aspect_ratio,
        aspect_ratio=config.aspect_ratio,
        padding=_pad_limits(config, None),
    )
    if not config.operations:
        return augmentation
    return functools.partial(augmentation, choices=[_crop_limits(operation) for operation in config.operations])


def _autoaugment(config: pb.AutoAugmentImage) -> Augmentation:
    if config.policy_name not in policy.POLICIES:
        raise ConfigError(f"policy_name is {config.policy_name!r}; accepted are {', '.join(policy.POLICIES)}")
    return functools.partial(policy.autoaugment_image, policy_name=config.policy_name)


def _drop_label(config: pb.DropLabelProbabilistically) -> Augmentation:
    return functools.partial(
        objects.drop_label_probabilistically,
        dropped_class=_class_of_id(config.label, "label"),
        drop_probability=config.drop_probability,
    )


def _remap_labels(config: pb.RemapLabels) -> Augmentation:
    originals = [_class_of_id(label, "original_labels") for label in config.original_labels]
    new_class = _class_of_id(config.new_label, "new_label")
    return functools.partial(objects.remap_labels, original_classes=originals, new_class=new_class)


def _class_of_id(identifier: int, name: str) -> int:
    if identifier < 1:
        raise ConfigError(f"{name} is {identifier}; class ids start at 1")
    return identifier - 1


_BUILDERS: dict[str, Callable[[Any], Augmentation]] = {
    "adjust_gamma": _with_fields(color.adjust_gamma, "gamma", "gain"),
    "autoaugment_image": _autoaugment,
    "drop_label_probabilistically": _drop_label,
    "normalize_image": _normalize_image,
    "random_absolute_pad_image": _absolute_pad_image,
    "random_adjust_brightness": _with_fields(color.random_adjust_brightness, "max_delta"),
    "random_adjust_contrast": _with_fields(color.random_adjust_contrast, "min_delta", "max_delta"),
    "random_adjust_hue": _with_fields(color.random_adjust_hue, "max_delta"),
    "random_adjust_saturation": _with_fields(color.random_adjust_saturation, "min_delta", "max_delta"),
    "random_black_patches": _with_fields(
        color.random_black_patches, "max_black_patches", "probability", "size_to_image_ratio"
    ),
    "random_crop_image": _crop_image,
    "random_crop_pad_image": _crop_pad_image,
    "random_crop_to_aspect_ratio": _with_fields(
        crop.random_crop_to_aspect_ratio, "aspect_ratio", "overlap_thresh", "clip_boxes"
    ),
    "random_distort_color": _distort_color,
    "random_downscale_to_target_pixels": _with_fields(
        geometry.random_downscale_to_target_pixels, "random_coef", "min_target_pixels", "max_target_pixels"
    ),
    "random_horizontal_flip": _with_fields(geometry.random_horizontal_flip, "probability"),
    "random_image_scale": _with_fields(geometry.random_image_scale, "min_scale_ratio", "max_scale_ratio"),
    "random_jitter_boxes": _jitter_boxes,
    "random_jpeg_quality": _with_fields(
        color.random_jpeg_quality, "random_coef", "min_jpeg_quality", "max_jpeg_quality"
    ),
    "random_pad_image": _pad_image,
    "random_patch_gaussian": _with_fields(
        color.random_patch_gaussian,
        "random_coef",
        "min_patch_size",
        "max_patch_size",
        "min_gaussian_stddev",
        "max_gaussian_stddev",
    ),
    "random_pixel_value_scale": _with_fields(color.random_pixel_value_scale, "minval", "maxval"),
    "random_resize_method": _resize_method,
    "random_rgb_to_gray": _with_fields(color.random_rgb_to_gray, "probability"),
    "random_rotation90": _with_fields(geometry.random_rotation90, "probability"),
    "random_scale_crop_and_pad_to_square": _with_fields(
        geometry.random_scale_crop_and_pad_to_square, "output_size", "scale_min", "scale_max"
    ),
    "random_self_concat_image": _with_fields(
        geometry.random_self_concat_image, "concat_vertical_probability", "concat_horizontal_probability"
    ),
    "random_square_crop_by_scale": _with_fields(
        geometry.random_square_crop_by_scale, "max_border", "scale_min", "scale_max", "num_scales"
    ),
    "random_vertical_flip": _with_fields(geometry.random_vertical_flip, "probability"),
    "remap_labels": _remap_labels,
    "resize_image": _resize_image,
    "rgb_to_gray": _with_fields(color.rgb_to_gray),
    "ssd_random_crop": _ssd_random_crop,
    "ssd_random_crop_fixed_aspect_ratio": _ssd_fixed_aspect_ratio,
    "ssd_random_crop_pad": _ssd_random_crop_pad,
    "ssd_random_crop_pad_fixed_aspect_ratio": _ssd_pad_fixed_aspect_ratio,
    "subtract_channel_mean": _subtract_channel_mean,
}
