"""Average recall of class-agnostic proposals, what a first stage alone is measured by (FPN, arXiv:1612.03144, 5.1.1).

COCO's recall, averaged over IoU .50 to .95, of the objects of all classes by the best 10, 100 or 1000 proposals of each
image, through pycocotools. A crowd counts neither as an object nor against a proposal on it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detzoo.evaluate.coco import NOTHING_MEASURED, coco_detections, coco_groundtruth, run_pycocotools
from detzoo.evaluate.images import EvaluatedImage

NUMBERS_OF_PROPOSALS = (10, 100, 1000)
AREAS = ("all", "small", "medium", "large")  # in pycocotools' order
MOST_PROPOSALS = NUMBERS_OF_PROPOSALS[-1]
SUMMARY = f"AR@{MOST_PROPOSALS}"  # the one number by which a first stage is called better than another
PROPOSAL_METRIC_NAMES = (
    *(f"AR@{number}" for number in NUMBERS_OF_PROPOSALS),
    *(f"{SUMMARY} ({area})" for area in AREAS[1:]),
)

_IMAGES_AT_ONCE = 500  # pycocotools keeps an entry for each proposal; this bounds the memory
_LEAST_OVERLAP = 0.45  # below COCO's smallest threshold, with room for rounding


def evaluate_proposals(images: Sequence[EvaluatedImage]) -> dict[str, float]:
    """Average recall over all images under the names of ``PROPOSAL_METRIC_NAMES``; -1 without an object.

    Args:
        images: truth of any classes, and proposals as detections, best first.
    """
    found, objects = np.zeros([len(NUMBERS_OF_PROPOSALS), len(AREAS)]), np.zeros(len(AREAS))
    for begin in range(0, len(images), _IMAGES_AT_ONCE):
        some = images[begin : begin + _IMAGES_AT_ONCE]
        for row, number in enumerate(NUMBERS_OF_PROPOSALS):
            recall, counts = _recall([_best_near_objects(image, number) for image in some])
            found[row] += recall * counts
        objects += counts
    recalls = np.where(objects > 0, found / np.maximum(objects, 1), NOTHING_MEASURED)
    values = [*recalls[:, 0], *recalls[-1, 1:]]
    return {name: float(value) for name, value in zip(PROPOSAL_METRIC_NAMES, values)}


def _best_near_objects(image: EvaluatedImage, number: int) -> EvaluatedImage:
    """The image with those of its best proposals that could find an object at any threshold; the class is one.

    pycocotools goes through every proposal in Python; most overlap no object enough to matter.
    """
    order = np.argsort(-image.scores, kind="stable")[:number]
    order = order[_largest_overlaps(image.boxes_px[order], image.gt_boxes_px) >= _LEAST_OVERLAP]
    return image._replace(
        gt_classes=np.zeros_like(image.gt_classes),
        boxes_px=image.boxes_px[order],
        scores=image.scores[order],
        classes=np.zeros(len(order), np.int32),
    )


def _recall(images: Sequence[EvaluatedImage]) -> tuple[np.ndarray, np.ndarray]:
    """Recall [4] for objects of each size, 0 where there are none, and the number of these objects [4]."""
    truth = coco_groundtruth(images, {1: "object"})
    evaluation = run_pycocotools(truth, list(coco_detections(images)), max_detections=(MOST_PROPOSALS,))
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
