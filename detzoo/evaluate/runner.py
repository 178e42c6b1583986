"""Runs a detector on a data set and computes metrics, for ``detzoo evaluate`` and during training.

dataset of Batch -> detector (one traced function) -> EvaluatedImage -> coco, pascal_voc, open_images -> numbers by name
                                                                     -> proposals, for class-agnostic boxes and masks
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from detzoo.config.check.readers import MASK_METRICS, METRICS_SETS
from detzoo.contracts import Batch, Detections, Proposals, Tensor
from detzoo.errors import ConfigError, DataError
from detzoo.evaluate.coco import (
    BOXES,
    MASK_PREFIX,
    MASKS,
    CocoResult,
    KeypointMetric,
    evaluate_coco,
    evaluate_keypoints,
)
from detzoo.evaluate.images import EvaluatedImage, images_of_batch
from detzoo.evaluate.open_images import evaluate_open_images
from detzoo.evaluate.pascal_voc import VocResult, evaluate_voc
from detzoo.evaluate.proposals import evaluate_proposals
from detzoo.layers.resample import spatial_shape
from detzoo.progress import progress_bar

COCO_METRICS = "coco_detection_metrics"
VOC_METRICS = "pascal_voc_detection_metrics"
VOC_2007_METRICS = "pascal_voc_2007_detection_metrics"
# The Object Detection API has renamed this one twice.
OPEN_IMAGES_METRICS = ("oid_V2_detection_metrics", "open_images_V2_detection_metrics", "open_images_metrics")
CHALLENGE_METRICS = "oid_challenge_detection_metrics"

VOC_METRIC_NAMES = {VOC_METRICS: "VOC mAP@.50IOU", VOC_2007_METRICS: "VOC2007 mAP@.50IOU"}
OPEN_IMAGES_METRIC_NAMES = {
    **dict.fromkeys(OPEN_IMAGES_METRICS, "OpenImages mAP@.50IOU"),
    CHALLENGE_METRICS: "OpenImagesChallenge mAP@.50IOU",
}

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class EvaluationResult:
    """Metrics, ground truth and detections of an evaluation."""

    metrics: dict[str, float]  # metrics by name; -1 if there was nothing to measure
    per_class: dict[str, dict[str, float]]  # class name to metric name to number; NaN or -1 for classes without objects
    images: list[EvaluatedImage]  # ground truth and detections of every image
    class_names: dict[int, str]  # name of each class id (from 1)
    seconds: float  # wall time, reading included
    proposes_only: bool = False  # the detections are class-agnostic proposals
    pictures: tuple[np.ndarray, ...] = ()  # uint8 [H, W, 3] of the first images, detections next to ground truth


def asked_metrics(eval_config: Any) -> list[str]:
    """Returns the metrics sets of an ``EvalConfig`` message; ``eval_instance_masks`` adds those by masks."""
    names = list(eval_config.metrics_set)
    if eval_config.eval_instance_masks and MASK_METRICS not in names:
        names.append(MASK_METRICS)
    return names


def reads_image_labels(metrics_set: Sequence[str]) -> bool:
    """Returns whether a metric needs the image-level labels of records."""
    return CHALLENGE_METRICS in metrics_set


class Evaluator:
    """Evaluator of detectors on one data set.

    A detector that ``proposes_only`` is evaluated by the recall of its proposals for any metrics set, by masks if it
    ``proposes_masks``. A detector with ``wants_proposals`` gets the proposals of the data set.

    Args:
        dataset: Finite tf.data.Dataset of Batch, in a fixed order.
        label_map: Object with ``names`` (id from 1 to name), or such a dict.
        metrics_set: Names of ``METRICS_SETS``. Empty means COCO's metrics; COCO's metrics by masks include those by
            boxes.
        show_progress: Show a progress bar on stderr.
        title: Label of the progress bar.
        unlabeled_are_complete: For metrics of the Open Images Challenge, all classes are verified in an image without
            labels, not only those of its boxes.
        drawer: ``PairDrawer`` that draws the first images; None draws none.
        keypoint_metrics: Classes whose keypoints are measured, if the detector predicts any.

    Raises:
        ConfigError: A metrics set is unknown, or the data set lacks what it needs.
    """

    def __init__(
        self,
        dataset: tf.data.Dataset,
        label_map: Any,
        metrics_set: Sequence[str] = (),
        *,
        show_progress: bool = True,
        title: str = "evaluate",
        unlabeled_are_complete: bool = True,
        drawer: Any = None,
        keypoint_metrics: Sequence[KeypointMetric] = (),
    ) -> None:
        self._dataset = dataset
        self._class_names = dict(getattr(label_map, "names", label_map))
        self._metrics_set = tuple(metrics_set) or (COCO_METRICS,)
        self._show_progress = show_progress
        self._title = title
        self._unlabeled_are_complete = unlabeled_are_complete
        self._drawer, self._pictures = drawer, list[np.ndarray]()
        self._keypoint_metrics = tuple(keypoint_metrics)
        self._traced_for: Any = None
        self._traced: Any = None
        unknown = [name for name in self._metrics_set if name not in METRICS_SETS]
        if unknown:
            raise ConfigError(f"eval_config.metrics_set: {', '.join(unknown)}; accepted: {', '.join(METRICS_SETS)}")
        if MASK_METRICS in self._metrics_set:
            self._check_masks(f"eval_config.metrics_set: {MASK_METRICS} needs")

    def __call__(self, detector: Any) -> dict[str, float]:
        """Returns the metrics of ``evaluate``."""
        return self.evaluate(detector).metrics

    def evaluate(self, detector: Any) -> EvaluationResult:
        """Detects on every image of the data set and computes metrics.

        Raises:
            DataError: The data set has no image.
            ConfigError: The detector does not fit the data set or the metrics.
        """
        started = time.monotonic()
        return self.measured(detector, self.detect(detector), started)

    def measured(self, detector: Any, images: list[EvaluatedImage], started: float) -> EvaluationResult:
        """Computes the metrics of images with detections; ``started`` is the time of ``time.monotonic`` before them.

        Raises:
            DataError: There is no image.
        """
        if not images:
            raise DataError("the evaluation data set has no image: check eval_input_reader's input_path")
        per_class: dict[str, dict[str, float]] = {}
        if detector.proposes_only:
            metrics = evaluate_proposals(images, MASKS if detector.proposes_masks else BOXES)
        else:
            metrics, per_class = measure(images, self._class_names, self._metrics_set)
            for metric in self._keypoint_metrics:
                metrics.update(self._of_keypoints(images, metric))
        seconds = time.monotonic() - started
        pictures = tuple(self._pictures)
        return EvaluationResult(
            metrics, per_class, images, self._class_names, seconds, detector.proposes_only, pictures
        )

    def detect(self, detector: Any) -> list[EvaluatedImage]:
        """Returns ground truth and detections of every image, in the order of the data set."""
        return [image for _, image in self.detect_shard(detector)]

    def detect_shard(self, detector: Any) -> list[tuple[int, EvaluatedImage]]:
        """Returns ``detect`` with the number of each image's record, also if there is none."""
        detect = self._traced_detection(detector)
        with_masks = MASK_METRICS in self._metrics_set and not detector.proposes_only
        if detector.proposes_masks:
            self._check_masks("segmentation proposals are measured by")
            with_masks = True
        images: list[tuple[int, EvaluatedImage]] = []
        self._pictures.clear()
        with progress_bar(None, self._title, shown=self._show_progress, leave=False) as bar:
            for batch in (part for whole in self._dataset for part in _of_one_size(whole, detector)):
                detections = detect(batch.images, batch.true_shapes, batch.side_inputs())
                if with_masks and isinstance(detections.masks, tuple):
                    raise ConfigError(f"eval_config.metrics_set: {MASK_METRICS} needs a detector with a mask head")
                new = images_of_batch(batch, detections, with_masks, self._unlabeled_are_complete)
                images.extend(zip(np.asarray(batch.record_index).tolist(), new))
                self._draw(batch, detections, new, detector.proposes_only)
                bar.update(len(new))
        return images

    def _draw(self, batch: Batch, detections: Detections, images: list[EvaluatedImage], proposes_only: bool) -> None:
        """Draws the images of a batch, until there are enough pictures."""
        count = self._drawer.count if self._drawer is not None else 0
        for row, image in enumerate(images[: max(0, count - len(self._pictures))]):
            picture = self._drawer(batch, detections, row, image, proposes_only)
            self._drawer.export(picture, len(self._pictures), image.image_id)
            self._pictures.append(picture)

    def _of_keypoints(self, images: Sequence[EvaluatedImage], metric: KeypointMetric) -> dict[str, float]:
        if any(image.gt_keypoints is None for image in images):
            raise ConfigError(
                "eval_config.parameterized_metric: coco_keypoint_metrics needs the keypoints of the records. Set "
                f"eval_input_reader[0].num_keypoints: {1 + max(metric.columns)}"
            )
        if any(image.keypoints is None for image in images):
            logger.warning("the detector predicts no keypoints, so those of %s are not measured", metric.class_name)
            return {}
        found = evaluate_keypoints(images, metric)
        if len(self._keypoint_metrics) == 1:
            return found
        return {f"{name} {metric.class_name}": value for name, value in found.items()}

    def _check_masks(self, who: str) -> None:
        """Raises a ConfigError if the data set was read without masks."""
        if self._dataset.element_spec.groundtruth.masks.shape[-1] == 0:
            raise ConfigError(
                f"{who} the masks of the records. Set eval_input_reader[0].load_instance_masks: true (and mask_type: "
                "PNG_MASKS if they are PNG)"
            )

    def _traced_detection(self, detector: Any) -> Any:
        """Returns one traced function per detector, for batches of any number of images."""
        if self._traced_for is not detector:
            spec: Batch = self._dataset.element_spec
            image_spec = tf.TensorSpec([None, *spec.images.shape[1:]], spec.images.dtype)
            shape_spec = tf.TensorSpec([None, 2], tf.int32)
            if detector.wants_proposals and not spec.proposals:
                raise ConfigError(
                    "the model classifies proposals of the input reader (proposals_from_reader), but the reader has "
                    "none: set eval_input_reader[0].proposals_path to the proposals.npz that `detzoo evaluate` wrote "
                    "for these records, or to a list in COCO's results format"
                )
            side_spec = tf.nest.map_structure(
                lambda s: tf.TensorSpec([None, *s.shape[1:]], s.dtype), spec.side_inputs()
            )
            wanted = {"proposals": detector.wants_proposals, "context": getattr(detector, "wants_context", False)}

            def detect(images: Tensor, true_shapes: Tensor, side_inputs: dict[str, Any]) -> Detections:
                used = {name: value for name, value in side_inputs.items() if wanted[name]}
                return detect_batch(detector, images, true_shapes, **used)

            signature = [image_spec, shape_spec, side_spec]
            self._traced = tf.function(detect, input_signature=signature, autograph=False)
            self._traced_for = detector
        return self._traced


