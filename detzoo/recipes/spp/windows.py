"""Labels of the windows of an image, by overlap with the true boxes (arXiv:1406.4729, section 4.1).

    fine-tuning      positives have IoU 0.5 or more, negatives [0.1, 0.5), the others are not used
    SVM of a class   positives are the true boxes alone, negatives overlap every true box of the class by less than 0.3
    box regression   windows that overlap a true box by at least 0.5 have this box as target

All functions use numpy: an image has some thousand windows and a few true boxes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from detzoo.ops.numpy_boxes import areas, intersections, pairwise_iou

UNUSED = -1  # a label of fine-tuning
BACKGROUND = 0
_COVERED_BY_CROWD = 0.5  # least share of a window's area inside a crowd for which the window is ignored
_SMALLEST_AREA = 1e-12


class LabeledWindows(NamedTuple):
    """R windows of one image: the G true boxes first, then the proposals."""

    boxes_norm: np.ndarray  # float32 [R, 4], fractions of the image
    num_true: int  # G, true boxes that are no crowd
    true_classes: np.ndarray  # int [G], 0-based
    best_iou: np.ndarray  # float32 [R], with any true box; 0 without true boxes
    best_row: np.ndarray  # int [R], the true box of best_iou; 0 without true boxes
    class_iou: np.ndarray  # float32 [R, K], best with true boxes (and crowds) of each class; 0 if the class has none
    in_crowd: np.ndarray  # bool [R]

    @property
    def best_true_boxes(self) -> np.ndarray:
        """float32 [R, 4], the true box that each window overlaps most; the windows if there are no true boxes."""
        return self.boxes_norm[self.best_row] if self.num_true else self.boxes_norm

    @property
    def best_classes(self) -> np.ndarray:
        """int [R], class of the true box that each window overlaps most; -1 if there are no true boxes."""
        return self.true_classes[self.best_row] if self.num_true else np.full(len(self.boxes_norm), -1)


def label_windows(
    proposals_norm: np.ndarray,
    true_boxes_norm: np.ndarray,
    true_classes: np.ndarray,
    is_crowd: np.ndarray,
    num_classes: int,
) -> LabeledWindows:
    """Joins the true boxes [N, 4] and proposals [P, 4] of an image, without padding, and measures overlaps.

    A crowd is no positive, and windows inside it are no negatives.
    """
    crowds = true_boxes_norm[is_crowd]
    true_boxes, classes = true_boxes_norm[~is_crowd], true_classes[~is_crowd]
    boxes = np.concatenate([true_boxes, proposals_norm]).astype(np.float32).reshape(-1, 4)
    ious = pairwise_iou(boxes, true_boxes).astype(np.float32)
    covered = intersections(boxes, crowds) / np.maximum(areas(boxes), _SMALLEST_AREA)[:, np.newaxis]
    class_iou = np.zeros([len(boxes), num_classes], np.float32)
    for column, of_class in ((ious, classes), (covered, true_classes[is_crowd])):
        for row, class_number in enumerate(of_class):
            np.maximum(class_iou[:, class_number], column[:, row], out=class_iou[:, class_number])
    has_true = len(true_boxes) > 0
    return LabeledWindows(
        boxes_norm=boxes,
        num_true=len(true_boxes),
        true_classes=classes,
        best_iou=ious.max(axis=1) if has_true else np.zeros(len(boxes), np.float32),
        best_row=ious.argmax(axis=1) if has_true else np.zeros(len(boxes), np.int64),
        class_iou=class_iou,
        in_crowd=(covered >= _COVERED_BY_CROWD).any(axis=1),
    )


def fine_tuning_labels(windows: LabeledWindows, positive_iou: float, negative_iou: float) -> np.ndarray:
    """Returns the target of fc8 for each window, int [R]: class + 1, BACKGROUND, or UNUSED."""
    labels = np.full(len(windows.boxes_norm), UNUSED)
    is_negative = (windows.best_iou >= negative_iou) & (windows.best_iou < positive_iou) & ~windows.in_crowd
    labels[is_negative] = BACKGROUND
    is_positive = windows.best_iou >= positive_iou
    labels[is_positive] = windows.best_classes[is_positive] + 1
    return labels


def sample_labels(
    labels: np.ndarray, num_windows: int, positive_fraction: float, random: np.random.Generator
) -> np.ndarray:
    """Draws the rows of a batch with the given share of positives, with replacement if there are too few rows.

    Takes the labels int [T] of ``fine_tuning_labels``. Returns int [num_windows], or [0] if no window is labelled.
    """
    positives, negatives = np.flatnonzero(labels > BACKGROUND), np.flatnonzero(labels == BACKGROUND)
    if not len(positives) and not len(negatives):
        return np.zeros(0, np.int64)
    num_positives = round(positive_fraction * num_windows) if len(positives) else 0
    if not len(negatives):
        num_positives = num_windows
    drawn = [_draw(positives, num_positives, random), _draw(negatives, num_windows - num_positives, random)]
    return np.concatenate(drawn)


def distinct_rows(boxes: np.ndarray, order: np.ndarray, most_iou: float) -> np.ndarray:
    """Returns the rows of ``order`` (best first) whose boxes overlap no kept earlier one by more than ``most_iou``.

    The paper removes a negative that overlaps another one by more than 0.7.
    """
    overlaps = pairwise_iou(boxes[order], boxes[order]) > most_iou
    kept: list[int] = []
    dropped = np.zeros(len(order), bool)
    for number in range(len(order)):
        if not dropped[number]:
            kept.append(number)
            dropped |= overlaps[number]
    return order[kept]


def _draw(rows: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    if count == 0:
        return np.zeros(0, np.int64)
    return random.choice(rows, count, replace=len(rows) < count)
