"""Detect on image files, draw what was found, and list it.

image file -> upright RGB -> SavedModel -> detections above the threshold -> picture, detections.json
"""

from __future__ import annotations

import collections
import dataclasses
import functools
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

from detzoo.data.masks import PastedMasks, Rle, encode_mask
from detzoo.datasets.drawing import draw_detections, object_colours
from detzoo.datasets.fonts import LabelFonts
from detzoo.files.images import UnusableImage, read_upright
from detzoo.files.issues import DataIssue
from detzoo.folders import write_atomically
from detzoo.progress import track
from detzoo.serving.image_detector import ImageDetections
from detzoo.tasks.detect_journal import Entries, Journal

DETECTIONS_FILE = "detections.json"
PICTURE_SUFFIX = ".png"
MAX_STEM_BYTES = 240  # a file's name has up to 255
LIST_INTERVAL_SECONDS = 2.0

Regions = Callable[[pathlib.Path, tuple[int, int]], np.ndarray]

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class DetectionLimits:
    """Which detections are listed and drawn.

    Attributes:
        score_threshold: least score.
        max_boxes: of an image, the best.
        max_drawn_overlap: of those, what covers a better one of its class with a larger intersection over union (of
            masks, where there are any) is not drawn, only listed; 1 draws all.
    """

    score_threshold: float = 0.5
    max_boxes: int = 100
    max_drawn_overlap: float = 1.0


