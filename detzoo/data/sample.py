"""One image and its objects on their way from a record to a batch.

Stands between ``decode`` (which makes samples), the augmentations (sample -> sample) and ``batches`` (which pads and
batches them). Boxes are fractions of the sample's own image throughout.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from detzoo.contracts import Tensor


class Sample(NamedTuple):
    """One decoded image with its N objects."""

    image: Tensor  # uint8 or float32 [H, W, 3], RGB, 0..255
    boxes_norm: Tensor  # float32 [N, 4], fractions of the image
    classes: Tensor  # int32 [N], 0-based
    weights: Tensor  # float32 [N]
    is_crowd: Tensor  # bool [N]
    is_difficult: Tensor  # bool [N]
    area_px: Tensor  # float32 [N], pixels of the original image, 0 where unknown
    masks: Tensor | None  # uint8 [N, H, W] of 0 and 1, or None where masks are not read


def image_size(sample: Sample) -> tuple[Tensor, Tensor]:
    """Height and width of the image, int32 scalars."""
    shape = tf.shape(sample.image)
    return shape[0], shape[1]


def keep_objects(sample: Sample, keep: Tensor) -> Sample:
    """The sample with the objects for which ``keep`` (bool [N]) holds; the image stays."""
    rows = tf.where(keep)[:, 0]
    objects = (None if field is None else tf.gather(field, rows) for field in sample[1:])
    return Sample(sample.image, *objects)


def drop_empty_boxes(sample: Sample) -> Sample:
    """The sample without boxes of no height or no width (an augmentation can squeeze a box to nothing)."""
    sides = sample.boxes_norm[:, 2:] - sample.boxes_norm[:, :2]
    return keep_objects(sample, tf.reduce_all(sides > 0.0, axis=1))
