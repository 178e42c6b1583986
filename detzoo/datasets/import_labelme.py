"""labelme annotation files (one JSON file per image) -> Annotations.

Rectangles, polygons, circles and masks are read, and oriented boxes (4 points of ``rotation``) as the upright box
around them. Points and lines bound no object and are skipped. An image that is missing as a file is read from
``imageData``, if the JSON has it.
"""

from __future__ import annotations

import base64
import functools
import pathlib
import posixpath
from typing import Any

import numpy as np

from detzoo.datasets.annotations import (
    AnnotatedImage,
    AnnotatedObject,
    Annotations,
    box_of_polygons,
    ellipse_polygon,
    mask_from_polygons,
    numbered,
    paste_mask,
)
from detzoo.datasets.box_units import settle_box_units
from detzoo.datasets.source_folder import SourceFile, SourceFolder
from detzoo.files import images as image_files
from detzoo.files.fields import as_flag, as_name, as_number, as_size, shown
from detzoo.files.issues import DataIssue, IssueLog
from detzoo.files.text_files import parse_json

UNBOUNDED = ("point", "points", "line", "linestrip")


def read_labelme(images_dir: str, annotations_dir: str, log: IssueLog, *, follow_links: bool = False) -> Annotations:
    """Reads the JSON files below a folder in the order of their names; arguments and errors are as in ``read_voc``."""
    images = SourceFolder(images_dir, "--images_dir", image_files.IMAGE_SUFFIXES, log, follow_links=follow_links)
    annotations = SourceFolder(annotations_dir, "--annotations_dir", (".json",), log, follow_links=follow_links)
    read = []
    for file in annotations.files:
        try:
            content = _content(annotations, file, log)
        except (OSError, ValueError) as error:
            log.add(DataIssue.ANNOTATION_FILE_UNREADABLE, file.relative, str(error))
            continue
        placed = images.place_by(file.relative, as_name(content.get("imagePath")).replace("\\", "/"))
        if placed["unusable"] and placed["unusable"][0] is DataIssue.IMAGE_MISSING and content.get("imageData"):
            path = annotations.path / file.relative
            placed = {"path": path, "filename": placed["filename"], "content": functools.partial(_embedded, path)}
        objects = [
            _object(shape, f"{file.relative}: shapes[{index}]", log) for index, shape in enumerate(content["shapes"])
        ]
        size = as_size(content.get("imageHeight"), content.get("imageWidth"))
        read.append(
            AnnotatedImage(
                source_id=placed["filename"],
                objects=tuple(filter(None, objects)),
                declared_size=size,
                subset=posixpath.basename(posixpath.dirname(file.relative)),
                **placed,
            )
        )
    read = settle_box_units(read, log)
    return Annotations(read, numbered({item.class_name for image in read for item in image.objects}))


def _content(folder: SourceFolder, file: SourceFile, log: IssueLog) -> dict[str, Any]:
    content = parse_json(folder.read_text(file))
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise ValueError("a labelme file is a JSON object with a list 'shapes'")
    return content


def _embedded(path: pathlib.Path) -> bytes:
    """Returns the image inside of a JSON file, which is read again so that memory holds one image at a time."""
    try:
        return base64.b64decode(parse_json(path.read_text(encoding="utf-8"))["imageData"])
    except (OSError, ValueError, TypeError) as error:
        raise image_files.UnusableImage(DataIssue.IMAGE_CORRUPT, f"imageData: {error}") from None


def _object(shape: Any, where: str, log: IssueLog) -> AnnotatedObject | None:
    shape = shape if isinstance(shape, dict) else {}
    kind, name = as_name(shape.get("shape_type")) or "polygon", as_name(shape.get("label"))
    if kind in UNBOUNDED:
        log.add(DataIssue.SHAPE_UNUSABLE, where, kind)
        return None
    if not name:
        log.add(DataIssue.CLASS_WITHOUT_NAME, where, "shape without a label")
        return None
    try:
        points = np.array([[as_number(x), as_number(y)] for x, y in shape["points"]])
        if kind == "circle":
            (x, y), (edge_x, edge_y) = points
            points = ellipse_polygon(x, y, *[float(np.hypot(edge_x - x, edge_y - y))] * 2).reshape(-1, 2)
        if len(points) < 2:
            raise ValueError
    except (KeyError, TypeError, ValueError):
        log.add(DataIssue.ANNOTATION_UNREADABLE, where, f"{kind} with points {shown(shape.get('points'))}")
        return None
    outline = points.ravel().tolist()
    mask = None
    if kind == "mask":
        mask = functools.partial(_draw, as_name(shape.get("mask")), tuple(points.min(axis=0)))
    elif kind in ("polygon", "circle") and len(points) > 2:
        mask = functools.partial(mask_from_polygons, [outline])
    elif kind == "rotation":
        log.add(DataIssue.ORIENTED_BOX, where)
    difficult = as_flag(shape.get("difficult"), where, log)
    return AnnotatedObject(box_of_polygons([outline]), name, where, is_difficult=difficult, mask=mask)


def _draw(encoded: str, corner: tuple[float, float], height: int, width: int) -> np.ndarray:
    picture = image_files.open_header(base64.b64decode(encoded)).convert("L")
    return paste_mask(np.asarray(picture) > 0, *corner, height, width)
