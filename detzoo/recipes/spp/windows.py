"""Which windows of an image teach what: by their overlap with its true boxes (arXiv:1406.4729, section 4.1).

    fine-tuning      positive from IoU 0.5 on, negative in [0.1, 0.5), the others are not used
    SVM of a class   positives are the true boxes alone, negatives overlap every true box of the class by less than 0.3
    box regression   windows that overlap a true box by at least 0.5 learn the way to it

All in numpy: an image has some thousand windows and a handful of true boxes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

UNUSED = -1  # a label of fine-tuning
BACKGROUND = 0
_COVERED_BY_CROWD = 0.5  # share of a window's own area from which on it is part of a crowd, neither right nor wrong
_SMALLEST_AREA = 1e-12


class LabeledWindows(NamedTuple):
    """The windows of one image: its G true boxes first, in their order, then the proposals. R in all."""

    boxes_norm: np.ndarray  # float32 [R, 4], fractions of the image
    num_true: int  # G, true boxes that are no crowd
    true_classes: np.ndarray  # int [G], 0-based
    best_iou: np.ndarray  # float32 [R], with any true box; 0 where there is none
    best_row: np.ndarray  # int [R], the true box of best_iou; 0 where there is none
    class_iou: np.ndarray  # float32 [R, K], the best with the true boxes (and crowds) of each class, 0 where none
    in_crowd: np.ndarray  # bool [R]

    @property
    def best_true_boxes(self) -> np.ndarray:
        """float32 [R, 4], the true box that each window overlaps most; the window itself where there is none."""
        return self.boxes_norm[self.best_row] if self.num_true else self.boxes_norm

    @property
    def best_classes(self) -> np.ndarray:
        """int [R], class of the true box that each window overlaps most; -1 where there is none."""
        return self.true_classes[self.best_row] if self.num_true else np.full(len(self.boxes_norm), -1)


def pairwise_iou(boxes_a: np.ndarray, boxes_b: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes [N, 4] with boxes [M, 4]: float32 [N, M], 0 where the union is empty.

    The twin of ``ops.boxes.pairwise_iou`` for arrays: called for each image, it must not start TensorFlow each time.
    """
    shared = _intersections(boxes_a, boxes_b)
    union = _areas(boxes_a)[:, np.newaxis] + _areas(boxes_b)[np.newaxis] - shared
    return (shared / np.maximum(union, _SMALLEST_AREA)).astype(np.float32)


def label_windows(
    proposals_norm: np.ndarray,
    true_boxes_norm: np.ndarray,
    true_classes: np.ndarray,
    is_crowd: np.ndarray,
    num_classes: int,
) -> LabeledWindows:
    """Puts an image's true boxes and proposals together and measures their overlaps.

    Args:
        proposals_norm: float32 [P, 4], no padding.
        true_boxes_norm: float32 [N, 4], no padding.
        true_classes: int [N], 0-based.
        is_crowd: bool [N]; such a box is no positive, and windows in it are no negatives.
        num_classes: K.
    """
    crowds = true_boxes_norm[is_crowd]
    true_boxes, classes = true_boxes_norm[~is_crowd], true_classes[~is_crowd]
    boxes = np.concatenate([true_boxes, proposals_norm]).astype(np.float32).reshape(-1, 4)
    ious = pairwise_iou(boxes, true_boxes)
    covered = _intersections(boxes, crowds) / np.maximum(_areas(boxes), _SMALLEST_AREA)[:, np.newaxis]
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
    """What fc8 should say of each window: class + 1, BACKGROUND, or UNUSED; int [R]."""
    labels = np.full(len(windows.boxes_norm), UNUSED)
    is_negative = (windows.best_iou >= negative_iou) & (windows.best_iou < positive_iou) & ~windows.in_crowd
    labels[is_negative] = BACKGROUND
    is_positive = windows.best_iou >= positive_iou
    labels[is_positive] = windows.best_classes[is_positive] + 1
    return labels


def sample_labels(
    labels: np.ndarray, num_windows: int, positive_fraction: float, random: np.random.Generator
) -> np.ndarray:
    """Rows of a batch: positives and negatives in the wanted proportion, drawn twice where there are too few.

    Args:
        labels: int [T] of ``fine_tuning_labels``, of all windows of some images.
        num_windows: How many to draw.
        positive_fraction: Share of positives; all where there is no negative, none where there is no positive.
        random: What draws.

    Returns:
        int [num_windows], or [0] where no window is of use.
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
    """Of the rows ``order``, those that overlap none of the kept ones before them by more than ``most_iou``.

    The paper removes a negative that overlaps another one by more than 0.7.

    Args:
        boxes: float32 [R, 4].
        order: int [N] rows of ``boxes``, the most wanted first.
        most_iou: See above.
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


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _intersections(boxes_a: np.ndarray, boxes_b: np.ndarray) -> np.ndarray:
    low = np.maximum(boxes_a[:, np.newaxis, :2], boxes_b[np.newaxis, :, :2])
    high = np.minimum(boxes_a[:, np.newaxis, 2:], boxes_b[np.newaxis, :, 2:])
    return np.prod(np.maximum(high - low, 0.0), axis=-1)
