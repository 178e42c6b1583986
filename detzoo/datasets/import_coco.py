"""COCO annotation files -> Annotations.

Category ids from 1 are kept with their gaps, as the published COCO models (90 ids for 80 classes) need. If a used id is
below 1, beyond ``MAX_LABEL_ID`` or no number, the categories are numbered from 1: id 0 is the background in a label
map, and a model has an output for each id up to the highest.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import pathlib
from typing import Any

import numpy as np

from detzoo.datasets.annotations import (
    AnnotatedImage,
    AnnotatedObject,
    Annotations,
    box_of_polygons,
    mask_from_polygons,
    polygons_of,
)
from detzoo.datasets.box_units import settle_box_units
from detzoo.datasets.source_folder import SourceFolder
from detzoo.errors import DataError
from detzoo.files.fields import as_flag, as_id, as_name, as_number, as_size, shown
from detzoo.files.images import IMAGE_SUFFIXES
from detzoo.files.issues import DataIssue, IssueLog
from detzoo.files.remote import local_file
from detzoo.files.stored_objects import ObjectStore, StoredObjects
from detzoo.files.text_files import JsonList, load_json

logger = logging.getLogger(__name__)

MAX_LABEL_ID = 99_999
MAX_AREA_PX = 1e12
MAX_OUTLINE_PX = 100_000_000  # pixels that are drawn to find the box of run lengths
LISTS = ("images", "annotations", "categories")
NAME_KEYS = ("file_name", "filename", "path", "coco_url")
# Other files that end in .json, by one of their keys.
OTHER_JSON = {
    "shapes": "labelme's JSON of one image, which `detzoo dataset import` reads",
    "_via_img_metadata": "a project of the VGG Image Annotator",
    "segments_info": "COCO's panoptic form",
    "log": "a list of results",
    "bbox": "a list in COCO's results format",
    "annotations": "a list of CreateML's images",
}


def read_coco(
    images_dir: str,
    annotations_file: str,
    log: IssueLog,
    *,
    include_masks: bool = False,
    crowds_as_objects: bool = False,
    follow_links: bool = False,
) -> Annotations:
    """Reads a COCO instances or keypoints file; boxes are [x, y, width, height] in pixels there.

    The list of a test set (image_info), which has no annotations, becomes images without objects.

    Args:
        images_dir: Folder of the images.
        annotations_file: The JSON file.
        log: Takes annotations that cannot be read.
        include_masks: Read polygons and run-length codes as well.
        crowds_as_objects: Read annotations with iscrowd as single objects.
        follow_links: Read images that are links out of their folder.

    Raises:
        DataError: The file is not COCO's JSON; names file and line.
        UsageError: The folder or the file is not there.
    """
    path = local_file(annotations_file, "--annotations_file")
    folder = SourceFolder(images_dir, "--images_dir", IMAGE_SUFFIXES, log, follow_links=follow_links)
    content = _load(path, log)
    is_test_set = "annotations" not in content
    categories = _categories(content, path, log)
    images: dict[int | str, AnnotatedImage] = {}
    store = ObjectStore()
    for index, image in enumerate(map(_as_dict, content["images"])):
        where, key = f"{path.name}: images[{index}]", as_id(image.get("id"))
        if key is None or not _file_name(image):
            log.add(DataIssue.ANNOTATION_FILE_UNREADABLE, where, "no file_name or no id")
        elif key in images:  # nothing decides between their annotations
            log.add(DataIssue.ANNOTATION_FILE_UNREADABLE, where, f"id {shown(key)} is that of an earlier image")
        else:
            images[key] = _image(key, image, where, folder, StoredObjects(store))
    used, are_crowds = set(), set()
    for index, annotation in enumerate(map(_as_dict, content.get("annotations", ()))):
        where = f"{path.name}: annotation {as_name(annotation.get('id')) or f'number {index}'}"
        image_id = as_id(annotation.get("image_id"))
        if image_id not in images:
            log.add(DataIssue.ANNOTATION_WITHOUT_IMAGE, where)
            continue
        category_id = as_id(annotation.get("category_id"))
        used.add(category_id)
        if category_id not in categories:
            log.add(DataIssue.CLASS_WITHOUT_NAME, where, f"category_id {shown(annotation.get('category_id'))}")
            continue
        item = _object(annotation, where, categories[category_id], images[image_id].declared_size, log, include_masks)
        if item is not None:
            item = dataclasses.replace(item, is_crowd=False) if crowds_as_objects else item
            are_crowds.add(item.is_crowd)
            images[image_id].objects.append(item)  # type: ignore[attr-defined]
    if are_crowds == {True}:
        _warn_of_crowds(path)
    class_names = _class_names(categories, used, path, log)
    keypoint_names = {
        name: tuple(map(str, labels))
        for category in map(_as_dict, content["categories"])
        if (labels := category.get("keypoints")) and (name := as_name(category.get("name"))) in class_names.values()
    }
    return Annotations(settle_box_units(list(images.values()), log), class_names, keypoint_names, is_test_set)


def _warn_of_crowds(path: pathlib.Path) -> None:
    logger.warning(
        "%s: iscrowd is set on every object, as brush tools write it. Training and evaluation ignore crowds, so"
        " that no object is left to learn from: --crowds_as_objects imports them as objects",
        path,
    )


def _load(path: pathlib.Path, log: IssueLog) -> dict[str, Any]:
    content = load_json(path, "--annotations_file", log, streamed=("images", "annotations"))
    first = content[0] if isinstance(content, list) and content else content
    is_test_set = isinstance(content, dict) and "annotations" not in content  # image_info_*, if it has images
    is_test_set = is_test_set and any(map(_as_dict, content.get("images") or ()))
    for key in ("images", "categories") if is_test_set else LISTS:
        if not isinstance(content, dict) or not isinstance(content.get(key), (list, JsonList)):
            there = (
                ", ".join(key[:40] for key in content)[:200] if isinstance(content, dict) else type(content).__name__
            )
            known = [text for name, text in OTHER_JSON.items() if isinstance(first, dict) and name in first]
            hint = f"; it looks like {known[0]}" if known and "images" not in first else ""
            raise DataError(
                f"{path} has no list {key!r}; a COCO instances file has images, annotations and categories"
                f" (here: {there}){hint}"
            )
    return content


def _as_dict(entry: Any) -> dict[str, Any]:
    return entry if isinstance(entry, dict) else {}


def _categories(content: dict[str, Any], path: pathlib.Path, log: IssueLog) -> dict[int | str | None, str]:
    """Returns category id -> name; of two names for one id the first counts."""
    categories: dict[int | str | None, str] = {}
    for index, category in enumerate(content["categories"]):
        key, name = as_id(_as_dict(category).get("id")), as_name(_as_dict(category).get("name"))
        where = f"{path.name}: categories[{index}]"
        if key is None or not name:
            log.add(DataIssue.CATEGORY_UNREADABLE, where, f"{shown(category)} has no id or no name")
        elif categories.setdefault(key, name) != name:
            log.add(DataIssue.CATEGORY_UNREADABLE, where, f"id {shown(key)} is that of {shown(categories[key])}")
    return categories


def _class_names(
    categories: dict[int | str | None, str], used: set[int | str | None], path: pathlib.Path, log: IssueLog
) -> dict[int, str]:
    """Returns label map ids, see the module's docstring. Names that occur twice share the lowest id."""
    # An unused category 0 is the "supercategory" line that some export tools write.
    kept = {key: name for key, name in categories.items() if _is_label_id(key) or key in used}
    first_id: dict[str, Any] = {}
    for key in sorted(kept, key=lambda key: (isinstance(key, str), key)):
        first_id.setdefault(kept[key], key)
    if all(map(_is_label_id, first_id.values())):
        return {key: name for name, key in first_id.items()}
    log.add(DataIssue.IDS_RENUMBERED, path.name, ", ".join(f"{shown(key)} {name}" for name, key in first_id.items()))
    return dict(enumerate(first_id, start=1))


