"""Average recall of class-agnostic proposals, the metric of a first stage alone (FPN, arXiv:1612.03144, 5.1.1).

The recall is that of COCO, averaged over IoU .50 to .95, for objects of all classes and the best 10, 100 or 1000
proposals per image, by pycocotools. A crowd counts neither as an object nor against a proposal on it. Proposals with
masks are measured by the overlap of masks (section 6); these metrics have the prefix "mask ".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detzoo.evaluate.coco import (
    BOXES,
    MASK_PREFIX,
    MASKS,
    NOTHING_MEASURED,
    coco_detections,
    coco_groundtruth,
    run_pycocotools,
)
from detzoo.evaluate.images import EvaluatedImage
from detzoo.ops.numpy_boxes import pairwise_iou

NUMBERS_OF_PROPOSALS = (10, 100, 1000)
AREAS = ("all", "small", "medium", "large")  # in pycocotools' order
MOST_PROPOSALS = NUMBERS_OF_PROPOSALS[-1]
SUMMARY = f"AR@{MOST_PROPOSALS}"  # the metric that compares first stages
PROPOSAL_METRIC_NAMES = (
    *(f"AR@{number}" for number in NUMBERS_OF_PROPOSALS),
    *(f"{SUMMARY} ({area})" for area in AREAS[1:]),
)

MASK_PROPOSAL_METRIC_NAMES = tuple(f"{MASK_PREFIX}{name}" for name in PROPOSAL_METRIC_NAMES)

_IMAGES_AT_ONCE = 500  # limits the memory of pycocotools, which keeps an entry per proposal
_LEAST_OVERLAP = 0.45  # below COCO's smallest threshold, with room for rounding


def evaluate_proposals(images: Sequence[EvaluatedImage], overlap_of: str = BOXES) -> dict[str, float]:
    """Computes average recall over all images, whose detections are proposals, best first; -1 without objects.

    Returns:
        Metrics by the names of ``PROPOSAL_METRIC_NAMES``, for masks ``MASK_PROPOSAL_METRIC_NAMES``.
    """
    names = PROPOSAL_METRIC_NAMES if overlap_of == BOXES else MASK_PROPOSAL_METRIC_NAMES
    found, objects = np.zeros([len(NUMBERS_OF_PROPOSALS), len(AREAS)]), np.zeros(len(AREAS))
    for begin in range(0, len(images), _IMAGES_AT_ONCE):
        some = images[begin : begin + _IMAGES_AT_ONCE]
        by_number = zip(*(_best_near_objects(image, overlap_of) for image in some))
        for row, best in enumerate(by_number):
            recall, counts = _recall(best, overlap_of)
            found[row] += recall * counts
        objects += counts
    recalls = np.where(objects > 0, found / np.maximum(objects, 1), NOTHING_MEASURED)
    values = [*recalls[:, 0], *recalls[-1, 1:]]
    return {name: float(value) for name, value in zip(names, values)}


def _best_near_objects(image: EvaluatedImage, overlap_of: str) -> list[EvaluatedImage]:
    """Returns the image for each of ``NUMBERS_OF_PROPOSALS``, with only proposals that could find an object.

    All objects get one class. The reduction saves time, because pycocotools loops over proposals in Python.
    """
    order = np.argsort(-image.scores, kind="stable")
    if overlap_of == MASKS:
        overlaps = _largest_mask_overlaps(image)[order]
    else:
        overlaps = np.max(pairwise_iou(image.boxes_px, image.gt_boxes_px), axis=1, initial=0.0)[order]
    found = []
    for number in NUMBERS_OF_PROPOSALS:
        kept = order[:number][overlaps[:number] >= _LEAST_OVERLAP]
        masks = None if image.masks is None else [image.masks[row] for row in kept]
        found.append(
            image._replace(
                gt_classes=np.zeros_like(image.gt_classes),
                boxes_px=image.boxes_px[kept],
                scores=image.scores[kept],
                classes=np.zeros(len(kept), np.int32),
                masks=masks,
            )
        )
    return found


def _recall(images: Sequence[EvaluatedImage], overlap_of: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns recall [4] for objects of each size (0 without objects), and the numbers of objects [4]."""
    truth = coco_groundtruth(images, {1: "object"})
    evaluation = run_pycocotools(truth, list(coco_detections(images)), overlap_of, (MOST_PROPOSALS,))
    counts = np.zeros(len(AREAS))
    if evaluation is None:
        return counts, counts
    areas = [tuple(area) for area in evaluation.params.areaRng]
    for judged in evaluation.evalImgs:
        if judged is not None:
            counts[areas.index(tuple(judged["aRng"]))] += np.sum(np.asarray(judged["gtIgnore"]) == 0)
    recall = evaluation.eval["recall"][:, 0, :, 0]  # [IoU thresholds, classes, areas, max detections]
    return np.where(counts > 0, recall.mean(axis=0), 0.0), counts


def _largest_mask_overlaps(image: EvaluatedImage) -> np.ndarray:
    """Returns the largest IoU of each proposal's mask with any object's mask, [D]; 0 without objects."""
    from pycocotools.mask import iou

    if not image.masks or not image.gt_masks:
        return np.zeros(len(image.scores))
    return np.max(iou(image.masks, image.gt_masks, [0] * len(image.gt_masks)), axis=1)
