"""Compares a TFLite model with the detector in memory, the last step of a TFLite export.

First the post-processing alone runs on invented outputs of a network that cover every class. Then the file runs on
images. A float model must give the same numbers: every detection must be one of the detector's anchors, with that
anchor's box and score, and the sorted scores must be the detector's. Only anchors whose scores or overlaps differ by
less than the rounding may change places, and only rows with negligible scores may be missing at the end (see
``tflite_nms``). A quantised model has different numbers, so it must find the same objects: the same class, with an
overlap of at least one half.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from detzoo.contracts import Detections, Predictions
from detzoo.detectors.one_stage import OneStageDetector
from detzoo.errors import DetzooError
from detzoo.ops.boxes import pairwise_iou
from detzoo.serving.tflite_detector import OUTPUTS, open_interpreter

TOLERANCE = 1e-3  # of boxes in fractions of the input, and of scores
NEGLIGIBLE = 0.01  # score of rows that may be missing at the end
MIN_EQUAL = 0.98  # of a float model's detections; ties may be decided differently
SURE = 0.3  # a quantised model must find detections with this score or more
SPURIOUS_MARGIN = 0.1  # a quantised detection this much above SURE must be one of the detector's
SAME_OBJECT_IOU = 0.5
MIN_FOUND_AGAIN = 0.8
MAX_SCORE_SHIFT = 0.1  # mean difference of the best scores, if no score of the detector reaches SURE

logger = logging.getLogger(__name__)

Run = Callable[[np.ndarray], Sequence[np.ndarray]]


class TfliteReport(NamedTuple):
    """The differences between a TFLite model and its detector.

    For a float model these are the largest differences. For a quantised one, ``found_again`` is the share of the
    ``num_sure`` confident detections that both find, and ``mean_score_difference`` compares their scores.
    """

    is_quantized: bool
    num_images: int
    max_box_difference: float = 0.0
    max_score_difference: float = 0.0
    num_sure: int = 0
    found_again: float = 1.0
    mean_score_difference: float = 0.0

    def sentence(self) -> str:
        """Describes the differences for the user."""
        if not self.is_quantized:
            return (
                f"agrees with the detector in memory on {self.num_images} images: boxes within "
                f"{self.max_box_difference:.1e}, scores within {self.max_score_difference:.1e}"
            )
        if not self.num_sure:
            return (
                f"the detector has no score of {SURE} or more on {self.num_images} images, so the quantised model was "
                f"compared by its best scores only: they differ by {self.mean_score_difference:.3f}"
            )
        return (
            f"compared with the detector in memory on {self.num_images} images: {self.found_again:.0%} of "
            f"{self.num_sure} detections with a score of {SURE} or more are the same, their scores differ by "
            f"{self.mean_score_difference:.3f}"
        )


class _Found(NamedTuple):
    boxes: np.ndarray  # [D, 4]
    classes: np.ndarray  # [D]
    scores: np.ndarray  # [D]


def check_float(detector: OneStageDetector, prepare: Callable, run: Run, images: np.ndarray) -> TfliteReport:
    """Compares a float model's numbers with the detector's on images uint8 [N, H, W, 3].

    ``prepare`` is the model's conversion of pixels before the detector's ``preprocess``; ``run`` maps images
    [1, H, W, 3] to the model's four outputs.

    Raises:
        DetzooError: The detections disagree or are not finite.
    """
    box_difference = score_difference = 0.0
    for number, image in enumerate(images[:, np.newaxis]):
        expected, found = detect(detector, prepare(image)), _read(run(image))
        differences = _compare_numbers(detector, expected, found, f"image {number + 1} of {len(images)}")
        box_difference = max(box_difference, differences[0])
        score_difference = max(score_difference, differences[1])
    return TfliteReport(False, len(images), box_difference, score_difference)


def check_postprocessing(detector: OneStageDetector, content: bytes) -> None:
    """Compares post-processing alone with the detector's, for objects of every class.

    Raises:
        DetzooError: The detections disagree.
    """
    runner = open_interpreter(content, num_threads=1).get_signature_runner()
    for box_deltas, class_logits in _invented_outputs(detector):
        found = runner(box_deltas=box_deltas, class_logits=class_logits)
        expected = _postprocess(
            detector, Predictions(box_deltas, class_logits, tf.constant(detector.static_anchors_norm, tf.float32))
        )
        rows = _read([found[name] for name in OUTPUTS])
        _compare_numbers(detector, expected, rows, "invented outputs of the network")


def _invented_outputs(detector: OneStageDetector) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields deltas [1, A, 4] and logits [1, A, C], with as many classes at a time as there are detections."""
    generator = np.random.default_rng(0)
    detections, num_anchors = detector.dense_detections, len(detector.static_anchors_norm)
    first_column, at_a_time = int(detections.has_background_column), detections.limits.max_total_detections
    for start in range(0, detector.num_classes, at_a_time):
        classes = range(start, min(start + at_a_time, detector.num_classes))
        logits = np.full([1, num_anchors, first_column + detector.num_classes], -12.0, np.float32)
        logits[..., :first_column] = 0.0
        for number in classes:
            anchors = generator.integers(num_anchors, size=-(-at_a_time // len(classes)))
            logits[0, anchors, first_column + number] = generator.uniform(-2.0, 3.0, len(anchors))
        yield generator.normal(0.0, 1.0, [1, num_anchors, 4]).astype(np.float32), logits


def check_quantized(detector: OneStageDetector, prepare: Callable, run: Run, images: np.ndarray) -> TfliteReport:
    """Compares a quantised model's objects; arguments as for ``check_float``.

    Raises:
        DetzooError: The model misses too many of the detector's objects, or finds too many others.
    """
    same, sure = 0, 0
    shifts: list[float] = []
    best_shifts: list[float] = []
    for image in images[:, np.newaxis]:
        expected, found = _of(detect(detector, prepare(image))), _read(run(image))
        again, differences = _match(expected, found, SURE)
        real, _ = _match(found, expected, SURE + SPURIOUS_MARGIN)
        same += int(again.sum()) + int(real.sum())
        sure += len(again) + len(real)
        shifts += list(differences)
        rows = min(len(expected.scores), len(found.scores), 10)
        missing = abs(len(expected.scores) - len(found.scores)) if not rows else 0
        best_shifts.append(float(np.abs(expected.scores[:rows] - found.scores[:rows]).mean()) if rows else missing)
    share = same / sure if sure else 1.0
    shift = float(np.mean(shifts)) if shifts else float(np.mean(best_shifts))
    report = TfliteReport(True, len(images), 0.0, 0.0, sure, share, shift)
    if share < MIN_FOUND_AGAIN or (not sure and shift > MAX_SCORE_SHIFT):
        raise DetzooError(
            f"the quantised model's detections differ from the detector's: {report.sentence()}. Give "
            "--representative_data like the images that the model will get, or use --quantize=dynamic or none"
        )
    if not sure:
        logger.warning("%s. Is it trained? Does --representative_data show its objects?", report.sentence())
    return report


def detect(detector: OneStageDetector, images: np.ndarray) -> Detections:
    """Runs the detector on an image [1, H, W, 3] of its input's size; returns numpy arrays."""
    return _postprocess(detector, detector.forward(detector.preprocess(tf.constant(images))))


def _postprocess(detector: OneStageDetector, predictions: Predictions) -> Detections:
    true_shapes = tf.constant([detector.input_shape_px], tf.int32)  # of one image
    detections = detector.postprocess(predictions, true_shapes, detector.input_shape_px)  # type: ignore[arg-type]
    return tf.nest.map_structure(np.asarray, detections)


def _of(detections: Detections) -> _Found:
    count = int(detections.num_valid[0])
    return _Found(*(part[0, :count] for part in (detections.boxes_norm, detections.classes, detections.scores)))


def _read(outputs: Sequence[np.ndarray]) -> _Found:
    """Returns the filled rows of the four outputs."""
    boxes, classes, scores, count = outputs
    for values in outputs:
        if not np.all(np.isfinite(values)):
            raise DetzooError("the TFLite model's detections are not finite")
    boxes, classes, scores = (part[0, : int(count[0])] for part in (boxes, classes, scores))
    return _Found(boxes, classes.astype(np.int32), scores)


def _compare_numbers(detector: OneStageDetector, expected: Detections, found: _Found, what: str) -> tuple[float, float]:
    """Returns the largest differences of boxes and of scores."""
    count, scores = int(expected.num_valid[0]), expected.scores[0]
    if isinstance(expected.raw_boxes_norm, tuple):  # without anchors
        raw_boxes, raw_scores = expected.boxes_norm[0, :count], expected.multiclass_scores[0, :count]
        first_column = 0
    else:
        raw_boxes, raw_scores = expected.raw_boxes_norm[0], expected.raw_scores[0]
        first_column = int(detector.dense_detections.has_background_column)
    for values in (raw_boxes, raw_scores):
        if not np.all(np.isfinite(values)):
            raise DetzooError(f"the detector's output is not finite on {what}: its weights diverged in training")
    count = min(count, max(len(found.scores), int(np.sum(scores > NEGLIGIBLE))))
    # Scores near the threshold may be in one of the two only.
    if abs(count - len(found.scores)) > max(1, count * (1 - MIN_EQUAL)):
        raise DetzooError(f"the TFLite model has {len(found.scores)} detections on {what}, the detector {count}")
    rows = min(count, len(found.scores))
    if not len(raw_boxes):
        return 0.0, 0.0
    by_rank = np.abs(scores[:rows] - found.scores[:rows])
    by_box = np.abs(np.clip(raw_boxes, 0.0, 1.0) - found.boxes[:, np.newaxis]).max(axis=2)
    by_score = np.abs(raw_scores[:, found.classes + first_column].T - found.scores[:, np.newaxis])
    closest = np.argmin(np.maximum(by_box, by_score), axis=1)
    each = np.arange(len(closest))
    by_box, by_score = by_box[each, closest], by_score[each, closest]
    for name, values in (("scores", by_rank), ("boxes", by_box), ("scores", by_score)):
        if values.size and np.mean(values <= TOLERANCE) < MIN_EQUAL:
            share, worst = float(np.mean(values > TOLERANCE)), float(values.max())
            raise DetzooError(
                f"{share:.0%} of the TFLite model's {name} differ from the detector's on {what}, by up to {worst:.3g}"
            )
    is_equal = np.maximum(by_box, by_score) <= TOLERANCE
    return float(by_box[is_equal].max(initial=0.0)), float(by_score[is_equal].max(initial=0.0))


def _match(wanted: _Found, among: _Found, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns bool [D], true for confident detections that have an equal, and the score differences of the equals."""
    is_sure = wanted.scores >= threshold
    overlaps = pairwise_iou(wanted.boxes[is_sure], among.boxes).numpy()
    overlaps[wanted.classes[is_sure][:, np.newaxis] != among.classes] = 0.0
    if not overlaps.size:
        return np.zeros(int(is_sure.sum()), bool), np.zeros(0)
    has_equal = overlaps.max(axis=1) >= SAME_OBJECT_IOU
    shifts = np.abs(wanted.scores[is_sure] - among.scores[overlaps.argmax(axis=1)])
    return has_equal, shifts[has_equal]
