"""Measures latency, load, export and memory of exported detectors, next to their targets and Model Garden's RetinaNet.

    python benchmarks/latency.py [--runs 50] [--output latency.csv] [--only ssd] [--nomodel_garden]
    python benchmarks/latency.py --config faster_rcnn_mobilenet_v1_600

Reading the table: "at 150" is the time for a machine with a yardstick of 150 GFLOP/s in a float32 matrix product,
time x yardstick / 150. The yardstick is measured before each row. A call has batch 1, a 480 x 640 uint8 input, 90
classes and random weights (drawn so that activations keep their scale and scores differ), and goes from image to final
boxes. Every anchor scores above the configs' threshold of 1e-8; the rows "0.3" have the usual threshold. The target for
post-processing is below 10 % of the latency. Memory is the peak of a serving process in an environment with only
TensorFlow and its requirements. It includes the import of TensorFlow, which has a separate row. The row "with all
packages" is the same in this environment, in which Keras also imports scikit-learn, pandas and matplotlib.

The rows of two-stage detectors have 300 proposals, all of which score above the threshold. With a yardstick of 150
GFLOP/s, the Object Detection API's Faster R-CNN ResNet-50 640 takes 2.3 s and 3.4 GB. A ratio compares the medians of
two detectors called in turn, and the first should be faster. Multiply-adds are those of model_configs/models.csv.
"""

from __future__ import annotations

import functools
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from absl import app, flags, logging
from rows import Row, report, timed_row

from detzoo.benchmark.latency import time_alternately
from detzoo.benchmark.machine import beside_yardstick
from detzoo.benchmark.models import read_table
from detzoo.benchmark.process import measure_process
from detzoo.benchmark.runner import BenchmarkOptions, benchmark_batch_sizes
from detzoo.config.load import load_pipeline
from detzoo.serving.saved_detector import SavedDetector
from detzoo.tasks.export import export_to_measure
from detzoo.tasks.models import start_tensorflow

WANTED_POSTPROCESS_SHARE = 0.10
ROOT = pathlib.Path(__file__).resolve().parents[1]
IMAGE_SHAPE = (1, 480, 640, 3)

RUNS = flags.DEFINE_integer("runs", 50, "Timed calls; a tenth of them for RetinaNet.", lower_bound=10)
OUTPUT = flags.DEFINE_string("output", None, "CSV file to write the rows to.")
ONLY = flags.DEFINE_string("only", "", "Only detectors whose config contains this.")
CONFIG = flags.DEFINE_string("config", None, "Measure this config of model_configs/ alone.")
MODEL_GARDEN = flags.DEFINE_boolean("model_garden", True, "Measure Model Garden's RetinaNet as well.")


class Case(NamedTuple):
    """A detector and its target latency in milliseconds at 150."""

    name: str
    config: str
    wanted_ms: float | None
    is_heavy: bool = False
    wanted_memory_mib: float | None = None


CASES = (
    Case("SSD MobileNet v2 300", "ssd_mobilenet_v2_300", 35.0, wanted_memory_mib=0.7e9 / 2**20),
    Case("SSD MobileNet v2 FPN-lite 320", "ssd_mobilenet_v2_fpnlite_320", 55.0),
    RETINANET := Case("RetinaNet ResNet-50 640", "ssd_resnet50_v1_fpn_640", 1300.0, is_heavy=True),
    Case("Faster R-CNN ResNet-50 640", "faster_rcnn_resnet50_v1_640", 1500.0, True, 1.7e9 / 2**20),
)
# The first detector of each pair should be faster than the second.
PAIRS = (
    (Case("Faster R-CNN ResNet-50 FPN 640", "faster_rcnn_resnet50_v1_fpn_640", None), RETINANET),
    (
        Case("R-FCN ResNet-101 600", "rfcn_resnet101_600", None),
        Case("Faster R-CNN ResNet-101 600", "faster_rcnn_resnet101_600", None),
    ),
    (  # 600 x 800 and 800 x 1067 pixels: 122 and 172 ms in the RetinaNet paper, figure 2
        Case("RetinaNet ResNet-101 600", "retinanet_resnet101_600", None),
        Case("Faster R-CNN ResNet-101 FPN 800", "faster_rcnn_resnet101_fpn_800", None),
    ),
)
# First configs of the pairs in which the first detector has more multiply-adds although it is faster.
MORE_MULTIPLY_ADDS = ("faster_rcnn_resnet50_v1_fpn_640",)
WANTED_LOAD_SECONDS, WANTED_EXPORT_SECONDS = 2.0, 20.0


def main(argv: list[str]) -> None:
    """Measures and prints the rows."""
    del argv
    logging.set_verbosity(logging.ERROR)
    start_tensorflow()
    rows: list[Row] = []
    cases, pairs = CASES, PAIRS
    if CONFIG.value is not None:
        cases, pairs = (Case(CONFIG.value, CONFIG.value, None),), ()
    for case in cases:
        if ONLY.value in case.config:
            rows += measure_case(case)
    for faster, slower in pairs:
        if ONLY.value in faster.config:
            rows += measure_pair(faster, slower)
    if MODEL_GARDEN.value and CONFIG.value is None and ONLY.value in "model_garden":
        rows += measure_model_garden()
    report(rows, OUTPUT.value)


