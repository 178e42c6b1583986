"""Detects on images of any source (files, folders, globs, arrays and PIL images) in batches, for all callers.

images -> upright RGB, read ahead of the detector -> batches -> detections within the limits -> one ``Result`` per image
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import os
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from detzoo.datasets.conversion import MAX_WAITING_BYTES, in_parallel
from detzoo.errors import DataError, UsageError
from detzoo.files.image_files import find_images
from detzoo.files.images import UnusableImage, pixels_of, read_upright
from detzoo.files.issues import DataIssue
from detzoo.serving.image_detector import ImageDetections, ImageDetector
from detzoo.tasks.result import Result

ACCEPTED = "a path, a uint8 array [H, W, 3] in RGB, a PIL image, or a list of these"

Regions = Callable[["GivenImage", "tuple[int, int]"], np.ndarray]

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class DetectionLimits:
    """The detections that are listed and drawn."""

    score_threshold: float = 0.5  # least score
    max_boxes: int = 100  # detections per image at most, the best ones
    # A detection that overlaps a better one of its class by a greater IoU (of masks, if there are any) is listed,
    # but not drawn; 1 draws all.
    max_drawn_overlap: float = 1.0
    keypoint_edges: tuple[tuple[int, int], ...] = ()  # see ``ImageDetector``


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


class Unusable(NamedTuple):
    """An image that cannot be detected on."""

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
    """Yields the result of each image as ``detect_batches``.

    Raises:
        DataError: An image that was named itself cannot be used. One of a folder or pattern is skipped with a warning.
    """
    for result in detect_batches(detector, images, names, limits, batch_size, regions):
        if isinstance(result, Result):
            yield result
        elif result.image.is_found:
            logger.warning("%s is skipped: %s", result.image.name, result.reason)
        else:
            raise DataError(f"{result.image.name} cannot be used: {result.reason}")


def detect_batches(
    detector: ImageDetector,
    images: Iterable[GivenImage],
    names: Mapping[int, str],
    limits: DetectionLimits,
    batch_size: int = 1,
    regions: Regions | None = None,
) -> Iterator[Result | Unusable]:
    """Yields the result of each image once its batch is done; only a few batches are in memory at a time.

    Files are decoded by threads ahead of the detector.

    Args:
        detector: The model.
        images: The images; they may be produced without end.
        names: Name by class id.
        limits: The detections to keep.
        batch_size: Images per call of a model that takes several; fewer if they are large.
        regions: Image and its (height, width) -> regions to classify, for a detector that requires proposals.
    """
    for batch in _batches(images, batch_size):
        usable = [item for item in batch if isinstance(item, GivenImage)]
        done = iter(_detect_batch(detector, usable, names, limits, regions))
        yield from (next(done) if isinstance(item, GivenImage) else item for item in batch)


def _detect_batch(
    detector: ImageDetector,
    batch: list[GivenImage],
    names: Mapping[int, str],
    limits: DetectionLimits,
    regions: Regions | None,
) -> list[Result | Unusable]:
    """Returns the result of each image; if the model fails on a batch, that of each image alone."""
    pixels = [np.asarray(image.pixels) for image in batch]
    given = [] if regions is None else [regions(image, each.shape[:2]) for image, each in zip(batch, pixels)]
    try:
        found = detect_pixels(detector, pixels, limits, given)
    except UnusableImage as problem:
        if len(batch) == 1:
            return [Unusable(batch[0], str(problem))]
        return [each for image in batch for each in _detect_batch(detector, [image], names, limits, regions)]
    return [
        make_result(kept, each, names, limits, image.path, image.number)
        for kept, each, image in zip(found, pixels, batch)
    ]


def _batches(images: Iterable[GivenImage], batch_size: int) -> Iterator[list[GivenImage | Unusable]]:
    batch: list[GivenImage | Unusable] = []
    for item in _read_ahead(images):
        batch.append(item)
        if len(batch) == batch_size or sum(map(_num_bytes, batch)) > MAX_WAITING_BYTES:
            yield batch
            batch = []
    if batch:
        yield batch


def _read_ahead(images: Iterable[GivenImage]) -> Iterator[GivenImage | Unusable]:
    """Yields the images with their pixels; images in memory, such as the frames of a camera, are not waited for."""
    for is_file, group in itertools.groupby(images, lambda image: image.path is not None):
        if is_file:
            yield from in_parallel(_read, group, _num_bytes)
        else:
            yield from group


def _read(image: GivenImage) -> GivenImage | Unusable:
    try:
        return image._replace(pixels=read_upright(image.path)) if image.path else image
    except UnusableImage as problem:
        return Unusable(image, str(problem))


def _num_bytes(item: GivenImage | Unusable) -> int:
    return item.pixels.nbytes if isinstance(item, GivenImage) and item.pixels is not None else 0


def detect_pixels(
    detector: ImageDetector, images: Sequence[np.ndarray], limits: DetectionLimits, regions: Sequence[np.ndarray] = ()
) -> list[ImageDetections]:
    """Returns the detections of images uint8 [H, W, 3] within the limits.

    Args:
        detector: The model.
        images: Images that are in memory at the same time.
        limits: The detections to keep.
        regions: Regions of each image to classify, for a detector that requires proposals.

    Raises:
        UnusableImage: The model cannot run on images this large.
    """
    try:
        return [apply_limits(found, limits) for found in detector.detect_all(images, regions)]
    except _model_errors() as problem:
        sizes = " and ".join(dict.fromkeys(f"{image.shape[1]} x {image.shape[0]}" for image in images))
        reason = (str(problem).strip() or type(problem).__name__).splitlines()[0][:200]
        raise UnusableImage(DataIssue.IMAGE_UNFIT, f"the model fails on {sizes} pixels: {reason}") from None


def _model_errors() -> tuple[type[Exception], ...]:
    """Returns the errors of a model that cannot run on an image: ValueError of TFLite and ONNX Runtime."""
    tensorflow = sys.modules.get("tensorflow")  # not imported for a model that runs without it
    return (ValueError, MemoryError, *((tensorflow.errors.OpError,) if tensorflow else ()))


def apply_limits(detections: ImageDetections, limits: DetectionLimits) -> ImageDetections:
    """Returns the best ``max_boxes`` detections whose score is at least the threshold, best first."""
    order = np.argsort(-detections.scores, kind="stable")
    order = order[detections.scores[order] >= limits.score_threshold][: limits.max_boxes]
    return detections.rows(order)


def make_result(
    kept: ImageDetections,
    pixels: np.ndarray,
    class_names: Mapping[int, str],
    limits: DetectionLimits,
    path: pathlib.Path | None = None,
    image_id: int = 1,
) -> Result:
    """Returns the result of an image uint8 [H, W, 3] whose detections are within the limits."""
    shape = (pixels.shape[0], pixels.shape[1])
    overlap, edges = limits.max_drawn_overlap, limits.keypoint_edges
    return Result(kept, shape, class_names, path, image_id, overlap, pixels, keypoint_edges=edges)
