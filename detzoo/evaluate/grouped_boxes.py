"""Detections and ground truth of all images by class, and the overlaps within images (to pascal_voc, open_images).

All images are sorted by class once, and every step is one numpy operation on all boxes of a class. The time grows with
the number of boxes and not with images times classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from detzoo.evaluate.images import EvaluatedImage

PAIRS_AT_ONCE = 1_000_000  # limits the memory of overlaps


class ClassBoxes(NamedTuple):
    """D detections and G objects of one class, by image; detections best first within an image."""

    image: np.ndarray  # int64 [D], position of the image
    boxes_px: np.ndarray  # float32 [D, 4]
    scores: np.ndarray  # float32 [D]
    gt_image: np.ndarray  # int64 [G]
    gt_boxes_px: np.ndarray  # float32 [G, 4]
    gt_is_crowd: np.ndarray  # bool [G]
    gt_is_difficult: np.ndarray  # bool [G]


class GroupedBoxes:
    """All boxes of an evaluation, sorted by class."""

    def __init__(self, images: Sequence[EvaluatedImage]) -> None:
        numbers = np.arange(len(images))
        image = np.repeat(numbers, [len(each.classes) for each in images])
        classes, self._scores = _joined(images, "classes"), _joined(images, "scores")
        self._boxes_px = _joined(images, "boxes_px").reshape(-1, 4)
        self._order = np.lexsort((-self._scores, image, classes))
        self._image, self._classes = image, classes[self._order]
        gt_classes = _joined(images, "gt_classes")
        order = np.argsort(gt_classes, kind="stable")
        self._gt_classes = gt_classes[order]
        self._gt = (
            np.repeat(numbers, [len(each.gt_classes) for each in images])[order],
            _joined(images, "gt_boxes_px").reshape(-1, 4)[order],
            _joined(images, "gt_is_crowd")[order],
            _joined(images, "gt_is_difficult")[order],
        )

    def of_class(self, class_index: int) -> ClassBoxes:
        """Returns the boxes of a class, counted from 0."""
        rows = self._order[slice(*np.searchsorted(self._classes, [class_index, class_index + 1]))]
        of_class = slice(*np.searchsorted(self._gt_classes, [class_index, class_index + 1]))
        found = (self._image[rows], self._boxes_px[rows], self._scores[rows])
        return ClassBoxes(*found, *(column[of_class] for column in self._gt))


def _joined(images: Sequence[EvaluatedImage], field: str) -> np.ndarray:
    return np.concatenate([getattr(image, field) for image in images]) if images else np.zeros(0, np.int64)


def best_overlaps(
    boxes: ClassBoxes, objects: np.ndarray, overlap: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the object of the same image that each detection overlaps most; of equal overlaps, the first object.

    Args:
        boxes: Detections and objects of a class.
        objects: int64 [M], rising rows of the objects to look at.
        overlap: Maps boxes [P, 4] of detections and [P, 4] of objects to overlaps [P].

    Returns:
        The overlaps, float64 [D], and the rows of the objects, int64 [D]; 0 and -1 if the image has none of them.
    """
    begin, end = (np.searchsorted(boxes.gt_image[objects], boxes.image, side) for side in ("left", "right"))
    counts = end - begin
    best, nearest = np.zeros(len(counts)), np.full(len(counts), -1)
    compared = np.flatnonzero(counts)
    for part in np.array_split(compared, counts.sum() // PAIRS_AT_ONCE + 1):
        if not len(part):
            continue
        first = np.cumsum(counts[part]) - counts[part]  # pair of each detection with the first object of its image
        detections = np.repeat(part, counts[part])
        others = objects[np.arange(len(detections)) - np.repeat(first - begin[part], counts[part])]
        overlaps = overlap(boxes.boxes_px[detections], boxes.gt_boxes_px[others])
        best[part] = np.maximum.reduceat(overlaps, first)
        is_best = np.flatnonzero(overlaps == best[detections])
        found, at = np.unique(detections[is_best], return_index=True)
        nearest[found] = others[is_best[at]]
    return best, nearest


def is_first_hit(objects: np.ndarray) -> np.ndarray:
    """Returns whether a detection is the first of its object, bool [D]; ``objects`` is int64 [D], -1 for none."""
    is_first = np.zeros(len(objects), bool)
    rows = np.flatnonzero(objects >= 0)
    is_first[rows[np.unique(objects[rows], return_index=True)[1]]] = True
    return is_first
