"""Detects on images that a Python program gives: files, folders, globs, arrays and PIL images, in batches.

images -> upright RGB, read ahead of the detector -> batches -> one ``Result`` per image
"""

from __future__ import annotations

import collections
import concurrent.futures
import itertools
import logging
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from detzoo.errors import DataError, UsageError
from detzoo.files.image_files import find_images
from detzoo.files.images import UnusableImage, pixels_of, read_upright
from detzoo.serving.image_detector import ImageDetector
from detzoo.tasks.detect_files import DetectionLimits, detect_pixels, make_result
from detzoo.tasks.result import Result

ACCEPTED = "a path, a uint8 array [H, W, 3] in RGB, a PIL image, or a list of these"
_READERS = 2  # threads that decode images while the detector runs

Regions = Callable[["GivenImage", "tuple[int, int]"], np.ndarray]

logger = logging.getLogger(__name__)


class GivenImage(NamedTuple):
    """An image of a call."""

    number: int  # in the call, from 1
    path: pathlib.Path | None = None
    pixels: np.ndarray | None = None  # uint8 [H, W, 3]; None to read them from the file
    is_found: bool = False  # by a folder or pattern, and not named itself: skipped if it cannot be used

    @property
    def name(self) -> str:
        """The image, for messages."""
        return str(self.path) if self.path else f"image {self.number}"


class _Unusable(NamedTuple):
    image: GivenImage
    reason: str


def is_one_image(images: Any) -> bool:
    """Returns True for a single array, PIL image or file, False for a list, a folder or a pattern."""
    if isinstance(images, str | os.PathLike):
        path = os.fspath(images)
        return os.path.lexists(path) and not os.path.isdir(path)
    return isinstance(images, Image.Image) or hasattr(images, "__array__")


def given_images(images: Any) -> Iterator[GivenImage]:
    """Yields the images of a call; folders and patterns are searched as by `detzoo detect`.

    Raises:
        UsageError: An array has another shape or type, a path does not exist, or an object is no image.
        DataError: A PIL image cannot be decoded.
    """
    numbers = itertools.count(1)
    if is_one_image(images) or isinstance(images, str | os.PathLike):
        images = [images]
    elif not isinstance(images, Iterable):
        raise UsageError(f"images is a {type(images).__name__}; accepted: {ACCEPTED}")
    for image in images:
        if isinstance(image, str | os.PathLike):
            is_found = not is_one_image(image)
            for path in find_images([os.fspath(image)]):
                yield GivenImage(next(numbers), path, is_found=is_found)
        else:
            number = next(numbers)
            yield GivenImage(number, pixels=_checked_pixels(image, number))


def _checked_pixels(image: Any, number: int) -> np.ndarray:
    """Returns the pixels of an array or a PIL image."""
    if isinstance(image, Image.Image):
        try:
            return pixels_of(image)
        except UnusableImage as problem:
            raise DataError(f"image {number} cannot be used: {problem}") from None
    if not hasattr(image, "__array__"):
        raise UsageError(f"image {number} is a {type(image).__name__}; accepted: {ACCEPTED}")
    pixels = np.asarray(image)
    remedy = _remedy(pixels)
    if remedy:
        found = f"{pixels.dtype} {list(pixels.shape)}"
        raise UsageError(f"image {number} is {found}; accepted: uint8 [H, W, 3] in RGB, 0 to 255. {remedy}")
    return pixels


def _remedy(pixels: np.ndarray) -> str:
    """Returns the way to a correct image, "" if it is one."""
    shape = pixels.shape
    if not pixels.size:
        return "It has no pixels"
    if pixels.ndim == 4:
        return "It is a batch: give list(images)"
    if pixels.ndim == 2 or (pixels.ndim == 3 and shape[2] == 1):
        return "It is grayscale: give np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)"
    if pixels.ndim != 3:
        return "It is no image"
    if shape[2] == 4:
        return "It has an alpha channel: give image[:, :, :3]"
    if shape[2] != 3:
        return "Its channels come first: give image.transpose(1, 2, 0)" if shape[0] == 3 else "It is no image in RGB"
    if pixels.dtype == np.uint8:
        return ""
    if np.issubdtype(pixels.dtype, np.floating) and 0.0 <= pixels.min() <= pixels.max() <= 1.0:
        return "Its values are 0 to 1: give (image * 255).round().astype(np.uint8)"
    if 0 <= pixels.min() <= pixels.max() <= 255:
        return "Give image.astype(np.uint8)"
    return f"Its values are {pixels.min():g} to {pixels.max():g}: scale them to 0 to 255 first"


def detect_each(
    detector: ImageDetector,
    images: Iterable[GivenImage],
    names: Mapping[int, str],
    limits: DetectionLimits,
    batch_size: int = 1,
    regions: Regions | None = None,
) -> Iterator[Result]:
    """Yields the result of each image once its batch is done; only a few batches are in memory at a time.

    Args:
        detector: The model.
        images: The images; they may be produced without end.
        names: Name by class id.
        limits: The detections to keep.
        batch_size: Images per call of a model that takes several.
        regions: Image and its (height, width) -> regions to classify, for a detector that requires proposals.

    Raises:
        DataError: An image that was named itself cannot be used. One of a folder or pattern is skipped with a warning.
    """
    read = _read_ahead(images, 2 * batch_size)
    while batch := list(itertools.islice(read, batch_size)):
        usable = [item for item in batch if isinstance(item, GivenImage)]
        done = iter(_detect_batch(detector, usable, names, limits, regions))
        for item in batch:
            result = next(done) if isinstance(item, GivenImage) else item
            if isinstance(result, Result):
                yield result
            elif result.image.is_found:
                logger.warning("%s is skipped: %s", result.image.name, result.reason)
            else:
                raise DataError(f"{result.image.name} cannot be used: {result.reason}")


def _detect_batch(
    detector: ImageDetector,
    batch: list[GivenImage],
    names: Mapping[int, str],
    limits: DetectionLimits,
    regions: Regions | None,
) -> list[Result | _Unusable]:
    """Returns the result of each image; if the model fails on a batch, that of each image alone."""
    pixels = [np.asarray(image.pixels) for image in batch]
    given = [] if regions is None else [regions(image, each.shape[:2]) for image, each in zip(batch, pixels)]
    try:
        found = detect_pixels(detector, pixels, limits, given)
    except UnusableImage as problem:
        if len(batch) == 1:
            return [_Unusable(batch[0], str(problem))]
        return [each for image in batch for each in _detect_batch(detector, [image], names, limits, regions)]
    return [
        make_result(kept, each, names, limits, image.path, image.number)
        for kept, each, image in zip(found, pixels, batch)
    ]


def _read_ahead(images: Iterable[GivenImage], most: int) -> Iterator[GivenImage | _Unusable]:
    """Yields the images with their pixels, of which ``most`` are read ahead by other threads."""
    waiting: collections.deque[concurrent.futures.Future[GivenImage | _Unusable]] = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(_READERS) as pool:
        for image in images:
            waiting.append(pool.submit(_read, image))
            if len(waiting) > most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _read(image: GivenImage) -> GivenImage | _Unusable:
    if image.path is None:
        return image
    try:
        return image._replace(pixels=read_upright(image.path))
    except UnusableImage as problem:
        return _Unusable(image, str(problem))
