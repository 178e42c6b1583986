"""COCO annotation files -> Annotations.

Category ids are kept where they start at 1 or above, gaps and all, as the published COCO models (90 ids for 80
classes) need. Where an id below 1 is in use the categories are numbered anew from 1, because id 0 is the background
in a label map.
"""

from __future__ import annotations

import collections
import functools
import json
import pathlib
from typing import Any

import numpy as np

from detzoo.data.annotations import AnnotatedImage, AnnotatedObject, Annotations, mask_from_polygons
from detzoo.data.dirt import Dirt, DirtLog
from detzoo.errors import DataError, UsageError


def read_coco(images_dir: str, annotations_file: str, log: DirtLog, *, include_masks: bool = False) -> Annotations:
    """Reads a COCO instances file; boxes are [x, y, width, height] in pixels there.

    Args:
        images_dir: folder that the file names are relative to.
        annotations_file: the JSON file, with images, annotations and categories.
        log: takes annotations that cannot be read.
        include_masks: read polygons and run-length codes as well.

    Raises:
        DataError: the file is not COCO's JSON; names file and line.
        UsageError: the folder or the file is not there.
    """
    folder, path = pathlib.Path(images_dir), pathlib.Path(annotations_file)
    if not folder.is_dir():
        raise UsageError(f"--images_dir {images_dir} is not a folder")
    content = _load(path)
    categories = _categories(content, path)
    known_images = {image["id"] for image in content["images"] if _has_id(image)}
    objects: dict[Any, list[AnnotatedObject]] = collections.defaultdict(list)
    for index, annotation in enumerate(content["annotations"]):
        where = f"{path.name}: annotation {_id(annotation, index)}"
        image_id = annotation.get("image_id") if isinstance(annotation, dict) else None
        if not isinstance(image_id, (int, str)) or image_id not in known_images:
            log.add(Dirt.ANNOTATION_WITHOUT_IMAGE, where)
            continue
        item = _object(annotation, where, categories, log, include_masks)
        if item is not None:
            objects[image_id].append(item)
    images, taken = [], set()
    for index, image in enumerate(content["images"]):
        if not _has_id(image) or not isinstance(image.get("file_name"), str):
            log.add(Dirt.ANNOTATION_FILE_UNREADABLE, f"{path.name}: images[{index}]", "no file_name or no id")
            continue
        if image["id"] in taken:  # whose annotations these are cannot be told
            detail = f"id {image['id']} is that of an earlier image"
            log.add(Dirt.ANNOTATION_FILE_UNREADABLE, f"{path.name}: images[{index}]", detail)
            continue
        taken.add(image["id"])
        images.append(_image(image, folder, tuple(objects[image["id"]])))
    names = _class_names(categories, content["annotations"])
    return Annotations(images, names)


def _load(path: pathlib.Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UsageError(f"--annotations_file {path} is not there") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: not JSON: {error.msg} at column {error.colno}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            there = ", ".join(content) if isinstance(content, dict) else type(content).__name__
            raise DataError(
                f"{path} has no list {key!r}; a COCO instances file has images, annotations and categories"
                f" (here: {there})"
            )
    return content


def _categories(content: dict[str, Any], path: pathlib.Path) -> dict[int, str]:
    """Category id -> name."""
    categories: dict[int, str] = {}
    for index, category in enumerate(content["categories"]):
        if not isinstance(category, dict) or not isinstance(category.get("id"), int) or not category.get("name"):
            raise DataError(f"{path}: categories[{index}] is {category!r}; it needs an integer id and a name")
        categories[category["id"]] = str(category["name"])
    return categories


def _class_names(categories: dict[int, str], annotations: list[Any]) -> dict[int, str]:
    """Label map ids; see the module's docstring. Names that occur twice share the lowest id."""
    used = {str(item.get("category_id")) for item in annotations if isinstance(item, dict)}
    # An unused category 0 is the "supercategory" line that some export tools write.
    kept = {key: name for key, name in sorted(categories.items()) if key >= 1 or str(key) in used}
    first_id: dict[str, int] = {}
    for key, name in kept.items():
        first_id.setdefault(name, key)
    if all(key >= 1 for key in first_id.values()):
        return {key: name for name, key in first_id.items()}
    return dict(enumerate(first_id, start=1))


def _object(
    annotation: dict[str, Any], where: str, categories: dict[int, str], log: DirtLog, include_masks: bool
) -> AnnotatedObject | None:
    category_id = annotation.get("category_id")
    name = categories.get(category_id) if isinstance(category_id, int) else None
    if name is None:
        log.add(Dirt.CLASS_WITHOUT_NAME, where, f"category_id {category_id}")
        return None
    try:
        left, top, width, height = (float(value) for value in annotation["bbox"])
    except (KeyError, TypeError, ValueError, OverflowError):
        log.add(Dirt.ANNOTATION_UNREADABLE, where, f"bbox is {annotation.get('bbox')!r}")
        return None
    segmentation = annotation.get("segmentation")
    area = annotation.get("area")
    return AnnotatedObject(
        box=(top, left, top + height, left + width),
        class_name=name,
        where=where,
        area_px=float(area) if isinstance(area, (int, float)) else None,
        is_crowd=bool(annotation.get("iscrowd", 0)),
        mask=functools.partial(draw_segmentation, segmentation) if include_masks and segmentation else None,
    )


def _image(image: dict[str, Any], folder: pathlib.Path, objects: tuple[AnnotatedObject, ...]) -> AnnotatedImage:
    height, width = image.get("height"), image.get("width")
    stated = isinstance(height, int) and isinstance(width, int)
    name = image["file_name"]
    return AnnotatedImage(
        path=folder / name,
        filename=name,
        source_id=str(image["id"]),
        objects=objects,
        declared_size=(height, width) if stated else None,  # type: ignore[arg-type]
    )


def draw_segmentation(segmentation: Any, height: int, width: int) -> np.ndarray:
    """Polygons, run lengths or compressed run lengths of COCO -> uint8 [height, width] of 0 and 1."""
    from pycocotools import mask as coco_mask

    if isinstance(segmentation, list):
        return mask_from_polygons(segmentation, height, width)
    if not isinstance(segmentation, dict) or "counts" not in segmentation or "size" not in segmentation:
        raise ValueError("a segmentation is a list of polygons or has counts and size")
    if list(segmentation["size"]) != [height, width]:  # pycocotools crashes on some that do not fit
        raise ValueError(f"size {segmentation['size']} for an image of {height} rows and {width} columns")
    if isinstance(segmentation["counts"], list):
        segmentation = coco_mask.frPyObjects(segmentation, height, width)
    return coco_mask.decode(segmentation)


def _has_id(image: Any) -> bool:
    return isinstance(image, dict) and isinstance(image.get("id"), (int, str))


def _id(annotation: Any, index: int) -> str:
    return str(annotation["id"]) if isinstance(annotation, dict) and "id" in annotation else f"number {index}"
