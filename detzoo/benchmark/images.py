"""Images for a benchmark: a pool of different ones, so that no run repeats the previous one."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image, ImageOps

from detzoo.errors import DataError, UsageError
from detzoo.files.image_files import find_images
from detzoo.files.images import UnusableImage, read_upright
from detzoo.serving.given_regions import GivenRegions, random_regions, with_context

NUM_RANDOM = 8
MAX_POOL_BYTES = 2**29  # of decoded pixels; no more images are read
RANDOM = "random"

logger = logging.getLogger(__name__)


class Pool(NamedTuple):
    """Decoded images uint8 [H, W, 3] and their source."""

    images: list[np.ndarray]
    source: str

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """The distinct (height, width) of the images."""
        return list(dict.fromkeys(image.shape[:2] for image in self.images))

    @property
    def typical(self) -> np.ndarray:
        """The image of median area."""
        return sorted(self.images, key=lambda image: image.shape[0] * image.shape[1])[len(self.images) // 2]


def random_images(shape: tuple[int, int], count: int = NUM_RANDOM) -> Pool:
    """Returns white noise images of (height, width) in pixels."""
    generator = np.random.default_rng(0)
    return Pool([generator.integers(0, 256, (*shape, 3), np.uint8) for _ in range(count)], RANDOM)


def read_images(pattern: str, shape: tuple[int, int] | None, limit: int) -> Pool:
    """Reads images into memory; unreadable ones are skipped with a warning.

    Args:
        pattern: Files, folders or patterns, see ``find_images``.
        shape: (height, width) that each is cropped to, see ``fit``; None to keep their sizes.
        limit: Most images to read.

    Raises:
        UsageError: There are no images.
        DataError: None of the files could be read.
    """
    images: list[np.ndarray] = []
    size = num_skipped = 0
    for file in find_images([pattern]):
        try:
            image = read_upright(file)
        except UnusableImage as problem:
            logger.warning("--images: %s is skipped: %s", file, problem)
            num_skipped += 1
            continue
        images.append(image if shape is None else np.asarray(fit(Image.fromarray(image), shape)))
        size += images[-1].nbytes
        if size > MAX_POOL_BYTES or len(images) == limit:
            break
    if not images:
        raise DataError(f"--images {pattern}: none of {num_skipped} files could be read as images")
    if num_skipped:
        logger.warning("--images: %d images, %d unreadable files skipped", len(images), num_skipped)
    return Pool(images, pattern)


def fit(image: Image.Image, shape: tuple[int, int]) -> Image.Image:
    """Scales an image to the least size that covers (height, width), and crops around the centre.

    For a square k x k, the shorter side becomes k, as in arXiv:1611.10012, section 3.
    """
    height, width = shape
    return ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)


def check_pool(pool: Pool, batch_size: int, needs_one_shape: bool) -> None:
    """Raises a UsageError if images that must have one size have several."""
    if len(pool.shapes) > 1 and (batch_size > 1 or needs_one_shape):
        why = "a batch needs images of one size" if batch_size > 1 else "XLA compiles again for each size"
        raise UsageError(
            f"--images {pool.source} has {len(pool.shapes)} different sizes, and {why}: give --image_size=HEIGHTxWIDTH"
        )


def batches(detector: Any, pool: Pool, batch_size: int, num_proposals: int = 0) -> list[Any]:
    """Returns inputs of the model's signature in host memory; successive batches differ.

    If the detector classifies given regions, each image gets ``num_proposals`` random ones.
    """
    count = len(pool.images)
    starts = range(0, count, batch_size) if batch_size < count else range(min(count, 2))
    with tf.device("CPU:0"):
        given = [
            detector.as_batch([pool.images[(start + offset) % count] for offset in range(batch_size)])
            for start in starts
        ]
        if getattr(detector, "wants_context", False):
            return [with_context(images, detector.context_spec) for images in given]
        if not detector.wants_proposals:
            return given
        regions = [random_regions(batch_size, num_proposals, seed) for seed in range(len(given))]
        return [GivenRegions(images, tf.constant(boxes)) for images, boxes in zip(given, regions)]
