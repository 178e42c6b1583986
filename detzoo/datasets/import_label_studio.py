"""Label Studio's exports "JSON" and "JSON-MIN" -> Annotations.

Boxes are in percent of the image, and a rotation turns them about their upper left corner: the upright box around them
is used. Polygons and ellipses become masks, too. Keypoints, brushes and choices bound no object that can be read here
and are skipped. Predictions and cancelled annotations are ignored. Of several annotations of a task the one marked as
ground truth counts, else the first one.
"""

from __future__ import annotations

import functools
import math
import pathlib
from collections.abc import Iterator
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
)
from detzoo.datasets.source_folder import SourceFolder
from detzoo.errors import DataError
from detzoo.files.fields import as_name, as_number, as_size, shown
from detzoo.files.images import IMAGE_SUFFIXES
from detzoo.files.issues import DataIssue, IssueLog
from detzoo.files.text_files import load_json

Json = dict[str, Any]


def read_label_studio(
    images_dir: str, annotations_file: str, log: IssueLog, *, follow_links: bool = False
) -> Annotations:
    """Reads the tasks of one file in its order; arguments are as in ``read_coco``.

    Raises:
        DataError: The file is not a list of Label Studio's tasks.
        UsageError: The folder or the file is not there.
    """
    path = pathlib.Path(annotations_file)
    folder = SourceFolder(images_dir, "--images_dir", IMAGE_SUFFIXES, log, follow_links=follow_links)
    tasks = load_json(path, "--annotations_file", log)
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise DataError(f"{path} is not a list of tasks, as Label Studio exports them as JSON")
    read = []
    for index, task in enumerate(tasks):
        where = f"{path.name}: task {as_name(task.get('id')) or f'number {index}'}"
        results = _results(task, where, log)
        stated = _image_name(task, results)
        if not stated:
            log.add(DataIssue.ANNOTATION_FILE_UNREADABLE, where, "no image in its data")
            continue
        upload = as_name(task.get("file_upload"))
        placed = folder.place(stated, where, *([upload] if upload else []))
        size = next(filter(None, map(_size, results)), None)
        objects = [
            _object(result, size, f"{where}, result {as_name(result.get('id')) or number}", log)
            for number, result in enumerate(results)
        ]
        kept = tuple(filter(None, objects))
        read.append(
            AnnotatedImage(
                source_id=placed["filename"],
                objects=kept,
                declared_size=size,
                boxes_are_normalized=True,
                **placed,
            )
        )
    return Annotations(read, numbered({item.class_name for image in read for item in image.objects}))


def _results(task: Json, where: str, log: IssueLog) -> list[Json]:
    """Returns the regions of a task; a label and a shape of the same id are joined."""
    stated = task.get("annotations", task.get("completions"))
    if isinstance(stated, list):
        usable = [each for each in stated if isinstance(each, dict) and not each.get("was_cancelled")]
        chosen = next((each for each in usable if each.get("ground_truth")), usable[0] if usable else {})
        results = chosen.get("result")
    else:  # JSON-MIN has lists of values next to the image
        lists = [value for value in task.values() if isinstance(value, list)]
        results = [{"value": value} | value for values in lists for value in values if isinstance(value, dict)]
    if results is not None and not isinstance(results, list):
        log.add(DataIssue.ANNOTATION_UNREADABLE, where, f"result is {shown(results)}")
    joined: dict[Any, Json] = {}
    for number, result in enumerate(results if isinstance(results, list) else []):
        if isinstance(result, dict) and isinstance(result.get("value"), dict):
            known = joined.setdefault(as_name(result.get("id")) or number, result)
            known["value"] = {**known["value"], **result["value"]}
        else:
            log.add(DataIssue.ANNOTATION_UNREADABLE, where, f"result {shown(result)}")
    return list(joined.values())


def _image_name(task: Json, results: list[Json]) -> str:
    data = task["data"] if isinstance(task.get("data"), dict) else task
    named = [as_name(result.get("to_name")) for result in results]
    texts = [data.get(key) for key in (*named, "image", "img", *data)]
    names = [text for text in texts if isinstance(text, str)]
    with_suffix = [name for name in names if name.lower().partition("?")[0].endswith(IMAGE_SUFFIXES)]
    local = [name for name in names if name.lower().endswith(IMAGE_SUFFIXES)]  # ...?d=folder/name.jpg
    return next(iter(with_suffix or local or [as_name(data.get("image"))]), "")


def _size(result: Json) -> tuple[int, int] | None:
    return as_size(result.get("original_height"), result.get("original_width"))


def _object(result: Json, size: tuple[int, int] | None, where: str, log: IssueLog) -> AnnotatedObject | None:
    value = result["value"]
    labels = next((value[key] for key in value if key.endswith("labels") and value[key]), None)
    name = as_name(labels[0] if isinstance(labels, list) else labels)
    if not {"x", "points", "rle"} & set(value):  # a choice, a text, a rating
        return None
    if not {"height", "radiusX", "points"} & set(value):
        log.add(DataIssue.SHAPE_UNUSABLE, where, as_name(result.get("type")) or ", ".join(value)[:40])
        return None
    if not name:
        log.add(DataIssue.CLASS_WITHOUT_NAME, where, "region without a label")
        return None
    if isinstance(labels, list) and len(labels) > 1:
        log.add(DataIssue.SEVERAL_LABELS, where, ", ".join(map(as_name, labels)))
    try:
        polygon = np.fromiter(_corners(value, size or (1, 1)), np.float64).reshape(-1, 2)
    except (KeyError, TypeError, ValueError):
        log.add(DataIssue.ANNOTATION_UNREADABLE, where, shown(value))
        return None
    outline = polygon.ravel().tolist()
    if "height" in value:
        if as_number(value.get("rotation") or 0) % 360:
            log.add(DataIssue.ORIENTED_BOX, where, f"rotation {value['rotation']} degrees")
        return AnnotatedObject(box_of_polygons([outline]), name, where)
    return AnnotatedObject(box_of_polygons([outline]), name, where, mask=functools.partial(_draw, polygon))


def _corners(value: Json, size: tuple[int, int]) -> Iterator[float]:
    """Yields x0, y0, x1, y1, ... of a shape in fractions of the image; a rotation needs the image's (height, width)."""
    height, width = size
    if "points" in value:
        for x, y in value["points"]:
            yield from (as_number(x) / 100, as_number(y) / 100)
        return
    angle = math.radians(as_number(value.get("rotation") or 0))
    x, y = (as_number(value[axis]) / 100 * side for axis, side in (("x", width), ("y", height)))
    if "radiusX" in value:
        radii = (as_number(value["radiusX"]) / 100 * width, as_number(value["radiusY"]) / 100 * height)
        corners = ellipse_polygon(x, y, *radii, angle).reshape(-1, 2)
    else:
        across, down = as_number(value["width"]) / 100 * width, as_number(value["height"]) / 100 * height
        if not np.isfinite([x, y, across, down]).all():
            raise ValueError
        right = np.array([math.cos(angle), math.sin(angle)]) * across
        below = np.array([-math.sin(angle), math.cos(angle)]) * down
        corners = np.stack([0 * right, right, right + below, below]) + np.array([x, y])
    yield from (corners / (width, height)).ravel()


def _draw(polygon: np.ndarray, height: int, width: int) -> np.ndarray:
    return mask_from_polygons([(np.clip(polygon, 0.0, 1.0) * (width, height)).ravel()], height, width)
