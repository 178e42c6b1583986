"""Detect on image files, draw what was found, and list it.

image file -> upright RGB -> SavedModel -> detections above the threshold -> picture, detections.json
"""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from detzoo.data.drawing import draw_detections, object_colours
from detzoo.data.masks import PastedMasks, Rle, encode_mask
from detzoo.data.progress import track
from detzoo.data.repair import UnusableImage, repair_image
from detzoo.detectors.saved_detector import ImageDetections

DETECTIONS_FILE = "detections.json"
PICTURE_SUFFIX = ".png"

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
    regions: Callable[[pathlib.Path, tuple[int, int]], np.ndarray] | None = None,
) -> DetectionSummary:
    """Detects on every file and writes one PNG for each and ``detections.json``; unreadable files are counted.

    Args:
        detector: image uint8 [H, W, 3] (and the boxes of ``regions``) -> detections, best first.
        images: the files.
        class_names: id (from 1) -> name; an id without one is called "class <id>".
        output_dir: created where it does not exist.
        limits: which detections count.
        regions: file and (height, width) of its image -> what is classified there, float32 [R, 4] in fractions of the
            image; for a detector that wants proposals.
    """
    folder = pathlib.Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    summary = DetectionSummary()
    for image_id, (path, picture_name) in enumerate(track(_named(images), len(images), "detect"), start=1):
        try:
            pixels = read_upright(path)
        except (OSError, UnusableImage) as problem:
            summary.skipped[str(path)] = getattr(problem, "strerror", None) or str(problem)
            logger.warning("%s is skipped: %s", path, summary.skipped[str(path)])
            continue
        summary.num_images += 1
        given = () if regions is None else (regions(path, (pixels.shape[0], pixels.shape[1])),)
        kept = apply_limits(detector(pixels, *given), limits)
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
        )
        picture.save(folder / picture_name, compress_level=1)
        entries = _entries(image_id, path, pixels.shape[:2], kept, names)
        for entry, mask in zip(entries, encoded or ()):
            entry["segmentation"] = mask
        summary.entries += entries
    (folder / DETECTIONS_FILE).write_text(json.dumps(summary.entries, indent=1) + "\n", encoding="utf-8")
    return summary


def read_upright(path: pathlib.Path) -> np.ndarray:
    """An image file as uint8 [H, W, 3], RGB, turned as its EXIF orientation says.

    Raises:
        OSError: the file cannot be read.
        UnusableImage: it holds no image, or a broken one.
    """
    repaired = repair_image(path.read_bytes(), path.name)
    with Image.open(io.BytesIO(repaired.encoded)) as image:
        return np.asarray(image.convert("RGB"))


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


def _entries(
    image_id: int, path: pathlib.Path, shape: tuple[int, ...], kept: ImageDetections, names: Sequence[str]
) -> list[dict[str, Any]]:
    height, width = shape
    entries = []
    for box, score, class_id, name in zip(kept.boxes_norm, kept.scores, kept.class_ids, names):
        ymin, xmin, ymax, xmax = (float(side) for side in box * np.array([height, width, height, width]))
        entries.append(
            {
                "image_id": image_id,
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
    names = []
    for path in images:
        name, number = path.stem, 1
        while name.lower() in taken:
            number += 1
            name = f"{path.stem}_{number}"
        taken.add(name.lower())
        names.append(name + PICTURE_SUFFIX)
    return names
