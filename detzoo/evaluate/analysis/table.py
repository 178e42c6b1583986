"""All objects and detections of an evaluation as flat arrays, their overlaps, and the matching of both.

The rules are COCO's, as in pycocotools: per image and class the best 100 detections count, each takes the free object
that it overlaps most, better detections choose first, and a detection on an ignored object is neither right nor wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from detzoo.evaluate.images import EvaluatedImage, numeric_image_ids
from detzoo.evaluate.masks import mask_area
from detzoo.ops.numpy_boxes import areas, intersections, pairwise_iou

MOST_DETECTIONS = 100  # per image and class
FOREGROUND, BACKGROUND = 0.5, 0.1  # least overlap of a right detection, and of one that is near an object
_ROUNDING = 1e-10  # of an overlap that equals the threshold, as in pycocotools


class Pairs(NamedTuple):
    """Pairs of a detection and an object of its image (P of them), by rising detection."""

    detections: np.ndarray  # int64 [P], rows of the table's detections
    objects: np.ndarray  # int64 [P], rows of the table's objects
    overlaps: np.ndarray  # float64 [P], IoU; with a crowd the covered share of the detection

    def select(self, rows: np.ndarray) -> Pairs:
        """Returns the pairs of a boolean mask or of indices."""
        return Pairs(self.detections[rows], self.objects[rows], self.overlaps[rows])


class Table(NamedTuple):
    """G objects and D detections of N images, in the order of the images; detections best first within an image."""

    images: list[EvaluatedImage]  # N
    kept: list[np.ndarray]  # N of int64: the rows of the image's detections in the table
    gt_rows: list[np.ndarray]  # N of int64: the rows of the image's objects in the table
    gt_image: np.ndarray  # int64 [G], position in ``images``
    gt_class: np.ndarray  # int64 [G], 0-based
    gt_is_crowd: np.ndarray  # bool [G]
    gt_is_ignored: np.ndarray  # bool [G]; crowds, and with ``ignore_difficult`` difficult objects
    gt_area_px: np.ndarray  # float64 [G]
    image: np.ndarray  # int64 [D]
    classes: np.ndarray  # int64 [D]
    scores: np.ndarray  # float32 [D]
    area_px: np.ndarray  # float64 [D]; of the masks if these are measured
    by_class: np.ndarray  # int64 [D], the detections by class and falling score
    pairs: Pairs  # those with an overlap of at least ``BACKGROUND``


class Matching(NamedTuple):
    """The verdict on each detection."""

    objects: np.ndarray  # int64 [D], row of the object that the detection takes; -1 for none
    is_right: np.ndarray  # bool [D]
    is_ignored: np.ndarray  # bool [D], neither right nor wrong

    def is_found(self, num_objects: int) -> np.ndarray:
        """Returns for each object whether a detection takes it, bool [G]."""
        found = np.zeros(num_objects, bool)
        found[self.objects[self.is_right]] = True
        return found


def make_table(
    images: Sequence[EvaluatedImage],
    class_names: Mapping[int, str],
    *,
    by_masks: bool = False,
    ignore_difficult: bool = False,
) -> Table:
    """Flattens the images of an evaluation, in the order of pycocotools.

    Args:
        images: Ground truth and detections.
        class_names: Name of each class id (from 1). Objects and detections of other classes are left out.
        by_masks: Measure overlaps of masks, which every image must have.
        ignore_difficult: A difficult object counts neither as found nor as missed, as in Pascal VOC.
    """
    ordered = [images[row] for row in np.argsort(numeric_image_ids(list(images)), kind="stable")]
    known = np.array(sorted(class_names), np.int64) - 1
    truths: list[tuple[np.ndarray, ...]] = []
    found: list[tuple[np.ndarray, ...]] = []
    pairs: list[tuple[np.ndarray, ...]] = []
    kept: list[np.ndarray] = []
    gt_rows: list[np.ndarray] = []
    num_objects = num_detections = 0
    for number, image in enumerate(ordered):
        real = np.flatnonzero(np.isin(image.gt_classes, known))
        rows = _best_rows(image, known)
        is_crowd = image.gt_is_crowd[real]
        is_ignored = is_crowd | image.gt_is_difficult[real] if ignore_difficult else is_crowd
        overlaps = _overlaps(image, rows, real, by_masks)
        near = np.nonzero(overlaps >= BACKGROUND)
        pairs.append((near[0] + num_detections, near[1] + num_objects, overlaps[near]))
        truths.append(
            (np.full(len(real), number), image.gt_classes[real], is_crowd, is_ignored, image.gt_area_px[real])
        )
        sizes = np.array([mask_area(image.masks[row]) for row in rows]) if by_masks and image.masks else None
        sizes = areas(image.boxes_px[rows]) if sizes is None else sizes
        found.append((np.full(len(rows), number), image.classes[rows], image.scores[rows], sizes))
        kept.append(rows)
        gt_rows.append(real)
        num_objects, num_detections = num_objects + len(real), num_detections + len(rows)
    gt_image, gt_class, gt_is_crowd, gt_is_ignored, gt_area = map(np.concatenate, zip(*truths))
    image, classes, scores, area = map(np.concatenate, zip(*found))
    return Table(
        ordered,
        kept,
        gt_rows,
        gt_image.astype(np.int64),
        gt_class.astype(np.int64),
        gt_is_crowd.astype(bool),
        gt_is_ignored.astype(bool),
        gt_area.astype(np.float64),
        image.astype(np.int64),
        classes.astype(np.int64),
        scores.astype(np.float32),
        area.astype(np.float64),
        order_by_class(classes, scores),
        Pairs(*map(np.concatenate, zip(*pairs))),
    )


def order_by_class(classes: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Returns the order of detections by class, and within it by falling score, int64 [D]."""
    return np.lexsort((-scores, classes))


