"""Open Images' CSV files -> Annotations: boxes, groups, labels of whole images, and the hierarchy of classes.

A. Kuznetsova et al., "The Open Images Dataset V4". A folder has ``*-annotations-bbox.csv``, images, and optionally
``class-descriptions*.csv`` (names), ``*imagelabels*.csv`` (classes verified as present or absent, which the metric of
the challenge needs) and ``*hierarchy*.json``. Labels of machines are not read.
"""

from __future__ import annotations

import csv
import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from detzoo.datasets.annotations import AnnotatedImage, Annotations, numbered
from detzoo.datasets.import_csv import read_csv
from detzoo.errors import DataError
from detzoo.files.issues import IssueLog
from detzoo.files.text_files import iterate_named_lines, load_json

PRESENT, ABSENT = "1", "0"  # confidence of a verified label, also written 1.0 and 0.0

Names = Mapping[str, Sequence[str]]  # code -> names of the class and of those that it implies


def read_names(files: Sequence[pathlib.Path], log: IssueLog) -> dict[str, list[str]]:
    """Returns the name of each class code, such as ``/m/01yrx``."""
    rows = (row for file in files for row in csv.reader(iterate_named_lines(file, "class descriptions", log)))
    return {row[0].strip(): [row[1].strip()] for row in rows if len(row) > 1}


def expand_names(names: Names, hierarchy: pathlib.Path, log: IssueLog) -> tuple[Names, Names]:
    """Returns the names of each class with its ancestors, and with its descendants, by ``*hierarchy*.json``.

    As in the Object Detection API: the root, which is no class, and parts of classes imply nothing.

    Raises:
        DataError: The file is no hierarchy.
    """
    above = {code: list(own) for code, own in names.items()}
    below = {code: list(own) for code, own in names.items()}
    root = load_json(hierarchy, "--format open_images", log)
    try:
        implications = list(_descend(root, ()))
    except (AttributeError, KeyError, TypeError):
        implications = []
    if not implications:
        raise DataError(f"{hierarchy}: no hierarchy of classes; every class needs LabelName, and the root Subcategory")
    for code, ancestors in implications:
        for ancestor in ancestors:
            for implied, by, name in ((above, code, ancestor), (below, ancestor, code)):
                for each in names.get(name, []):
                    if each not in implied.setdefault(by, []):
                        implied[by].append(each)
    return above, below


def _descend(node: Mapping[str, Any], ancestors: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yields each class below a node with its ancestors below the root."""
    for child in node.get("Subcategory", ()):
        yield child["LabelName"], ancestors
        yield from _descend(child, (*ancestors, child["LabelName"]))
    for part in node.get("Part", ()):
        yield from _descend(part, (part["LabelName"],))


def read_image_labels(
    files: Sequence[pathlib.Path], present: Names, absent: Names, log: IssueLog
) -> dict[str, dict[str, None]]:
    """Returns the names of the verified classes of each image id, in the order of the files.

    Args:
        files: CSV files with ImageID, Source, LabelName and Confidence.
        present: Names that a class verified as present verifies.
        absent: Names that a class verified as absent verifies.
        log: Takes guesses of the encoding.

    Raises:
        DataError: A column is missing.
    """
    verified: dict[str, dict[str, None]] = {}
    for file in files:
        rows = csv.reader(iterate_named_lines(file, "image labels", log))
        columns = {name: index for index, name in enumerate(next(rows, []))}
        lacking = [name for name in ("ImageID", "LabelName", "Confidence") if name not in columns]
        if lacking:
            raise DataError(f"{file}:1: no column {lacking[0]} in {', '.join(columns)[:200] or 'an empty heading'}")
        image, label, confidence = (columns[name] for name in ("ImageID", "LabelName", "Confidence"))
        source = columns.get("Source", -1)
        for row in (row for row in rows if len(row) == len(columns)):
            implied = {PRESENT: present, ABSENT: absent}.get(row[confidence].removesuffix(".0"))
            if implied is not None and not (source >= 0 and row[source].startswith("machine")):
                verified.setdefault(row[image], {}).update(dict.fromkeys(implied.get(row[label], [row[label]])))
    return verified


def read_open_images(
    images_dir: str,
    annotations_file: str,
    log: IssueLog,
    *,
    names: Names,
    verified: Mapping[str, Mapping[str, None]],
    follow_links: bool = False,
) -> Annotations:
    """Reads the boxes of one CSV file, see ``read_csv``, and adds the verified classes of the images."""
    read = read_csv(images_dir, annotations_file, log, follow_links=follow_links, class_names=names)
    if not verified:
        return read
    return read._replace(images=[_with_labels(image, verified) for image in read.images])


def label_only_images(
    verified: Mapping[str, Mapping[str, None]], read: Sequence[Annotations], place: Any
) -> Annotations:
    """Returns the images that have verified classes and no boxes.

    Args:
        verified: Result of ``read_image_labels``.
        read: Images with boxes.
        place: Function of an image id that returns the fields of ``SourceFolder.place``.
    """
    boxed = {image.path.stem for part in read for image in part.images}
    placed = ((image_id, place(image_id)) for image_id in verified if image_id not in boxed)
    found = [AnnotatedImage(source_id=image_id, objects=(), **fields) for image_id, fields in placed if fields]
    class_names = {name for part in read for name in part.class_names.values()}
    return Annotations([_with_labels(image, verified) for image in found], numbered(class_names))


def _with_labels(image: AnnotatedImage, verified: Mapping[str, Mapping[str, None]]) -> AnnotatedImage:
    return dataclasses.replace(image, verified_classes=tuple(verified.get(image.path.stem, ())))