def _is_label_id(key: int | str | None) -> bool:
    return isinstance(key, int) and 1 <= key <= MAX_LABEL_ID


def _object(
    annotation: dict[str, Any],
    where: str,
    class_name: str,
    size: tuple[int, int] | None,
    log: IssueLog,
    include_masks: bool,
) -> AnnotatedObject | None:
    bbox, outline = annotation.get("bbox"), annotation.get("segmentation")
    try:
        left, top, width, height = (as_number(value) for value in bbox)  # type: ignore[union-attr]
        box = (top, left, top + height, left + width)
    except (TypeError, ValueError):
        box = None
    needs_box = outline and (box is None or (width == 0 and height == 0))
    if outline and not isinstance(outline, dict) and (include_masks or needs_box):
        outline, dropped = polygons_of(outline, size)
        for reason in dropped:
            log.add(DataIssue.OUTLINE_PART, where, reason)
    if needs_box:
        box = _box_of(outline, size) or box
        if box is not None:
            log.add(DataIssue.BOX_OF_OUTLINE, where, "" if bbox is None else f"bbox is {shown(bbox)}")
    if box is None:
        log.add(DataIssue.ANNOTATION_UNREADABLE, where, f"bbox is {shown(bbox)}")
        return None
    return AnnotatedObject(
        box=box,
        class_name=class_name,
        where=where,
        area_px=_area(annotation.get("area"), where, log),
        is_crowd=as_flag(annotation.get("iscrowd"), where, log),
        mask=functools.partial(draw_segmentation, outline) if include_masks and outline else None,
        keypoints=_keypoints(annotation.get("keypoints"), where, log),
    )


