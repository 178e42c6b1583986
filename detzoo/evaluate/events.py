"""TensorBoard events of an evaluation: metrics, pictures and precision-recall curves, named as in the original API.

`detzoo train` and `detzoo evaluate` both write through ``Events``.
"""

from __future__ import annotations

import contextlib
import logging
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from detzoo.evaluate.coco import BOXES, MASKS
from detzoo.evaluate.runner import EvaluationResult
from detzoo.evaluate.threshold_curves import IOU_THRESHOLD, NUM_THRESHOLDS, ThresholdCounts, count_by_threshold
from detzoo.folders import full_disk

CURVES = f"precision_recall@{IOU_THRESHOLD:.2f}IOU".replace("0.", ".")
ALL_CLASSES = "all classes"
JPEG_QUALITY = 90
MAX_CURVES = 100  # classes with the most objects: a curve takes 10 kB per evaluation

logger = logging.getLogger(__name__)


class Events:
    """Writer of events below a folder. A failure is reported and counted, and the caller's work continues.

    Args:
        folder: Folder of the events; the name of a run is that of a folder in it.
        writable: False to write nothing.
    """

    def __init__(self, folder: str | pathlib.Path, writable: bool = True) -> None:
        self._folder, self.writable = pathlib.Path(folder), writable
        self._writers: dict[str, tf.summary.SummaryWriter] = {}
        self.num_failures = 0

    def metrics(self, run: str, step: int, metrics: Mapping[str, float]) -> None:
        """Writes all metrics of an evaluation."""
        self.scalars(run, step, {tag_of(name): value for name, value in metrics.items()})

    def details(self, run: str, step: int, result: Any) -> None:
        """Writes pictures and precision-recall curves of an ``EvaluationResult``; others have none."""
        if isinstance(result, EvaluationResult):
            self.write(run, step, lambda: _write_pictures(result))
            if not result.proposes_only:
                self.write(run, step, lambda: _write_curves(result))

    def scalars(self, run: str, step: int, values: Mapping[str, float]) -> None:
        """Writes values by their tags."""

        def add() -> None:
            for tag, value in values.items():
                tf.summary.scalar(tag, value)

        self.write(run, step, add)

    def write(self, run: str, step: int, add: Callable[[], None]) -> None:
        """Calls ``add`` with the writer of a run as default. The first call creates the file of events."""
        if not self.writable:
            return
        try:
            if run not in self._writers:
                self._writers[run] = tf.summary.create_file_writer(str(self._folder / run))
            with self._writers[run].as_default(step=step):
                add()
            self._writers[run].flush()
        except Exception as problem:
            self._writers.pop(run, None)  # the next call tries a new file
            self.num_failures += 1
            if self.num_failures == 1:
                reason = full_disk(problem, self._folder / run) or (str(problem).splitlines() or [repr(problem)])[0]
                logger.error("TensorBoard's events cannot be written, the work continues: %s", reason)

    def close(self) -> None:
        """Closes the files of events."""
        for writer in self._writers.values():
            with contextlib.suppress(tf.errors.OpError, OSError):  # a full disk: each call has flushed already
                writer.close()


def tag_of(metric: str) -> str:
    """Returns the TensorBoard tag of a metric, which for COCO's metrics is that of the Object Detection API."""
    if metric.startswith("mAP"):
        return f"DetectionBoxes_Precision/{metric}"
    if metric.startswith("AR"):
        return f"DetectionBoxes_Recall/{metric}"
    return metric


def _write_pictures(result: EvaluationResult) -> None:
    """Writes each picture under a separate tag, so that TensorBoard shows its history on a slider."""
    for number, picture in enumerate(result.pictures):
        image_id = result.images[number].image_id
        text = f"Detections (left) and ground truth (right) of image {image_id}"
        write_images(f"eval_side_by_side_{number}_0", [picture], text)


def write_images(tag: str, pictures: Sequence[np.ndarray], description: str) -> None:
    """Writes pictures uint8 [H, W, 3] of one size as JPEG, a third of the size of the PNG of ``tf.summary.image``."""
    from tensorboard.plugins.image.metadata import create_summary_metadata

    height, width = pictures[0].shape[:2]
    encoded = [tf.io.encode_jpeg(picture, quality=JPEG_QUALITY).numpy() for picture in pictures]
    data = tf.constant([str(width).encode(), str(height).encode(), *encoded])
    tf.summary.write(tag, data, metadata=create_summary_metadata(None, description))


def _write_curves(result: EvaluationResult) -> None:
    kinds = {"": BOXES}
    if all(image.gt_masks is not None and image.masks is not None for image in result.images):
        kinds[" (masks)"] = MASKS
    for suffix, kind in kinds.items():
        counts = count_by_threshold(result.images, result.class_names, kind)
        for name in sorted(counts, key=lambda name: -counts[name].num_objects)[: MAX_CURVES + 1]:
            _write_curve(f"{CURVES}{suffix}/{name or ALL_CLASSES}", counts[name])


def _write_curve(tag: str, counts: ThresholdCounts) -> None:
    """Writes the data of TensorBoard's plugin for precision-recall curves. Detection has no true negatives."""
    from tensorboard.plugins.pr_curve.summary import raw_data_pb

    found, wrong = counts.true_positives, counts.false_positives
    summary = raw_data_pb(
        tag,
        true_positive_counts=found,
        false_positive_counts=wrong,
        true_negative_counts=0 * found,
        false_negative_counts=counts.num_objects - found,
        precision=counts.precision,
        recall=counts.recall,
        num_thresholds=NUM_THRESHOLDS,
    )
    tf.summary.experimental.write_raw_pb(summary.SerializeToString())
