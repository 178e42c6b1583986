"""Open Images' average precision: Pascal VOC's for data with boxes around groups and partially labelled images.

A. Kuznetsova et al., "The Open Images Dataset V4", section 5.3.1, and the rules of the Open Images Challenge 2018. As
in the Object Detection API, a detection without an object but with half of its area in a box around a group is not
wrong. By the rule of version 2 such a detection does not count. By the rule of the challenge the group is one more
object, found by its best detection, and detections of classes that are not verified in the image do not count.

Differs from the Object Detection API: a crowd (``image/object/is_crowd``) is a group and not an object. Open Images has
no crowds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from detzoo.evaluate.images import EvaluatedImage
from detzoo.evaluate.pascal_voc import (
    IOU_THRESHOLD,
    VocResult,
    average_precision_area,
    mean_of_classes,
    precision_recall,
)
from detzoo.ops.numpy_boxes import areas, intersections, pairwise_iou


class _Verdicts(NamedTuple):
    """Scores and correctness of the detections of a class in an image that count."""

    scores: list[float]
    is_right: list[bool]


def evaluate_open_images(
    images: Sequence[EvaluatedImage],
    class_names: Mapping[int, str],
    *,
    challenge: bool = False,
    threshold: float = IOU_THRESHOLD,
) -> VocResult:
    """Computes Open Images' mean average precision by the rule of version 2, or of the ``challenge`` of 2018.

    ``threshold`` is the least IoU with an object, and the least share of a detection's area in a group or crowd.

    Returns:
        The mean (-1 if no class has objects) and the average precision of each class.
    """
    per_class = {}
    for class_id, name in sorted(class_names.items()):
        scores: list[float] = []
        is_right: list[bool] = []
        num_objects = 0
        for image in images:
            of_class = image.gt_classes == class_id - 1
            num_groups = int(np.sum(image.gt_is_crowd[of_class]))
            num_objects += int(np.sum(of_class)) - (0 if challenge else num_groups)
            if challenge and not _is_verified(image, class_id - 1):
                continue
            verdicts = _judge(image, class_id - 1, threshold, groups_count=challenge)
            scores += verdicts.scores
            is_right += verdicts.is_right
        recall, precision = precision_recall(np.array(scores), np.array(is_right, bool), num_objects)
        per_class[name] = average_precision_area(recall, precision) if num_objects else float("nan")
    return mean_of_classes(per_class)


def _is_verified(image: EvaluatedImage, class_index: int) -> bool:
    """Returns whether the class is verified as present or absent in the image."""
    if image.verified_classes is None or class_index in image.verified_classes:
        return True
    return bool(np.any(image.gt_classes == class_index))


def _judge(image: EvaluatedImage, class_index: int, threshold: float, *, groups_count: bool) -> _Verdicts:
    """Returns the detections that count, followed by the groups that are found if ``groups_count``."""
    of_class = image.gt_classes == class_index
    is_group = image.gt_is_crowd[of_class]
    truth = image.gt_boxes_px[of_class]
    mine = (image.classes == class_index) & (areas(image.boxes_px) > 0)
    order = np.argsort(-image.scores[mine], kind="stable")
    boxes, scores = image.boxes_px[mine][order], image.scores[mine][order]
    with_objects = pairwise_iou(boxes, truth[~is_group])
    with_groups = intersections(boxes, truth[is_group]) / areas(boxes)[:, None]
    found = np.zeros(with_objects.shape[1], bool)
    group_scores = np.zeros(with_groups.shape[1])
    verdicts = _Verdicts([], [])
    for score, object_row, group_row in zip(scores, with_objects, with_groups, strict=True):
        nearest = int(np.argmax(object_row)) if len(object_row) else -1
        is_right = nearest >= 0 and object_row[nearest] >= threshold and not found[nearest]
        if is_right:
            found[nearest] = True
        elif len(group_row) and np.max(group_row) >= threshold:
            group = int(np.argmax(group_row))
            group_scores[group] = max(group_scores[group], score)
            continue
        verdicts.scores.append(float(score))
        verdicts.is_right.append(is_right)
    if groups_count:
        verdicts.scores.extend(group_scores[group_scores > 0].tolist())
        verdicts.is_right.extend([True] * int(np.sum(group_scores > 0)))
    return verdicts
