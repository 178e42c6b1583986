"""Random crops that keep objects: SSD's (section 2.2 of Liu et al., arXiv 1512.02325) and its relatives.

A crop is drawn until it covers enough of at least one object; boxes that keep too small a part of themselves are
dropped. Names, ranges and defaults are those of the Object Detection API.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import tensorflow as tf

from detzoo.contracts import Tensor
from detzoo.data.augment.apply import another_seed, integer_between, uniforms
from detzoo.data.augment.geometry import random_pad_image, random_pad_to_aspect_ratio, view_window
from detzoo.data.sample import Sample, keep_objects

_MAX_ATTEMPTS = 100


@dataclasses.dataclass(frozen=True)
class CropLimits:
    """Limits of a crop, and the boxes that it keeps."""

    min_object_covered: float = 1.0  # fraction of at least one object that the crop covers
    aspect_ratio_range: tuple[float, float] = (0.75, 1.33)  # width / height
    area_range: tuple[float, float] = (0.1, 1.0)  # fraction of the image
    overlap_thresh: float = 0.3  # a box stays if at least this fraction of it is inside
    clip_boxes: bool = True
    random_coef: float = 0.0  # probability of leaving the image as it is


# SSD's crops: minimum overlaps 0, 0.1, 0.3, 0.5, 0.7, 0.9 and 1.
SSD_CROPS = tuple(
    CropLimits(covered, (0.5, 2.0), (0.1, 1.0), covered, random_coef=0.15)
    for covered in (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
)


@dataclasses.dataclass(frozen=True)
class PadLimits:
    """Limits of the padding of a crop; ratios (height, width) are relative to the image before the crop."""

    min_size_ratio: tuple[float, float] = (1.0, 1.0)
    max_size_ratio: tuple[float, float] = (2.0, 2.0)
    color: tuple[float, float, float] | None = None  # RGB 0..255; None is the mean colour of the crop


def random_crop_image(sample: Sample, seed: Tensor, *, limits: CropLimits = CropLimits()) -> Sample:
    """Crops within one set of limits."""
    return _crop(sample, seed, (limits,), tf.constant(0))


def ssd_random_crop(sample: Sample, seed: Tensor, *, choices: Sequence[CropLimits] = SSD_CROPS) -> Sample:
    """Crops within limits that are drawn from ``choices``."""
    chosen = integer_between(uniforms(another_seed(seed, 0), 1)[0], 0, len(choices))
    return _crop(sample, another_seed(seed, 1), choices, chosen)


def random_crop_pad_image(
    sample: Sample, seed: Tensor, *, limits: CropLimits = CropLimits(), padding: PadLimits = PadLimits()
) -> Sample:
    """Crops, then pads to a random size."""
    return ssd_random_crop_pad(sample, seed, choices=(limits,), paddings=(padding,))


def ssd_random_crop_pad(
    sample: Sample,
    seed: Tensor,
    *,
    choices: Sequence[CropLimits] = SSD_CROPS[1:],
    paddings: Sequence[PadLimits] | None = None,
) -> Sample:
    """Crops and pads within limits that are drawn from ``choices`` with its ``paddings``."""
    paddings = [PadLimits()] * len(choices) if paddings is None else list(paddings)
    chosen = integer_between(uniforms(another_seed(seed, 0), 1)[0], 0, len(choices))
    shape = tf.cast(tf.shape(sample.image)[:2], tf.float32)
    cropped = _crop(sample, another_seed(seed, 1), choices, chosen)

    def pad(padding: PadLimits) -> Sample:
        min_size = tf.cast(shape * tf.constant(padding.min_size_ratio), tf.int32)
        max_size = tf.cast(shape * tf.constant(padding.max_size_ratio), tf.int32)
        pad_seed = another_seed(seed, 2)
        return random_pad_image(cropped, pad_seed, min_size=min_size, max_size=max_size, pad_color=padding.color)

    if len(set(paddings)) == 1:
        return pad(paddings[0])
    return tf.switch_case(chosen, [lambda padding=padding: pad(padding) for padding in paddings])


def ssd_random_crop_fixed_aspect_ratio(
    sample: Sample, seed: Tensor, *, choices: Sequence[CropLimits] = SSD_CROPS, aspect_ratio: float = 1.0
) -> Sample:
    """Crops as SSD with one aspect ratio, then cuts exactly to it."""
    fixed = [dataclasses.replace(limits, aspect_ratio_range=(aspect_ratio, aspect_ratio)) for limits in choices]
    cropped = ssd_random_crop(sample, another_seed(seed, 0), choices=fixed)
    return random_crop_to_aspect_ratio(cropped, another_seed(seed, 1), aspect_ratio=aspect_ratio)


def ssd_random_crop_pad_fixed_aspect_ratio(
    sample: Sample,
    seed: Tensor,
    *,
    choices: Sequence[CropLimits] = SSD_CROPS,
    aspect_ratio: float = 1.0,
    padding: PadLimits = PadLimits(),
) -> Sample:
    """Crops as SSD, then pads to one aspect ratio."""
    cropped = ssd_random_crop(sample, another_seed(seed, 0), choices=choices)
    return random_pad_to_aspect_ratio(
        cropped,
        another_seed(seed, 1),
        aspect_ratio=aspect_ratio,
        min_padded_size_ratio=padding.min_size_ratio,
        max_padded_size_ratio=padding.max_size_ratio,
    )


def random_crop_to_aspect_ratio(
    sample: Sample,
    seed: Tensor,
    *,
    aspect_ratio: float = 1.0,
    overlap_thresh: float = 0.3,
    clip_boxes: bool = True,
) -> Sample:
    """Cuts the largest crop of the aspect ratio (width / height), at a random place."""
    shape = tf.shape(sample.image)[:2]
    height, width = tf.unstack(tf.cast(shape, tf.float32))
    low = tf.stack([height, tf.round(height * aspect_ratio)])
    flat = tf.stack([tf.round(width / aspect_ratio), width])
    size = tf.cast(tf.where(width / height >= aspect_ratio, low, flat), tf.int32)
    size = tf.clip_by_value(size, 1, shape)
    begin = integer_between(tf.random.stateless_uniform([2], seed), 0, shape - size + 1)
    return _cut(sample, begin, size, overlap_thresh, clip_boxes)


def _crop(sample: Sample, seed: Tensor, choices: Sequence[CropLimits], chosen: Tensor) -> Sample:
    """Draws a crop within the chosen limits and cuts it; choices that differ in numbers only share one graph."""

    def number(name: str) -> Tensor:
        return tf.constant([float(getattr(limits, name)) for limits in choices])[chosen]

    stays = uniforms(another_seed(seed, 0), 1)[0] < number("random_coef")
    begin, size = _draw_window(sample, another_seed(seed, 1), choices, chosen, number("min_object_covered"))
    begin = tf.where(stays, 0, begin)
    size = tf.where(stays, tf.shape(sample.image)[:2], size)
    threshold = tf.where(stays, 0.0, number("overlap_thresh"))
    clipped = ~stays & (number("clip_boxes") > 0.0)
    return _cut(sample, begin, size, threshold, clipped)


def _draw_window(
    sample: Sample, seed: Tensor, choices: Sequence[CropLimits], chosen: Tensor, min_object_covered: Tensor
) -> tuple[Tensor, Tensor]:
    """Draws a crop that covers enough of an object, or the whole image after 100 attempts; (begin, size), int32 [2]."""
    boxes = tf.clip_by_value(sample.boxes_norm, 0.0, 1.0)[tf.newaxis]

    def draw(limits: CropLimits) -> tuple[Tensor, Tensor]:
        begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
            tf.shape(sample.image),
            boxes,
            seed,
            min_object_covered=min_object_covered,
            aspect_ratio_range=limits.aspect_ratio_range,
            area_range=limits.area_range,
            max_attempts=_MAX_ATTEMPTS,
            use_image_if_no_bounding_boxes=True,
        )
        return begin[:2], size[:2]

    if len({(limits.aspect_ratio_range, limits.area_range) for limits in choices}) == 1:
        return draw(choices[0])
    return tf.switch_case(chosen, [lambda limits=limits: draw(limits) for limits in choices])


def _cut(
    sample: Sample, begin: Tensor, size: Tensor, overlap_thresh: Tensor | float, clip_boxes: Tensor | bool
) -> Sample:
    """Cuts out a rectangle; drops boxes with less than ``overlap_thresh`` of their area inside."""
    window = view_window(sample, begin, size)
    boxes = window.boxes_norm
    clipped = tf.clip_by_value(boxes, 0.0, 1.0)
    whole, inside = (tf.reduce_prod(b[:, 2:] - b[:, :2], axis=1) for b in (boxes, clipped))
    # Rounding must not drop a box that lies inside entirely when the threshold is 1.
    kept = (inside > 0.0) & (inside >= whole * (overlap_thresh - 1e-6))
    window = window._replace(boxes_norm=tf.where(clip_boxes, clipped, boxes))
    return keep_objects(window, kept)
