"""Detects on image files, draws the detections, and lists them; an interrupted run is resumed by the next one.

image files -> ``detect_images`` -> picture and crops of each, by threads -> journal -> detections.json, label files

Memory holds a few images at a time: what was found is in the journal.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import json
import logging
import math
import os
import pathlib
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from detzoo.datasets.conversion import in_parallel
from detzoo.datasets.fonts import LabelFonts
from detzoo.datasets.label_writer import LabeledImage, write_labels
from detzoo.files.images import encode_image
from detzoo.folders import draft_of
from detzoo.progress import track
from detzoo.serving.image_detector import ImageDetector
from detzoo.tasks.detect_images import DetectionLimits, GivenImage, Regions, Unusable, detect_batches
from detzoo.tasks.detect_journal import Journal
from detzoo.tasks.result import Result

DETECTIONS_FILE = "detections.json"
CROPS_FOLDER = "crops"
PICTURE_SUFFIX = ".png"
MAX_STEM_BYTES = 240  # the name of a file has at most 255
MAX_CLASS_LETTERS = 60  # of the name of a folder of crops
LIST_INTERVAL_SECONDS = 2.0
_LIST_TIME_SHARE = 0.05  # of the run, at most, to write the growing list

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class DetectionOutputs:
    """The files that are written besides detections.json."""

    pictures: bool = True  # write a picture of each image with its detections
    crops: bool = False  # write the part of the image in each box, in a folder per class
    formats: Sequence[str] = ()  # formats of label files, of ``label_writer.FORMATS``
    root: pathlib.Path = pathlib.Path()  # folder that label files state the images relative to; all images are below it


@dataclasses.dataclass
class DetectionSummary:
    """The result of a run."""

    num_images: int = 0  # images that were read
    num_detections: int = 0  # detections in all images
    skipped: dict[str, str] = dataclasses.field(default_factory=dict)  # reason for each file that could not be used
    file: pathlib.Path = pathlib.Path(DETECTIONS_FILE)  # the detections.json

    @property
    def entries(self) -> list[dict[str, Any]]:
        """Detections in COCO's results format, plus ``file_name`` and ``category_name``, read from the file.

        image_id counts the images from 1. A detector with a mask head adds ``segmentation``, a run-length encoding.
        """
        return json.loads(self.file.read_text(encoding="utf-8"))


NamedImage = tuple[GivenImage, str]  # an image and the name of its picture
Found = dict[str, Any] | str  # the journal's values of an image; or why it could not be used


@dataclasses.dataclass(frozen=True)
class ImageWork:
    """The work of a run on every image; the fields are arguments of ``detect_files``."""

    class_names: Mapping[int, str]
    limits: DetectionLimits
    folder: pathlib.Path
    outputs: DetectionOutputs
    fonts: LabelFonts
    batch_size: int = 1
    regions: Regions | None = None

    def run(self, detector: ImageDetector, images: Iterable[NamedImage]) -> Iterator[tuple[GivenImage, Found]]:
        """Detects, and yields each image after its picture and crops are written, in order."""
        names: dict[int, str] = {}

        def given() -> Iterator[GivenImage]:
            for image, name in images:
                names[image.number] = name
                yield image

        def save(result: Result | Unusable) -> tuple[GivenImage, Found]:
            if isinstance(result, Unusable):
                return result.image, result.reason
            self._write(result, names.pop(result.image_id))
            return GivenImage(result.image_id, result.path), {"shape": result.shape, "detections": result.to_coco()}

        results = detect_batches(detector, given(), self.class_names, self.limits, self.batch_size, self.regions)
        yield from in_parallel(save, results, _num_bytes)

    def _write(self, result: Result, name: str) -> None:
        if self.outputs.pictures:
            with draft_of(self.folder / name, "part") as draft:  # that of a killed run is overwritten
                result.draw(self.fonts).save(draft, "PNG", compress_level=1)
        if self.outputs.crops:
            _save_crops(result, self.folder / CROPS_FOLDER, name.removesuffix(PICTURE_SUFFIX))


def detect_files(
    detector: ImageDetector,
    images: Sequence[pathlib.Path],
    class_names: Mapping[int, str],
    output_dir: str | pathlib.Path,
    limits: DetectionLimits,
    regions: Regions | None = None,
    *,
    made_with: Mapping[str, Any] | None = None,
    fonts: LabelFonts | None = None,
    batch_size: int = 1,
    outputs: DetectionOutputs = DetectionOutputs(),
    run: Callable[[Iterable[NamedImage]], Iterator[tuple[GivenImage, Found]]] | None = None,
) -> DetectionSummary:
    """Detects on every file; writes ``detections.json`` and the outputs. Images that cannot be used are skipped.

    ``detections.json`` is replaced every few seconds and at the end of the run. An interrupted run is resumed by the
    next one, unless ``made_with``, the class names or the limits changed. Label files are written at the end.

    Args:
        detector: Image uint8 [H, W, 3] (and the boxes of ``regions``) -> detections.
        images: The files.
        class_names: Name by id (from 1); an id without one is called "class <id>".
        output_dir: Created if it does not exist.
        limits: The detections that are listed and drawn.
        regions: Image and its (height, width) -> regions to classify, float32 [R, 4] in fractions of the image; for a
            detector that requires proposals.
        made_with: Further JSON values that the detections depend on, such as the model.
        fonts: Fonts of the names.
        batch_size: Images per call of a model that takes several.
        outputs: The files to write besides ``detections.json``.
        run: Function in place of ``ImageWork.run``, such as one that detects on other machines; ``detector`` is not
            used then.
    """
    folder = pathlib.Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"class_names": {str(key): name for key, name in class_names.items()}, **dataclasses.asdict(limits)}
    journal = Journal(folder, {**facts, "save_crops": outputs.crops, **(made_with or {})})
    names = picture_names(images)
    todo = [
        (GivenImage(number, path), name)
        for number, (path, name) in enumerate(zip(images, names), start=1)
        if not journal.is_done(name, path, *([folder / name] if outputs.pictures else []))
    ]
    if len(journal):
        logger.info("resuming: %d images were done by the interrupted run", len(images) - len(todo))
    work = ImageWork(class_names, limits, folder, outputs, fonts or LabelFonts(), batch_size, regions)
    run = run or functools.partial(work.run, detector)
    summary, write_next = DetectionSummary(file=folder / DETECTIONS_FILE), time.monotonic() + LIST_INTERVAL_SECONDS
    try:
        for image, found in track(run(todo), len(todo), "detect"):
            if isinstance(found, str):
                summary.skipped[image.name] = found
                logger.warning("%s is skipped: %s", image.name, found)
            else:
                journal.add(names[image.number - 1], image.path or pathlib.Path(), found)
            if time.monotonic() >= write_next:
                started = time.monotonic()
                _write_list(summary, journal, names)
                took = time.monotonic() - started
                write_next = started + took + max(LIST_INTERVAL_SECONDS, took / _LIST_TIME_SHARE)
        _write_list(summary, journal, names)
        labeled = _labeled(journal, images, names, outputs.root)
        write_labels(track(labeled, len(journal), "write labels"), outputs.formats, folder, class_names)
    except BaseException:
        if len(journal):
            done = len(journal)
            logger.warning("interrupted: %d of %d images are done; the same command resumes there", done, len(images))
            _write_list(summary, journal, names)
        raise
    finally:
        journal.close()
    journal.finish()
    return summary


def _save_crops(result: Result, folder: pathlib.Path, stem: str) -> None:
    """Writes the part of the image in each box, at least one pixel, as JPEG: <class>/<stem>_<number>.jpg."""
    low, high = np.floor(result.boxes_px[:, :2]), np.ceil(result.boxes_px[:, 2:])
    low = np.clip(low, 0, np.array(result.shape) - 1).astype(int)
    high = np.clip(high, low + 1, result.shape).astype(int)
    for number, (name, (top, left), (bottom, right)) in enumerate(zip(result.class_names, low, high), start=1):
        of_class = folder / (re.sub(r"[^\w .+-]+", "_", name)[:MAX_CLASS_LETTERS].strip(" .") or "_")
        of_class.mkdir(parents=True, exist_ok=True)
        crop = Image.fromarray(np.ascontiguousarray(result.image[top:bottom, left:right]))
        (of_class / f"{stem}_{number}.jpg").write_bytes(encode_image(crop, lossy=True))


def _num_bytes(done: tuple[GivenImage, Found]) -> int:
    return 0 if isinstance(done[1], str) else 3 * math.prod(done[1]["shape"])


def _done(journal: Journal, names: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the row of each image that is done, and what the journal has of it."""
    for row, name in enumerate(names):
        entry = journal.entry(name)
        if entry is not None:
            yield row, entry


