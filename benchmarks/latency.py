"""Latency, load, export and memory of exported detectors, beside what is wanted and Model Garden's RetinaNet.

    python benchmarks/latency.py [--runs 50] [--output latency.csv] [--only ssd] [--nomodel_garden]

How to read the table. "at 150" is the time that a machine with a yardstick of 150 GFLOP/s in a float32 matrix product
would need: time x yardstick / 150; the yardstick is measured before each row. Batch 1, 480 x 640 uint8 input, from
image to final boxes, 90 classes, random weights (drawn so that activations keep their size and scores differ). Every
anchor scores above the configs' threshold of 1e-8; the rows "0.3" have the usual threshold. Post-processing is wanted
below 10 % of the latency. Memory is the peak of a process that serves, with TensorFlow and what it requires installed
and nothing else; importing TensorFlow is part of it, and its own row says how much. The row "with all packages" is the
same with what is installed beside it, of which Keras imports scikit-learn, pandas and matplotlib.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from absl import app, flags, logging
from rows import Row, report, timed_row

from detzoo.benchmark.process import measure_process
from detzoo.benchmark.random_weights import randomize
from detzoo.benchmark.runner import BenchmarkOptions, benchmark_saved_model
from detzoo.builders.resize import build_resizer
from detzoo.checkpoints.layout import make_checkpoint, variables_by_path
from detzoo.cli.inference import build_untrained
from detzoo.config.load import load_pipeline
from detzoo.export.exporter import Export, export_detector

WANTED_POSTPROCESS_SHARE = 0.10
ROOT = pathlib.Path(__file__).resolve().parents[1]
IMAGE_SHAPE = (1, 480, 640, 3)
THRESHOLD = "model.ssd.post_processing.batch_non_max_suppression.score_threshold"

RUNS = flags.DEFINE_integer("runs", 50, "Calls that are timed; a tenth of it for RetinaNet.", lower_bound=10)
OUTPUT = flags.DEFINE_string("output", None, "CSV file to write the rows to.")
ONLY = flags.DEFINE_string("only", "", "Only detectors whose config contains this.")
MODEL_GARDEN = flags.DEFINE_boolean("model_garden", True, "Measure Model Garden's RetinaNet as well.")


class Case(NamedTuple):
    """A detector and its wanted latency in milliseconds at 150."""

    name: str
    config: str
    wanted_ms: float
    is_heavy: bool = False


CASES = (
    Case("SSD MobileNet v2 300", "ssd_mobilenet_v2_300", 35.0),
    Case("SSD MobileNet v2 FPN-lite 320", "ssd_mobilenet_v2_fpnlite_320", 55.0),
    Case("RetinaNet ResNet-50 640", "ssd_resnet50_v1_fpn_640", 1300.0, is_heavy=True),
)
WANTED_LOAD_SECONDS, WANTED_EXPORT_SECONDS, WANTED_MEMORY_MIB = 2.0, 20.0, 0.7e9 / 2**20


def main(argv: list[str]) -> None:
    """Measures and prints the rows."""
    del argv
    logging.set_verbosity(logging.ERROR)
    tf.get_logger().setLevel("ERROR")
    rows: list[Row] = []
    for case in CASES:
        if ONLY.value in case.config:
            rows += measure_case(case)
    if MODEL_GARDEN.value and ONLY.value in "model_garden":
        rows += measure_model_garden()
    report(rows, OUTPUT.value)


def measure_case(case: Case) -> list[Row]:
    """Latency and post-processing share at both thresholds; for the first case also load, export and memory."""
    rows: list[Row] = []
    for label, threshold in (("", None), (", threshold 0.3", 0.3)):
        overrides = [] if threshold is None else [f"{THRESHOLD}={threshold}"]
        pipeline = load_pipeline(str(ROOT / "model_configs" / f"{case.config}.config"), overrides).message
        detector = build_untrained(pipeline.model)
        randomize(detector)
        with tempfile.TemporaryDirectory() as folder:
            resizer = build_resizer(pipeline.model.ssd.image_resizer)
            export_detector(detector, resizer, folder, "image_tensor", Export())
            result = benchmark_saved_model(folder, options(case.is_heavy), name=case.name)
            rows += latency_rows(case, label, result)
            if threshold is None and case is CASES[0]:
                crowded = measure_process(
                    f"{folder}/saved_model", np.zeros(IMAGE_SHAPE, np.uint8), tensorflow_alone=False
                )
                rows += measure_process_costs(case, result, detector, crowded.peak_mib)
    return rows


def options(is_heavy: bool) -> BenchmarkOptions:
    """Fewer runs for what takes a second a call."""
    return BenchmarkOptions(runs=RUNS.value // 10 if is_heavy else RUNS.value, warmup=3)


def latency_rows(case: Case, label: str, result: dict[str, Any]) -> list[Row]:
    """The median latency, and the share of post-processing in it."""
    stages, gflops = result["stages"], result["yardstick_gflops"]
    share = stages["postprocess_ms"] / max(sum(stages.values()), 1e-9)
    return [
        timed_row(case.name + label, result["latency"]["median_ms"], "ms", gflops, case.wanted_ms),
        Row(f"  post-processing share{label}", 100 * share, "%", gflops, 100 * share, 100 * WANTED_POSTPROCESS_SHARE),
    ]


def measure_process_costs(case: Case, result: dict[str, Any], detector: Any, crowded_mib: float) -> list[Row]:
    """Load time, peak memory, and the wall time of the export command from a checkpoint."""
    process, gflops = result["process"], result["yardstick_gflops"]
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = make_checkpoint(tf.Variable(0, dtype=tf.int64), model=variables_by_path(detector.variables))
        tf.train.CheckpointManager(checkpoint, folder, max_to_keep=1).save(checkpoint_number=0)
        config = ROOT / "model_configs" / f"{case.config}.config"
        command = [sys.executable, "-m", "detzoo.cli.main", "export", f"--pipeline_config_path={config}"]
        started = time.perf_counter()
        flags_of_export = [f"--trained_checkpoint_dir={folder}", f"--output_directory={folder}/exported"]
        subprocess.run([*command, *flags_of_export], check=True, capture_output=True)
        export_seconds = time.perf_counter() - started
    memory, imported = process["peak_mib"], process["import_peak_mib"]
    return [
        timed_row("  load", process["load_seconds"], "s", gflops, WANTED_LOAD_SECONDS),
        timed_row("  export command", export_seconds, "s", gflops, WANTED_EXPORT_SECONDS),
        Row("  peak memory of serving", memory, "MiB", gflops, memory, WANTED_MEMORY_MIB),
        Row("    of it importing TensorFlow", imported, "MiB", gflops, imported, None),
        Row("    with all packages of this environment", crowded_mib, "MiB", gflops, crowded_mib, None),
    ]


def measure_model_garden() -> list[Row]:
    """The same measurement of Model Garden's RetinaNet."""
    with tempfile.TemporaryDirectory() as folder:
        program = pathlib.Path(__file__).with_name("model_garden.py")
        subprocess.run([sys.executable, str(program), "serve", folder], check=True, capture_output=True)
        result = benchmark_saved_model(folder, options(is_heavy=True), name="Model Garden")
    gflops, memory = result["yardstick_gflops"], result["process"]["peak_mib"]
    return [
        timed_row("Model Garden RetinaNet ResNet-50 640", result["latency"]["median_ms"], "ms", gflops, None),
        timed_row("  load", result["process"]["load_seconds"], "s", gflops, None),
        Row("  peak memory of serving", memory, "MiB", gflops, memory, None),
    ]


if __name__ == "__main__":
    app.run(main)
