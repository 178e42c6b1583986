"""CSV files of boxes, one row per object -> Annotations.

Columns ``filename,width,height,class,xmin,ymin,xmax,ymax`` in any order, in pixels, as tools for the Object Detection
API write them. Other tools' column names, separators and encodings are read, and rows without a heading of AutoML and
keras-retinanet. A row of a file name alone is an image without objects.
"""

from __future__ import annotations

import csv
import dataclasses
import difflib
import itertools
import os
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from detzoo.data.record_keys import SIDES
from detzoo.datasets.annotations import AnnotatedImage, AnnotatedObject, Annotations, numbered
from detzoo.datasets.box_units import settle_box_units
from detzoo.datasets.source_folder import SourceFolder
from detzoo.errors import DataError
from detzoo.files.fields import as_flag, as_name, as_number, as_size, shown
from detzoo.files.images import IMAGE_SUFFIXES
from detzoo.files.issues import DataIssue, IssueLog
from detzoo.files.remote import local_file
from detzoo.files.stored_objects import ObjectStore, StoredObjects
from detzoo.files.text_files import iterate_named_lines

COLUMNS = ("filename", "class", *SIDES)
EMPTY = ("", "nan", "null")  # as pandas and SQL write a cell without a value
SEPARATORS = (",", ";", "\t", "|")
# Column -> its names in tools, without case, blanks and marks; the first one present counts.
NAMES = {
    "filename": "filename file filepath path imagename imagefile imagefilename imagepath image img imageid imgname"
    " imagefilepath url imageurl",
    "class": "class classname label labelname category categoryname object tag classlabel",
    "xmin": "xmin x1 left minx bboxxmin boxxmin bboxx1 xtl",
    "ymin": "ymin y1 top miny bboxymin boxymin bboxy1 ytl",
    "xmax": "xmax x2 right maxx bboxxmax boxxmax bboxx2 xbr",
    "ymax": "ymax y2 bottom maxy bboxymax boxymax bboxy2 ybr",
    "width": "width imagewidth imgwidth",
    "height": "height imageheight imgheight",
    "set": "set split subset",
    "is_crowd": "iscrowd",
    "is_difficult": "difficult isdifficult",
    "is_truncated": "truncated istruncated",
    "is_group_of": "groupof isgroupof",
}
FLAGS = ("is_crowd", "is_difficult", "is_truncated", "is_group_of")
# Files without a heading: the columns of the Object Detection API, of keras-retinanet and of AutoML Vision.
HEADLESS = (
    ("filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax"),
    ("filename", "xmin", "ymin", "xmax", "ymax", "class"),
    ("set", "filename", "class", "x1", "y1", "x2", "y2", "x3", "y3", "x4", "y4"),
)
AUTOML_SETS = ("TRAIN", "TRAINING", "VALIDATE", "VALIDATION", "TEST", "UNASSIGNED", "")
# Other files that end in .csv, by one of their columns.
OTHER_CSV = {
    "regionshapeattributes": "an export of the VGG Image Annotator; export COCO from it",
    "bbox": "a table with a box in one column; write its numbers to xmin, ymin, xmax and ymax",
    "w": "a table of x, y, w, h; write xmax = x + w and ymax = y + h (or the corners, if x, y is the centre)",
    "encodedpixels": "a table of run lengths; convert it to COCO",
}

Row = dict[str, str]


def read_csv(
    images_dir: str,
    annotations_file: str,
    log: IssueLog,
    *,
    follow_links: bool = False,
    class_names: Mapping[str, Sequence[str]] | None = None,
) -> Annotations:
    """Reads the rows and joins those of one image, in the order in which images first occur; see ``read_coco``.

    ``class_names`` replaces names of classes, such as Open Images' ``/m/01g317`` by ``Person``. Several names make an
    object of each.

    Raises:
        UsageError: The folder or file is not there.
        DataError: A column is missing.
    """
    path = local_file(annotations_file, "--annotations_file")
    folder = SourceFolder(images_dir, "--images_dir", IMAGE_SUFFIXES, log, follow_links=follow_links)
    images: dict[str, AnnotatedImage] = {}
    by_stated: dict[str, str] = {}
    store = ObjectStore()
    for line, row in _rows(path, log):
        where, stated = f"{path.name}:{line}", as_name(row.get("filename", ""))
        if not stated:
            log.add(DataIssue.ANNOTATION_UNREADABLE, where, "no filename")
            continue
        if stated not in by_stated:
            placed = folder.place(stated, f"{path.name}: {stated}")
            name = by_stated[stated] = placed["filename"]
            size = as_size(row.get("height"), row.get("width"))
            of_image = StoredObjects(store)
            subset = row.get("set", "")
            image = AnnotatedImage(source_id=name, objects=of_image, declared_size=size, subset=subset, **placed)
            images.setdefault(name, image)
        if not any(value for column, value in row.items() if column == "class" or column[0] in "xy"):
            continue
        item = _object(row, where, log)
        if item is None:
            continue
        for name in (class_names or {}).get(item.class_name, [item.class_name]):
            images[by_stated[stated]].objects.append(dataclasses.replace(item, class_name=name))  # type: ignore[attr-defined]
    read = settle_box_units(list(images.values()), log)
    return Annotations(read, numbered({item.class_name for image in read for item in image.objects}))


