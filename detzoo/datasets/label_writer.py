"""Writes detections as the label files of annotation tools, which people correct and every importer reads back.

format    files below the output folder                    rules
yolo      yolo/labels/<image>.txt, yolo/data.yaml,         class from 0, then centre x, centre y, width, height or the
          yolo/classes.txt                                 points of an outline, in fractions of the image
voc       voc/<image>.xml                                  whole pixels, counted from 1
csv       detections.csv                                   filename,width,height,class,xmin,ymin,xmax,ymax,score
labelme   labelme/<image>.json                             rectangles or polygons in pixels

<image> is the path of the image below a common folder, so that images of one name in two folders stay apart. Outlines
of masks are the largest polygon around them. An image without detections has a file without objects, and in the CSV
file a row of its name and size.
"""

from __future__ import annotations

import contextlib
import csv
import json
import logging
import os
import pathlib
import posixpath
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from detzoo.folders import draft_of, write_atomically

CSV_COLUMNS = ("filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax", "score")
OUTLINE_TOLERANCE_PX = 1.0  # by which the outline of a mask is simplified
LABELME_VERSION = "5.0.0"  # labelme warns of files of another major version

logger = logging.getLogger(__name__)


class LabeledImage(NamedTuple):
    """An image with its detections in COCO's results format, as ``Result.to_coco`` returns them."""

    path: pathlib.Path
    relative: str  # path below the common folder, with slashes
    shape: tuple[int, int]  # (height, width)
    detections: Sequence[Mapping[str, Any]]


Writer = Callable[[LabeledImage], None]


def write_labels(
    images: Iterable[LabeledImage], formats: Sequence[str], folder: pathlib.Path, class_names: Mapping[int, str]
) -> None:
    """Writes label files of some of ``FORMATS`` below a folder.

    Args:
        images: The images, read once; one is in memory at a time.
        formats: Names of the formats.
        folder: The output folder.
        class_names: Name by id, from 1, in whose order YOLO counts the classes.
    """
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(FORMATS[name](folder, class_names)) for name in dict.fromkeys(formats)]
        for image in images:
            for write in writers:
                write(image)


