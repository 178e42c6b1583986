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
from PIL import Image

from detzoo.datasets.drawing import draw_detections, object_colours
from detzoo.datasets.fonts import LabelFonts
from detzoo.evaluate.masks import PastedMasks, Rle, encode_mask
from detzoo.files.images import UnusableImage, read_upright
from detzoo.files.issues import DataIssue
from detzoo.folders import write_atomically
from detzoo.progress import track
from detzoo.serving.image_detector import ImageDetections
from detzoo.tasks.detect_journal import Entries, Journal

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
    detector: Callable[..., ImageDetections],
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
                    kept = _detections(detector, path, pixels, limits, regions)
                except UnusableImage as problem:
                    summary.skipped[str(path)] = str(problem)
                    logger.warning("%s is skipped: %s", path, problem)
                    continue
                picture, entries = _paint(path, pixels, kept, class_names, limits, fonts)
                picture.save(folder / picture_name, compress_level=1)
                journal.add(path, picture_name, entries)
            summary.num_images += 1
            summary.entries += [{"image_id": image_id, **entry} for entry in entries]
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


def _detections(
    detector: Callable[..., ImageDetections],
    path: pathlib.Path,
    pixels: np.ndarray,
    limits: DetectionLimits,
    regions: Regions | None,
) -> ImageDetections:
    """Returns the detections within the limits; raises UnusableImage if the model cannot run on an image this large."""
    height, width = pixels.shape[:2]
    given = () if regions is None else (regions(path, (height, width)),)
    try:
        return apply_limits(detector(pixels, *given), limits)
    except (tf.errors.OpError, ValueError, MemoryError) as problem:  # of TensorFlow, of TFLite, of either
        reason = (str(problem).strip() or type(problem).__name__).splitlines()[0][:200]
        raise UnusableImage(DataIssue.IMAGE_UNFIT, f"the model fails on {width} x {height} pixels: {reason}") from None


def apply_limits(detections: ImageDetections, limits: DetectionLimits) -> ImageDetections:
    """Returns the best ``max_boxes`` detections whose score is at least the threshold, best first."""
    order = np.argsort(-detections.scores, kind="stable")
    order = order[detections.scores[order] >= limits.score_threshold][: limits.max_boxes]
    boxes_norm, scores, class_ids, masks = detections
    kept = ImageDetections(boxes_norm[order], scores[order], class_ids[order])
    return kept if masks is None else kept._replace(masks=masks[order])


def _paint(
    path: pathlib.Path,
    pixels: np.ndarray,
    kept: ImageDetections,
    class_names: Mapping[int, str],
    limits: DetectionLimits,
    fonts: LabelFonts,
) -> tuple[Image.Image, Entries]:
    """Returns the picture of one image and its entries, without image_id."""
    names = [class_names.get(int(class_id), f"class {class_id}") for class_id in kept.class_ids]
    height, width = pixels.shape[:2]
    boxes_px = kept.boxes_norm * [height, width, height, width]
    masks = encoded = None
    if kept.masks is not None:
        masks = PastedMasks(kept.masks, boxes_px, (height, width))
        encoded = [encode_mask(mask) for mask in masks]
    drawn = _drawn(kept, encoded, limits.max_drawn_overlap)
    picture = draw_detections(
        pixels,
        kept.boxes_norm[drawn],
        [names[row] for row in drawn],
        kept.scores[drawn],
        None if masks is None else [masks[row] for row in drawn],
        # Colours distinguish the masks if they all have one class.
        colours=object_colours(len(drawn)) if masks is not None and len(class_names) == 1 else None,
        fonts=fonts,
    )
    entries: Entries = []
    for box, score, class_id, name in zip(boxes_px, kept.scores, kept.class_ids, names):
        ymin, xmin, ymax, xmax = (float(side) for side in box)
        entries.append(
            {
                "file_name": str(path),
                "category_id": int(class_id),
                "category_name": name,
                "bbox": [round(value, 2) for value in (xmin, ymin, xmax - xmin, ymax - ymin)],
                "score": round(float(score), 5),
            }
        )
    for entry, mask in zip(entries, encoded or ()):
        entry["segmentation"] = mask
    return picture, entries


def _drawn(kept: ImageDetections, masks: Sequence[Rle] | None, max_overlap: float) -> list[int]:
    """Returns the rows of the detections that are drawn, best first."""
    rows = list(range(len(kept.scores)))
    if max_overlap >= 1.0 or not rows:
        return rows
    from pycocotools.mask import iou

    boxes_xywh = np.concatenate([kept.boxes_norm[:, 1::-1], kept.boxes_norm[:, :1:-1] - kept.boxes_norm[:, 1::-1]], 1)
    shapes = boxes_xywh.astype(np.float64) if masks is None else masks
    overlaps = np.asarray(iou(shapes, shapes, [0] * len(rows)))
    overlaps[kept.class_ids[:, np.newaxis] != kept.class_ids] = 0.0
    chosen: list[int] = []
    for row in rows:
        if not chosen or overlaps[row, chosen].max() <= max_overlap:
            chosen.append(row)
    return chosen


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
