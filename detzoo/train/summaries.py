"""TensorBoard events: training in model_dir/train, evaluation in model_dir/eval, named as in the original API."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

import tensorflow as tf

from detzoo.train.trainer import LoopResult


class Summaries:
    """Writes scalars.

    Args:
        model_dir: Of the run.
        writable: False on workers that are not the chief.
    """

    def __init__(self, model_dir: str | pathlib.Path, writable: bool = True) -> None:
        self._folder, self._writable = pathlib.Path(model_dir), writable
        self._writers: dict[str, tf.summary.SummaryWriter] = {}

    def training(self, result: LoopResult, images_per_second: float) -> None:
        """Losses, learning rate, gradient norm and speed."""
        writer = self._writer("train")
        with writer.as_default(step=result.step):
            for name, value in result.losses.items():
                tf.summary.scalar(f"Loss/{name}_loss", value)
            tf.summary.scalar("learning_rate", result.learning_rate)
            tf.summary.scalar("gradient_norm", result.gradient_norm)
            if images_per_second:
                tf.summary.scalar("images_per_second", images_per_second)
        writer.flush()

    def evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Every metric of an evaluation."""
        writer = self._writer("eval")
        with writer.as_default(step=step):
            for name, value in metrics.items():
                tf.summary.scalar(tag_of(name), value)
        writer.flush()

    def close(self) -> None:
        """Writes what is left."""
        for writer in self._writers.values():
            writer.close()

    def _writer(self, name: str) -> tf.summary.SummaryWriter:
        """The writer of a folder, made when there is something to write: a start that fails leaves nothing."""
        if name not in self._writers:
            make = tf.summary.create_file_writer if self._writable else lambda _: tf.summary.create_noop_writer()
            self._writers[name] = make(str(self._folder / name))
        return self._writers[name]


def tag_of(metric: str) -> str:
    """The TensorBoard tag of a metric: COCO's numbers under the names that the Object Detection API gave them."""
    if metric.startswith("mAP"):
        return f"DetectionBoxes_Precision/{metric}"
    if metric.startswith("AR"):
        return f"DetectionBoxes_Recall/{metric}"
    return metric
