"""Errors by kind and the average precision that each kind costs (TIDE, arXiv:2008.08115, sections 2.2 and 2.3).

An error is a detection that is not right, or a missed object. Its kind follows from the overlap with the objects of
the image, where "near" is an IoU of at least .1 and "on" one of at least .5:

classification  on an object of another class
localization    near an object of its class, and not on it
both            near an object of another class, and not on it
duplicate       on an object of its class that a better detection has found
background      near no object
missed          an object without a right detection, which no correction of class or place would find

The cost of a kind is the gain of mAP at IoU .5 if all errors of the kind were corrected. A detection with a wrong class
or place becomes right if it is the best one for an object that is not found, else it is removed, as are the other
wrong detections. A missed object is removed. Costs do not add up, because an AP is not linear in its errors.

Differs from TIDE's program: detections on crowds are no errors, and the mean is over the classes with objects.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

import numpy as np

from detzoo.evaluate.analysis.precision import count_objects, mean_average_precision, verdicts_of
from detzoo.evaluate.analysis.table import BACKGROUND, FOREGROUND, Matching, Pairs, Table, order_by_class, same_class


class ErrorKind(enum.IntEnum):
    """The verdict on a detection, or on an object (``MISSED``)."""

    RIGHT = 0
    CLASSIFICATION = 1
    LOCALIZATION = 2
    BOTH = 3
    DUPLICATE = 4
    BACKGROUND = 5
    MISSED = 6
    IGNORED = 7  # on an ignored object: neither right nor wrong

    @property
    def label(self) -> str:
        """The name in reports."""
        return self.name.lower()


ERRORS = tuple(ErrorKind)[1:7]


class Errors(NamedTuple):
    """The kind of each detection, and the missed objects."""

    kinds: np.ndarray  # int64 [D] of ErrorKind
    objects: np.ndarray  # int64 [D]: the object that a corrected class or place would find; -1 for none
    is_missed: np.ndarray  # bool [G]


class ErrorCost(NamedTuple):
    """Errors of one kind."""

    num_errors: int
    cost: float  # of mAP at IoU .5, in [0, 1]


def classify_errors(table: Table, matching: Matching) -> Errors:
    """Returns the kind of every detection and the missed objects."""
    num_detections, num_objects = len(table.classes), len(table.gt_class)
    is_found = matching.is_found(num_objects)
    is_real = ~table.gt_is_ignored[table.pairs.objects]
    of_class = same_class(table)
    near_own, own = _best_pairs(table.pairs.select(is_real & of_class), num_detections)
    near_other, other = _best_pairs(table.pairs.select(is_real & ~of_class), num_detections)
    near_found, _ = _best_pairs(table.pairs.select(is_real & of_class & is_found[table.pairs.objects]), num_detections)
    kinds = np.select(
        [
            matching.is_right,
            matching.is_ignored,
            (near_own >= BACKGROUND) & (near_own <= FOREGROUND),
            near_other >= FOREGROUND,
            near_found >= FOREGROUND,
            np.maximum(near_own, near_other) <= BACKGROUND,
        ],
        [
            ErrorKind.RIGHT,
            ErrorKind.IGNORED,
            ErrorKind.LOCALIZATION,
            ErrorKind.CLASSIFICATION,
            ErrorKind.DUPLICATE,
            ErrorKind.BACKGROUND,
        ],
        ErrorKind.BOTH,
    )
    objects = np.select([kinds == ErrorKind.LOCALIZATION, kinds == ErrorKind.CLASSIFICATION], [own, other], -1)
    objects[(objects >= 0) & np.append(is_found, False)[objects]] = -1
    is_covered = np.zeros(num_objects, bool)
    is_covered[objects[objects >= 0]] = True
    return Errors(kinds, objects, ~is_found & ~is_covered & ~table.gt_is_ignored)


def error_costs(table: Table, errors: Errors, num_classes: int) -> dict[ErrorKind, ErrorCost]:
    """Returns the number of errors of each kind, and the gain of mAP at IoU .5 without them."""
    num_objects = count_objects(table, num_classes)
    has_objects, is_counted = num_objects > 0, errors.kinds != ErrorKind.IGNORED
    is_right = errors.kinds == ErrorKind.RIGHT
    actual = mean_average_precision(verdicts_of(table, is_counted, is_right, num_objects))
    # Of several detections that could find an object, the best one does; rows of an image fall in score.
    corrects = np.zeros(len(errors.kinds), bool)
    rows = np.flatnonzero(errors.objects >= 0)
    corrects[rows[np.unique(errors.objects[rows], return_index=True)[1]]] = True
    costs = {}
    for kind in ERRORS:
        of_kind = errors.kinds == kind
        becomes_right = of_kind & corrects
        classes = np.where(becomes_right, np.append(table.gt_class, 0)[errors.objects], table.classes)
        missed = errors.is_missed if kind is ErrorKind.MISSED else np.zeros_like(errors.is_missed)
        corrected = table
        if becomes_right.any():
            corrected = table._replace(classes=classes, by_class=order_by_class(classes, table.scores))
        verdicts = verdicts_of(
            corrected,
            is_counted & (~of_kind | becomes_right),
            is_right | becomes_right,
            num_objects - np.bincount(table.gt_class[missed], minlength=num_classes),
        )
        count = int(missed.sum() if kind is ErrorKind.MISSED else of_kind.sum())
        costs[kind] = ErrorCost(count, max(0.0, mean_average_precision(verdicts, has_objects) - actual))
    return costs


def total_costs(table: Table, errors: Errors, num_classes: int) -> dict[str, float]:
    """Returns the gain of mAP at IoU .5 without any wrong detection, and without any object that is not found."""
    num_objects = count_objects(table, num_classes)
    is_counted, is_right = errors.kinds != ErrorKind.IGNORED, errors.kinds == ErrorKind.RIGHT
    has_objects = num_objects > 0
    actual = mean_average_precision(verdicts_of(table, is_counted, is_right, num_objects))
    without_wrong = verdicts_of(table, is_right, is_right, num_objects)
    found = np.bincount(table.classes[is_right], minlength=num_classes)
    without_missed = verdicts_of(table, is_counted, is_right, found)
    return {
        "all wrong detections": mean_average_precision(without_wrong) - actual,
        "all objects not found": mean_average_precision(without_missed, has_objects) - actual,
    }


def _best_pairs(pairs: Pairs, num_detections: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the greatest overlap of each detection (0 without a pair) and its object (-1), each [D]."""
    overlaps, objects = np.zeros(num_detections), np.full(num_detections, -1)
    order = np.lexsort((-pairs.objects, pairs.overlaps, pairs.detections))
    rows = pairs.detections[order]  # of several assignments to a row the last one counts, the greatest overlap
    overlaps[rows], objects[rows] = pairs.overlaps[order], pairs.objects[order]
    return overlaps, objects
