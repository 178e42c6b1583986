"""TensorBoard events of a run: training in model_dir/train, evaluation in model_dir/eval, hyperparameters in model_dir.

A value that the Object Detection API writes, too, has its tag.
"""

from __future__ import annotations

import copy
from typing import Any

import tensorflow as tf

from detzoo.builders.inputs import build_dataset
from detzoo.builders.pictures import draw_training_image
from detzoo.builders.resize import build_model_resizer
from detzoo.config.label_map import load_label_map
from detzoo.config.load import to_text
from detzoo.config.stages import memory_of
from detzoo.config.values import set_scalars
from detzoo.data.issue_counter import IssueCounter
from detzoo.evaluate.events import Events, write_images
from detzoo.train.trainer import LoopResult

TRAIN, EVAL = "train", "eval"  # names of the runs
MAX_TRAINING_IMAGES = 8


class Summaries(Events):
    """Writer of a run's events, on the chief alone."""

    def training(self, result: LoopResult, images_per_second: float) -> None:
        """Writes losses, learning rate, gradient norm and speed."""
        values = {f"Loss/{name}_loss": value for name, value in result.losses.items()}
        values |= {"learning_rate": result.learning_rate, "gradient_norm": result.gradient_norm}
        if images_per_second:
            values["images_per_second"] = images_per_second
        self.scalars(TRAIN, result.step, values)

    def start(self, pipeline: Any, step: int, issues: IssueCounter) -> None:
        """Writes the config and its hyperparameters, and in a new run the first training images.

        Args:
            pipeline: The ``TrainEvalPipelineConfig`` of the run.
            step: Step at which this session starts.
            issues: Takes the counts of data issues in the training images.
        """
        self.write(TRAIN, step, lambda: _write_config(pipeline))
        self.write("", step, lambda: _write_hyperparameters(pipeline))
        if step == 0:
            self.write(TRAIN, step, lambda: _write_training_images(pipeline, issues))


def _write_config(pipeline: Any) -> None:
    lines = to_text(pipeline).splitlines()
    tf.summary.text("pipeline_config", "\n".join(f"    {line}" for line in lines))  # a block of code in Markdown


def _write_hyperparameters(pipeline: Any) -> None:
    """Writes every set field of model and train_config under its path, as ``--set`` takes it."""
    from tensorboard.plugins.hparams import api

    fields = set_scalars(pipeline.train_config, "train_config") | set_scalars(pipeline.model, "model")
    api.hparams({"model": pipeline.model.WhichOneof("model"), **fields})


def _write_training_images(pipeline: Any, issues: IssueCounter) -> None:
    """Draws the first training images with their augmentation. The input is built apart from that of training."""
    reader = copy.deepcopy(pipeline.train_input_reader)
    reader.num_prefetch_batches = 1
    config = pipeline.train_config
    dataset = build_dataset(
        reader,
        build_model_resizer(pipeline.model),
        config,
        training=True,
        batch_size=min(config.batch_size, MAX_TRAINING_IMAGES),
        seed=config.seed,
        issue=issues,
        context=memory_of(pipeline.model),
    )
    batch = next(iter(dataset))
    names = load_label_map(reader.label_map_path).names if reader.label_map_path else {}
    pictures = [draw_training_image(batch, row, names) for row in range(len(batch.image_ids))]
    ids = ", ".join(image_id.decode("utf-8", "replace") for image_id in batch.image_ids.numpy())
    text = f"Augmented training images with their ground truth: {ids}"
    write_images("train_input_images", pictures, text)
