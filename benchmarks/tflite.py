"""A trained one-stage detector as SavedModel and as TFLite models: accuracy, size and latency beside each other.

    python benchmarks/tflite.py --pipeline_config_path quickstart/model/pipeline.config \\
        --trained_checkpoint_dir quickstart/model --representative_data 'quickstart/data/train-*.tfrecord'

Exports the checkpoint in every form and measures each on the config's eval_input_reader, by the commands that a user
runs; `scripts/quickstart.sh` makes the files named above.

How to read the table. mAP and AP@.50 are in points of 100, over the whole data set, each model with its own resizing.
MB are of the file, or of all files of the SavedModel. Milliseconds are the median of one call on an image of the
input's size, boxes and scores included. The last column says what was lost against the SavedModel.
A form that loses more than it may is marked; the program ends with 1 then.
"""

from __future__ import annotations

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from absl import app, flags

PIPELINE = flags.DEFINE_string("pipeline_config_path", None, "Of the trained detector.", required=True)
CHECKPOINT = flags.DEFINE_string("trained_checkpoint_dir", None, "Its checkpoints.", required=True)
DATA = flags.DEFINE_string("representative_data", None, "For int8: records or images.", required=True)
OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "Where results stay; else a temporary folder.")
RUNS = flags.DEFINE_integer("runs", 100, "Calls that are timed.", lower_bound=1)
THREADS = flags.DEFINE_integer("threads", 1, "Of the interpreter, and of TensorFlow within an operation.")

MAX_LOST_POINTS = {"SavedModel": 0.0, "none": 0.1, "dynamic": 2.0, "int8": 2.0}


class Line(NamedTuple):
    """One form of the model."""

    form: str
    mean_precision: float  # points of 100
    precision_50: float
    megabytes: float
    milliseconds: float


def main(argv: list[str]) -> None:
    """Exports, evaluates, times, prints."""
    del argv
    if OUTPUT_DIR.value:
        lines = measure(pathlib.Path(OUTPUT_DIR.value))
    else:
        with tempfile.TemporaryDirectory() as folder:
            lines = measure(pathlib.Path(folder))
    reference = lines[0]
    is_good = True
    print("\n| form | mAP | AP@.50 | MB | ms | mAP lost |\n|---|---:|---:|---:|---:|---:|")
    for line in lines:
        lost = round(reference.mean_precision - line.mean_precision, 1) + 0.0  # no minus before a zero
        reached = lost <= MAX_LOST_POINTS[line.form]
        is_good = is_good and reached
        print(
            f"| {line.form} | {line.mean_precision:.1f} | {line.precision_50:.1f} | {line.megabytes:.2f} "
            f"| {line.milliseconds:.1f} | {lost:.1f}{'' if reached else ' TOO MUCH'} |"
        )
    sys.exit(0 if is_good else 1)


def measure(folder: pathlib.Path) -> list[Line]:
    """Every form, the SavedModel first."""
    start = ("--pipeline_config_path", PIPELINE.value, "--trained_checkpoint_dir", CHECKPOINT.value)
    start = ("export", *start, "--output_directory", str(folder))
    detzoo(*start)
    lines = [measured("SavedModel", folder / "saved_model", folder)]
    for quantize, name in (("none", "model"), ("dynamic", "model_dynamic"), ("int8", "model_int8")):
        detzoo(*start, "--format", "tflite", "--quantize", quantize, "--representative_data", DATA.value)
        lines.append(measured(quantize, folder / f"{name}.tflite", folder))
    return lines


def measured(form: str, model: pathlib.Path, folder: pathlib.Path) -> Line:
    """Accuracy by `detzoo evaluate`, size, and latency in this process."""
    results = folder / f"evaluation_{form}"
    detzoo(
        "evaluate", "--pipeline_config_path", PIPELINE.value, "--saved_model", str(model), "--output_dir", str(results)
    )
    metrics = json.loads((results / "metrics.json").read_text(encoding="utf-8"))
    files = [model] if model.is_file() else [path for path in model.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files) / 1e6
    return Line(form, 100 * metrics["mAP"], 100 * metrics["mAP@.50IOU"], size, milliseconds(model, folder))


def milliseconds(model: pathlib.Path, folder: pathlib.Path) -> float:
    """Median of one call on an image of the input's size."""
    import numpy as np
    import tensorflow as tf

    from detzoo.export.parity import textured_images
    from detzoo.serving.tflite_detector import TfliteDetector, is_tflite

    tf.config.threading.set_intra_op_parallelism_threads(THREADS.value)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    if is_tflite(model):
        detector = TfliteDetector(model, num_threads=THREADS.value)
        shape, call = detector.input_shape_px, detector.outputs
    else:
        loaded = tf.saved_model.load(str(model))
        shape = input_size()

        def call(images: np.ndarray) -> dict[str, np.ndarray]:
            return {name: value.numpy() for name, value in loaded(tf.constant(images)).items()}

    images = textured_images((1, *shape))
    times = []
    for _ in range(RUNS.value + 5):
        started = time.perf_counter()
        call(images)
        times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times[5:])


def input_size() -> tuple[int, int]:
    """(height, width) that the config resizes images to."""
    from detzoo.builders.resize import build_model_resizer
    from detzoo.config.load import load_pipeline

    return build_model_resizer(load_pipeline(PIPELINE.value).message.model).static_shape


def detzoo(*command: str) -> None:
    """A command as a user gives it; its output stays on the terminal."""
    subprocess.run([sys.executable, "-m", "detzoo", *command], check=True)


if __name__ == "__main__":
    app.run(main)
