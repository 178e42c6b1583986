"""Open Images' average precision: Pascal VOC's, with boxes around groups of objects, and images labelled in part.

A. Kuznetsova et al., "The Open Images Dataset V4", section 5.3.1, and the rules of the Open Images Challenge 2018. Both
rules are those of the Object Detection API: a detection that finds no object of its own, but lies in a box around a
group by at least half of its own area, is not wrong. By the rule of version 2 it does not count at all; by the
challenge's the group is one more object, which its best detection finds. The challenge, too, leaves out detections of
classes that nobody has verified in the image.

Differs from the Object Detection API: a crowd (``image/object/is_crowd``) is a group like any other; there it is an
object. Open Images has no crowds.
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
    box_areas,
    intersections,
    mean_of_classes,
    overlaps,
    precision_recall,
)


class _Verdicts(NamedTuple):
    """What the detections of a class in an image count for: scores, and whether each is right."""

    scores: list[float]
    is_right: list[bool]


def evaluate_open_images(
    images: Sequence[EvaluatedImage],
    class_names: Mapping[int, str],
    *,
    challenge: bool = False,
    threshold: float = IOU_THRESHOLD,
) -> VocResult:
    """Open Images' mean average precision.

    Args:
        images: truth and detections of every image; crowds are the groups.
        class_names: name of each id (from 1, gaps allowed).
        challenge: the rule of the Challenge 2018 instead of that of version 2.
        threshold: least intersection over union with an object, and over a detection's own area with a group.

    Returns:
        The mean (-1 where no class has an object) and the average precision of each class.
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
    """Whether somebody has said that the class is in the image, or that it is not."""
    if image.verified_classes is None or class_index in image.verified_classes:
        return True
    return bool(np.any(image.gt_classes == class_index))


def _judge(image: EvaluatedImage, class_index: int, threshold: float, *, groups_count: bool) -> _Verdicts:
    """The detections that count, first those of objects, then with ``groups_count`` the groups that are found."""
    of_class = image.gt_classes == class_index
    is_group = image.gt_is_crowd[of_class]
    truth = image.gt_boxes_px[of_class]
    mine = (image.classes == class_index) & (box_areas(image.boxes_px) > 0)
    order = np.argsort(-image.scores[mine], kind="stable")
    boxes, scores = image.boxes_px[mine][order], image.scores[mine][order]
    with_objects = overlaps(boxes, truth[~is_group])
    with_groups = intersections(boxes, truth[is_group]) / box_areas(boxes)[:, None]
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
