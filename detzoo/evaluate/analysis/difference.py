"""Two evaluations on the same images, side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from detzoo.evaluate.analysis.summary import Analysis, Group
from detzoo.evaluate.coco import NOTHING_MEASURED

MOST_IMAGES = 10  # that became better, and as many that became worse
Metrics = Mapping[str, float]


class Measured(NamedTuple):
    """One evaluation."""

    label: str
    result: Any  # EvaluationResult
    analysis: Analysis


class Change(NamedTuple):
    """One number of both evaluations."""

    name: str
    before: float
    after: float

    @property
    def gain(self) -> float:
        """Difference; above 0 if the number has risen."""
        return self.after - self.before


class Difference(NamedTuple):
    """Changes from another evaluation to this one."""

    metrics: list[Change]  # those of both
    classes: list[Change]  # average precision of the classes that changed, by falling gain
    num_classes: int  # with objects
    class_metric: str  # the name of that average precision
    errors: list[Change]  # cost of each kind
    sizes: list[Change]  # average precision at IoU .5 by size of the objects
    counts: list[Change]  # the same by number of objects per image
    thresholds: Change
    better: list[Change]  # images: wrong detections and missed objects, by falling improvement
    worse: list[Change]  # by falling deterioration
    num_changed: tuple[int, int]  # of images with fewer and with more errors


def compare(before: Measured, after: Measured) -> Difference:
    """Returns the changes; both evaluations have the same images and classes (``with_same_truth``)."""
    metric = next(iter(name for row in after.result.per_class.values() for name in row if name != "objects"), "")

    def changes(numbers: Callable[[Measured], Metrics]) -> list[Change]:
        return _changes(numbers(before), numbers(after))

    images = sorted(changes(lambda each: _errors_by_image(each.analysis)), key=lambda change: change.gain)
    better = [change for change in images if change.gain < 0]
    worse = [change for change in reversed(images) if change.gain > 0]
    classes = changes(
        lambda each: {name: row.get(metric, NOTHING_MEASURED) for name, row in each.result.per_class.items()}
    )
    return Difference(
        metrics=changes(lambda each: each.result.metrics),
        classes=sorted((each for each in classes if each.gain), key=lambda change: -change.gain),
        num_classes=len(classes),
        class_metric=metric,
        errors=changes(lambda each: {kind.label: cost.cost for kind, cost in each.analysis.errors.items()}),
        sizes=changes(lambda each: _by_label(each.analysis.by_size)),
        counts=changes(lambda each: _by_label(each.analysis.by_count)),
        thresholds=Change("best score threshold", before.analysis.threshold, after.analysis.threshold),
        better=better[:MOST_IMAGES],
        worse=worse[:MOST_IMAGES],
        num_changed=(len(better), len(worse)),
    )


def _errors_by_image(analysis: Analysis) -> Metrics:
    return {name: wrong + missed for name, (_, wrong, missed) in analysis.image_counts.items()}


def _by_label(groups: Sequence[Group]) -> Metrics:
    return {group.label: group.average_precision_50 for group in groups}


def _changes(before: Metrics, after: Metrics) -> list[Change]:
    """Returns the numbers that were measured in both."""
    return [
        Change(name, float(before[name]), float(value))
        for name, value in after.items()
        if name in before and NOTHING_MEASURED not in (value, before[name])
    ]
