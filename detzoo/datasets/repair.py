"""Repairs the boxes and masks of an annotated image: finite, ordered fractions of the upright image with an area.

EXIF orientation: stored pixels are turned upright, because annotation tools show the upright image and decoders in a
training input ignore the tag. Boxes are measured on the upright image, unless the annotation states the size of the
*stored* pixels, with height and width exchanged. Then the annotation tool ignored the tag, and the boxes are turned
with the pixels.

Stated size: the size of the image itself counts. If the stated size has the same shape as the image (to one pixel),
the image was resized after the annotation, and boxes in pixels are scaled.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image

from detzoo.datasets.annotations import AnnotatedImage, AnnotatedObject, shown_box
from detzoo.files.images import TRANSPOSES, RepairedImage
from detzoo.files.issues import DataIssue, Finding

CLIP_TOLERANCE_PX = 0.5  # a box that leaves the image by less is a rounding error, not a data issue


class RepairedObject(NamedTuple):
    """An object whose box is (ymin, xmin, ymax, xmax) in fractions of the upright image, with an area."""

    box_norm: tuple[float, float, float, float]
    area_px: float
    mask: np.ndarray | None  # uint8 [height, width] of the upright image
    source: AnnotatedObject
    keypoints: tuple[tuple[float, float, int], ...] = ()  # y, x in fractions of the upright image, and visibility


def turn_box(box: tuple[float, float, float, float], orientation: int) -> tuple[float, float, float, float]:
    """Converts fractions of the stored pixels to fractions of the upright image.

    The inverse is ``turn_box`` with the inverse orientation: 6 and 8 are inverse to each other, others to themselves.
    """
    ymin, xmin, ymax, xmax = box
    if orientation in (5, 6, 7, 8):  # rows become columns first
        ymin, xmin, ymax, xmax = xmin, ymin, xmax, ymax
    if orientation in (2, 3, 6, 7):  # then left and right change places
        xmin, xmax = 1.0 - xmax, 1.0 - xmin
    if orientation in (3, 4, 7, 8):  # and top and bottom
        ymin, ymax = 1.0 - ymax, 1.0 - ymin
    return ymin, xmin, ymax, xmax


class _Frame(NamedTuple):
    """Image that the annotator saw, on which boxes and masks are measured."""

    size: tuple[int, int]  # (height, width)
    orientation: int  # EXIF orientation that turns it upright
    boxes_are_normalized: bool


def repair_objects(
    annotated: AnnotatedImage, image: RepairedImage, *, with_masks: bool = True
) -> tuple[list[RepairedObject], list[Finding]]:
    """Returns the usable objects of one image, as fractions of the upright image, and the findings, both in order."""
    frame, findings = _frame(annotated, image)
    repaired = []
    for item in annotated.objects:
        box, flaws = _repair_box(item.box, frame)
        mask = None
        if box is not None and with_masks and item.mask is not None:
            mask, detail = _mask(item.mask, frame, image.size)
            if detail:
                flaws.append((DataIssue.MASK_UNREADABLE, detail))
        findings.extend(Finding(issue, item.where, detail) for issue, detail in flaws)
        if box is not None:
            area = _area(item, box, mask, frame, image.size)
            repaired.append(RepairedObject(box, area, mask, item, _keypoints(item, frame)))
    return repaired, findings


def _frame(annotated: AnnotatedImage, image: RepairedImage) -> tuple[_Frame, list[Finding]]:
    """Returns the image that the boxes are measured on; see the module's docstring."""
    stated, normalized = annotated.declared_size, annotated.boxes_are_normalized
    upright = _Frame(image.size, 1, normalized)
    if stated is None or stated == image.size:
        return upright, []
    height, width = image.size
    if image.orientation in (5, 6, 7, 8) and stated == (width, height):
        return _Frame(stated, image.orientation, normalized), []
    seen = f"stated {stated[1]} x {stated[0]}, is {width} x {height}"
    if normalized or not _same_shape(stated, image.size):
        return upright, [Finding(DataIssue.SIZE_WRONG, annotated.filename, seen)]
    return _Frame(stated, 1, normalized), [Finding(DataIssue.SIZE_SCALED, annotated.filename, seen)]