def _write_list(summary: DetectionSummary, journal: Journal, names: Sequence[str]) -> None:
    """Writes detections.json one entry at a time, and counts the images and detections."""
    summary.num_images = summary.num_detections = 0
    with draft_of(summary.file) as draft, draft.open("w", encoding="utf-8") as file:
        for row, entry in _done(journal, names):
            summary.num_images += 1
            for detection in entry["detections"]:
                file.write(",\n " if summary.num_detections else "[\n ")
                file.write(json.dumps({**detection, "image_id": row + 1}))
                summary.num_detections += 1
        file.write("\n]\n" if summary.num_detections else "[]\n")


def _labeled(
    journal: Journal, images: Sequence[pathlib.Path], names: Sequence[str], root: pathlib.Path
) -> Iterator[LabeledImage]:
    for row, entry in _done(journal, names):
        relative = pathlib.Path(os.path.relpath(images[row], root)).as_posix()
        yield LabeledImage(images[row], relative, tuple(entry["shape"]), entry["detections"])


def picture_names(images: Sequence[pathlib.Path], suffix: str = PICTURE_SUFFIX) -> list[str]:
    """Returns a distinct name for the picture of each image: its own with .png, or with _2, _3 if that is taken."""
    taken: set[str] = set()
    numbers: collections.Counter[str] = collections.Counter()
    names = []
    for path in images:
        stem = name = os.fsdecode(os.fsencode(path.stem)[:MAX_STEM_BYTES])
        while name.lower() in taken:
            numbers[stem.lower()] += 1
            name = f"{stem}_{numbers[stem.lower()] + 1}"
        taken.add(name.lower())
        names.append(name + suffix)
    return names
