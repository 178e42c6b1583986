"""One evaluation, explained: all numbers of report.html."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from detzoo.evaluate.analysis.confusion import Outcome, confusion_matrix, outcome_at
from detzoo.evaluate.analysis.errors import ErrorCost, ErrorKind, classify_errors, error_costs, total_costs
from detzoo.evaluate.analysis.precision import (
    ScoreCurves,
    count_objects,
    precision_at_recalls,
    score_curves,
    verdicts_of,
)
from detzoo.evaluate.analysis.table import Matching, Table, make_table, match
from detzoo.evaluate.coco import NOTHING_MEASURED
from detzoo.evaluate.images import EvaluatedImage

CURVE_OVERLAPS = (0.5, 0.75, 0.9)  # of the precision-recall curves
COCO_OVERLAPS = tuple(0.5 + 0.05 * step for step in range(10))
# Edges of the sides of objects (square root of the area) in pixels; 32 and 96 are COCO's.
SIDES_PX = (0.0, 16.0, 32.0, 64.0, 96.0, 192.0, np.inf)
COUNTS = ((1, 1), (2, 3), (4, 7), (8, 15), (16, np.inf))  # objects per image
MOST_WORST_IMAGES = 20
USUAL_THRESHOLD = 0.5  # for the counts of a model without a single right detection


class ClassSummary(NamedTuple):
    """One class; the counts are those at the best threshold of all classes."""

    name: str
    num_objects: int
    num_images: int  # with an object to find
    average_precision: float  # at IoU .5; -1 without objects
    precision: np.ndarray  # float64 [101] at ``RECALLS``
    curves: ScoreCurves
    num_right: int
    num_wrong: int
    num_missed: int


class Group(NamedTuple):
    """Objects of one size, or images with one number of objects."""

    label: str
    num_objects: int
    num_images: int  # with such an object
    average_precision: float  # IoU .50 to .95; -1 without objects
    average_precision_50: float  # at IoU .5


class JudgedImage(NamedTuple):
    """An image with the verdicts on its objects and on its detections above the best threshold."""

    image: EvaluatedImage
    num_right: int
    num_wrong: int
    num_missed: int
    rows: np.ndarray  # int64 [S], the image's detections above the threshold, best first
    kinds: np.ndarray  # int64 [S] of ErrorKind
    gt_is_found: np.ndarray  # bool [G], of all objects of the image; also True for ignored ones

    @property
    def num_errors(self) -> int:
        """Wrong detections and missed objects."""
        return self.num_wrong + self.num_missed


@dataclasses.dataclass(frozen=True)
class Analysis:
    """All numbers of the report. K classes are those of the label map, by rising id."""

    num_images: int
    num_objects: int
    num_detections: int
    by_masks: bool
    threshold: float  # the best one, or ``USUAL_THRESHOLD``
    curves: ScoreCurves  # of all classes together
    precision: dict[float, np.ndarray]  # least overlap -> mean over the classes of the precision at ``RECALLS``
    average_precision_50: float
    classes: list[ClassSummary]  # K
    errors: dict[ErrorKind, ErrorCost]
    total_costs: dict[str, float]
    confusion: np.ndarray  # int64 [K + 1, K + 1]
    by_size: list[Group]
    by_count: list[Group]
    num_wrong_on_empty: tuple[int, int]  # images without objects, and wrong detections on them
    worst: list[JudgedImage]  # by falling number of errors
    # Image id -> right, wrong, missed; for the difference of two evaluations.
    image_counts: dict[str, tuple[int, int, int]]

    @property
    def best_thresholds(self) -> dict[str, Any]:
        """The entries of metrics.json: the score threshold with the best F1, of all classes and of each."""
        return {
            "best_score_threshold": self.curves.best_threshold,
            "best_score_thresholds": {
                each.name: each.curves.best_threshold for each in self.classes if each.curves.best_threshold is not None
            },
        }


def analyze(
    images: Sequence[EvaluatedImage],
    class_names: Mapping[int, str],
    *,
    by_masks: bool = False,
    ignore_difficult: bool = False,
) -> Analysis:
    """Explains an evaluation; see ``make_table`` for the arguments."""
    table = make_table(images, class_names, by_masks=by_masks, ignore_difficult=ignore_difficult)
    identifiers = sorted(class_names)
    # Ids may have gaps; the arrays below do not.
    rows = np.zeros(max(identifiers, default=0) + 1, np.int64)
    rows[np.array(identifiers, np.int64) - 1] = np.arange(len(identifiers))
    table = table._replace(gt_class=rows[table.gt_class], classes=rows[table.classes])  # of the same order
    num_classes = len(identifiers)
    matchings = {overlap: match(table, overlap) for overlap in (*COCO_OVERLAPS, *CURVE_OVERLAPS)}
    matching = matchings[CURVE_OVERLAPS[0]]
    counted = ~matching.is_ignored
    num_objects = int((~table.gt_is_ignored).sum())
    curves = score_curves(table.scores[counted], matching.is_right[counted], num_objects)
    threshold = USUAL_THRESHOLD if curves.best_threshold is None else curves.best_threshold
    outcome = outcome_at(table, matching, threshold)
    errors = classify_errors(table, matching)
    precisions = {overlap: _precision(table, matchings[overlap], num_classes) for overlap in CURVE_OVERLAPS}
    averages = precisions[CURVE_OVERLAPS[0]]
    has_objects = count_objects(table, num_classes) > 0
    judged = _judge_images(table, outcome, errors.kinds)
    return Analysis(
        num_images=len(table.images),
        num_objects=num_objects,
        num_detections=int(counted.sum()),
        by_masks=by_masks,
        threshold=threshold,
        curves=curves,
        precision={overlap: _mean(curve[has_objects]) for overlap, curve in precisions.items()},
        average_precision_50=_overall(averages, has_objects),
        classes=_summaries(table, matching, outcome, averages, [class_names[each] for each in identifiers]),
        errors=error_costs(table, errors, num_classes),
        total_costs=total_costs(table, errors, num_classes),
        confusion=confusion_matrix(table, outcome, num_classes),
        by_size=_by_size(table, num_classes),
        by_count=_by_count(table, matchings, num_classes),
        num_wrong_on_empty=_wrong_on_empty(table, outcome),
        worst=judged.worst,
        image_counts=judged.counts,
    )


def _precision(table: Table, matching: Matching, num_classes: int, **counted: np.ndarray) -> np.ndarray:
    """Returns ``precision_at_recalls`` of a matching; of ``detections`` [D] and ``objects`` [G] if they are given."""
    kept = ~matching.is_ignored & counted.get("detections", True)
    num_objects = count_objects(table, num_classes, counted.get("objects"))
    return precision_at_recalls(verdicts_of(table, kept, matching.is_right, num_objects))


def _overall(precision: np.ndarray, has_objects: np.ndarray) -> float:
    return float(precision[has_objects].mean()) if has_objects.any() else NOTHING_MEASURED


def _mean(curves: np.ndarray) -> np.ndarray:
    return curves.mean(axis=0) if len(curves) else np.zeros(curves.shape[1])


def _summaries(
    table: Table, matching: Matching, outcome: Outcome, averages: np.ndarray, names: Sequence[str]
) -> list[ClassSummary]:
    """Returns the summary of each class."""
    num_classes = len(names)
    real = ~table.gt_is_ignored
    num_objects = count_objects(table, num_classes)
    num_images = np.bincount(
        np.unique(np.stack([table.gt_class, table.gt_image])[:, real], axis=1)[0], minlength=num_classes
    )
    right = np.bincount(table.classes[outcome.is_right], minlength=num_classes)
    wrong = np.bincount(table.classes[outcome.is_shown & ~outcome.is_right], minlength=num_classes)
    missed = np.bincount(table.gt_class[outcome.is_lost], minlength=num_classes)
    kept = table.by_class[~matching.is_ignored[table.by_class]]
    ends = np.searchsorted(table.classes[kept], np.arange(num_classes + 1))
    summaries = []
    for row, name in enumerate(names):
        own = kept[ends[row] : ends[row + 1]]
        count = int(num_objects[row])
        summaries.append(
            ClassSummary(
                name=name,
                num_objects=count,
                num_images=int(num_images[row]),
                average_precision=float(averages[row].mean()) if count else NOTHING_MEASURED,
                precision=averages[row],
                curves=score_curves(table.scores[own], matching.is_right[own], count),
                num_right=int(right[row]),
                num_wrong=int(wrong[row]),
                num_missed=int(missed[row]),
            )
        )
    return summaries


def _by_size(table: Table, num_classes: int) -> list[Group]:
    """Returns the average precision of objects of each size, with COCO's rules for the others."""
    groups = []
    for low, high in itertools.pairwise(SIDES_PX):
        area = (low**2, high**2)
        inside = (table.gt_area_px >= area[0]) & (table.gt_area_px <= area[1])
        label = f"{low:.0f} px and more" if np.isinf(high) else f"{low:.0f} to {high:.0f} px"
        matchings = {overlap: match(table, overlap, area) for overlap in COCO_OVERLAPS}
        groups.append(_group(table, label, matchings, num_classes, objects=inside))
    return groups