@contextlib.contextmanager
def _yolo(folder: pathlib.Path, class_names: Mapping[int, str]) -> Iterator[Writer]:
    file_of = _FileNames(folder / "yolo" / "labels", ".txt", needs_own_stem=True)
    indices = {class_id: index for index, class_id in enumerate(sorted(class_names))}
    names = [class_names[class_id] for class_id in sorted(class_names)]

    def write(image: LabeledImage) -> None:
        lines = []
        height, width = image.shape
        for detection in image.detections:
            if detection["category_id"] not in indices:
                indices[detection["category_id"]] = len(names)
                names.append(detection["category_name"])
            outline = _outline(detection)
            if outline is None:
                x, y, box_width, box_height = detection["bbox"]
                numbers = np.array([x + box_width / 2, y + box_height / 2, box_width, box_height])
            else:
                numbers = outline.ravel()
            fractions = numbers / np.tile([width, height], len(numbers) // 2)
            lines.append(" ".join([str(indices[detection["category_id"]]), *(f"{value:.6f}" for value in fractions)]))
        if (file := file_of(image)) is not None:
            write_atomically(file, "".join(f"{line}\n" for line in lines))

    yield write
    (folder / "yolo").mkdir(exist_ok=True)
    write_atomically(folder / "yolo" / "classes.txt", "".join(f"{name}\n" for name in names))
    rows = [f"  {index}: {json.dumps(name, ensure_ascii=False)}\n" for index, name in enumerate(names)]
    write_atomically(folder / "yolo" / "data.yaml", "names:\n" + "".join(rows))


@contextlib.contextmanager
def _voc(folder: pathlib.Path, class_names: Mapping[int, str]) -> Iterator[Writer]:
    del class_names
    file_of = _FileNames(folder / "voc", ".xml")

    def write(image: LabeledImage) -> None:
        (height, width), path = image.shape, pathlib.PurePosixPath(image.relative)
        root = ElementTree.Element("annotation")
        _add(root, folder=image.path.absolute().parent.name, filename=path.name, path=image.path.absolute())
        _add(ElementTree.SubElement(root, "source"), database="detzoo")
        _add(ElementTree.SubElement(root, "size"), width=width, height=height, depth=3)
        _add(root, segmented=0)
        for detection in image.detections:
            item = ElementTree.SubElement(root, "object")
            _add(item, name=detection["category_name"], pose="Unspecified", truncated=0, difficult=0)
            x, y, box_width, box_height = detection["bbox"]
            (xmin, xmax), (ymin, ymax) = _counted(x, x + box_width, width), _counted(y, y + box_height, height)
            _add(ElementTree.SubElement(item, "bndbox"), xmin=xmin, ymin=ymin, xmax=xmax, ymax=ymax)
        ElementTree.indent(root, "\t")
        write_atomically(file_of(image), ElementTree.tostring(root, "unicode").encode("utf-8", "replace") + b"\n")

    yield write


def _counted(low: float, high: float, size: int) -> tuple[int, int]:
    """Returns the first and the last of the pixels 1 to ``size``. They differ: readers drop boxes without area."""
    first = min(max(round(low), 1), max(size - 1, 1))
    return first, min(max(round(high), first + 1), size)


def _add(parent: ElementTree.Element, **texts: Any) -> None:
    for tag, text in texts.items():
        # XML has no control characters.
        ElementTree.SubElement(parent, tag).text = "".join(c if c >= " " else " " for c in str(text))


@contextlib.contextmanager
def _csv(folder: pathlib.Path, class_names: Mapping[int, str]) -> Iterator[Writer]:
    del class_names
    options: dict[str, Any] = {"encoding": "utf-8", "errors": "replace", "newline": ""}
    with draft_of(folder / "detections.csv") as draft, draft.open("w", **options) as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(CSV_COLUMNS)

        def write(image: LabeledImage) -> None:
            height, width = image.shape
            for detection in image.detections:
                x, y, box_width, box_height = detection["bbox"]
                corners = [round(value, 2) for value in (x, y, x + box_width, y + box_height)]
                name = detection["category_name"]
                table.writerow([image.relative, width, height, name, *corners, detection["score"]])
            if not image.detections:
                table.writerow([image.relative, width, height, *[""] * 6])

        yield write


@contextlib.contextmanager
def _labelme(folder: pathlib.Path, class_names: Mapping[int, str]) -> Iterator[Writer]:
    del class_names
    file_of = _FileNames(folder / "labelme", ".json")

    def write(image: LabeledImage) -> None:
        file, (height, width) = file_of(image), image.shape
        shapes = []
        for detection in image.detections:
            outline = _outline(detection)
            x, y, box_width, box_height = detection["bbox"]
            corners = [[x, y], [round(x + box_width, 2), round(y + box_height, 2)]]
            shapes.append(
                {
                    "label": detection["category_name"],
                    "points": corners if outline is None else outline.tolist(),
                    "group_id": None,
                    "description": f"score {detection['score']:g}",
                    "shape_type": "rectangle" if outline is None else "polygon",
                    "flags": {},
                    "mask": None,
                }
            )
        place = pathlib.Path(os.path.relpath(image.path.absolute(), file.parent.absolute())).as_posix()
        content: dict[str, Any] = {"version": LABELME_VERSION, "flags": {}, "shapes": shapes, "imagePath": place}
        content |= {"imageData": None, "imageHeight": height, "imageWidth": width}
        write_atomically(file, json.dumps(content, indent=2) + "\n")

    yield write


FORMATS = {"yolo": _yolo, "voc": _voc, "csv": _csv, "labelme": _labelme}


class _FileNames:
    """Names of one label file per image; a second image of a name, a.png next to a.jpg, gets its own as a.png.xml.

    Args:
        folder: Folder of the label files.
        suffix: Their suffix.
        needs_own_stem: The format finds label files by the images' names without suffix, so a second image gets none.
    """

    def __init__(self, folder: pathlib.Path, suffix: str, needs_own_stem: bool = False) -> None:
        self._folder, self._suffix, self._needs_own_stem = folder, suffix, needs_own_stem
        self._taken: set[str] = set()
        folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, image: LabeledImage) -> Any:
        """Returns the path of the label file, whose folder exists; None if the image cannot have one."""
        stem = posixpath.splitext(image.relative)[0]
        if stem in self._taken:
            if self._needs_own_stem:
                logger.warning("%s has no YOLO labels: another image in its folder has this name", image.path)
                return None
            stem = image.relative
        self._taken.add(stem)
        file = self._folder / f"{stem}{self._suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        return file


def _outline(detection: Mapping[str, Any]) -> np.ndarray | None:
    """Returns the largest outline of a mask as points (x, y) in pixels, float64 [P, 2]; None if there is none."""
    if "segmentation" not in detection:
        return None
    import contourpy
    from pycocotools import mask as coco_mask

    x, y, width, height = coco_mask.toBbox(detection["segmentation"]).astype(int)
    if not width or not height:
        return None
    mask = coco_mask.decode(detection["segmentation"])[y : y + height, x : x + width]
    # Halfway between the centres of the pixels inside and outside; the mask gets a border of zeros.
    lines: Any = contourpy.contour_generator(z=np.pad(mask, 1).astype(np.float64)).lines(0.5)
    points = max(lines, key=_area)[:-1]
    simple = _simplified(points + np.array([x - 0.5, y - 0.5]))
    return np.round(simple, 2) if len(simple) > 2 else None


def _area(points: np.ndarray) -> float:
    x, y = points.T
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2


def _simplified(points: np.ndarray) -> np.ndarray:
    """Drops points of a closed line that lie within ``OUTLINE_TOLERANCE_PX`` of it (Douglas and Peucker, 1973)."""
    is_kept = np.zeros(len(points) + 1, bool)
    closed = np.concatenate([points, points[:1]])
    middle = int(np.argmax(np.linalg.norm(points - points[0], axis=1)))
    is_kept[[0, middle]] = True
    waiting = [(0, middle), (middle, len(points))]
    while waiting:
        first, last = waiting.pop()
        if last - first < 2:
            continue
        start, along = closed[first], closed[last] - closed[first]
        offsets = closed[first + 1 : last] - start
        share = np.clip(offsets @ along / max(along @ along, 1e-12), 0.0, 1.0)
        distances = np.linalg.norm(offsets - share[:, np.newaxis] * along, axis=1)
        farthest = int(np.argmax(distances))
        if distances[farthest] > OUTLINE_TOLERANCE_PX:
            split = first + 1 + farthest
            is_kept[split] = True
            waiting += [(first, split), (split, last)]
    return points[is_kept[:-1]]
