"""Average precision as COCO interpolates it, and precision, recall and F1 over the score threshold.

F1 is the harmonic mean of precision and recall, 2 TP / (2 TP + FP + FN).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from detzoo.evaluate.analysis.table import Table

RECALLS = np.linspace(0.0, 1.0, 101)  # COCO's recalls, at which precision is interpolated
THRESHOLDS = np.linspace(0.0, 1.0, 101)  # of the curves over the score
_MOST_DIGITS = 17  # of a threshold; a float64 has no more


class Verdicts(NamedTuple):
    """Detections that count by class and falling score, and the objects to find: the input of every precision."""

    classes: np.ndarray  # int64 [D], 0-based
    is_right: np.ndarray  # bool [D]
    num_objects: np.ndarray  # int64 [K], objects to find of each class


class ScoreCurves(NamedTuple):
    """Precision, recall and F1 of the detections with at least a score."""

    precision: np.ndarray  # float64 [101], at ``THRESHOLDS``; NaN above the highest score
    recall: np.ndarray  # float64 [101]
    f1: np.ndarray  # float64 [101]
    best_threshold: float | None  # the one with the highest F1; None if no detection is right
    best_f1: float


def count_objects(table: Table, num_classes: int, is_counted: np.ndarray | None = None) -> np.ndarray:
    """Returns the number of objects to find of each class, int64 [K]; of those in ``is_counted`` [G] if it is given."""
    counted = ~table.gt_is_ignored if is_counted is None else ~table.gt_is_ignored & is_counted
    return np.bincount(table.gt_class[counted], minlength=num_classes)


def verdicts_of(table: Table, is_counted: np.ndarray, is_right: np.ndarray, num_objects: np.ndarray) -> Verdicts:
    """Returns the verdicts on the detections of a mask, bool [D]."""
    rows = table.by_class[is_counted[table.by_class]]
    return Verdicts(table.classes[rows], is_right[rows], num_objects)


def precision_at_recalls(verdicts: Verdicts) -> np.ndarray:
    """Returns the interpolated precision of each class at ``RECALLS``, float64 [K, 101].

    It is the highest precision at this recall or a higher one. NaN for a class without objects and detections; zeros
    for a class with detections alone.
    """
    ends = np.searchsorted(verdicts.classes, np.arange(len(verdicts.num_objects) + 1))
    result = np.zeros([len(verdicts.num_objects), len(RECALLS)])
    for row, num_objects in enumerate(verdicts.num_objects):
        own = np.cumsum(verdicts.is_right[ends[row] : ends[row + 1]])
        if not num_objects:
            result[row] = 0.0 if len(own) else np.nan
            continue
        precision = own / np.arange(1, len(own) + 1)
        falling = np.maximum.accumulate(precision[::-1])[::-1]
        places = np.searchsorted(own / num_objects, RECALLS, side="left")
        result[row] = np.append(falling, 0.0)[np.minimum(places, len(own))]
    return result


def mean_average_precision(verdicts: Verdicts, has_objects: np.ndarray | None = None) -> float:
    """Returns the mean over the classes with objects, or those of a mask bool [K]; -1 if there are none."""
    chosen = verdicts.num_objects > 0 if has_objects is None else has_objects
    averages = precision_at_recalls(verdicts)[chosen].mean(axis=1)
    measured = averages[~np.isnan(averages)]
    return float(measured.mean()) if len(measured) else -1.0


def score_curves(scores: np.ndarray, is_right: np.ndarray, num_objects: int) -> ScoreCurves:
    """Returns the curves of detections over the score threshold, and the threshold with the highest F1.

    Args:
        scores: float [D].
        is_right: bool [D].
        num_objects: Objects to find.
    """
    order = np.argsort(-scores, kind="stable")
    falling, right = scores[order].astype(np.float32), np.cumsum(is_right[order])
    counts = np.arange(1, len(order) + 1)
    f1 = 2.0 * right / np.maximum(counts + num_objects, 1)
    passing = np.searchsorted(-falling, -THRESHOLDS.astype(np.float32), side="right")  # detections at each threshold
    padded_right, padded_f1 = np.concatenate([[0], right]), np.concatenate([[0.0], f1])
    precision = np.where(passing > 0, padded_right[passing] / np.maximum(passing, 1), np.nan)
    recall = padded_right[passing] / max(num_objects, 1)
    best_threshold, best_f1 = None, 0.0
    if len(right) and right[-1]:
        # Equal scores pass together.
        is_last = np.append(falling[1:] < falling[:-1], True)
        best = int(np.argmax(np.where(is_last, f1, -1.0)))
        best_f1 = float(f1[best])
        best_threshold = float(falling[best])
        if best + 1 < len(falling):
            best_threshold = shortest_between(float(falling[best + 1]), best_threshold)
    return ScoreCurves(precision, recall, padded_f1[passing], best_threshold, best_f1)


def shortest_between(low: float, high: float) -> float:
    """Returns a number in (low, high] near the middle, with as few decimals as possible.

    All of them separate the same detections; the middle is the safest for a model whose scores differ by rounding.
    """
    middle = 0.5 * (low + high)
    for digits in range(2, _MOST_DIGITS):
        if low < np.float32(rounded := round(middle, digits)) <= high:  # scores are compared in single precision
            return rounded
    return high