def same_class(table: Table) -> np.ndarray:
    """Returns for each pair whether detection and object have one class, bool [P]."""
    return table.classes[table.pairs.detections] == table.gt_class[table.pairs.objects]


def match(table: Table, threshold: float = FOREGROUND, area_px: tuple[float, float] = (0.0, np.inf)) -> Matching:
    """Matches detections with objects of their class.

    Args:
        table: The evaluation.
        threshold: Least overlap.
        area_px: Least and greatest area of the objects to find. Other objects are ignored, and so are detections of
            other areas that take no object.
    """
    outside = (table.gt_area_px < area_px[0]) | (table.gt_area_px > area_px[1])
    is_ignored_object = table.gt_is_ignored | outside
    pairs = table.pairs.select(same_class(table) & (table.pairs.overlaps >= min(threshold, 1.0 - _ROUNDING)))
    taken = assign(pairs, len(table.classes), is_ignored_object, table.gt_is_crowd)
    is_right = (taken >= 0) & ~np.append(is_ignored_object, False)[taken]
    is_ignored = (taken >= 0) & ~is_right
    is_ignored |= (taken < 0) & ((table.area_px < area_px[0]) | (table.area_px > area_px[1]))
    return Matching(taken, is_right, is_ignored)


def assign(
    pairs: Pairs, num_detections: int, is_ignored: np.ndarray, is_shared: np.ndarray | None = None
) -> np.ndarray:
    """Returns the row of the object that each detection takes, -1 for none, int64 [D].

    One after the other, from lower to higher row, the detections take the object of their pairs that is free, is not
    ignored if there is a choice, and has the greatest overlap. All detections choose at once, and those that a better
    one displaces choose again (the stable matching of Gale and Shapley, 1962): the number of rounds is small.

    Args:
        pairs: Detections and the objects that they may take.
        num_detections: D.
        is_ignored: bool [G].
        is_shared: bool [G], objects that any number of detections may take; None for none.
    """
    taken = np.full(num_detections, -1)
    is_shared = np.zeros(len(is_ignored), bool) if is_shared is None else is_shared
    # Of two equal overlaps pycocotools takes the later object.
    order = np.lexsort((-pairs.objects, -pairs.overlaps, is_ignored[pairs.objects], pairs.detections))
    detections, objects = pairs.detections[order], pairs.objects[order]
    while len(detections):
        first = np.concatenate([[True], detections[1:] != detections[:-1]])
        best = np.full(len(is_ignored), num_detections)
        best[objects[first][::-1]] = detections[first][::-1]  # of several the last assignment counts, the lowest row
        stays = is_shared[objects] | (best[objects] >= detections)
        if stays.all():
            taken[detections[first]] = objects[first]
            break
        detections, objects = detections[stays], objects[stays]
    return taken


def _best_rows(image: EvaluatedImage, known: np.ndarray) -> np.ndarray:
    """Returns the detections that count, best first."""
    order = np.argsort(-image.scores, kind="stable")
    if image.verified_classes is not None:  # nobody labelled the other classes in this image
        known = np.intersect1d(known, np.union1d(image.verified_classes, image.gt_classes))
    order = order[np.isin(image.classes[order], known)]
    by_class = np.argsort(image.classes[order], kind="stable")
    sorted_classes = image.classes[order][by_class]
    rank = np.empty(len(order), np.int64)
    rank[by_class] = np.arange(len(order)) - np.searchsorted(sorted_classes, sorted_classes)
    return order[rank < MOST_DETECTIONS]


def _overlaps(image: EvaluatedImage, rows: np.ndarray, real: np.ndarray, by_masks: bool) -> np.ndarray:
    """Returns the overlap of each detection with each object, float64 [D, G]."""
    if not len(rows) or not len(real):
        return np.zeros([len(rows), len(real)])
    is_crowd = image.gt_is_crowd[real]
    if by_masks and image.masks is not None and image.gt_masks is not None:
        from pycocotools.mask import iou

        masks, gt_masks = [image.masks[row] for row in rows], [image.gt_masks[row] for row in real]
        return np.asarray(iou(masks, gt_masks, is_crowd.astype(np.uint8)), np.float64)
    boxes, gt_boxes = image.boxes_px[rows].astype(np.float64), image.gt_boxes_px[real].astype(np.float64)
    overlaps = pairwise_iou(boxes, gt_boxes)
    if is_crowd.any():
        covered = intersections(boxes, gt_boxes[is_crowd])
        overlaps[:, is_crowd] = covered / np.maximum(areas(boxes), np.finfo(np.float64).tiny)[:, np.newaxis]
    return overlaps
