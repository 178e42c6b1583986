"""Measures each detector in TensorFlow, ONNX Runtime, LiteRT and OpenVINO, next to YOLO11n.

    python benchmarks/runtimes.py [--runs 60] [--threads 2] [--output runtimes.csv]
    python benchmarks/runtimes.py --detectors ssd_mobilenet_v2_300 --runtimes tensorflow,litert
    python benchmarks/runtimes.py --yolo_python /path/to/venv/bin/python

Reading the table: milliseconds are the median of a whole call, from a uint8 image of the detector's input size in
memory to final boxes in memory, with random weights and the config's classes and thresholds. The models of a detector
are called in turn, in rounds, so that a busy moment of the machine affects all of them; "of TF" is the share of
TensorFlow's time in the same rounds. Each round calls a model once without timing it, because threads of the runtime
before it may still be spinning. Memory (peak, with the import), load and import are those of a fresh process that has
the runtime alone. The yardstick is the speed of a float32 matrix product before and after the rounds, in GFLOP/s.

YOLO11n needs ultralytics, which brings PyTorch, in an environment that --yolo_python names (pip install ultralytics
onnx onnxruntime). It is exported there with random weights at 320 pixels, and runs here in ONNX Runtime and OpenVINO.
Its time includes the conversion of the image to float. It includes neither letterbox nor suppression, which ultralytics
computes in Python.
"""

from __future__ import annotations

import csv
import logging as python_logging
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from absl import app, flags, logging

from detzoo.benchmark.latency import Latency, summarize
from detzoo.benchmark.machine import beside_yardstick, choose_threads
from detzoo.benchmark.process import ServingSettings, measure_process
from detzoo.errors import ConfigError, DetzooError, UsageError
from detzoo.serving.onnx_detector import open_session
from detzoo.serving.openvino_detector import open_model
from detzoo.serving.runtimes import EXPORTED_FILES, ONNX_RUNTIME, OPENVINO, RUNTIMES, TENSORFLOW, require_runtime
from detzoo.tasks.export import export_to_measure
from detzoo.tasks.models import load_checked, load_exported, start_tensorflow

DETECTORS = ("ssd_mobilenet_v2_300", "ssd_mobilenet_v2_fpnlite_320", "ssd_resnet50_v1_fpn_640")
YOLO = "yolo11n_320"
YOLO_SIDE = 320
CALLS_PER_ROUND = 4
YOLO_PROGRAM = """
import sys, pathlib, shutil
from ultralytics import YOLO
path = YOLO("yolo11n.yaml").export(format="onnx", imgsz=int(sys.argv[2]))
shutil.copy(path, pathlib.Path(sys.argv[1]))
"""

CONFIGS = flags.DEFINE_list("detectors", list(DETECTORS), "Configs to measure: paths or names.")
CHOSEN = flags.DEFINE_list("runtimes", list(RUNTIMES), "Runtimes to measure in.")
RUNS = flags.DEFINE_integer("runs", 60, "Timed calls of each model; a fifth if they take over 200 ms.", lower_bound=4)
THREADS = flags.DEFINE_integer("threads", 2, "Threads of each runtime.", lower_bound=1)
YOLO_PYTHON = flags.DEFINE_string("yolo_python", "", "Python with ultralytics, to export YOLO11n.")
FOLDER = flags.DEFINE_string("folder", "", "Folder of the exports, which a later call uses again.")
OUTPUT = flags.DEFINE_string("output", None, "CSV file to write the rows to.")
SLOW_SECONDS = 0.2


class Model(NamedTuple):
    """An exported model, ready to be called."""

    runtime: str
    path: pathlib.Path
    call: Callable[[], Any]


class Line(NamedTuple):
    """One line of the table; None for what was not measured."""

    detector: str
    runtime: str
    milliseconds: float | None
    of_tensorflow: float | None
    memory_mib: float | None
    load_seconds: float | None
    import_seconds: float | None
    yardstick_gflops: float | None
    note: str = ""


