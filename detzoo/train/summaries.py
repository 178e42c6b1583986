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
        folder = pathlib.Path(model_dir)
        make = tf.summary.create_file_writer if writable else lambda _: tf.summary.create_noop_writer()
        self._train, self._eval = make(str(folder / "train")), make(str(folder / "eval"))

    def training(self, result: LoopResult, images_per_second: float) -> None:
        """Losses, learning rate, gradient norm and speed."""
        with self._train.as_default(step=result.step):
            for name, value in result.losses.items():
                tf.summary.scalar(f"Loss/{name}_loss", value)
            tf.summary.scalar("learning_rate", result.learning_rate)
            tf.summary.scalar("gradient_norm", result.gradient_norm)
            if images_per_second:
                tf.summary.scalar("images_per_second", images_per_second)
        self._train.flush()

    def evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Every metric of an evaluation."""
        with self._eval.as_default(step=step):
            for name, value in metrics.items():
                tf.summary.scalar(tag_of(name), value)
        self._eval.flush()

    def close(self) -> None:
        """Writes what is left."""
        self._train.close()
        self._eval.close()


def tag_of(metric: str) -> str:
    """The TensorBoard tag of a metric: COCO's numbers under the names that the Object Detection API gave them."""
    if metric.startswith("mAP"):
        return f"DetectionBoxes_Precision/{metric}"
    if metric.startswith("AR"):
        return f"DetectionBoxes_Recall/{metric}"
    return metric
