"""Annotated images as the importers read them, before anything is checked: the input of the conversion.

Flow: ``import_{coco,voc,yolo,csv}``, ``shapes`` -> Annotations -> ``repair`` -> ``record_writer`` -> TFRecord shards.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from detzoo.data.record_keys import SIDES
from detzoo.files import images
from detzoo.files.issues import DataIssue

# In sides of the image; pycocotools walks along the outline pixel by pixel, and crashes if it is too long.
MAX_POLYGON_SPAN = 10
ELLIPSE_POINTS = 72  # a multiple of 4, so that the box around them is that of the ellipse


@dataclasses.dataclass(frozen=True, slots=True)
class AnnotatedObject:
    """One object of an annotation.

    ``box`` is (ymin, xmin, ymax, xmax) in pixels, or in fractions if the image has ``boxes_are_normalized``. ``mask``
    draws the object: (height, width) of the annotated image -> uint8 [height, width] of 0 and 1. ``where`` names the
    file and line (or annotation id), for messages.
    """

    box: tuple[float, float, float, float]
    class_name: str
    where: str
    area_px: float | None = None
    is_crowd: bool = False
    is_difficult: bool = False
    is_truncated: bool = False
    is_group_of: bool = False
    view: str = ""
    mask: Callable[[int, int], np.ndarray] | None = None
    keypoints: tuple[tuple[float, float, int], ...] = ()  # y, x as in ``box``; 0 not labelled, 1 hidden, 2 visible


@dataclasses.dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """One image file with its objects.

    ``declared_size`` is the (height, width) that the annotation states, or None. ``content`` has, or returns, the
    encoded bytes of an image that is no file, such as a drawn one. ``unusable`` is the reason if there is no image to
    read. ``subset`` is the part of the data set that the annotation states, such as "Train", or "". ``record`` returns
    a serialized tf.Example that is written as it is. ``verified_classes`` are the names of the classes that somebody
    verified as present or absent in the image, None if the data set has no such labels.
    """

    path: pathlib.Path
    filename: str
    source_id: str
    objects: Sequence[AnnotatedObject]
    declared_size: tuple[int, int] | None = None
    boxes_are_normalized: bool = False
    content: bytes | Callable[[], bytes] | None = None
    unusable: tuple[DataIssue, str] | None = None
    subset: str = ""
    record: Callable[[], bytes] | None = None
    verified_classes: tuple[str, ...] | None = None

    def read(self) -> bytes:
        """Returns the encoded image; raises UnusableImage if its file cannot be read."""
        if self.content is None:
            return images.read_content(self.path)
        return self.content if isinstance(self.content, bytes) else self.content()


class Annotations(NamedTuple):
    """A whole data set: its images in a fixed order, and the name of each class id (ids from 1, gaps allowed)."""

    images: list[AnnotatedImage]
    class_names: dict[int, str]
    # Name of a class -> the names of its objects' keypoints, if any.
    keypoint_names: Mapping[str, tuple[str, ...]] = types.MappingProxyType({})
    is_test_set: bool = False  # the images have no published objects


def shown_box(box: Sequence[float] | np.ndarray) -> str:
    """Returns (ymin, xmin, ymax, xmax) as text for messages."""
    return ", ".join(f"{side} {value:g}" for side, value in zip(SIDES, box))


def numbered(names: set[str] | list[str]) -> dict[int, str]:
    """Returns class names with ids from 1; a set is sorted."""
    ordered = sorted(names) if isinstance(names, set) else names
    return dict(enumerate(ordered, start=1))


def polygons_of(outline: Any, size: tuple[int, int] | None = None) -> tuple[list[np.ndarray], list[str]]:
    """Reads the polygons of an outline at any nesting.

    Args:
        outline: One polygon [x0, y0, ...] or [[x0, y0], ...], or a list of polygons; numbers may be text.
        size: (height, width) of the image, by which polygons far outside are found.

    Returns:
        The polygons, float64 [2 * points] of x0, y0, x1, y1, ..., and the reason for each that was dropped.
    """
    if _is_list_of(outline, (int, float, str)) or _is_list_of(outline, (list,), length=2):
        outline = [outline]
    elif _is_list_of(outline, (list,)) and all(
        _is_list_of(part, (list,)) and _is_list_of(part[0], (list,)) for part in outline
    ):
        outline = [polygon for part in outline for polygon in part]  # one level more than COCO has
    polygons, reasons = [], []
    for part in outline if isinstance(outline, list) else []:
        try:
            polygon = np.asarray(part, np.float64).ravel()
            check_polygon(polygon, size)
        except (TypeError, ValueError, OverflowError) as error:
            reasons.append(str(error))
        else:
            polygons.append(polygon)
    return polygons, reasons


def _is_list_of(value: Any, kinds: tuple[type, ...], length: int | None = None) -> bool:
    """Returns True for a list, not empty, of items of these types (and lists of this length)."""
    if not isinstance(value, list) or not value or not all(isinstance(item, kinds) for item in value):
        return False
    return length is None or all(len(item) == length for item in value)


def check_polygon(polygon_px: np.ndarray, size: tuple[int, int] | None) -> None:
    """Raises ValueError: fewer than three points, or a coordinate that is not finite or far outside."""
    if len(polygon_px) < 6 or len(polygon_px) % 2 or not np.isfinite(polygon_px).all():
        raise ValueError(f"a polygon of {len(polygon_px)} numbers; 6 or more finite ones, an even count, are needed")
    farthest = np.abs(polygon_px).max()
    if size is not None and farthest > MAX_POLYGON_SPAN * max(size):
        raise ValueError(f"a polygon reaches to {farthest:g} in an image of {size[1]} x {size[0]}")


def box_of_polygons(polygons_px: Sequence[Sequence[float] | np.ndarray]) -> tuple[float, float, float, float]:
    """Returns (ymin, xmin, ymax, xmax) around polygons [x0, y0, x1, y1, ...], one at least."""
    points = np.concatenate([np.reshape(polygon, (-1, 2)) for polygon in polygons_px])
    (xmin, ymin), (xmax, ymax) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    return ymin, xmin, ymax, xmax


def box_of_rotated(x: float, y: float, width: float, height: float, angle: float) -> tuple[float, float, float, float]:
    """Returns the upright (ymin, xmin, ymax, xmax) around a box of centre (x, y), turned by ``angle`` in radians."""
    across, down = abs(math.cos(angle)), abs(math.sin(angle))
    half_width, half_height = (width * across + height * down) / 2, (width * down + height * across) / 2
    return y - half_height, x - half_width, y + half_height, x + half_width


def ellipse_polygon(x: float, y: float, radius_x: float, radius_y: float, angle: float = 0.0) -> np.ndarray:
    """Returns an ellipse of centre (x, y), turned by ``angle`` in radians, as float64 [2 * points] of x0, y0, ...

    Raises:
        ValueError: A number is not finite.
    """
    if not np.isfinite([x, y, radius_x, radius_y, angle]).all():
        raise ValueError(f"an ellipse at {x:g}, {y:g} with radii {radius_x:g} and {radius_y:g}")
    turns = np.linspace(0.0, 2 * math.pi, ELLIPSE_POINTS, endpoint=False)
    across, down = radius_x * np.cos(turns), radius_y * np.sin(turns)
    cos, sin = math.cos(angle), math.sin(angle)
    return np.stack([x + across * cos - down * sin, y + across * sin + down * cos], axis=1).ravel()


def paste_mask(part: np.ndarray, left: float, top: float, height: int, width: int) -> np.ndarray:
    """Returns uint8 [height, width] of 0 and 1 with a part, [rows, columns] of truth values, at its corner."""
    mask = np.zeros((height, width), np.uint8)
    row, column = max(round(top), 0), max(round(left), 0)
    inside = part[row - round(top) :, column - round(left) :][: max(height - row, 0), : max(width - column, 0)]
    mask[row : row + inside.shape[0], column : column + inside.shape[1]] = inside
    return mask


def mask_from_polygons(polygons_px: Sequence[Sequence[float] | np.ndarray], height: int, width: int) -> np.ndarray:
    """Draws the union of polygons [x0, y0, x1, y1, ...] in pixels as COCO does: uint8 [height, width] of 0 and 1.

    Raises:
        ValueError: As ``check_polygon``.
    """
    from pycocotools import mask as coco_mask

    for polygon in polygons_px:
        check_polygon(np.asarray(polygon, np.float64), (height, width))
    runs = coco_mask.frPyObjects([[float(value) for value in polygon] for polygon in polygons_px], height, width)
    return coco_mask.decode(runs).max(axis=2)
