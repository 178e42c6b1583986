"""COCO's detection metrics by pycocotools, without its output (from evaluated images to named numbers).

faster-coco-eval (extra ``fast``) computes the same numbers several times faster if it is installed.

A crowd box is ignored, so a detection on it is neither right nor wrong. As in pycocotools, -1 means that there was
nothing to measure (no object of a size or class). The twelve metrics by masks have the prefix "mask ".
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from detzoo.evaluate.images import EvaluatedImage, numeric_image_ids
from detzoo.evaluate.masks import mask_area

NOTHING_MEASURED = -1.0

# pycocotools' twelve numbers in its order, under the Object Detection API's names.
METRIC_NAMES = (
    "mAP",
    "mAP@.50IOU",
    "mAP@.75IOU",
    "mAP (small)",
    "mAP (medium)",
    "mAP (large)",
    "AR@1",
    "AR@10",
    "AR@100",
    "AR@100 (small)",
    "AR@100 (medium)",
    "AR@100 (large)",
)
MASK_PREFIX = "mask "
MASK_METRIC_NAMES = tuple(f"{MASK_PREFIX}{name}" for name in METRIC_NAMES)

BOXES, MASKS, KEYPOINTS = "bbox", "segm", "keypoints"  # pycocotools' names of the kinds of overlap
# Its ten numbers of keypoints.
KEYPOINT_METRIC_NAMES = tuple(
    f"keypoint {name}"
    for name in (
        *("mAP", "mAP@.50OKS", "mAP@.75OKS", "mAP (medium)", "mAP (large)"),
        *("AR@20", "AR@20 .50OKS", "AR@20 .75OKS", "AR@20 (medium)", "AR@20 (large)"),
    )
)


class KeypointMetric(NamedTuple):
    """The keypoints of a class, and how exact each must be."""

    class_name: str
    class_id: int  # from 1
    columns: tuple[int, ...]  # of the keypoints of an object, those of this class
    sigmas: tuple[float, ...]  # COCO's standard deviation of each, as a fraction of the object's size


class ClassPrecision(NamedTuple):
    """Average precision of one class."""

    average_precision: float  # over IoU .50:.95, or -1 without an object of this class
    average_precision_50: float  # at IoU .50
    num_objects: int  # without crowds


class CocoResult(NamedTuple):
    """COCO's twelve numbers and the average precision of each class."""

    metrics: dict[str, float]
    per_class: dict[str, ClassPrecision]


def coco_groundtruth(images: Sequence[EvaluatedImage], class_names: Mapping[int, str]) -> dict[str, Any]:
    """Returns ground truth as a COCO annotation file, in pixels of the original images and with ids from 1."""
    annotations: list[dict[str, Any]] = []
    image_entries = []
    for number, image in zip(numeric_image_ids(list(images)), images):
        height, width = image.shape
        image_entries.append({"id": number, "file_name": image.image_id, "height": height, "width": width})
        for row, box in enumerate(image.gt_boxes_px):
            annotation = {
                "id": len(annotations) + 1,
                "image_id": number,
                "category_id": int(image.gt_classes[row]) + 1,
                "bbox": _xywh(box),
                "area": float(image.gt_area_px[row]),
                "iscrowd": int(image.gt_is_crowd[row]),
            }
            if image.gt_is_difficult[row]:  # no key of COCO's
                annotation["difficult"] = 1
            if image.gt_masks is not None:
                annotation["segmentation"] = image.gt_masks[row]
            annotations.append(annotation)
    categories = [{"id": class_id, "name": name} for class_id, name in sorted(class_names.items())]
    return {"info": {}, "images": image_entries, "annotations": annotations, "categories": categories}


def coco_detections(images: Sequence[EvaluatedImage]) -> Iterator[dict[str, Any]]:
    """Yields detections in COCO's results format, best first within an image."""
    for number, image in zip(numeric_image_ids(list(images)), images):
        for row, (box, score, class_index) in enumerate(zip(image.boxes_px, image.scores, image.classes)):
            entry = {
                "image_id": number,
                "category_id": int(class_index) + 1,
                "bbox": _xywh(box),
                "score": float(score),
            }
            if image.masks is not None:
                entry["segmentation"] = image.masks[row]
            yield entry


def evaluate_coco(
    images: Sequence[EvaluatedImage], class_names: Mapping[int, str], overlap_of: str = BOXES
) -> CocoResult:
    """Computes COCO's twelve metrics over all images, also those without objects or detections.

    Args:
        images: Ground truth and detections of every image.
        class_names: Name of each id (from 1, gaps allowed). Ids without a name are not measured.
        overlap_of: ``BOXES``, or ``MASKS`` if every image has both kinds of masks.

    Returns:
        Metrics by the names of ``METRIC_NAMES`` or ``MASK_METRIC_NAMES``, and the average precision per class name.
    """
    names = METRIC_NAMES if overlap_of == BOXES else MASK_METRIC_NAMES
    truth, found = coco_groundtruth(images, class_names), list(coco_detections(images))
    evaluation = run_pycocotools(truth, found, overlap_of, numbers_only=True)
    if evaluation is None:
        metrics = dict.fromkeys(names, NOTHING_MEASURED)
        return CocoResult(
            metrics, {name: ClassPrecision(NOTHING_MEASURED, NOTHING_MEASURED, 0) for name in class_names.values()}
        )
    metrics = _summary(evaluation, names)
    return CocoResult(metrics, _per_class(evaluation, class_names))