def _keypoints(values: Any, where: str, log: IssueLog) -> tuple[tuple[float, float, int], ...]:
    """Reads x, y and visibility of each keypoint; () if there are none or they are unreadable."""
    try:
        points = np.reshape([as_number(value) for value in values or ()], (-1, 3))
        return tuple((float(y), float(x), int(np.clip(visible, 0, 2))) for x, y, visible in points)
    except (TypeError, ValueError):
        log.add(DataIssue.ANNOTATION_UNREADABLE, where, f"keypoints are {shown(values)}")
        return ()


def _area(value: Any, where: str, log: IssueLog) -> float | None:
    """Returns the stated area in pixels; None without one or if it is a fraction of the image."""
    if value is None:
        return None
    try:
        area = as_number(value)
    except ValueError:
        area = -1.0
    if not 0 <= area <= MAX_AREA_PX:
        log.add(DataIssue.AREA_UNUSABLE, where, shown(value))
        return None
    return area if area >= 1 else None


def _box_of(outline: Any, size: tuple[int, int] | None) -> tuple[float, float, float, float] | None:
    """Returns the box around polygons or the pixels of run lengths; None if they are unreadable or empty."""
    if isinstance(outline, list):
        return box_of_polygons(outline) if outline else None
    try:
        height, width = size or as_size(*outline["size"]) or (0, 0)
        if height * width > MAX_OUTLINE_PX:
            return None
        rows, columns = np.nonzero(draw_segmentation(outline, height, width))
    except Exception:  # pycocotools raises bare Exceptions and TypeErrors on malformed run lengths
        return None
    return (rows.min(), columns.min(), rows.max() + 1.0, columns.max() + 1.0) if len(rows) else None


def _file_name(image: dict[str, Any]) -> str:
    return next(filter(None, (as_name(image.get(key)) for key in NAME_KEYS)), "")


def _image(
    key: int | str, image: dict[str, Any], where: str, folder: SourceFolder, objects: StoredObjects
) -> AnnotatedImage:
    source_id = image["id"] if isinstance(image["id"], str) else str(key)
    size = as_size(image.get("height"), image.get("width"))
    return AnnotatedImage(
        source_id=source_id, objects=objects, declared_size=size, **folder.place(_file_name(image), where)
    )


def draw_segmentation(segmentation: Any, height: int, width: int) -> np.ndarray:
    """Draws polygons, run lengths or compressed run lengths of COCO: uint8 [height, width] of 0 and 1."""
    from pycocotools import mask as coco_mask

    if isinstance(segmentation, list):
        if segmentation and max(map(max, segmentation)) <= 1:  # fractions: no object is smaller than a pixel
            segmentation = [(np.reshape(part, (-1, 2)) * (width, height)).ravel() for part in segmentation]
        return mask_from_polygons(segmentation, height, width)
    if not isinstance(segmentation, dict) or "counts" not in segmentation or "size" not in segmentation:
        raise ValueError("a segmentation is a list of polygons or has counts and size")
    if [as_number(side) for side in segmentation["size"]] != [height, width]:  # pycocotools crashes on some others
        raise ValueError(f"size {shown(segmentation['size'])} for an image of {height} rows and {width} columns")
    counts = segmentation["counts"]
    if isinstance(counts, list):
        counts = [int(as_number(count)) for count in counts]
        if min(counts, default=0) < 0 or sum(counts) != height * width:
            raise ValueError(f"Invalid RLE: counts of {sum(counts)} pixels for an image of {height * width}")
    run_lengths = {"size": [height, width], "counts": counts}
    if isinstance(counts, list):
        run_lengths = coco_mask.frPyObjects(run_lengths, height, width)
    return coco_mask.decode(run_lengths)
