"""Average recall of class-agnostic proposals, what a first stage alone is measured by (FPN, arXiv:1612.03144, 5.1.1).

COCO's recall, averaged over IoU .50 to .95, of the objects of all classes by the best 10, 100 or 1000 proposals of each
image, through pycocotools. A crowd counts neither as an object nor against a proposal on it. Proposals with masks are
measured by the overlap of the masks (section 6); the same numbers have the prefix "mask ".
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

NUMBERS_OF_PROPOSALS = (10, 100, 1000)
AREAS = ("all", "small", "medium", "large")  # in pycocotools' order
MOST_PROPOSALS = NUMBERS_OF_PROPOSALS[-1]
SUMMARY = f"AR@{MOST_PROPOSALS}"  # the one number by which a first stage is called better than another
PROPOSAL_METRIC_NAMES = (
    *(f"AR@{number}" for number in NUMBERS_OF_PROPOSALS),
    *(f"{SUMMARY} ({area})" for area in AREAS[1:]),
)

MASK_PROPOSAL_METRIC_NAMES = tuple(f"{MASK_PREFIX}{name}" for name in PROPOSAL_METRIC_NAMES)

_IMAGES_AT_ONCE = 500  # pycocotools keeps an entry for each proposal; this bounds the memory
_LEAST_OVERLAP = 0.45  # below COCO's smallest threshold, with room for rounding


def evaluate_proposals(images: Sequence[EvaluatedImage], overlap_of: str = BOXES) -> dict[str, float]:
    """Average recall over all images; -1 without an object.

    Args:
        images: truth of any classes, and proposals as detections, best first.
        overlap_of: ``BOXES``, or ``MASKS`` where every image has both kinds of masks.

    Returns:
        Under the names of ``PROPOSAL_METRIC_NAMES``, or of ``MASK_PROPOSAL_METRIC_NAMES``.
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
    """For each of ``NUMBERS_OF_PROPOSALS`` the image with those of its best that could find an object; of one class.

    pycocotools goes through every proposal in Python; most overlap no object enough to matter at any threshold.
    """
    order = np.argsort(-image.scores, kind="stable")
    if overlap_of == MASKS:
        overlaps = _largest_mask_overlaps(image)[order]
    else:
        overlaps = _largest_overlaps(image.boxes_px, image.gt_boxes_px)[order]
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
    """Recall [4] for objects of each size, 0 where there are none, and the number of these objects [4]."""
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


def _largest_overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The largest intersection over union of each box [N, 4] with any of the others [M, 4]; 0 without others."""
    low = np.maximum(boxes[:, np.newaxis, :2], others[:, :2])
    high = np.minimum(boxes[:, np.newaxis, 2:], others[:, 2:])
    common = np.prod(np.maximum(high - low, 0.0), axis=2)
    areas, other_areas = (np.prod(b[:, 2:] - b[:, :2], axis=1) for b in (boxes, others))
    union = areas[:, np.newaxis] + other_areas - common
    return np.max(common / np.maximum(union, np.finfo(np.float32).tiny), axis=1, initial=0.0)


def _largest_mask_overlaps(image: EvaluatedImage) -> np.ndarray:
    """The largest intersection over union of each proposal's mask with any object's, [D]; 0 without objects."""
    from pycocotools.mask import iou

    if not image.masks or not image.gt_masks:
        return np.zeros(len(image.scores))
    return np.max(iou(image.masks, image.gt_masks, [0] * len(image.gt_masks)), axis=1)