def evaluate_keypoints(images: Sequence[EvaluatedImage], metric: KeypointMetric) -> dict[str, float]:
    """Computes COCO's ten metrics of the keypoints of a class, by object keypoint similarity.

    Args:
        images: Images with keypoints of ground truth and detections.
        metric: Class and keypoints.

    Returns:
        Metrics by the names of ``KEYPOINT_METRIC_NAMES``; -1 without a labelled keypoint.
    """
    columns = list(metric.columns)
    truth = coco_groundtruth(images, {metric.class_id: metric.class_name})
    rows = [points[:, columns] for image in images if (points := image.gt_keypoints) is not None]
    for annotation, points in zip(truth["annotations"], (point for part in rows for point in part), strict=True):
        annotation["keypoints"] = points.ravel().tolist()
        annotation["num_keypoints"] = int(np.count_nonzero(points[:, 2]))
    truth["annotations"] = [x for x in truth["annotations"] if x["category_id"] == metric.class_id]
    found = list(coco_detections(images))
    rows = [points[:, columns] for image in images if (points := image.keypoints) is not None]
    for detection, points in zip(found, (point for part in rows for point in part), strict=True):
        detection["keypoints"] = points.ravel().tolist()
    found = [detection for detection in found if detection["category_id"] == metric.class_id]
    if not any(annotation["num_keypoints"] for annotation in truth["annotations"]):
        return dict.fromkeys(KEYPOINT_METRIC_NAMES, NOTHING_MEASURED)
    evaluation = run_pycocotools(truth, found, KEYPOINTS, sigmas=metric.sigmas, numbers_only=True)
    return _summary(evaluation, KEYPOINT_METRIC_NAMES)


def _summary(evaluation: Any, names: Sequence[str]) -> dict[str, float]:
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.summarize()
    return {name: float(value) for name, value in zip(names, evaluation.stats)}


def run_pycocotools(
    groundtruth: dict[str, Any],
    detections: list[dict[str, Any]],
    overlap_of: str = BOXES,
    max_detections: Sequence[int] = (),
    iou_threshold: float | None = None,
    sigmas: Sequence[float] = (),
    numbers_only: bool = False,
) -> Any:
    """Returns an accumulated COCOeval of ``coco_groundtruth`` and ``coco_detections``, None without any object to find.

    ``max_detections`` are the numbers of detections per image that count, ascending; empty for COCO's numbers. With an
    ``iou_threshold``, objects of all sizes are matched at that one only, which is faster. ``sigmas`` are the tolerances
    of keypoints. With ``numbers_only`` the evaluation may be that of faster-coco-eval, whose ``evalImgs`` is empty.
    """
    if numbers_only and importlib.util.find_spec("faster_coco_eval"):
        from faster_coco_eval import COCO
        from faster_coco_eval import COCOeval_faster as COCOeval
    else:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

    if not groundtruth["annotations"] or not groundtruth["categories"]:
        return None
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = groundtruth
        truth.createIndex()
        found = COCO()
        found.dataset = {**groundtruth, "annotations": _as_annotations(detections, overlap_of)}
        found.createIndex()
        evaluation = COCOeval(truth, found, overlap_of)
        if sigmas:
            evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        evaluation.params.maxDets = list(max_detections) or evaluation.params.maxDets
        if iou_threshold is not None:
            evaluation.params.iouThrs = np.array([iou_threshold])
            evaluation.params.areaRng, evaluation.params.areaRngLbl = evaluation.params.areaRng[:1], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def _as_annotations(detections: list[dict[str, Any]], overlap_of: str) -> list[dict[str, Any]]:
    """Converts results as ``COCO.loadRes`` does, which refuses an empty list."""

    def area(detection: dict[str, Any]) -> float:
        by_mask = overlap_of == MASKS
        if overlap_of == KEYPOINTS:
            return float(np.prod(np.ptp(np.reshape(detection["keypoints"], (-1, 3))[:, :2], axis=0)))
        return mask_area(detection["segmentation"]) if by_mask else detection["bbox"][2] * detection["bbox"][3]

    return [
        {**detection, "id": row + 1, "area": area(detection), "iscrowd": 0} for row, detection in enumerate(detections)
    ]


def _per_class(evaluation: Any, class_names: Mapping[int, str]) -> dict[str, ClassPrecision]:
    """Returns average precision per class from the table [IoU thresholds, recalls, classes, areas, max detections]."""
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    result = {}
    for column, class_id in enumerate(evaluation.params.catIds):
        annotation_ids = evaluation.cocoGt.getAnnIds(catIds=[class_id], iscrowd=False)
        result[class_names[class_id]] = ClassPrecision(
            _mean_of_measured(precision[:, :, column]),
            _mean_of_measured(precision[0, :, column]),
            len(annotation_ids),
        )
    return result


def _mean_of_measured(values: np.ndarray) -> float:
    measured = values[values > -1]
    return float(measured.mean()) if measured.size else NOTHING_MEASURED


def _xywh(box: np.ndarray) -> list[float]:
    """Converts [ymin, xmin, ymax, xmax] to COCO's [x, y, width, height]."""
    ymin, xmin, ymax, xmax = (float(value) for value in box)
    return [xmin, ymin, xmax - xmin, ymax - ymin]
