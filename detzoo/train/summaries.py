"""TensorBoard events: training in model_dir/train, evaluation in model_dir/eval, named as in the original API."""

from __future__ import annotations

import contextlib
import logging
import pathlib
from collections.abc import Mapping

import tensorflow as tf

from detzoo.folders import full_disk
from detzoo.train.trainer import LoopResult

logger = logging.getLogger(__name__)


class Summaries:
    """Writer of scalars, on the chief alone. A failure is reported and counted, and the training continues."""

    def __init__(self, model_dir: str | pathlib.Path, writable: bool = True) -> None:
        self._folder, self._writable = pathlib.Path(model_dir), writable
        self._writers: dict[str, tf.summary.SummaryWriter] = {}
        self.num_failures = 0

    def training(self, result: LoopResult, images_per_second: float) -> None:
        """Writes losses, learning rate, gradient norm and speed."""
        values = {f"Loss/{name}_loss": value for name, value in result.losses.items()}
        values |= {"learning_rate": result.learning_rate, "gradient_norm": result.gradient_norm}
        if images_per_second:
            values["images_per_second"] = images_per_second
        self._write("train", result.step, values)

    def evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes all metrics of an evaluation."""
        self._write("eval", step, {tag_of(name): value for name, value in metrics.items()})

    def close(self) -> None:
        """Closes the files of events."""
        for writer in self._writers.values():
            with contextlib.suppress(tf.errors.OpError, OSError):  # a full disk: each call has flushed already
                writer.close()

    def _write(self, name: str, step: int, values: Mapping[str, float]) -> None:
        """Writes scalars to the events of a folder. The first call creates the file, so a failed start leaves none."""
        if not self._writable:
            return
        try:
            if name not in self._writers:
                self._writers[name] = tf.summary.create_file_writer(str(self._folder / name))
            with self._writers[name].as_default(step=step):
                for tag, value in values.items():
                    tf.summary.scalar(tag, value)
            self._writers[name].flush()
        except Exception as problem:
            self._writers.pop(name, None)  # the next call tries a new file
            self.num_failures += 1
            if self.num_failures == 1:
                reason = full_disk(problem, self._folder / name) or str(problem).splitlines()[0]
                logger.error("TensorBoard's events cannot be written, training continues: %s", reason)


def tag_of(metric: str) -> str:
    """Returns the TensorBoard tag of a metric, which for COCO's metrics is that of the Object Detection API."""
    if metric.startswith("mAP"):
        return f"DetectionBoxes_Precision/{metric}"
    if metric.startswith("AR"):
        return f"DetectionBoxes_Recall/{metric}"
    return metric