@dataclasses.dataclass
class DetectionSummary:
    """What came of a run.

    Attributes:
        num_images: images that were read.
        entries: COCO's results format, plus ``file_name`` and ``category_name``; image_id counts the images from 1. Of
            a detector with a mask head also ``segmentation``, a run-length encoding.
        skipped: file -> why it could not be read.
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
    """Detects on every file; writes a PNG of each and ``detections.json``. Images that cannot be used are counted.

    ``detections.json`` is written again every few seconds and whenever the run ends. A run that was stopped is
    continued by the next one, unless ``made_with``, the class names or the limits changed.

    Args:
        detector: image uint8 [H, W, 3] (and the boxes of ``regions``) -> detections, best first.
        images: the files.
        class_names: id (from 1) -> name; an id without one is called "class <id>".
        output_dir: created where it does not exist.
        limits: which detections count.
        regions: file and (height, width) of its image -> what is classified there, float32 [R, 4] in fractions of the
            image; for a detector that wants proposals.
        made_with: What else the detections depend on, such as the model; JSON values.
        fonts: Fonts of the names.
    """
    folder = pathlib.Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"class_names": {str(key): name for key, name in class_names.items()}, **dataclasses.asdict(limits)}
    journal = Journal(folder, {**facts, **(made_with or {})})
    if len(journal):
        logger.info("%d images were done by a run that was stopped: continuing behind them", len(journal))
    paint = functools.partial(_paint, class_names=class_names, limits=limits, fonts=fonts or LabelFonts())
    summary, due = DetectionSummary(), _Due()
    try:
        for image_id, (path, picture_name) in enumerate(track(_named(images), len(images), "detect"), start=1):
            entries = journal.entries(path, picture_name) if len(journal) else None
            if entries is None:
                try:
                    pixels = read_upright(path)
                    kept = _detections(detector, path, pixels, limits, regions)
                except UnusableImage as problem:
                    summary.skipped[str(path)] = str(problem)
                    logger.warning("%s is skipped: %s", path, problem)
                    continue
                picture, entries = paint(path, pixels, kept)
                picture.save(folder / picture_name, compress_level=1)
                journal.add(path, picture_name, entries)
            summary.num_images += 1
            summary.entries += [{"image_id": image_id, **entry} for entry in entries]
            if due():
                due.took(_write_list(folder, summary))
    except BaseException:
        if summary.num_images:
            _write_list(folder, summary)
            done = summary.num_images
            logger.warning("stopped; %d of %d images are done: the same command continues there", done, len(images))
        raise
    _write_list(folder, summary)
    journal.finish()
    return summary


class _Due:
    """When to write a growing list again: not within seconds, and not for more than 5 % of the time."""

    def __init__(self) -> None:
        self._next = time.monotonic() + LIST_INTERVAL_SECONDS

    def __call__(self) -> bool:
        return time.monotonic() >= self._next

    def took(self, seconds: float) -> None:
        self._next = time.monotonic() + max(LIST_INTERVAL_SECONDS, 20 * seconds)


def _write_list(folder: pathlib.Path, summary: DetectionSummary) -> float:
    """Replaces detections.json as a whole; returns how many seconds that took."""
    started = time.monotonic()
    write_atomically(folder / DETECTIONS_FILE, json.dumps(summary.entries, indent=1) + "\n")
    return time.monotonic() - started


def _detections(
    detector: Callable[..., ImageDetections],
    path: pathlib.Path,
    pixels: np.ndarray,
    limits: DetectionLimits,
    regions: Regions | None,
) -> ImageDetections:
    """Returns the detections that count.

    Raises:
        UnusableImage: the model cannot run on an image of this size.
    """
    height, width = pixels.shape[:2]
    given = () if regions is None else (regions(path, (height, width)),)
    try:
        return apply_limits(detector(pixels, *given), limits)
    except (tf.errors.OpError, ValueError, MemoryError) as problem:  # of TensorFlow, of TFLite, of either
        reason = (str(problem).strip() or type(problem).__name__).splitlines()[0][:200]
        raise UnusableImage(DataIssue.IMAGE_UNFIT, f"the model fails on {width} x {height} pixels: {reason}") from None


def _paint(
    path: pathlib.Path,
    pixels: np.ndarray,
    kept: ImageDetections,
    *,
    class_names: Mapping[int, str],
    limits: DetectionLimits,
    fonts: LabelFonts,
) -> tuple[Image.Image, Entries]:
    """Returns the picture of one image and its entries, without image_id."""
    names = [class_names.get(int(class_id), f"class {class_id}") for class_id in kept.class_ids]
    masks = _pasted_masks(kept, pixels)
    encoded = None if masks is None else [encode_mask(mask) for mask in masks]
    drawn = _drawn(kept, encoded, limits.max_drawn_overlap)
    picture = draw_detections(
        pixels,
        kept.boxes_norm[drawn],
        [names[row] for row in drawn],
        kept.scores[drawn],
        None if masks is None else [masks[row] for row in drawn],
        # Masks of one class are told apart by their colours.
        colours=object_colours(len(drawn)) if masks is not None and len(class_names) == 1 else None,
        fonts=fonts,
    )
    entries = _entries(path, pixels.shape[:2], kept, names)
    for entry, mask in zip(entries, encoded or ()):
        entry["segmentation"] = mask
    return picture, entries


def apply_limits(detections: ImageDetections, limits: DetectionLimits) -> ImageDetections:
    """The best ``max_boxes`` detections of at least the threshold."""
    order = np.argsort(-detections.scores, kind="stable")
    order = order[detections.scores[order] >= limits.score_threshold][: limits.max_boxes]
    boxes_norm, scores, class_ids, masks = detections
    kept = ImageDetections(boxes_norm[order], scores[order], class_ids[order])
    return kept if masks is None else kept._replace(masks=masks[order])


def _pasted_masks(detections: ImageDetections, pixels: np.ndarray) -> PastedMasks | None:
    if detections.masks is None:
        return None
    height, width = pixels.shape[:2]
    return PastedMasks(detections.masks, detections.boxes_norm * [height, width, height, width], (height, width))


def _drawn(kept: ImageDetections, masks: Sequence[Rle] | None, max_overlap: float) -> list[int]:
    """Rows of the detections that are drawn, best first."""
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


def _named(images: Sequence[pathlib.Path]) -> list[tuple[pathlib.Path, str]]:
    return list(zip(images, picture_names(images)))


def _entries(path: pathlib.Path, shape: tuple[int, ...], kept: ImageDetections, names: Sequence[str]) -> Entries:
    height, width = shape
    entries = []
    for box, score, class_id, name in zip(kept.boxes_norm, kept.scores, kept.class_ids, names):
        ymin, xmin, ymax, xmax = (float(side) for side in box * np.array([height, width, height, width]))
        entries.append(
            {
                "file_name": str(path),
                "category_id": int(class_id),
                "category_name": name,
                "bbox": [round(value, 2) for value in (xmin, ymin, xmax - xmin, ymax - ymin)],
                "score": round(float(score), 5),
            }
        )
    return entries


def picture_names(images: Sequence[pathlib.Path]) -> list[str]:
    """A distinct name for the picture of each image: its own with .png, and _2, _3 behind where that is taken."""
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
