"""Detects on image files, draws the detections, and lists them.

image file -> upright RGB -> detector -> detections above the threshold -> picture, detections.json
"""

from __future__ import annotations

import collections
import dataclasses
import json
import logging
import os
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from detzoo.datasets.fonts import LabelFonts
from detzoo.files.images import UnusableImage, read_upright
from detzoo.files.issues import DataIssue
from detzoo.folders import write_atomically
from detzoo.progress import track
from detzoo.serving.image_detector import ImageDetections, ImageDetector
from detzoo.tasks.detect_journal import Journal
from detzoo.tasks.result import Result

DETECTIONS_FILE = "detections.json"
PICTURE_SUFFIX = ".png"
MAX_STEM_BYTES = 240  # the name of a file has at most 255
LIST_INTERVAL_SECONDS = 2.0
_LIST_TIME_SHARE = 0.05  # of the run, at most, to write the growing list

Regions = Callable[[pathlib.Path, tuple[int, int]], np.ndarray]

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class DetectionLimits:
    """The detections that are listed and drawn.

    Attributes:
        score_threshold: Least score.
        max_boxes: Detections per image at most, the best ones.
        max_drawn_overlap: A detection that overlaps a better one of its class by a greater IoU (of masks, if there are
            any) is listed, but not drawn; 1 draws all.
    """

    score_threshold: float = 0.5
    max_boxes: int = 100
    max_drawn_overlap: float = 1.0


@dataclasses.dataclass
class DetectionSummary:
    """The result of a run.

    Attributes:
        num_images: Images that were read.
        entries: Detections in COCO's results format, plus ``file_name`` and ``category_name``; image_id counts the
            images from 1. A detector with a mask head adds ``segmentation``, a run-length encoding.
        skipped: Reason for each file that could not be used.
    """

    num_images: int = 0
    entries: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    skipped: dict[str, str] = dataclasses.field(default_factory=dict)


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
) -> DetectionSummary:
    """Detects on every file; writes a PNG of each and ``detections.json``. Images that cannot be used are skipped.

    ``detections.json`` is replaced every few seconds and at the end of the run. An interrupted run is resumed by the
    next one, unless ``made_with``, the class names or the limits changed.

    Args:
        detector: Image uint8 [H, W, 3] (and the boxes of ``regions``) -> detections.
        images: The files.
        class_names: Name by id (from 1); an id without one is called "class <id>".
        output_dir: Created if it does not exist.
        limits: The detections that are listed and drawn.
        regions: File and (height, width) of its image -> regions to classify, float32 [R, 4] in fractions of the
            image; for a detector that requires proposals.
        made_with: Further JSON values that the detections depend on, such as the model.
        fonts: Fonts of the names.
    """
    folder = pathlib.Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"class_names": {str(key): name for key, name in class_names.items()}, **dataclasses.asdict(limits)}
    journal = Journal(folder, {**facts, **(made_with or {})})
    if len(journal):
        logger.info("resuming: %d images were done by the interrupted run", len(journal))
    fonts = fonts or LabelFonts()
    summary, write_next = DetectionSummary(), time.monotonic() + LIST_INTERVAL_SECONDS
    named = list(zip(images, picture_names(images)))
    try:
        for image_id, (path, picture_name) in enumerate(track(named, len(named), "detect"), start=1):
            entries = journal.entries(path, picture_name) if len(journal) else None
            if entries is None:
                try:
                    pixels = read_upright(path)
                    given = [] if regions is None else [regions(path, pixels.shape[:2])]
                    [kept] = detect_pixels(detector, [pixels], limits, given)
                except UnusableImage as problem:
                    summary.skipped[str(path)] = str(problem)
                    logger.warning("%s is skipped: %s", path, problem)
                    continue
                result = make_result(kept, pixels, class_names, limits, path)
                result.draw(fonts).save(folder / picture_name, compress_level=1)
                entries = result.to_coco()
                journal.add(path, picture_name, entries)
            summary.num_images += 1
            summary.entries += [{**entry, "image_id": image_id} for entry in entries]
            if time.monotonic() >= write_next:
                started = time.monotonic()
                _write_list(folder, summary)
                took = time.monotonic() - started
                write_next = started + took + max(LIST_INTERVAL_SECONDS, took / _LIST_TIME_SHARE)
    except BaseException:
        if summary.num_images:
            _write_list(folder, summary)
            done = summary.num_images
            logger.warning("interrupted: %d of %d images are done; the same command resumes there", done, len(images))
        raise
    _write_list(folder, summary)
    journal.finish()
    return summary


def _write_list(folder: pathlib.Path, summary: DetectionSummary) -> None:
    write_atomically(folder / DETECTIONS_FILE, json.dumps(summary.entries, indent=1) + "\n")


def detect_pixels(
    detector: ImageDetector, images: Sequence[np.ndarray], limits: DetectionLimits, regions: Sequence[np.ndarray] = ()
) -> list[ImageDetections]:
    """Returns the detections of images uint8 [H, W, 3] within the limits.

    Args:
        detector: The model.
        images: Images that are in memory at the same time.
        limits: The detections to keep.
        regions: Regions of each image to classify, for a detector that requires proposals.

    Raises:
        UnusableImage: The model cannot run on images this large.
    """
    try:
        return [apply_limits(found, limits) for found in detector.detect_all(images, regions)]
    except (tf.errors.OpError, ValueError, MemoryError) as problem:  # of TensorFlow, of TFLite, of either
        sizes = " and ".join(dict.fromkeys(f"{image.shape[1]} x {image.shape[0]}" for image in images))
        reason = (str(problem).strip() or type(problem).__name__).splitlines()[0][:200]
        raise UnusableImage(DataIssue.IMAGE_UNFIT, f"the model fails on {sizes} pixels: {reason}") from None


def apply_limits(detections: ImageDetections, limits: DetectionLimits) -> ImageDetections:
    """Returns the best ``max_boxes`` detections whose score is at least the threshold, best first."""
    order = np.argsort(-detections.scores, kind="stable")
    order = order[detections.scores[order] >= limits.score_threshold][: limits.max_boxes]
    boxes_norm, scores, class_ids, masks = detections
    kept = ImageDetections(boxes_norm[order], scores[order], class_ids[order])
    return kept if masks is None else kept._replace(masks=masks[order])


def make_result(
    kept: ImageDetections,
    pixels: np.ndarray,
    class_names: Mapping[int, str],
    limits: DetectionLimits,
    path: pathlib.Path | None = None,
    image_id: int = 1,
) -> Result:
    """Returns the result of an image uint8 [H, W, 3] whose detections are within the limits."""
    shape = (pixels.shape[0], pixels.shape[1])
    return Result(kept, shape, class_names, path, image_id, limits.max_drawn_overlap, pixels)


def picture_names(images: Sequence[pathlib.Path]) -> list[str]:
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
        names.append(name + PICTURE_SUFFIX)
    return names
