"""Compares accuracy, size and latency of a trained one-stage detector as SavedModel and as TFLite models.

    python benchmarks/tflite.py --pipeline_config_path quickstart/model/pipeline.config \\
        --trained_checkpoint_dir quickstart/model --representative_data 'quickstart/data/train-*.tfrecord'

Exports the checkpoint in every form and measures each on the config's eval_input_reader, with the commands that a user
runs. `scripts/quickstart.sh` makes the files named above.

Reading the table: mAP and AP@.50 are in points of 100, over the whole data set, each model with its own resizing. MB is
the size of the file, or of all files of the SavedModel. Milliseconds are the median of one call on an image of the
input's size, including boxes and scores. The last column is the loss of mAP against the SavedModel. Forms that lose
more than their limit are marked, and the program exits with 1.
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

PIPELINE = flags.DEFINE_string("pipeline_config_path", None, "Config of the trained detector.", required=True)
CHECKPOINT = flags.DEFINE_string("trained_checkpoint_dir", None, "Folder of its checkpoints.", required=True)
DATA = flags.DEFINE_string("representative_data", None, "For int8: records or images.", required=True)
OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "Folder for the results; a temporary folder if missing.")
RUNS = flags.DEFINE_integer("runs", 100, "Timed calls.", lower_bound=1)
THREADS = flags.DEFINE_integer("threads", 1, "Threads of the interpreter, and of TensorFlow per operation.")

MAX_LOST_POINTS = {"SavedModel": 0.0, "none": 0.1, "float16": 0.1, "dynamic": 2.0, "int8": 2.0}


class Line(NamedTuple):
    """One form of the model."""

    form: str
    mean_precision: float  # points of 100
    precision_50: float
    megabytes: float
    milliseconds: float


def main(argv: list[str]) -> None:
    """Exports, evaluates and times the models, and prints the table."""
    del argv
    if OUTPUT_DIR.value:
        lines = measure(pathlib.Path(OUTPUT_DIR.value))
    else:
        with tempfile.TemporaryDirectory() as folder:
            lines = measure(pathlib.Path(folder))
    reference = lines[0]
    is_good = True
    print("\n| form | mAP | AP@.50 | MB | ms | mAP lost |\n|---" + "|---:" * 5 + "|")
    for line in lines:
        lost = round(reference.mean_precision - line.mean_precision, 1) + 0.0  # no minus before a zero
        reached = lost <= MAX_LOST_POINTS[line.form]
        is_good = is_good and reached
        accuracy = f"{line.mean_precision:.1f} | {line.precision_50:.1f}"
        cost = f"{line.megabytes:.2f} | {line.milliseconds:.1f}"
        print(f"| {line.form} | {accuracy} | {cost} | {lost:.1f}{'' if reached else ' TOO MUCH'} |")
    sys.exit(0 if is_good else 1)


def measure(folder: pathlib.Path) -> list[Line]:
    """Measures every form, the SavedModel first."""
    start = ("--pipeline_config_path", PIPELINE.value, "--trained_checkpoint_dir", CHECKPOINT.value)
    start = ("export", *start, "--output_directory", str(folder))
    detzoo(*start)
    lines = [measured("SavedModel", folder / "saved_model", folder)]
    for quantize in ("none", "float16", "dynamic", "int8"):
        name = "model" if quantize == "none" else f"model_{quantize}"
        detzoo(*start, "--format", "tflite", "--quantize", quantize, "--representative_data", DATA.value)
        lines.append(measured(quantize, folder / f"{name}.tflite", folder))
    return lines


def measured(form: str, model: pathlib.Path, folder: pathlib.Path) -> Line:
    """Measures accuracy with `detzoo evaluate`, size, and latency in this process."""
    results = folder / f"evaluation_{form}"
    detzoo(
        "evaluate", "--pipeline_config_path", PIPELINE.value, "--saved_model", str(model), "--output_dir", str(results)
    )
    metrics = json.loads((results / "metrics.json").read_text(encoding="utf-8"))
    files = [model] if model.is_file() else [path for path in model.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files) / 1e6
    return Line(form, 100 * metrics["mAP"], 100 * metrics["mAP@.50IOU"], size, milliseconds(model, folder))


def milliseconds(model: pathlib.Path, folder: pathlib.Path) -> float:
    """Returns the median time of one call on an image of the input's size."""
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
    """Returns the (height, width) to which the config resizes images."""
    from detzoo.builders.resize import build_model_resizer
    from detzoo.config.load import load_pipeline

    return build_model_resizer(load_pipeline(PIPELINE.value).message.model).static_shape


def detzoo(*command: str) -> None:
    """Runs a command as a user does; its output is printed."""
    subprocess.run([sys.executable, "-m", "detzoo", *command], check=True)


if __name__ == "__main__":
    app.run(main)