def main(argv: list[str]) -> None:
    """Exports, measures and prints."""
    del argv
    logging.set_verbosity(logging.ERROR)
    python_logging.disable(python_logging.WARNING)
    choose_threads(THREADS.value, THREADS.value)
    start_tensorflow()
    lines: list[Line] = []
    print("| detector | runtime | ms | of TF | memory MiB | load s | import s | GFLOP/s |")
    print("|---|---" + "|---:" * 6 + "|", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(FOLDER.value or temporary)
        for config in [*CONFIGS.value, YOLO]:
            new = measure_yolo(folder) if config == YOLO else measure_detector(config, folder)
            print_lines(new)
            lines += new
            if OUTPUT.value:
                write_lines(lines, OUTPUT.value)


def measure_detector(config: str, folder: pathlib.Path) -> list[Line]:
    """Measures a detector in each runtime that is installed and supports it."""
    message, name = load_checked(config).message, pathlib.Path(config).stem
    models, skipped = [], []
    for runtime in CHOSEN.value:
        try:
            require_runtime(runtime)
            own = folder / name / ("onnx" if EXPORTED_FILES[runtime].endswith(".onnx") else runtime)
            if not own.is_dir():
                print(f"exporting {config} for {runtime} ...", file=sys.stderr)
                export_to_measure(message, own, runtime=runtime)
            path = own / EXPORTED_FILES[runtime]
            detector = load_exported(path, message.model, runtime=runtime, num_threads=THREADS.value)
        except (ConfigError, UsageError) as problem:
            skipped.append(Line(name, runtime, *[None] * 6, note=str(problem).splitlines()[0]))
            continue
        models.append((runtime, path, detector))
    image = random_image(input_side(message.model))
    calls = [Model(runtime, path, lambda detector=detector: detector(image)) for runtime, path, detector in models]
    return [*measure(name, calls, image[np.newaxis]), *skipped]


def measure_yolo(folder: pathlib.Path) -> list[Line]:
    """Measures YOLO11n, or says why not."""
    path = folder / f"{YOLO}.onnx"
    if not path.is_file():
        if not YOLO_PYTHON.value:
            return [
                Line(YOLO, ONNX_RUNTIME, *[None] * 6, note="skipped: --yolo_python names no Python with ultralytics")
            ]
        folder.mkdir(parents=True, exist_ok=True)
        command = [YOLO_PYTHON.value, "-c", YOLO_PROGRAM, str(path.resolve()), str(YOLO_SIDE)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=600)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
            return [Line(YOLO, ONNX_RUNTIME, *[None] * 6, note=f"skipped: the export failed: {reason}")]
    image = random_image(YOLO_SIDE)

    def as_input() -> np.ndarray:
        return np.ascontiguousarray(image.transpose(2, 0, 1)[np.newaxis], np.float32) / np.float32(255.0)

    models = []
    for runtime, open_file in ((ONNX_RUNTIME, open_session), (OPENVINO, open_model)):
        if runtime in CHOSEN.value:
            session = open_file(path, THREADS.value)
            name = session.get_inputs()[0].name
            models.append(Model(runtime, path, lambda s=session, n=name: s.run(None, {n: as_input()})))
    return measure(YOLO, models, as_input())


def measure(detector: str, models: list[Model], given: np.ndarray) -> list[Line]:
    """Times the models in turn, then measures a process of each."""
    print(f"measuring {detector} in {', '.join(model.runtime for model in models)} ...", file=sys.stderr)
    times, gflops = beside_yardstick(lambda: time_in_rounds(models))
    lines = []
    for model in models:
        settings = ServingSettings(intra_op_threads=THREADS.value, inter_op_threads=1, runtime=model.runtime)
        process = measure_process(model.path, [given], 5, settings=settings)
        median = times[model.runtime].median_ms
        share = median / times[TENSORFLOW].median_ms if TENSORFLOW in times else None
        costs = process.peak_mib, process.load_seconds, process.import_seconds
        lines.append(Line(detector, model.runtime, median, share, *costs, gflops))
    return lines


def time_in_rounds(models: list[Model]) -> Mapping[str, Latency]:
    """Returns the times of each runtime; every round calls each model several times, the first time untimed."""
    found: dict[str, list[float]] = {model.runtime: [] for model in models}
    slowest = 0.0
    for model in models:
        model.call()
        started = time.perf_counter()
        model.call()
        slowest = max(slowest, time.perf_counter() - started)
    runs = RUNS.value if slowest < SLOW_SECONDS else max(CALLS_PER_ROUND, RUNS.value // 5)
    for _ in range(-(-runs // CALLS_PER_ROUND)):
        for model in models:
            model.call()
            for _ in range(CALLS_PER_ROUND):
                started = time.perf_counter()
                model.call()
                found[model.runtime].append(time.perf_counter() - started)
    return {runtime: summarize(seconds) for runtime, seconds in found.items()}


def input_side(model: Any) -> int:
    """Returns the shorter side of a detector's input in pixels."""
    resizer = getattr(model, model.WhichOneof("model")).image_resizer
    fixed = resizer.fixed_shape_resizer
    return fixed.height if resizer.HasField("fixed_shape_resizer") else resizer.keep_aspect_ratio_resizer.min_dimension


def random_image(side: int) -> np.ndarray:
    """Returns white noise uint8 [side, side, 3]."""
    return np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)


def write_lines(lines: list[Line], path: str) -> None:
    """Writes the lines as CSV."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(Line._fields)
        writer.writerows(lines)


def print_lines(lines: list[Line]) -> None:
    """Prints the lines as Markdown."""
    for line in lines:
        if line.milliseconds is None:
            print(f"| {line.detector} | {line.runtime} | {line.note} |||||||")
            continue
        share = "" if line.of_tensorflow is None else f"{line.of_tensorflow:.2f}"
        times = f"{line.milliseconds:.1f} | {share} | {line.memory_mib:.0f} | {line.load_seconds:.2f}"
        print(
            f"| {line.detector} | {line.runtime} | {times} | {line.import_seconds:.2f} | {line.yardstick_gflops:.0f} |"
        )


if __name__ == "__main__":
    try:
        app.run(main)
    except DetzooError as problem:
        sys.exit(f"{pathlib.Path(__file__).name}: {problem}")
