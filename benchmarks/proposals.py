"""Measures latency against the number of proposals, the times in figure 6 of "Speed/accuracy trade-offs".

    python benchmarks/proposals.py --output_dir figure [--extractor resnet101] [--runs 10]

The paper is arXiv:1611.10012. The program writes proposals.csv and proposals.png, and prints the rows.

Reading the rows: a row is the median time per call of a SavedModel from `detzoo export`. The config is
model_configs/faster_rcnn_EXTRACTOR_600.config, or the same for rfcn_, with another number of proposals. A call has
batch 1, an image of 600 x 600 pixels and random weights, and goes from image to final boxes. Faster R-CNN runs the end
of its backbone once per proposal, and R-FCN once per image. So the time of Faster R-CNN grows with the number of
proposals, and that of R-FCN hardly changes. "at 150" is the time for a machine with a yardstick of 150 GFLOP/s in a
float32 matrix product, time x yardstick / 150. The numbers of proposals of one detector are measured in turn, so these
times are the most comparable. The last column is the number of multiply-adds in 10**9.
"""

from __future__ import annotations

import csv
import functools
import os
import pathlib
import tempfile
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from absl import app, flags, logging
from rows import REFERENCE_GFLOPS

from detzoo.benchmark.latency import time_alternately
from detzoo.benchmark.machine import beside_yardstick
from detzoo.benchmark.multiply_adds import count_in_graph_def
from detzoo.config.load import load_pipeline
from detzoo.serving.frozen import to_constants
from detzoo.serving.saved_detector import SavedDetector
from detzoo.tasks.export import export_to_measure
from detzoo.tasks.models import start_tensorflow

FASTER_RCNN, RFCN = "Faster R-CNN", "R-FCN"
PREFIXES = {FASTER_RCNN: "faster_rcnn", RFCN: "rfcn"}  # of config files
CONFIGS = pathlib.Path(__file__).resolve().parents[1] / "model_configs"
MODEL = "model.faster_rcnn"

OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "Folder for proposals.csv and proposals.png.", required=True)
EXTRACTOR = flags.DEFINE_string("extractor", "resnet101", "Backbone of both configs; mobilenet_v1 is quick.")
SIZE = flags.DEFINE_integer("size", 600, "Side of the image in pixels.", lower_bound=32)
PROPOSALS = flags.DEFINE_multi_integer("proposals", [10, 20, 50, 100, 300], "Numbers of proposals.", lower_bound=1)
RUNS = flags.DEFINE_integer("runs", 10, "Timed calls per detector.", lower_bound=1)


class Point(NamedTuple):
    """One point of the figure."""

    detector: str
    proposals: int
    median_ms: float
    p90_ms: float
    yardstick_gflops: float
    median_ms_at_150: float
    multiply_adds: int


def main(argv: list[str]) -> None:
    """Measures, prints, writes and draws."""
    del argv
    logging.set_verbosity(logging.ERROR)
    start_tensorflow()
    folder = pathlib.Path(OUTPUT_DIR.value)
    folder.mkdir(parents=True, exist_ok=True)
    points = [point for detector in PREFIXES for point in measure(detector)]
    print(" " * 14, f"{'proposals':>9}{'median ms':>11}", f"{'at 150':>8}{'yardstick':>11}", f"{'multiply-adds':>14}")
    for point in points:
        numbers = f"{point.median_ms:11.0f}{point.median_ms_at_150:9.0f}{point.yardstick_gflops:11.0f}"
        print(f"{point.detector:14}{point.proposals:10}" + numbers + f"{point.multiply_adds / 1e9:15.1f}")
    with open(folder / "proposals.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(Point._fields)
        writer.writerows(points)
    draw(points, folder / "proposals.png")


def measure(detector: str) -> list[Point]:
    """Returns one point per number of proposals, timed in turn."""
    image = np.random.default_rng(0).integers(0, 256, (SIZE.value, SIZE.value, 3), np.uint8)
    loaded = [export_and_load(detector, count) for count in PROPOSALS.value]
    given = loaded[0].as_input(image)
    calls = [functools.partial(one.outputs, given) for one in loaded]
    latencies, gflops = beside_yardstick(lambda: time_alternately(calls, 2, RUNS.value))
    points = []
    for count, one, latency in zip(PROPOSALS.value, loaded, latencies, strict=True):
        frozen = to_constants(one.function)
        adds = sum(count_in_graph_def(frozen.graph_def, frozen.input_name, given.numpy()).values())
        at_150 = latency.median_ms * gflops / REFERENCE_GFLOPS
        points.append(Point(detector, count, latency.median_ms, latency.p90_ms, gflops, at_150, adds))
    return points


def export_and_load(detector: str, num_proposals: int) -> SavedDetector:
    """Exports a detector with random weights and the given number of proposals, and loads its SavedModel."""
    path = CONFIGS / f"{PREFIXES[detector]}_{EXTRACTOR.value}_600.config"
    overrides = [
        f"{MODEL}.first_stage_max_proposals={num_proposals}",
        f"{MODEL}.image_resizer.keep_aspect_ratio_resizer.min_dimension={SIZE.value}",
    ]
    with tempfile.TemporaryDirectory() as folder:
        export_to_measure(load_pipeline(str(path), overrides).message, folder)
        return SavedDetector(folder)


def draw(points: list[Point], path: pathlib.Path) -> None:
    """Draws the time at 150 GFLOP/s over the number of proposals, one line per detector."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for detector, marker in zip(PREFIXES, "os"):
        line = [point for point in points if point.detector == detector]
        counts, times = [point.proposals for point in line], [point.median_ms_at_150 for point in line]
        axes.plot(counts, times, marker=marker, label=detector)
    axes.set_xticks(sorted({point.proposals for point in points}))
    axes.set_xlabel("proposals")
    axes.set_ylabel("ms per image, at a yardstick of 150 GFLOP/s")
    axes.set_ylim(bottom=0)
    axes.set_title(f"{EXTRACTOR.value}, {SIZE.value} x {SIZE.value} pixels")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    app.run(main)