def _rows(path: pathlib.Path, log: IssueLog) -> Iterator[tuple[int, Row]]:
    """Yields (line, column -> cell); lines are parsed one by one, so that a stray quote swallows no other line."""
    columns, separator, lines = table_of(iterate_named_lines(path, "--annotations_file", log), str(path))
    for number, line in lines:
        cells = _cells(line, separator)
        yield number, {name: cells[index] for name, index in columns.items() if index < len(cells)}


def table_of(lines: Iterable[str], path: str) -> tuple[dict[str, int], str, Iterator[tuple[int, str]]]:
    """Returns column -> index, the separator, and the numbered lines of the rows.

    Raises:
        DataError: A column is missing.
    """
    stripped = enumerate((line.strip("\ufeff") for line in lines), start=1)
    numbered_lines = ((number, line) for number, line in stripped if line.strip(" \t,;|"))
    head = list(itertools.islice(numbered_lines, 11))
    separator = None
    if head and re.fullmatch(r"sep=.", head[0][1].strip().lower()):  # Excel's first line
        separator = head.pop(0)[1].strip()[-1]
    first_number, first = head[0] if head else (1, "")
    separator = separator or max(SEPARATORS, key=first.count)
    heading = _cells(first, separator)
    columns = None
    if any(cell and _is_number(cell) for cell in heading):
        columns = next(filter(None, (_headless(_cells(line, separator)) for _, line in head[:10])), None)
    if columns is None:
        columns = _columns(heading, f"{path}:{first_number}")
        del head[:1]
    return columns, separator, itertools.chain(head, numbered_lines)


def _cells(line: str, separator: str) -> list[str]:
    try:
        cells = next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])
    except csv.Error:  # a cell of more than 131,072 characters
        return []
    return ["" if cell.strip().lower() in EMPTY else cell.strip() for cell in cells]


def _headless(cells: list[str]) -> dict[str, int] | None:
    """Returns column -> index for a row of a known order; None for another row or a heading."""
    for columns in HEADLESS:
        row = dict(zip(columns, cells))
        is_automl = columns[0] == "set"
        named = os.path.splitext(row.get("filename", ""))[1].lower() in IMAGE_SUFFIXES
        fits = row.get("set", "?").upper() in AUTOML_SETS if is_automl else len(cells) == len(columns)
        if named and fits and all(_is_number(row[name]) for name in row if name not in ("set", "filename", "class")):
            return {name: index for index, name in enumerate(columns)}
    return None


def _is_number(cell: str) -> bool:
    try:
        return not cell or as_number(cell) is not None
    except ValueError:
        return False


def _columns(heading: list[str], where: str) -> dict[str, int]:
    """Returns column -> index by the names of tools; raises DataError if a column is missing."""
    plain = [re.sub(r"[^a-z0-9]", "", name.lower()) for name in heading]
    columns = {
        column: plain.index(next(name for name in names.split() if name in plain))
        for column, names in NAMES.items()
        if any(name in plain for name in names.split())
    }
    for column in COLUMNS:
        if column not in columns:
            other = next((text for name, text in OTHER_CSV.items() if name in plain), "")
            unused = [name[:40] for index, name in enumerate(heading[:40]) if index not in columns.values()]
            near = difflib.get_close_matches(column, unused, n=1, cutoff=0.5)
            hint = f"; it looks like {other}." if other else f"; did you mean it by {near[0]!r}?" if near else "."
            raise DataError(
                f"{where}: no column {column!r} in {', '.join(heading)[:200] or 'an empty heading'}{hint}"
                f" The first line must be filename,width,height,class,xmin,ymin,xmax,ymax"
            )
    return columns


def _object(row: Row, where: str, log: IssueLog) -> AnnotatedObject | None:
    name = as_name(row.get("class", ""))
    if not name:
        log.add(DataIssue.CLASS_WITHOUT_NAME, where, "row without a class")
        return None
    try:
        if "x1" in row:  # two or four corners of AutoML
            xs, ys = ([as_number(cell) for key, cell in row.items() if key[0] == axis and cell] for axis in "xy")
            box = (min(ys), min(xs), max(ys), max(xs))
        else:
            ymin, xmin, ymax, xmax = (as_number(row.get(side, "")) for side in SIDES)
            box = (ymin, xmin, ymax, xmax)
    except ValueError:
        sides = [key for key in row if key[0] in "xy"] if "x1" in row else SIDES
        found = ", ".join(f"{side} {shown(row.get(side, ''))}" for side in sides)
        log.add(DataIssue.ANNOTATION_UNREADABLE, where, found)
        return None
    crowd, difficult, truncated, group = (as_flag(row.get(flag), where, log) for flag in FLAGS)
    return AnnotatedObject(box, name, where, None, crowd, difficult, truncated, group)
