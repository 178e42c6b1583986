"""Right and wrong detections by score threshold, from evaluated images (to TensorBoard's precision-recall curves).

Matching is COCO's, at one IoU: the best detections choose first, and detections on crowds count neither way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from detzoo.evaluate.coco import BOXES, coco_detections, coco_groundtruth, run_pycocotools
from detzoo.evaluate.images import EvaluatedImage

IOU_THRESHOLD = 0.5
NUM_THRESHOLDS = 201  # evenly from 0 to 1, as in TensorBoard's own curves


class ThresholdCounts(NamedTuple):
    """Numbers of detections with scores of at least each of T thresholds, evenly from 0 to 1."""

    true_positives: np.ndarray  # int64 [T]
    false_positives: np.ndarray  # int64 [T]
    num_objects: int

    @property
    def precision(self) -> np.ndarray:
        """Share of right detections, float64 [T]; 0 without detections."""
        return self.true_positives / np.maximum(self.true_positives + self.false_positives, 1)

    @property
    def recall(self) -> np.ndarray:
        """Share of found objects, float64 [T]; 0 without objects."""
        return self.true_positives / max(self.num_objects, 1)


def count_by_threshold(
    images: Sequence[EvaluatedImage], class_names: Mapping[int, str], overlap_of: str = BOXES
) -> dict[str, ThresholdCounts]:
    """Counts the detections of each class that has objects, and of all classes together under the name "".

    Args:
        images: Ground truth and detections of every image.
        class_names: Name of each id (from 1). Ids without a name are not measured.
        overlap_of: ``coco.BOXES``, or ``coco.MASKS`` if every image has both kinds of masks.

    Returns:
        The counts by class name; empty without any object.
    """
    truth, found = coco_groundtruth(images, class_names), list(coco_detections(images))
    evaluation = run_pycocotools(truth, found, overlap_of, iou_threshold=IOU_THRESHOLD)
    if evaluation is None:
        return {}
    counts = {}
    by_class = np.array(evaluation.evalImgs, object).reshape(len(evaluation.params.catIds), -1)
    for class_id, results in zip(evaluation.params.catIds, by_class):
        judged = [each for each in results if each is not None]
        num_objects = sum(int(np.sum(each["gtIgnore"] == 0)) for each in judged)
        if num_objects:
            scores, right, ignored = (
                np.concatenate([np.ravel(each[field]) for each in judged])
                for field in ("dtScores", "dtMatches", "dtIgnore")
            )
            kept = ignored == 0
            is_right = kept & (right > 0)
            counts[class_names[class_id]] = ThresholdCounts(
                _at_least(scores[is_right]), _at_least(scores[kept & ~is_right]), num_objects
            )
    if counts:
        right, wrong, num_objects = zip(*counts.values())
        counts[""] = ThresholdCounts(np.sum(right, axis=0), np.sum(wrong, axis=0), sum(num_objects))
    return counts


def _at_least(scores: np.ndarray) -> np.ndarray:
    """Returns the number of scores at or above each threshold, int64 [NUM_THRESHOLDS]."""
    thresholds = np.linspace(0.0, 1.0, NUM_THRESHOLDS, dtype=np.float32)  # so that 0.9 is that of float32 scores
    return len(scores) - np.searchsorted(np.sort(scores.astype(np.float32)), thresholds, "left")
