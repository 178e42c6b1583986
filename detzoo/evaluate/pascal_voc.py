"""Pascal VOC's average precision, by area under the curve (since 2010) and at eleven recalls (2007).

M. Everingham et al., "The PASCAL Visual Object Classes challenge", section 4.2. A difficult object or a crowd counts
neither as found nor as missed, and a detection on it is neither right nor wrong. Every further detection of an object
that is already found is wrong. Boxes are continuous: no pixel is added to their sides, unlike the devkit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from detzoo.evaluate.grouped_boxes import ClassBoxes, GroupedBoxes, best_overlaps, is_first_hit
from detzoo.evaluate.images import EvaluatedImage
from detzoo.ops.numpy_boxes import box_iou

IOU_THRESHOLD = 0.5
ELEVEN_RECALLS = np.linspace(0.0, 1.0, 11)


class VocResult(NamedTuple):
    """Average precision by class name (NaN without an object) and its mean over the classes that have objects."""

    mean_average_precision: float
    per_class: dict[str, float]


def evaluate_voc(
    images: Sequence[EvaluatedImage],
    class_names: Mapping[int, str],
    *,
    eleven_points: bool = False,
    iou_threshold: float = IOU_THRESHOLD,
) -> VocResult:
    """Computes Pascal VOC's mean average precision by area, or by the ``eleven_points`` of VOC 2007.

    Returns:
        The mean (-1 if no class has objects) and the average precision of each class.
    """
    average = average_precision_eleven_points if eleven_points else average_precision_area
    grouped, per_class = GroupedBoxes(images), {}
    for class_id, name in sorted(class_names.items()):
        scores, is_right, num_objects = _judge_class(grouped.of_class(class_id - 1), iou_threshold)
        recall, precision = precision_recall(scores, is_right, num_objects)
        per_class[name] = average(recall, precision) if num_objects else float("nan")
    return mean_of_classes(per_class)


def mean_of_classes(per_class: dict[str, float]) -> VocResult:
    """Returns the mean over the classes with objects, which are not NaN; -1 if there are none."""
    measured = [value for value in per_class.values() if not np.isnan(value)]
    return VocResult(float(np.mean(measured)) if measured else -1.0, per_class)


def precision_recall(scores: np.ndarray, is_right: np.ndarray, num_objects: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns recall and precision after each detection, best score first. Ties keep the given order."""
    order = np.argsort(-scores, kind="stable")
    right = np.cumsum(is_right[order].astype(np.float64))
    recall = right / max(num_objects, 1)
    precision = right / np.arange(1, len(order) + 1)
    return recall, precision


def average_precision_area(recall: np.ndarray, precision: np.ndarray) -> float:
    """Returns the area under the precision-recall curve with monotone precision (since VOC 2010)."""
    edges = np.concatenate([[0.0], recall, [1.0]])
    heights = np.concatenate([[0.0], precision, [0.0]])
    falling = np.maximum.accumulate(heights[::-1])[::-1]
    return float(np.sum(np.diff(edges) * falling[1:]))


def average_precision_eleven_points(recall: np.ndarray, precision: np.ndarray) -> float:
    """Returns the mean of the best precision at recall of at least 0, .1, ..., 1 (VOC 2007)."""
    best = [np.max(precision[recall >= wanted - 1e-9], initial=0.0) for wanted in ELEVEN_RECALLS]
    return float(np.mean(best))


def _judge_class(boxes: ClassBoxes, iou_threshold: float) -> tuple[np.ndarray, np.ndarray, int]:
    """Returns scores and verdicts of all detections of a class that count, and the number of objects to find."""
    is_ignored = boxes.gt_is_crowd | boxes.gt_is_difficult
    overlap, nearest = best_overlaps(boxes, np.arange(len(is_ignored)), box_iou)
    hit = np.where(overlap >= iou_threshold, nearest, -1)
    counts = ~np.append(is_ignored, False)[hit]
    return boxes.scores[counts], is_first_hit(hit)[counts], int(np.sum(~is_ignored))
