"""Open Images' average precision: Pascal VOC's for data with boxes around groups and partially labelled images.

A. Kuznetsova et al., "The Open Images Dataset V4", section 5.3.1, and the rules of the Open Images Challenge 2018. As
in the Object Detection API, a detection without an object but with half of its area in a box around a group is not
wrong. By the rule of version 2 such a detection does not count. By the rule of the challenge the group is one more
object, found by its best detection, and detections of classes that are not verified in the image do not count.

Differs from the Object Detection API: a crowd (``image/object/is_crowd``) is a group and not an object. Open Images has
no crowds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from detzoo.evaluate.grouped_boxes import ClassBoxes, GroupedBoxes, best_overlaps, is_first_hit
from detzoo.evaluate.images import EvaluatedImage
from detzoo.evaluate.pascal_voc import (
    IOU_THRESHOLD,
    VocResult,
    average_precision_area,
    mean_of_classes,
    precision_recall,
)
from detzoo.ops.numpy_boxes import areas, box_iou, shared_areas


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
    grouped, per_class = GroupedBoxes(images), {}
    verified = _verified_images(images) if challenge else None
    for class_id, name in sorted(class_names.items()):
        boxes = grouped.of_class(class_id - 1)
        if verified is not None:
            boxes = _select(boxes, verified(class_id - 1)[boxes.image])
        num_objects = len(boxes.gt_is_crowd) if challenge else int(np.sum(~boxes.gt_is_crowd))
        scores, is_right = _judge(boxes, threshold, groups_count=challenge)
        recall, precision = precision_recall(scores, is_right, num_objects)
        per_class[name] = average_precision_area(recall, precision) if num_objects else float("nan")
    return mean_of_classes(per_class)


def _verified_images(images: Sequence[EvaluatedImage]) -> Callable[[int], np.ndarray]:
    """Returns a function of a class that finds the images, bool [N], in which it is verified as present or absent.

    A class of which the image has an object is verified.
    """
    is_complete = np.array([image.verified_classes is None for image in images])
    labels = [
        np.union1d(() if image.verified_classes is None else image.verified_classes, image.gt_classes)
        for image in images
    ]
    image_of = np.repeat(np.arange(len(images)), [len(classes) for classes in labels])
    class_of = np.concatenate(labels) if labels else np.zeros(0)

    def find(class_index: int) -> np.ndarray:
        found = is_complete.copy()
        found[image_of[class_of == class_index]] = True
        return found

    return find


def _select(boxes: ClassBoxes, kept: np.ndarray) -> ClassBoxes:
    """Returns the boxes with some of the detections, bool [D]."""
    return boxes._replace(image=boxes.image[kept], boxes_px=boxes.boxes_px[kept], scores=boxes.scores[kept])


def _judge(boxes: ClassBoxes, threshold: float, *, groups_count: bool) -> tuple[np.ndarray, np.ndarray]:
    """Returns scores and verdicts of the detections that count, and with ``groups_count`` of found groups, by image."""
    boxes = _select(boxes, areas(boxes.boxes_px) > 0)
    overlap, nearest = best_overlaps(boxes, np.flatnonzero(~boxes.gt_is_crowd), box_iou)
    is_right = is_first_hit(np.where(overlap >= threshold, nearest, -1))
    share, group = best_overlaps(boxes, np.flatnonzero(boxes.gt_is_crowd), lambda a, b: shared_areas(a, b) / areas(a))
    in_group = (share >= threshold) & ~is_right
    image, scores, is_right = boxes.image[~in_group], boxes.scores[~in_group], is_right[~in_group]
    if not groups_count:
        return scores, is_right
    group_scores = np.zeros(len(boxes.gt_image))
    np.maximum.at(group_scores, group[in_group], boxes.scores[in_group])
    found = np.flatnonzero(group_scores > 0)
    order = np.argsort(np.concatenate([image, boxes.gt_image[found]]), kind="stable")
    scores = np.concatenate([scores, group_scores[found]])[order]
    return scores, np.concatenate([is_right, np.ones(len(found), bool)])[order]
