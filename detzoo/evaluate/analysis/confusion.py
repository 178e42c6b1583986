"""The confusion matrix of detections above a score threshold, with the background as one more class."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from detzoo.evaluate.analysis.table import FOREGROUND, Matching, Table, assign, same_class


class Outcome(NamedTuple):
    """Right, wrong and missed at a score threshold."""

    is_shown: np.ndarray  # bool [D], detections with at least the threshold that count
    is_right: np.ndarray  # bool [D]
    is_found: np.ndarray  # bool [G]
    is_lost: np.ndarray  # bool [G], objects to find without a right detection


def outcome_at(table: Table, matching: Matching, threshold: float) -> Outcome:
    """Returns the verdicts at a threshold. Lower scores do not change the objects that the others take."""
    passes = table.scores >= np.float32(threshold)
    is_right = matching.is_right & passes
    is_found = np.zeros(len(table.gt_class), bool)
    is_found[matching.objects[is_right]] = True
    return Outcome(passes & ~matching.is_ignored, is_right, is_found, ~is_found & ~table.gt_is_ignored)


def confusion_matrix(table: Table, outcome: Outcome, num_classes: int) -> np.ndarray:
    """Counts objects by true class (row) and detected class (column), int64 [K + 1, K + 1].

    Right detections are on the diagonal. Then the wrong ones, best first, take lost objects of other classes with an
    IoU of at least .5. The last row has detections without an object (background that was taken for the class), the
    last column objects without a detection. Objects of ``Outcome.is_lost`` and right detections sum up to a row.
    """
    is_wrong = outcome.is_shown & ~outcome.is_right
    pairs = table.pairs
    may_take = is_wrong[pairs.detections] & outcome.is_lost[pairs.objects] & ~same_class(table)
    chosen = pairs.select(may_take & (pairs.overlaps >= FOREGROUND))
    taken = assign(chosen, len(table.classes), np.zeros(len(table.gt_class), bool))
    confused = taken >= 0
    is_missed = outcome.is_lost.copy()
    is_missed[taken[confused]] = False
    matrix = np.zeros([num_classes + 1, num_classes + 1], np.int64)
    right = np.bincount(table.classes[outcome.is_right], minlength=num_classes)
    matrix[np.arange(num_classes), np.arange(num_classes)] = right
    np.add.at(matrix, (table.gt_class[taken[confused]], table.classes[confused]), 1)
    matrix[-1, :-1] = np.bincount(table.classes[is_wrong & ~confused], minlength=num_classes)
    matrix[:-1, -1] = np.bincount(table.gt_class[is_missed], minlength=num_classes)
    return matrix