def _by_count(table: Table, matchings: Mapping[float, Matching], num_classes: int) -> list[Group]:
    """Returns the average precision on images with each number of objects."""
    counts = np.bincount(table.gt_image[~table.gt_is_ignored], minlength=len(table.images))
    groups = []
    for low, high in COUNTS:
        chosen = (counts >= low) & (counts <= high)
        label = f"{low}" if low == high else f"{low} and more" if np.isinf(high) else f"{low} to {high}"
        parts = {"objects": chosen[table.gt_image], "detections": chosen[table.image]}
        groups.append(_group(table, label, {each: matchings[each] for each in COCO_OVERLAPS}, num_classes, **parts))
    return groups


def _group(
    table: Table, label: str, matchings: Mapping[float, Matching], num_classes: int, **counted: np.ndarray
) -> Group:
    has_objects = count_objects(table, num_classes, counted["objects"]) > 0
    by_overlap = [
        _overall(_precision(table, matching, num_classes, **counted), has_objects) for matching in matchings.values()
    ]
    real = counted["objects"] & ~table.gt_is_ignored
    num_images = len(np.unique(table.gt_image[real]))
    return Group(label, int(real.sum()), num_images, float(np.mean(by_overlap)), by_overlap[0])


def _wrong_on_empty(table: Table, outcome: Outcome) -> tuple[int, int]:
    is_empty = np.bincount(table.gt_image[~table.gt_is_ignored], minlength=len(table.images)) == 0
    return int(is_empty.sum()), int((outcome.is_shown & ~outcome.is_right & is_empty[table.image]).sum())


