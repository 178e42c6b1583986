"""TFRecords of the Object Detection API, or of a classifier, -> Annotations; records are copied byte for byte.

So records can be divided into splits. The boxes serve to count objects; nothing is repaired.
"""

from __future__ import annotations

import functools
import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from detzoo.config.label_map import LabelMap
from detzoo.data.record_keys import OBJECT, SIDES
from detzoo.datasets.annotations import AnnotatedImage, AnnotatedObject, Annotations
from detzoo.errors import DataError
from detzoo.files.images import UnusableImage
from detzoo.files.issues import DataIssue, IssueLog

_HEADER_BYTES, _FOOTER_BYTES = 12, 4  # around the data of a record


def read_records(files: Sequence[pathlib.Path], label_map: LabelMap | None, log: IssueLog) -> Annotations:
    """Reads the objects of each record, without its image.

    Args:
        files: TFRecord files.
        label_map: Names of the ids; without it the names are those in the records.
        log: Takes records that cannot be read.

    Raises:
        DataError: No record can be read.
    """
    from detzoo.data.records import scan_file  # TensorFlow takes seconds to import
    from detzoo.datasets.record_check import UnusableRecord, parse_features

    images, names = [], dict(label_map.names) if label_map else {}
    for file in files:
        found = scan_file(str(file))
        if found.truncated:
            log.add(DataIssue.RECORD_FILE_TRUNCATED, file.name)
        offsets = found.offsets.tolist()
        for number, (start, end) in enumerate(itertools.pairwise(offsets)):
            read = functools.partial(_data, file, start, end)
            try:
                images.append(_image(parse_features(read()), f"{file.name}:{number}", file, read, names, label_map))
            except UnusableRecord as error:
                log.add(error.issue, f"{file.name}:{number}", error.detail)
    if not images:
        reasons = f"\n{log.table()}" if log.counts() else ", the files are empty"
        raise DataError(f"{', '.join(map(str, files[:3]))}: no record can be read{reasons}")
    return Annotations(images, dict(sorted(names.items())))


def _data(file: pathlib.Path, start: int, end: int) -> bytes:
    with open(file, "rb") as stream:
        stream.seek(start + _HEADER_BYTES)
        return stream.read(end - start - _HEADER_BYTES - _FOOTER_BYTES)


def _image(
    features: Mapping[str, list[Any]],
    where: str,
    file: pathlib.Path,
    read: functools.partial[bytes],
    names: dict[int, str],
    label_map: LabelMap | None,
) -> AnnotatedImage:
    """Returns the image of a record; without a label map, ids and names that are new are added to ``names``."""
    prefix = OBJECT if features.get(f"{OBJECT}/class/label") or features.get(f"{OBJECT}/class/text") else "image"
    labels = [label if isinstance(label, int) else 0 for label in features.get(f"{prefix}/class/label", [])]
    texts = [_text(text) for text in features.get(f"{prefix}/class/text", [])]
    objects = []
    sides = [features.get(f"{OBJECT}/bbox/{side}", []) for side in SIDES]
    for index in range(max(len(labels), len(texts))):
        label = max(labels[index], 0) if index < len(labels) else 0
        name = texts[index] if index < len(texts) else names.get(label, f"class {label}")
        if label_map is None:
            known = {text: number for number, text in names.items()}
            names.setdefault(label or known.get(name, max(names, default=0) + 1), name)
        ymin, xmin, ymax, xmax = (side[index] if index < len(side) else end for side, end in zip(sides, (0, 0, 1, 1)))
        objects.append(AnnotatedObject((ymin, xmin, ymax, xmax), name, where))
    stated = (features.get("image/filename") or features.get("image/source_id") or [b""])[0]
    return AnnotatedImage(
        path=file.parent / where,
        filename=_text(stated) or where,
        source_id=where,
        objects=tuple(objects),
        boxes_are_normalized=True,
        content=functools.partial(_encoded, read),
        record=read,
    )


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _encoded(read: functools.partial[bytes]) -> bytes:
    from detzoo.datasets.record_check import parse_features

    encoded = parse_features(read()).get("image/encoded", [])
    if not encoded:
        raise UnusableImage(DataIssue.IMAGE_EMPTY)
    return encoded[0]
