"""One image and its objects on their way from a record to a batch.

Stands between ``decode`` (which makes samples), the augmentations (sample -> sample) and ``batches`` (which pads and
batches them). Boxes are fractions of the sample's own image throughout. Proposals are boxes of no object: they move
with the image, but are neither counted nor dropped with the objects.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    area_px: Tensor  # float32 [N], pixels of the original image, 0 if unknown
    masks: Tensor | None  # uint8 [N, H, W] of 0 and 1, or None if masks are not read
    keypoints_norm: Tensor | None = None  # float32 [N, T, 2], (y, x) in fractions of the image; None if not read
    # int32 [N, T], 0 not labelled or outside the image, 1 hidden, 2 visible; None if not read.
    keypoint_visibility: Tensor | None = None
    proposals_norm: Tensor | None = None  # float32 [R, 4], fractions of the image, or None if none are read
    proposal_scores: Tensor | None = None  # float32 [R], or None if none are read


# Fields with one row per object.
OBJECT_FIELDS = (
    *("boxes_norm", "classes", "weights", "is_crowd", "is_difficult", "area_px", "masks"),
    *("keypoints_norm", "keypoint_visibility"),
)

# Coordinates that differ by less than one of these are the same, as in the Object Detection API.
_LABEL_BINS = 10_000


def keep_objects(sample: Sample, keep: Tensor) -> Sample:
    """Returns the sample with the objects for which ``keep`` (bool [N]) is True; the image stays."""
    rows = tf.where(keep)[:, 0]
    objects = {name: getattr(sample, name) for name in OBJECT_FIELDS}
    return sample._replace(**{name: None if x is None else tf.gather(x, rows) for name, x in objects.items()})


def merge_labels(sample: Sample, num_classes: int) -> tuple[Sample, Tensor]:
    """Joins the boxes of the same coordinates to one object of several classes, its labels in bool [M, num_classes].

    Data sets of actions (AVA) write a box once for each of its labels. An anchor or a region can be matched to one row
    only, so a detector needs them as one object, whose class is its lowest label. Called after augmentation and before
    padding.
    """
    binned = tf.round(sample.boxes_norm * _LABEL_BINS)
    is_same = tf.reduce_all(binned[:, tf.newaxis] == binned[tf.newaxis], axis=-1)
    rows = tf.range(tf.shape(binned)[0])
    is_first = ~tf.reduce_any(is_same & (rows[tf.newaxis] < rows[:, tf.newaxis]), axis=1)
    labels = tf.one_hot(sample.classes, num_classes)
    label_sets = tf.boolean_mask(tf.matmul(tf.cast(is_same, labels.dtype), labels) > 0, is_first)
    lowest = tf.argmax(tf.cast(label_sets, tf.int32), axis=1, output_type=tf.int32)
    return keep_objects(sample, is_first)._replace(classes=lowest), label_sets


def move_boxes(sample: Sample, move: Callable[[Tensor], Tensor]) -> Sample:
    """Applies ``move`` (float32 [N, 4] -> [N, 4]) to the boxes of objects, to their keypoints and to proposals.

    A moved proposal is clipped to the image, so that a later step cannot bring back a part that has left it. A keypoint
    outside the image is no longer labelled.
    """
    proposals = sample.proposals_norm
    if proposals is not None:
        proposals = tf.clip_by_value(move(proposals), 0.0, 1.0)
    moved = sample._replace(boxes_norm=move(sample.boxes_norm), proposals_norm=proposals)
    points, visibility = sample.keypoints_norm, sample.keypoint_visibility
    if points is None or visibility is None:
        return moved
    as_boxes = tf.reshape(tf.tile(points, [1, 1, 2]), [-1, 4])  # of no extent
    points = tf.reshape(move(as_boxes)[:, :2], tf.shape(points))
    inside = tf.reduce_all((points >= 0.0) & (points <= 1.0), axis=-1)
    return moved._replace(keypoints_norm=points, keypoint_visibility=tf.where(inside, visibility, 0))


def permute_keypoints(sample: Sample, permutation: Sequence[int]) -> Sample:
    """Returns the sample with other numbers of the keypoints: number i is the former ``permutation[i]``; [] for none.

    A mirrored left hand is a right hand.
    """
    if sample.keypoints_norm is None or not permutation:
        return sample
    points, visibility = (
        tf.gather(x, list(permutation), axis=1) for x in (sample.keypoints_norm, sample.keypoint_visibility)
    )
    return sample._replace(keypoints_norm=points, keypoint_visibility=visibility)


def drop_empty_boxes(sample: Sample) -> Sample:
    """Drops boxes of no height or no width: an augmentation can squeeze a box to nothing."""
    sides = sample.boxes_norm[:, 2:] - sample.boxes_norm[:, :2]
    return keep_objects(sample, tf.reduce_all(sides > 0.0, axis=1))
