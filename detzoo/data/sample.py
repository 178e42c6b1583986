"""One image and its objects on their way from a record to a batch.

Stands between ``decode`` (which makes samples), the augmentations (sample -> sample) and ``batches`` (which pads and
batches them). Boxes are fractions of the sample's own image throughout. Proposals are boxes of no object: they move
with the image, but are neither counted nor dropped with the objects.
"""

from __future__ import annotations

from collections.abc import Callable
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
    proposals_norm: Tensor | None = None  # float32 [R, 4], fractions of the image, or None where none are read
    proposal_scores: Tensor | None = None  # float32 [R], or None where none are read


OBJECT_FIELDS = (
    "boxes_norm",
    "classes",
    "weights",
    "is_crowd",
    "is_difficult",
    "area_px",
    "masks",
)  # one row an object


def image_size(sample: Sample) -> tuple[Tensor, Tensor]:
    """Height and width of the image, int32 scalars."""
    shape = tf.shape(sample.image)
    return shape[0], shape[1]


def keep_objects(sample: Sample, keep: Tensor) -> Sample:
    """The sample with the objects for which ``keep`` (bool [N]) holds; the image stays."""
    rows = tf.where(keep)[:, 0]
    objects = {name: getattr(sample, name) for name in OBJECT_FIELDS}
    return sample._replace(**{name: None if x is None else tf.gather(x, rows) for name, x in objects.items()})


def move_boxes(sample: Sample, move: Callable[[Tensor], Tensor]) -> Sample:
    """The sample with ``move`` (float32 [N, 4] -> [N, 4]) applied to the boxes of objects and to proposals.

    A moved proposal is cut to the image, so that a later step cannot bring back what has left it.
    """
    proposals = sample.proposals_norm
    if proposals is not None:
        proposals = tf.clip_by_value(move(proposals), 0.0, 1.0)
    return sample._replace(boxes_norm=move(sample.boxes_norm), proposals_norm=proposals)


def drop_empty_boxes(sample: Sample) -> Sample:
    """The sample without boxes of no height or no width (an augmentation can squeeze a box to nothing)."""
    sides = sample.boxes_norm[:, 2:] - sample.boxes_norm[:, :2]
    return keep_objects(sample, tf.reduce_all(sides > 0.0, axis=1))
