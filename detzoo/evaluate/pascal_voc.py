"""Pascal VOC's average precision, by area under the curve (since 2010) and at eleven recalls (2007).

M. Everingham et al., "The PASCAL Visual Object Classes challenge", section 4.2. A difficult object or a crowd counts
neither as found nor as missed, and a detection on it is neither right nor wrong. Every further detection of an object
that is already found is wrong. Boxes are continuous: no pixel is added to their sides, unlike the devkit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from detzoo.evaluate.images import EvaluatedImage
from detzoo.ops.numpy_boxes import pairwise_iou

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
    per_class = {}
    for class_id, name in sorted(class_names.items()):
        scores, is_right, num_objects = _judge_class(images, class_id - 1, iou_threshold)
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


def _judge_class(
    images: Sequence[EvaluatedImage], class_index: int, iou_threshold: float
) -> tuple[np.ndarray, np.ndarray, int]:
    """Returns scores and verdicts of all detections of a class that count, and the number of objects to find."""
    scores: list[float] = []
    verdicts: list[bool] = []
    num_objects = 0
    for image in images:
        of_class = image.gt_classes == class_index
        ignored = (image.gt_is_difficult | image.gt_is_crowd)[of_class]
        num_objects += int(np.sum(~ignored))
        mine = image.classes == class_index
        image_scores = image.scores[mine]
        order = np.argsort(-image_scores, kind="stable")
        with_truth = pairwise_iou(image.boxes_px[mine][order], image.gt_boxes_px[of_class])
        for score, verdict in zip(image_scores[order], _judge_image(with_truth, ignored, iou_threshold)):
            if verdict is not None:
                scores.append(float(score))
                verdicts.append(verdict)
    return np.array(scores), np.array(verdicts, bool), num_objects


def _judge_image(with_truth: np.ndarray, ignored: np.ndarray, iou_threshold: float) -> list[bool | None]:
    """Returns True (finds an object), False (wrong) or None (on an ignored object) per detection, best first."""
    found = np.zeros(len(ignored), bool)
    verdicts: list[bool | None] = []
    for row in with_truth:
        best = int(np.argmax(row)) if len(row) else -1
        if best < 0 or row[best] < iou_threshold:
            verdicts.append(False)
        elif ignored[best]:
            verdicts.append(None)
        else:
            verdicts.append(not found[best])
            found[best] = True
    return verdicts
