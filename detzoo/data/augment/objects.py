"""Augmentations of the objects alone: jittered boxes, labels that are dropped or renamed.

Names, ranges and defaults are those of the Object Detection API; classes are 0-based here, ids in its configuration
are from 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from detzoo.contracts import Tensor
from detzoo.data.sample import Sample, keep_objects

# For each mode: the direction in which [ymin, xmin, ymax, xmax] move (None: either), and how many numbers are drawn.
_JITTER_MODES: dict[str, tuple[tuple[float, ...] | None, int]] = {
    "DEFAULT": (None, 4),
    "EXPAND": ((-1.0, -1.0, 1.0, 1.0), 4),
    "SHRINK": ((1.0, 1.0, -1.0, -1.0), 4),
    "EXPAND_SYMMETRIC": ((-1.0, -1.0, 1.0, 1.0), 2),
    "SHRINK_SYMMETRIC": ((1.0, 1.0, -1.0, -1.0), 2),
    "EXPAND_SYMMETRIC_XY": ((-1.0, -1.0, 1.0, 1.0), 1),
    "SHRINK_SYMMETRIC_XY": ((1.0, 1.0, -1.0, -1.0), 1),
}


def random_jitter_boxes(sample: Sample, seed: Tensor, *, ratio: float = 0.05, mode: str = "DEFAULT") -> Sample:
    """Moves each side of each box by up to ``ratio`` of the box's height or width.

    Args:
        sample: Sample whose boxes move; image and masks stay.
        seed: int64 [2].
        ratio: Largest move, in [0, 0.5).
        mode: DEFAULT moves each side either way, EXPAND and SHRINK one way. SYMMETRIC moves opposite sides equally,
            and SYMMETRIC_XY all four sides by the same ratio.
    """
    directions, count = _JITTER_MODES[mode]
    boxes = sample.boxes_norm
    numbers = tf.random.stateless_uniform([tf.shape(boxes)[0], count], seed, 0.0 if directions else -ratio, ratio)
    moves = tf.tile(numbers, [1, 4 // count])
    if directions:
        moves *= tf.constant(directions)
    sides = tf.tile(boxes[:, 2:] - boxes[:, :2], [1, 2])
    return sample._replace(boxes_norm=tf.clip_by_value(boxes + moves * sides, 0.0, 1.0))


def drop_label_probabilistically(
    sample: Sample, seed: Tensor, *, dropped_class: int, drop_probability: float = 1.0
) -> Sample:
    """Drops each object of one class with the given probability."""
    numbers = tf.random.stateless_uniform(tf.shape(sample.classes), seed)
    return keep_objects(sample, (sample.classes != dropped_class) | (numbers >= drop_probability))


def remap_labels(sample: Sample, seed: Tensor, *, original_classes: Sequence[int], new_class: int) -> Sample:
    """Gives the objects of several classes one new class."""
    originals = tf.constant(list(original_classes), tf.int32)
    renamed = tf.reduce_any(sample.classes[:, tf.newaxis] == originals, axis=1)
    return sample._replace(classes=tf.where(renamed, new_class, sample.classes))