def _same_shape(stated: tuple[int, int], actual: tuple[int, int]) -> bool:
    """Returns True if one size is the other one scaled, to within a pixel of the smaller one."""
    if min(*stated, *actual) <= 0:
        return False
    small, big = sorted((stated, actual))
    return abs(small[0] - big[0] * small[1] / big[1]) <= 1 or abs(small[1] - big[1] * small[0] / big[0]) <= 1


def _repair_box(
    box: tuple[float, float, float, float], frame: _Frame
) -> tuple[tuple[float, float, float, float] | None, list[tuple[DataIssue, str]]]:
    """Converts units of the frame to fractions of the upright image; returns None if no area is left."""
    shown = shown_box(box)
    if not all(map(math.isfinite, box)):
        return None, [(DataIssue.BOX_NOT_FINITE, shown)]
    flaws = []
    ymin, xmin, ymax, xmax = box
    if ymin > ymax or xmin > xmax:
        flaws.append((DataIssue.BOX_INVERTED, shown))
        ymin, ymax, xmin, xmax = min(ymin, ymax), max(ymin, ymax), min(xmin, xmax), max(xmin, xmax)
    if ymin == ymax or xmin == xmax:
        return None, [*flaws, (DataIssue.BOX_WITHOUT_AREA, shown)]
    height, width = (1, 1) if frame.boxes_are_normalized else frame.size
    fractions = (ymin / height, xmin / width, ymax / height, xmax / width)
    top, left, bottom, right = (
        float(np.float32(min(max(value, 0.0), 1.0))) for value in turn_box(fractions, frame.orientation)
    )
    if top >= bottom or left >= right:
        outside = min(fractions[2:]) <= 0.0 or max(fractions[:2]) >= 1.0
        return None, [*flaws, (DataIssue.BOX_OUTSIDE if outside else DataIssue.BOX_WITHOUT_AREA, shown)]
    overshoot_px = max(
        max(-fractions[0], fractions[2] - 1.0) * frame.size[0], max(-fractions[1], fractions[3] - 1.0) * frame.size[1]
    )
    if overshoot_px > CLIP_TOLERANCE_PX:
        flaws.append((DataIssue.BOX_CLIPPED, f"by {overshoot_px:.3g} pixels"))
    return (top, left, bottom, right), flaws


def _mask(draw: Callable[[int, int], np.ndarray], frame: _Frame, size: tuple[int, int]) -> tuple[np.ndarray, str]:
    """Returns the mask on the upright image, and the reason if it cannot be drawn (then it is empty)."""
    height, width = frame.size
    try:
        mask = draw(height, width)
    except Exception as error:  # pycocotools raises bare Exceptions and TypeErrors on malformed segmentations
        return np.zeros(size, np.uint8), str(error)
    if mask.shape != (height, width):
        return np.zeros(size, np.uint8), f"mask of shape {mask.shape} for {height} x {width} pixels"
    if (height, width) == size and frame.orientation == 1:
        return np.ascontiguousarray(mask, np.uint8), ""
    picture = Image.fromarray(np.ascontiguousarray(mask, np.uint8))
    if frame.orientation in TRANSPOSES:
        picture = picture.transpose(TRANSPOSES[frame.orientation])
    return np.asarray(picture.resize((size[1], size[0]), Image.Resampling.NEAREST)), ""


def _area(
    item: AnnotatedObject,
    box_norm: tuple[float, float, float, float],
    mask: np.ndarray | None,
    frame: _Frame,
    size: tuple[int, int],
) -> float:
    """Returns the area in pixels of the upright image: as annotated, otherwise of the mask or the box."""
    pixels = size[0] * size[1]
    if item.area_px is not None and math.isfinite(item.area_px) and item.area_px > 0:
        return item.area_px * pixels / (frame.size[0] * frame.size[1])
    if mask is not None and mask.any():
        return float(mask.sum())
    return (box_norm[2] - box_norm[0]) * (box_norm[3] - box_norm[1]) * pixels


def _keypoints(item: AnnotatedObject, frame: _Frame) -> tuple[tuple[float, float, int], ...]:
    """Returns keypoints in fractions of the upright image; those outside of it are not labelled."""
    height, width = (1.0, 1.0) if frame.boxes_are_normalized else frame.size
    points = []
    for y, x, visibility in item.keypoints:
        y, x, *_ = turn_box((y / height, x / width, y / height, x / width), frame.orientation)
        points.append((y, x, visibility if 0.0 <= y <= 1.0 and 0.0 <= x <= 1.0 else 0))
    return tuple(points)
