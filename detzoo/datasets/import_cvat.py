"""CVAT's XML "for images", version 1.1 -> Annotations.

Boxes, polygons, ellipses and masks are read, and rotated boxes and cuboids as the upright box around them. Points,
polylines, skeletons and tags bound no object and are skipped. The XML "for video" is refused.
"""

from __future__ import annotations

import functools
import math
import pathlib
import xml.etree.ElementTree as ElementTree

import numpy as np

from detzoo.datasets.annotations import (
    AnnotatedImage,
    AnnotatedObject,
    Annotations,
    box_of_polygons,
    box_of_rotated,
    ellipse_polygon,
    mask_from_polygons,
    numbered,
    paste_mask,
    polygons_of,
)
from detzoo.datasets.box_units import settle_box_units
from detzoo.datasets.source_folder import SourceFolder
from detzoo.errors import DataError
from detzoo.files.fields import as_name, as_number, as_size
from detzoo.files.images import IMAGE_SUFFIXES
from detzoo.files.issues import DataIssue, IssueLog
from detzoo.files.text_files import LINE, MalformedXml, parse_xml, read_named_text

VERSION = "1.1"
SIDES = ("ytl", "xtl", "ybr", "xbr")


def read_cvat(images_dir: str, annotations_file: str, log: IssueLog, *, follow_links: bool = False) -> Annotations:
    """Reads the images of one file in its order; arguments are as in ``read_coco``.

    Raises:
        DataError: The file is not CVAT's XML for images of version 1.1.
        UsageError: The folder or the file is not there.
    """
    path = pathlib.Path(annotations_file)
    folder = SourceFolder(images_dir, "--images_dir", IMAGE_SUFFIXES, log, follow_links=follow_links)
    root = _root(path, log)
    read = []
    for element in root.findall("image"):
        where = f"{path.name}:{element.get(LINE)}"
        stated = as_name(element.get("name"))
        if not stated:
            log.add(DataIssue.ANNOTATION_FILE_UNREADABLE, where, "image without a name")
            continue
        subset = as_name(element.get("subset"))
        placed = folder.place(stated, where, *([f"{subset}/{stated}"] if subset else []))
        objects = tuple(filter(None, (_object(shape, path.name, log) for shape in element)))
        size = as_size(element.get("height"), element.get("width"))
        read.append(
            AnnotatedImage(source_id=placed["filename"], objects=objects, declared_size=size, subset=subset, **placed)
        )
    read = settle_box_units(read, log)
    return Annotations(read, numbered({item.class_name for image in read for item in image.objects}))


def _root(path: pathlib.Path, log: IssueLog) -> ElementTree.Element:
    try:
        root = parse_xml(read_named_text(path, "--annotations_file", log))
    except MalformedXml as error:
        raise DataError(f"{path}:{error.lineno}: not well-formed XML ({error})") from None
    except ValueError as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    if root.tag != "annotations":
        raise DataError(f"{path} has the root <{root.tag[:40]}>; CVAT's XML has <annotations>")
    version = as_name(root.findtext("version")) or VERSION
    if root.find("track") is not None:
        raise DataError(
            f"{path} is CVAT's XML for video (it has <track>); export the task as 'CVAT for images 1.1', which has the"
            " boxes of each frame"
        )
    if version != VERSION:
        raise DataError(f"{path} has version {version[:20]} of CVAT's XML; export the task again in version {VERSION}")
    return root


def _object(element: ElementTree.Element, file: str, log: IssueLog) -> AnnotatedObject | None:
    where, name = f"{file}:{element.get(LINE)}", as_name(element.get("label"))
    if element.tag not in ("box", "polygon", "ellipse", "mask", "cuboid"):
        log.add(DataIssue.SHAPE_UNUSABLE, where, element.tag)
        return None
    if not name:
        log.add(DataIssue.CLASS_WITHOUT_NAME, where, "shape without a label")
        return None
    try:
        if element.tag == "box":
            return AnnotatedObject(_box(element, where, log), name, where)
        if element.tag == "mask":
            left, top, width, height = _numbers(element, "left", "top", "width", "height")
            counts = [int(count) for count in element.get("rle", "").split(",")]
            mask = functools.partial(_draw, counts, int(left), int(top), int(width), int(height))
            return AnnotatedObject((top, left, top + height, left + width), name, where, mask=mask)
        polygon = _outline(element)
    except (ValueError, OverflowError) as error:
        log.add(DataIssue.ANNOTATION_UNREADABLE, where, str(error))
        return None
    if element.tag == "cuboid":
        log.add(DataIssue.ORIENTED_BOX, where, "cuboid")
        return AnnotatedObject(box_of_polygons([polygon]), name, where)
    return AnnotatedObject(
        box_of_polygons([polygon]), name, where, mask=functools.partial(mask_from_polygons, [polygon])
    )


def _box(element: ElementTree.Element, where: str, log: IssueLog) -> tuple[float, float, float, float]:
    ymin, xmin, ymax, xmax = _numbers(element, *SIDES)
    angle = as_number(element.get("rotation") or 0)
    if angle % 180 == 0:
        return ymin, xmin, ymax, xmax
    log.add(DataIssue.ORIENTED_BOX, where, f"rotation {angle:g} degrees")
    centre = ((xmin + xmax) / 2, (ymin + ymax) / 2)
    return box_of_rotated(*centre, xmax - xmin, ymax - ymin, math.radians(angle))


def _outline(element: ElementTree.Element) -> np.ndarray:
    """Returns x0, y0, x1, y1, ... of a polygon, an ellipse or the corners of a cuboid."""
    if element.tag == "ellipse":
        angle = math.radians(as_number(element.get("rotation") or 0))
        x, y, radius_x, radius_y = _numbers(element, "cx", "cy", "rx", "ry")
        return ellipse_polygon(x, y, radius_x, radius_y, angle)
    if element.tag == "cuboid":
        return np.array(_numbers(element, *(f"{side}{end}" for end in ("tl1", "bl1", "tr1", "br1", "tl2", "bl2", "tr2",
                                                                       "br2") for side in "xy")))  # fmt: skip
    polygons, reasons = polygons_of([number for point in element.get("points", "").split(";")
                                     for number in point.split(",")])  # fmt: skip
    if not polygons:
        raise ValueError("; ".join(reasons) or "no points")
    return polygons[0]


def _numbers(element: ElementTree.Element, *names: str) -> list[float]:
    try:
        return [as_number(element.get(name)) for name in names]
    except ValueError:
        stated = ", ".join(f"{name} {(element.get(name) or 'missing')[:20]}" for name in names)
        raise ValueError(f"{element.tag} with {stated}") from None


def _draw(counts: list[int], left: int, top: int, width: int, height: int, *size: int) -> np.ndarray:
    """Draws run lengths of the rows of a box, which begin with the background: uint8 [height, width] of ``size``."""
    if min(counts) < 0 or sum(counts) != width * height or width * height > math.prod(size):
        raise ValueError(f"run lengths of {sum(counts)} pixels for a mask of {width} x {height}")
    pixels = np.repeat(np.arange(len(counts)) % 2, counts).reshape(height, width)
    return paste_mask(pixels, left, top, *size)