class _JudgedImages(NamedTuple):
    worst: list[JudgedImage]
    counts: dict[str, tuple[int, int, int]]


def _judge_images(table: Table, outcome: Outcome, kinds: np.ndarray) -> _JudgedImages:
    """Counts the errors of every image, and returns the images with the most; of equals those with the lower F1."""
    size = len(table.images)
    right = np.bincount(table.image[outcome.is_right], minlength=size)
    wrong = np.bincount(table.image[outcome.is_shown & ~outcome.is_right], minlength=size)
    missed = np.bincount(table.gt_image[outcome.is_lost], minlength=size)
    order = np.lexsort((right, -(wrong + missed)))[:MOST_WORST_IMAGES]
    starts = np.searchsorted(table.image, np.arange(size + 1))
    gt_starts = np.searchsorted(table.gt_image, np.arange(size + 1))
    worst = []
    for number in order[(wrong + missed)[order] > 0]:
        own = np.arange(starts[number], starts[number + 1])
        shown = own[outcome.is_shown[own]]
        image, objects = table.images[number], slice(gt_starts[number], gt_starts[number + 1])
        gt_is_found = np.ones(len(image.gt_classes), bool)
        gt_is_found[table.gt_rows[number]] = ~outcome.is_lost[objects]
        worst.append(
            JudgedImage(
                image,
                int(right[number]),
                int(wrong[number]),
                int(missed[number]),
                table.kept[number][shown - starts[number]],
                kinds[shown],
                gt_is_found,
            )
        )
    counts = zip(right.tolist(), wrong.tolist(), missed.tolist())
    return _JudgedImages(worst, {image.image_id: each for image, each in zip(table.images, counts)})
