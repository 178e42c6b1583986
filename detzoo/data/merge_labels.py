"""One row for boxes that have several labels, after augmentation and before padding.

Data sets of actions (AVA) write a box once for each of its labels. As targets of a detector these are one object of
several classes, because an anchor or a region can be matched to one row only.
"""

from __future__ import annotations

import tensorflow as tf

from detzoo.contracts import Tensor
from detzoo.data.sample import Sample, keep_objects

BINS = 10_000  # Coordinates that differ by less than one of these are the same, as in the Object Detection API.


def merge_labels(sample: Sample, num_classes: int) -> tuple[Sample, Tensor]:
    """The sample with the first of each group of boxes with the same coordinates.

    Args:
        sample: of N objects.
        num_classes: highest class + 1.

    Returns:
        The sample of M <= N objects, the class of each the lowest of its labels; and bool [M, num_classes], all labels.
    """
    binned = tf.round(sample.boxes_norm * BINS)
    is_same = tf.reduce_all(binned[:, tf.newaxis] == binned[tf.newaxis], axis=-1)
    rows = tf.range(tf.shape(binned)[0])
    is_first = ~tf.reduce_any(is_same & (rows[tf.newaxis] < rows[:, tf.newaxis]), axis=1)
    labels = tf.one_hot(sample.classes, num_classes)
    label_sets = tf.boolean_mask(tf.matmul(tf.cast(is_same, labels.dtype), labels) > 0, is_first)
    lowest = tf.argmax(tf.cast(label_sets, tf.int32), axis=1, output_type=tf.int32)
    return keep_objects(sample, is_first)._replace(classes=lowest), label_sets
