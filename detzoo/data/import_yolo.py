"""YOLO label folders (one text file an image) -> Annotations.

A line is ``class centre_x centre_y width height`` in fractions of the image, or ``class x y x y x y ...``: an outline,
which becomes a box and a mask. Class ids count from 0 there and keep their order: label map id = class id + 1.
"""

from __future__ import annotations

import functools
import pathlib
from typing import Any

import numpy as np

from detzoo.data.annotations import (
    IMAGE_SUFFIXES,
    AnnotatedImage,
    AnnotatedObject,
    Annotations,
    mask_from_polygons,
    numbered,
)
from detzoo.data.dirt import Dirt, DirtLog
from detzoo.errors import DataError, UsageError


def read_yolo(images_dir: str, labels_dir: str, class_names: str, log: DirtLog) -> Annotations:
    """Reads all images below a folder and, for each, the text file at the same place below the labels folder.

    An image without a text file has no objects.

    Args:
        images_dir: folder of the images; folders inside it are read too.
        labels_dir: folder of the text files.
        class_names: a text file with one name a line, or an Ultralytics data.yaml.
        log: takes lines that cannot be read and text files without an image.

    Raises:
        UsageError: a folder or file is not there.
        DataError: the folder has no image, no image has a text file, or the class names cannot be read.
    """
    images, labels = pathlib.Path(images_dir), pathlib.Path(labels_dir)
    for flag, folder in (("--images_dir", images), ("--labels_dir", labels)):
        if not folder.is_dir():
            raise UsageError(f"{flag} {folder} is not a folder")
    names = read_class_names(class_names)
    paths = sorted(path for path in images.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise DataError(f"--images_dir {images} has no image; known extensions: {' '.join(IMAGE_SUFFIXES)}")
    read, used = [], set()
    for path in paths:
        relative = path.relative_to(images)
        label_path = labels / relative.with_suffix(".txt")
        used.add(label_path)
        objects = _objects(label_path, labels, names, log)
        if objects is None:
            continue
        read.append(
            AnnotatedImage(
                path=path,
                filename=relative.as_posix(),
                source_id=relative.as_posix(),
                objects=objects,
                boxes_are_normalized=True,
            )
        )
    found = {label_path for label_path in labels.rglob("*.txt") if label_path.name != "classes.txt"}
    if not used & found:
        expected = paths[0].relative_to(images).with_suffix(".txt")
        raise DataError(
            f"--labels_dir {labels} has no text file for any of {len(paths)} images in {images};"
            f" {labels / expected}, for one, is not there"
        )
    for label_path in sorted(found - used):
        log.add(Dirt.ANNOTATION_WITHOUT_IMAGE, label_path.relative_to(labels).as_posix())
    return Annotations(read, numbered(names))


def has_masks(annotations: Annotations) -> bool:
    """Whether any object has an outline."""
    return any(item.mask is not None for image in annotations.images for item in image.objects)


def read_class_names(path: str) -> list[str]:
    """Class names in the order of their ids, from a text file or an Ultralytics data.yaml.

    Raises:
        UsageError: the file is not there.
        DataError: it has no names, names an id twice or leaves one out, or a name occurs twice.
    """
    file = pathlib.Path(path)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--class_names {path} cannot be read: {error}") from None
    if file.suffix.lower() in (".yaml", ".yml"):
        names = _names_of_yaml(text, path)
    else:
        names = [line.strip() for line in text.rstrip().splitlines()]
    for index, name in enumerate(names):
        if not name:
            raise DataError(f"{path}: class {index} has an empty name")
        if name in names[:index]:
            raise DataError(f"{path}: {name!r} is the name of class {names.index(name)} and of class {index}")
    if not names:
        raise DataError(f"{path} has no class names; one a line, or `names:` in a data.yaml, is needed")
    return names


def _names_of_yaml(text: str, path: str) -> list[str]:
    import yaml

    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise DataError(f"{path}: not YAML: {error}") from None
    names: Any = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, list):
        return [str(name) for name in names]
    if not isinstance(names, dict):
        raise DataError(f"{path} has no `names:` with a list or with ids and names")
    if set(names) != set(range(len(names))):
        raise DataError(f"{path}: the ids of `names:` are {list(names)}; 0 to {len(names) - 1} without gaps are needed")
    return [str(names[index]) for index in range(len(names))]


def _objects(
    path: pathlib.Path, labels: pathlib.Path, names: list[str], log: DirtLog
) -> tuple[AnnotatedObject, ...] | None:
    """The objects of one text file, none where it is not there; None where it cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        return ()
    except (OSError, UnicodeDecodeError) as error:
        log.add(Dirt.ANNOTATION_FILE_UNREADABLE, path.relative_to(labels).as_posix(), str(error))
        return None
    objects = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path.relative_to(labels).as_posix()}:{number}"
        item = _object(line, where, names, log)
        if item is not None:
            objects.append(item)
    return tuple(objects)


def _object(line: str, where: str, names: list[str], log: DirtLog) -> AnnotatedObject | None:
    try:
        first, *values = (float(word) for word in line.split())
    except ValueError:
        log.add(Dirt.ANNOTATION_UNREADABLE, where, f"not numbers: {line.strip()[:40]}")
        return None
    if not first.is_integer():
        log.add(Dirt.ANNOTATION_UNREADABLE, where, f"class {first:g} is not a whole number")
        return None
    if not 0 <= first < len(names):
        log.add(Dirt.CLASS_WITHOUT_NAME, where, f"class {first:g} of {len(names)}")
        return None
    name = names[int(first)]
    if len(values) == 4:
        x, y, width, height = values
        return AnnotatedObject((y - height / 2, x - width / 2, y + height / 2, x + width / 2), name, where)
    if len(values) >= 6 and len(values) % 2 == 0:
        xs, ys = values[0::2], values[1::2]
        return AnnotatedObject(
            box=(float(np.min(ys)), float(np.min(xs)), float(np.max(ys)), float(np.max(xs))),
            class_name=name,
            where=where,
            mask=functools.partial(_draw_outline, tuple(values)),
        )
    log.add(
        Dirt.ANNOTATION_UNREADABLE,
        where,
        f"{len(values)} numbers behind the class; 4, or 6 and more in pairs, are known",
    )
    return None


def _draw_outline(outline: tuple[float, ...], height: int, width: int) -> np.ndarray:
    points = np.clip(np.reshape(outline, (-1, 2)), 0.0, 1.0) * (width, height)
    return mask_from_polygons([points.ravel().tolist()], height, width)