def measure_case(case: Case) -> list[Row]:
    """Measures latency and post-processing share (SSD at both thresholds), and with a target also process costs."""
    rows: list[Row] = []
    for label, threshold in (("", None), (", threshold 0.3", 0.3)):
        message = load_config(case.config)
        if threshold is not None:
            if not message.model.HasField("ssd"):
                continue
            message.model.ssd.post_processing.batch_non_max_suppression.score_threshold = threshold
        with tempfile.TemporaryDirectory() as folder:
            export_to_measure(message, folder)
            [result] = benchmark_batch_sizes(folder, options(case.is_heavy), name=case.name)
            rows += latency_rows(case, label, result)
            if threshold is None and case.wanted_memory_mib is not None:
                crowded = measure_process(
                    f"{folder}/saved_model", (np.zeros(IMAGE_SHAPE, np.uint8),), tensorflow_alone=False
                )
                rows += measure_process_costs(case, result, folder, crowded.peak_mib)
    return rows


def measure_pair(faster: Case, slower: Case) -> list[Row]:
    """Measures the latency of both detectors, called in turn, and the ratio of the first to the second."""
    with tempfile.TemporaryDirectory() as folder:
        detectors = []
        for case in (faster, slower):
            export_to_measure(load_config(case.config), f"{folder}/{case.config}")
            detectors.append(SavedDetector(f"{folder}/{case.config}"))
        given = detectors[0].as_input(np.random.default_rng(0).integers(0, 256, IMAGE_SHAPE[1:], np.uint8))
        calls = [functools.partial(detector.outputs, given) for detector in detectors]
        latencies, gflops = beside_yardstick(lambda: time_alternately(calls, 2, options(is_heavy=True).runs))
    rows = [
        timed_row(case.name, latency.median_ms, "ms", gflops, None)
        for case, latency in zip((faster, slower), latencies, strict=True)
    ]
    ratio = latencies[0].median_ms / latencies[1].median_ms
    table = read_table(ROOT / "model_configs")
    adds = table[faster.config].multiply_adds / table[slower.config].multiply_adds
    wanted = None if faster.config in MORE_MULTIPLY_ADDS else 1.0
    return [
        *rows,
        Row(f"  ratio to {slower.name}", ratio, "x", gflops, ratio, 1.0),
        Row("  ratio of multiply-adds", adds, "x", gflops, adds, wanted),
    ]


def load_config(config: str) -> Any:
    """Loads the ``TrainEvalPipelineConfig`` of a file in model_configs/."""
    return load_pipeline(str(ROOT / "model_configs" / f"{config}.config")).message


def options(is_heavy: bool) -> BenchmarkOptions:
    """Returns the options of a benchmark, with fewer runs for detectors that take about a second per call."""
    return BenchmarkOptions(runs=RUNS.value // 10 if is_heavy else RUNS.value, warmup=3)


def latency_rows(case: Case, label: str, result: dict[str, Any]) -> list[Row]:
    """Returns the rows of the median latency and of the share of post-processing in it."""
    stages, gflops = result["stages"], result["yardstick_gflops"]
    ends = stages["preprocess_ms"], stages["network_ms"], stages["postprocess_ms"]
    share = stages["postprocess_ms"] / max(sum(ends), 1e-9)
    parts = [
        timed_row(f"  {name}", stages[f"{name.replace(' ', '_')}_ms"], "ms", gflops, None)
        for name in ("first stage", "second stage")
        if stages[f"{name.replace(' ', '_')}_ms"] is not None
    ]
    return [
        timed_row(case.name + label, result["latency"]["median_ms"], "ms", gflops, case.wanted_ms),
        *parts,
        Row(f"  post-processing share{label}", 100 * share, "%", gflops, 100 * share, 100 * WANTED_POSTPROCESS_SHARE),
    ]


def measure_process_costs(case: Case, result: dict[str, Any], exported: str, crowded_mib: float) -> list[Row]:
    """Measures load time, peak memory, and the wall time of the export command from an exported checkpoint."""
    process, gflops = result["process"], result["yardstick_gflops"]
    with tempfile.TemporaryDirectory() as folder:
        config = ROOT / "model_configs" / f"{case.config}.config"
        command = [sys.executable, "-m", "detzoo.cli.main", "export", f"--pipeline_config_path={config}"]
        started = time.perf_counter()
        flags_of_export = [f"--trained_checkpoint_dir={exported}/checkpoint", f"--output_directory={folder}/exported"]
        subprocess.run([*command, *flags_of_export], check=True, capture_output=True)
        export_seconds = time.perf_counter() - started
    memory, imported = process["peak_mib"], process["import_peak_mib"]
    return [
        timed_row("  load", process["load_seconds"], "s", gflops, WANTED_LOAD_SECONDS),
        timed_row("  export command", export_seconds, "s", gflops, None if case.is_heavy else WANTED_EXPORT_SECONDS),
        Row("  peak memory of serving", memory, "MiB", gflops, memory, case.wanted_memory_mib),
        Row("    of it importing TensorFlow", imported, "MiB", gflops, imported, None),
        Row("    with all packages of this environment", crowded_mib, "MiB", gflops, crowded_mib, None),
    ]


def measure_model_garden() -> list[Row]:
    """Measures Model Garden's RetinaNet in the same way."""
    with tempfile.TemporaryDirectory() as folder:
        program = pathlib.Path(__file__).with_name("model_garden.py")
        subprocess.run([sys.executable, str(program), "serve", folder], check=True, capture_output=True)
        [result] = benchmark_batch_sizes(folder, options(is_heavy=True), name="Model Garden")
    gflops, memory = result["yardstick_gflops"], result["process"]["peak_mib"]
    return [
        timed_row("Model Garden RetinaNet ResNet-50 640", result["latency"]["median_ms"], "ms", gflops, None),
        timed_row("  load", result["process"]["load_seconds"], "s", gflops, None),
        Row("  peak memory of serving", memory, "MiB", gflops, memory, None),
    ]


if __name__ == "__main__":
    app.run(main)
