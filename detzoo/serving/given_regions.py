"""Inputs of exported detectors in addition to the images: regions to classify, or the memory of Context R-CNN.

SPP-net and Fast R-CNN classify given regions. The inputs of such a model are a ``GivenRegions``, those of a Context
R-CNN a ``GivenContext``; the input of other models is the images.
"""

from __future__ import annotations

import functools
import logging
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from detzoo.contracts import Proposals, Tensor
from detzoo.ops import boxes

INPUT_NAME = "proposals"
CONTEXT_NAMES = ("context_features", "valid_context_size")  # the Object Detection API's
SIDE_INPUTS = (INPUT_NAME, *CONTEXT_NAMES)
INPUT_SPEC = tf.TensorSpec([None, None, 4], tf.float32, name=INPUT_NAME)
logger = logging.getLogger(__name__)

_SMALLEST, _LARGEST = 0.05, 0.9  # sides of random regions, in fractions of the image


class GivenRegions(NamedTuple):
    """Inputs of a model that classifies given regions, in the order of its signature."""

    images: Any  # as for a model without regions
    proposals: Any  # float32 [B, R, 4], fractions of the image, [ymin, xmin, ymax, xmax]; rows without area are padding


class GivenContext(NamedTuple):
    """Inputs of a Context R-CNN, in the order of its signature."""

    images: Any  # as for a model without context
    features: Any  # float32 [B, N, F]
    num_valid: Any  # int32 [B], number of rows before the padding


def inputs_of(given: Any) -> tuple[Any, ...]:
    """Returns the values of a model's inputs."""
    return tuple(given) if isinstance(given, GivenRegions | GivenContext) else (given,)


def context_specs(length: int) -> tuple[tf.TensorSpec, tf.TensorSpec]:
    """Returns the further inputs of a Context R-CNN whose memory has ``length`` values per feature."""
    features, num_valid = CONTEXT_NAMES
    return tf.TensorSpec([None, None, length], tf.float32, features), tf.TensorSpec([None], tf.int32, num_valid)


def with_context(images: Any, features_spec: tf.TensorSpec, features: np.ndarray | None = None) -> GivenContext:
    """Adds one memory to a batch of images.

    Args:
        images: Inputs of B images.
        features_spec: Shape of the input of features; an export of the Object Detection API may have a fixed N.
        features: float32 [n, F], the memory of every image; None for an empty one.
    """
    _, num_rows, length = features_spec.shape
    if features is None:
        _note_empty_memory()
    features = np.zeros([0, length], np.float32) if features is None else features[:num_rows]
    padded = np.pad(features, [(0, (num_rows or max(len(features), 1)) - len(features)), (0, 0)])
    count = len(images)
    return GivenContext(images, tf.constant(np.stack([padded] * count)), tf.constant([len(features)] * count, tf.int32))


@functools.cache  # once per process
def _note_empty_memory() -> None:
    logger.warning(
        "the model attends to a memory of other images (context_features), and none is given: it detects as with an "
        "empty one"
    )


def as_proposals(regions_norm: Tensor, windows: Tensor) -> Proposals:
    """Converts regions of a caller, fractions of the image [B, R, 4], to proposals of a detector.

    Returns:
        Proposals in fractions of the padded input, with scores of 0; rows after the last one with an area are padding.
    """
    inside = tf.clip_by_value(regions_norm, 0.0, 1.0)
    places = tf.range(1, tf.shape(inside)[1] + 1) * tf.cast(boxes.is_valid(inside), tf.int32)
    num_valid = tf.reduce_max(tf.pad(places, [[0, 0], [0, 1]]), axis=1)
    scaled = inside * tf.tile(windows[:, tf.newaxis, 2:], [1, 1, 2])
    return Proposals(scaled, tf.zeros(tf.shape(scaled)[:2]), num_valid)


def random_regions(num_images: int, num_regions: int, seed: int = 0) -> np.ndarray:
    """Returns random regions float32 [num_images, num_regions, 4], for tests and measurements."""
    generator = np.random.default_rng(seed)
    sizes = np.exp(generator.uniform(np.log(_SMALLEST), np.log(_LARGEST), (num_images, num_regions, 2)))
    corners = generator.uniform(0.0, 1.0, (num_images, num_regions, 2)) * (1.0 - sizes)
    return np.concatenate([corners, corners + sizes], axis=-1).astype(np.float32)