def _of_one_size(batch: Batch, detector: Any) -> list[Batch]:
    """Returns the batch, or its images one by one if they differ in size and the detector takes any size.

    In a batch with a larger image, an image would have more padding than in an exported model, and other detections
    near its border.
    """
    shapes = np.asarray(batch.true_shapes)
    if None not in detector.input_shape_px or (shapes == shapes[:1]).all():
        return [batch]
    return [tf.nest.map_structure(lambda x, row=row: x[row : row + 1], batch) for row in range(len(shapes))]


def detect_batch(
    detector: Any, images: Tensor, true_shapes: Tensor, proposals: Proposals | None = None, **context: Any
) -> Detections:
    """Returns detections on resized and padded images [B, H, W, 3] with true parts of ``true_shapes`` [B, 2].

    ``proposals`` are the regions to classify, for a detector without a first stage; ``context`` is the memory of a
    Context R-CNN.
    """
    inputs = detector.preprocess(images)
    predictions = detector.forward(inputs, true_shapes=true_shapes, proposals=proposals, **context)
    return detector.postprocess(predictions, true_shapes, spatial_shape(images))


def measure(
    images: Sequence[EvaluatedImage], class_names: Mapping[int, str], metrics_set: Sequence[str]
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Returns the given metrics of evaluated images, and the same by class."""
    unnamed = sum(int(c) + 1 not in class_names for image in images for c in image.gt_classes)
    if unnamed:
        logger.warning(
            "%d ground-truth objects have a class id without a name in the label map and are not measured", unnamed
        )
    metrics: dict[str, float] = {}
    per_class: dict[str, dict[str, float]] = {name: {} for _, name in sorted(class_names.items())}
    if COCO_METRICS in metrics_set or MASK_METRICS in metrics_set:
        coco = evaluate_coco(images, class_names)
        metrics.update(coco.metrics)
        _add_coco_classes(per_class, coco)
    if MASK_METRICS in metrics_set:
        coco = evaluate_coco(images, class_names, MASKS)
        metrics.update(coco.metrics)
        _add_coco_classes(per_class, coco, MASK_PREFIX)
    for metrics_name, short_name in VOC_METRIC_NAMES.items():
        if metrics_name in metrics_set:
            voc = evaluate_voc(images, class_names, eleven_points=metrics_name == VOC_2007_METRICS)
            _add_voc(metrics, per_class, short_name, voc)
    for metrics_name, short_name in OPEN_IMAGES_METRIC_NAMES.items():
        if metrics_name in metrics_set:
            voc = evaluate_open_images(images, class_names, challenge=metrics_name == CHALLENGE_METRICS)
            _add_voc(metrics, per_class, short_name, voc)
    return metrics, per_class


def _add_voc(
    metrics: dict[str, float], per_class: dict[str, dict[str, float]], short_name: str, result: VocResult
) -> None:
    metrics[short_name] = result.mean_average_precision
    for name, value in result.per_class.items():
        per_class[name][short_name] = -1.0 if math.isnan(value) else value


def _add_coco_classes(per_class: dict[str, dict[str, float]], coco: CocoResult, prefix: str = "") -> None:
    for name, precision in coco.per_class.items():
        per_class[name][f"{prefix}AP"] = precision.average_precision
        per_class[name][f"{prefix}AP@.50IOU"] = precision.average_precision_50
        per_class[name]["objects"] = precision.num_objects
