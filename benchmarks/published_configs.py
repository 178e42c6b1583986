"""Runs one training step of each config of the Object Detection API that passes `detzoo config check`.

    python benchmarks/published_configs.py [--folder ../shared/configs/published] [--only ssd] [--output steps.csv]

Reading the table: each row is a published config on images of the embedded data set. It keeps its detector, losses,
augmentations and optimizer, but has small images, few proposals, one image per batch, the data set's classes and
random weights. "s" is the time to build the detector, read the first batch and run the first step, without a traced
graph. "loss" is the sum of its losses. The program exits with 1 if a config cannot be built or its loss is not finite.
"""

from __future__ import annotations

import contextlib
import csv
import io
import math
import os
import pathlib
import sys
import tempfile
import time
import warnings
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf
from absl import app, flags, logging

from detzoo.cli.main import main as detzoo
from detzoo.config.check.pipeline import check_pipeline
from detzoo.config.label_map import load_label_map
from detzoo.config.load import load_pipeline
from detzoo.config.problems import has_errors
from detzoo.train.session import build_trainer
from detzoo.train.strategy import create_strategy

ROOT = pathlib.Path(__file__).resolve().parents[1]
HEIGHT, WIDTH = 64, 96  # pixels
_SIDES = (("min_dimension", HEIGHT), ("max_dimension", WIDTH))
FEW_PROPOSALS = (
    "first_stage_max_proposals=8",
    "first_stage_max_proposals_in_training=0",
    "second_stage_batch_size=8",
)

FOLDER = flags.DEFINE_string("folder", str(ROOT.parent / "shared/configs/published"), "Folder of the configs.")
ONLY = flags.DEFINE_string("only", "", "Only configs whose name contains this.")
OUTPUT = flags.DEFINE_string("output", None, "CSV file to write the rows to.")


class Row(NamedTuple):
    """Seconds, loss and problem of a config's first step."""

    config: str
    seconds: float
    loss: float
    problem: str  # "" if the step succeeded


def main(argv: list[str]) -> int:
    """Runs the steps and prints the rows."""
    del argv
    logging.set_verbosity(logging.ERROR)
    tf.get_logger().setLevel("ERROR")
    warnings.filterwarnings("ignore", "Even though the")  # tf.data still traces its functions, as intended
    tf.config.run_functions_eagerly(True)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        with contextlib.redirect_stdout(io.StringIO()):
            detzoo(["dataset", "shapes", f"--output_path={folder}/shapes", "--num_images=4", "--image_size=96"])
        for path in sorted(pathlib.Path(FOLDER.value).glob("*/*.config")):
            if ONLY.value not in path.stem or has_errors(check_pipeline(load_pipeline(str(path)), files=False)):
                continue
            rows.append(step(path, pathlib.Path(folder)))
            print(f"{rows[-1].seconds:6.1f} s  {rows[-1].loss:10.3f}  {path.stem}  {rows[-1].problem}", flush=True)
    failed = [row for row in rows if row.problem]
    print(f"{len(rows) - len(failed)} of {len(rows)} stepped")
    if OUTPUT.value:
        with open(OUTPUT.value, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(Row._fields)
            writer.writerows(rows)
    return 1 if failed or not rows else 0


def step(path: pathlib.Path, data: pathlib.Path) -> Row:
    """Runs one step of a config on the records in ``data``. Any error becomes the problem of its row."""
    keras.utils.clear_session()
    started = time.perf_counter()
    try:
        pipeline = load_pipeline(str(path), overrides(load_pipeline(str(path)).message, data)).message
        trainer = build_trainer(pipeline, create_strategy("one_device"))
        result = trainer.run_steps(1)
    except Exception as problem:
        return Row(path.stem, time.perf_counter() - started, math.nan, f"{type(problem).__name__}: {problem}"[:300])
    failure = f"not finite: {result.failed_values}" if result.failed_step else ""
    return Row(path.stem, time.perf_counter() - started, result.losses["total"], failure)


def overrides(pipeline: Any, data: pathlib.Path) -> list[str]:
    """Returns the overrides that make a published config small and read the records in ``data``."""
    kind = pipeline.model.WhichOneof("model")
    detector = getattr(pipeline.model, kind)
    num_classes = load_label_map(data / "label_map.pbtxt").num_classes
    chosen = [
        f"model.{kind}.num_classes={num_classes}",
        *(f"model.{kind}.image_resizer.{setting}" for setting in _small(detector.image_resizer)),
        "train_config.batch_size=1",
        "train_config.fine_tune_checkpoint=",
        "train_config.num_steps=10",
        f"train_input_reader.label_map_path={data}/label_map.pbtxt",
        f"train_input_reader.tf_record_input_reader.input_path=['{data}/shapes-*']",
        "train_input_reader.sample_1_of_n_examples=1",
    ]
    chosen += [f"model.{kind}.{setting}" for setting in FEW_PROPOSALS] if kind == "faster_rcnn" else []
    if pipeline.train_input_reader.load_instance_masks:
        chosen.append("train_input_reader.mask_type=PNG_MASKS")
    return chosen


def _small(resizer: Any) -> list[str]:
    """Returns the settings of the two numbers of an image_resizer of the same kind."""
    if resizer.WhichOneof("image_resizer_oneof") == "keep_aspect_ratio_resizer":
        return [f"keep_aspect_ratio_resizer.{name}={size}" for name, size in _SIDES]
    return [f"fixed_shape_resizer.height={HEIGHT}", f"fixed_shape_resizer.width={WIDTH}"]


if __name__ == "__main__":
    app.run(lambda argv: sys.exit(main(argv)))
