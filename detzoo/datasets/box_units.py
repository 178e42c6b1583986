"""Detects boxes in units that a format does not have: fractions for pixels, sizes for corners.

A single object cannot show the unit, but all objects of a data set can. The importers of formats in pixels end here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator

from detzoo.datasets.annotations import AnnotatedImage, AnnotatedObject, shown_box
from detzoo.files.issues import DataIssue, IssueLog

TOLERANCE = 0.02  # by which fractions leave 0..1
MIN_INVERTED_FOR_SIZES = 3  # of a data set whose maxima are read as sizes; also a quarter of its boxes


def settle_box_units(images: list[AnnotatedImage], log: IssueLog) -> list[AnnotatedImage]:
    """Returns the images with boxes in pixels, or marked as fractions where all boxes of the data set lie in 0..1.

    A box with a maximum below its minimum has exchanged corners, or its width and height in place of the maximum. If
    some box of the data set cannot have the second meaning, the repair exchanges the corners later.
    """
    num_boxes = num_finite = num_inverted = 0
    are_fractions = may_have_sizes = True
    for image in images:
        for item in image.objects:
            num_boxes += 1
            may_have_sizes = may_have_sizes and _may_have_size(item.box, image.declared_size)
            if all(map(math.isfinite, item.box)):
                num_finite += 1
                num_inverted += _is_inverted(item.box)
                are_fractions = are_fractions and all(-TOLERANCE <= side <= 1.0 + TOLERANCE for side in item.box)
    if num_finite and are_fractions:
        log.add(DataIssue.FRACTIONS, next(_objects(images)).where, f"{num_finite} boxes")
        return [dataclasses.replace(image, boxes_are_normalized=True) for image in images]
    if not num_inverted or not may_have_sizes:
        return images
    if num_inverted < max(MIN_INVERTED_FOR_SIZES, num_boxes / 4):
        return [_with_objects(image, lambda item: _refused(item, log)) for image in images]
    log.add(DataIssue.SIZE_FOR_CORNER, next(_objects(images)).where, f"{num_boxes} boxes")
    return [_with_objects(image, _with_corners) for image in images]


def _objects(images: list[AnnotatedImage]) -> Iterator[AnnotatedObject]:
    return (item for image in images for item in image.objects)


def _with_objects(image: AnnotatedImage, change: Callable[[AnnotatedObject], AnnotatedObject | None]) -> AnnotatedImage:
    return dataclasses.replace(image, objects=tuple(filter(None, map(change, image.objects))))


def _is_inverted(box: tuple[float, float, float, float]) -> bool:
    return box[2] < box[0] or box[3] < box[1]


def _may_have_size(box: tuple[float, float, float, float], size: tuple[int, int] | None) -> bool:
    """Returns True if (ymin, xmin, height, width) lies in an image of known size, to a pixel."""
    if size is None:
        return False
    ymin, xmin, height, width = box
    return min(height, width) > 0 and ymin + height <= size[0] + 1 and xmin + width <= size[1] + 1


def _refused(item: AnnotatedObject, log: IssueLog) -> AnnotatedObject | None:
    if not _is_inverted(item.box):
        return item
    log.add(DataIssue.CORNER_OR_SIZE, item.where, shown_box(item.box))
    return None


def _with_corners(item: AnnotatedObject) -> AnnotatedObject:
    ymin, xmin, height, width = item.box
    return dataclasses.replace(item, box=(ymin, xmin, ymin + height, xmin + width))
