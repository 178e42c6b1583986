"""CSV files of boxes, one row an object -> Annotations.

Columns ``filename,width,height,class,xmin,ymin,xmax,ymax`` in any order, pixels, as tools for the Object Detection
API write them. A row with a file name and neither class nor box is an image without objects.
"""

from __future__ import annotations

import csv
import difflib
import pathlib

from detzoo.data.annotations import AnnotatedImage, AnnotatedObject, Annotations, numbered
from detzoo.data.dirt import Dirt, DirtLog
from detzoo.errors import DataError, UsageError

COLUMNS = ("filename", "class", "xmin", "ymin", "xmax", "ymax")
OPTIONAL_COLUMNS = ("width", "height")
SIDES = ("ymin", "xmin", "ymax", "xmax")


def read_csv(images_dir: str, annotations_file: str, log: DirtLog) -> Annotations:
    """Reads the rows and joins those of one image, in the order in which images first occur.

    Args:
        images_dir: folder that the file names are relative to.
        annotations_file: the CSV file, with a heading.
        log: takes rows that cannot be read.

    Raises:
        UsageError: the folder or file is not there.
        DataError: the heading lacks a column, or there is no row.
    """
    folder, path = pathlib.Path(images_dir), pathlib.Path(annotations_file)
    if not folder.is_dir():
        raise UsageError(f"--images_dir {images_dir} is not a folder")
    objects: dict[str, list[AnnotatedObject]] = {}
    sizes: dict[str, tuple[int, int] | None] = {}
    for line, row in _rows(path):
        where = f"{path.name}:{line}"
        name = row["filename"]
        if not name:
            log.add(Dirt.ANNOTATION_UNREADABLE, where, "no filename")
            continue
        sizes.setdefault(name, _size(row))
        of_image = objects.setdefault(name, [])
        if not any(row[column] for column in COLUMNS[1:]):
            continue
        item = _object(row, where, log)
        if item is not None:
            of_image.append(item)
    if not objects:
        raise DataError(f"{path} has no row with a filename")
    images = [
        AnnotatedImage(folder / name, name, name, tuple(of_image), declared_size=sizes[name])
        for name, of_image in objects.items()
    ]
    return Annotations(images, numbered({item.class_name for of_image in objects.values() for item in of_image}))


def _rows(path: pathlib.Path) -> list[tuple[int, dict[str, str]]]:
    """(line, row) with every known column, stripped of blanks."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            heading = [(name or "").strip() for name in reader.fieldnames or []]
            _check_heading(heading, path)
            reader.fieldnames = heading
            known = (*COLUMNS, *OPTIONAL_COLUMNS)
            return [(reader.line_num, {name: (row.get(name) or "").strip() for name in known}) for row in reader]
    except FileNotFoundError:
        raise UsageError(f"--annotations_file {path} is not there") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}") from None


def _check_heading(heading: list[str], path: pathlib.Path) -> None:
    for column in COLUMNS:
        if column not in heading:
            near = difflib.get_close_matches(column, heading, n=1, cutoff=0.5)
            hint = f"; did you mean it by {near[0]!r}?" if near else ""
            raise DataError(
                f"{path}:1: no column {column!r} (columns: {', '.join(heading) or 'none'}){hint}"
                f" The first line has to be filename,width,height,class,xmin,ymin,xmax,ymax"
            )


def _size(row: dict[str, str]) -> tuple[int, int] | None:
    try:
        height, width = int(float(row["height"])), int(float(row["width"]))
    except (ValueError, OverflowError):
        return None
    return (height, width) if height > 0 and width > 0 else None


def _object(row: dict[str, str], where: str, log: DirtLog) -> AnnotatedObject | None:
    if not row["class"]:
        log.add(Dirt.CLASS_WITHOUT_NAME, where, "row without a class")
        return None
    try:
        ymin, xmin, ymax, xmax = (float(row[side]) for side in SIDES)
    except ValueError:
        log.add(Dirt.ANNOTATION_UNREADABLE, where, ", ".join(f"{side} {row[side]!r}" for side in SIDES))
        return None
    return AnnotatedObject((ymin, xmin, ymax, xmax), row["class"], where)
