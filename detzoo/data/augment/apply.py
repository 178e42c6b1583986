"""Augmentations: what they have in common, and how a sample goes through a list of them.

An augmentation is a function of a sample and a seed. It draws all of its random numbers from that seed, so the same
record at the same position of the stream is always changed in the same way, whichever worker does it. Images may be
uint8 or float32. Changes of position keep the type, changes of values return float32 within 0..255. Boxes are always
fractions of the image, and every augmentation moves them with their objects.

The modules of this package have the augmentations; ``builders.augment`` chooses them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import tensorflow as tf

from detzoo.contracts import Tensor
from detzoo.data.sample import Sample, drop_empty_boxes

# sample, seed int64 [2] of this record and step -> sample
Augmentation = Callable[[Sample, Tensor], Sample]


def augment(
    sample: Sample, augmentations: Sequence[Augmentation], seed: int, record_index: Tensor, first_step: int = 0
) -> Sample:
    """Applies the augmentations in order, each with its own random numbers made of (seed, its step, record_index)."""
    for step, augmentation in enumerate(augmentations, first_step):
        sample = augmentation(sample, record_seed(seed, step, record_index))
    return drop_empty_boxes(sample) if augmentations else sample


def record_seed(seed: int, step: int | str, record_index: Tensor) -> Tensor:
    """Returns the seed, int64 [2], of one step (its number or its name) for one record."""
    digest = hashlib.sha256(f"{seed}/{step}".encode()).digest()
    step_seed = tf.constant(int.from_bytes(digest[:7], "little"), tf.int64)
    return tf.stack([step_seed, tf.cast(record_index, tf.int64)])


def uniforms(seed: Tensor, count: int) -> list[Tensor]:
    """Returns ``count`` float32 scalars in [0, 1)."""
    return tf.unstack(tf.random.stateless_uniform([count], seed))


def another_seed(seed: Tensor, number: int) -> Tensor:
    """Returns a further seed, int64 [2], for a second stream of random numbers within one augmentation."""
    return tf.random.experimental.stateless_fold_in(seed, number)


def between(uniform: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    """Maps a number in [0, 1) to float32 in [low, high)."""
    low = tf.cast(low, tf.float32)
    return low + uniform * (tf.cast(high, tf.float32) - low)


def integer_between(uniform: Tensor, low: Tensor | int, high: Tensor | int) -> Tensor:
    """Maps a number in [0, 1) to int32 in [low, high), to ``low`` if that range is empty."""
    low, high = tf.cast(low, tf.int32), tf.cast(high, tf.int32)
    span = tf.maximum(high - low, 1)
    offset = tf.cast(tf.floor(uniform * tf.cast(span, tf.float32)), tf.int32)
    return low + tf.minimum(offset, span - 1)


def apply_if(condition: Tensor, change: Callable[[Sample], Sample], sample: Sample) -> Sample:
    """Returns ``change(sample)`` if the scalar condition is True, otherwise the sample; computes only one of them."""
    return tf.cond(condition, lambda: change(sample), lambda: sample)


def with_values(sample: Sample, values: Tensor) -> Sample:
    """Returns the sample with new pixel values, float32, clipped to 0..255."""
    return sample._replace(image=tf.clip_by_value(values, 0.0, 255.0))


def with_float_image(sample: Sample) -> Sample:
    """Returns the sample with its image as float32."""
    return sample._replace(image=tf.cast(sample.image, tf.float32))
