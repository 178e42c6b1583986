"""Compares features of windows computed once per image and once per window, as table 9 of arXiv:1406.4729 does.

    python benchmarks/spp_speedup.py [--config spp_net_zf5_1scale_ftfc7] [--config spp_net_zf5_5scale_ftfc7] \\
        [--windows 2000] [--timed_windows 100] [--runs 3] [--image_size 375x500] [--output speedup.csv]

Reading the table: both ways use the same network, weights, image and windows, and end with fc7 of every window. "once"
is SPP-net: it computes the convolutions of the whole image at the config's scales and pools each window from the map.
"each" is R-CNN: it crops every window from the image, warps it to 224 x 224 pixels and computes its convolutions. Only
--timed_windows of "each" are timed, and the time is scaled to all windows, because it is proportional to their number.
Times are medians, in float32 with random weights. "at 150" is the time for a machine with a yardstick of 150 GFLOP/s.
The fully connected layers are the same for both. In the paper, on its GPU at one scale, "once" takes 0.053 s, "each"
takes 14.37 s and the fully connected layers take 0.089 s. In total this is 102 times as fast (38 times at five scales).
"""

from __future__ import annotations

import csv
import os
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from absl import app, flags, logging
from rows import REFERENCE_GFLOPS

from detzoo.benchmark.latency import time_alternately
from detzoo.benchmark.machine import beside_yardstick
from detzoo.benchmark.random_weights import randomize
from detzoo.builders.detector import build_detector
from detzoo.cli.benchmark import image_shape
from detzoo.config.load import load_pipeline
from detzoo.ops.spatial_pyramid import spatial_pyramid
from detzoo.serving.given_regions import random_regions
from detzoo.tasks.models import start_tensorflow

CONFIGS = pathlib.Path(__file__).resolve().parents[1] / "model_configs"
USUAL = ["spp_net_zf5_1scale_ftfc7", "spp_net_zf5_5scale_ftfc7"]
BATCH = 50  # warped windows per call of the convolutions

CONFIG = flags.DEFINE_multi_string("config", USUAL, "Names of files in model_configs/ with model.spp_net.")
WINDOWS = flags.DEFINE_integer("windows", 2000, "Windows of the image.", lower_bound=1)
TIMED = flags.DEFINE_integer("timed_windows", 100, 'Number of windows timed for "each".', lower_bound=1)
RUNS = flags.DEFINE_integer("runs", 3, "Timed calls.", lower_bound=1)
SIZE = flags.DEFINE_string("image_size", "375x500", "HEIGHTxWIDTH of the image; the usual size in VOC 2007.")
SET = flags.DEFINE_multi_string("set", [], "PATH=VALUE changes a field of the configs.")
OUTPUT = flags.DEFINE_string("output", None, "CSV file for the rows.")


class Speedup(NamedTuple):
    """A row with the milliseconds of an image with all its windows."""

    config: str
    windows: int
    once_ms: float  # convolutions of the image, pooling of all windows
    each_ms: float  # convolutions and pooling of every window
    fully_connected_ms: float
    features_ratio: float  # each / once
    total_ratio: float  # the same with the fully connected layers
    yardstick_gflops: float


def main(argv: list[str]) -> None:
    """Measures, prints and writes."""
    del argv
    logging.set_verbosity(logging.ERROR)
    start_tensorflow()
    rows = [measure(name) for name in CONFIG.value]
    width = max(len(row.config) for row in rows)
    names = ("once ms", "each ms", "fc ms", "features", "with fc", " yardstick")
    print(" " * width, " ".join(f"{name:>9}" for name in names))
    for row in rows:
        times = " ".join(f"{time:9.0f}" for time in row[2:5])
        ratios = f"{row.features_ratio:7.1f} x {row.total_ratio:7.1f} x"
        print(f"{row.config:{width}} {times} {ratios} {row.yardstick_gflops:10.0f}")
        scaled = " ".join(f"{value * row.yardstick_gflops / REFERENCE_GFLOPS:9.0f}" for value in row[2:5])
        print(f"{'  at 150':{width}} {scaled}")
    if OUTPUT.value:
        with open(OUTPUT.value, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(Speedup._fields)
            writer.writerows(rows)


def measure(name: str) -> Speedup:
    """Returns the row of a config; both ways are timed in turn."""
    detector = build_detector(load_pipeline(str(CONFIGS / f"{name}.config"), SET.value).message.model)
    randomize(detector)
    height, width = image_shape(SIZE.value)
    image = np.random.default_rng(0).uniform(0, 255, (1, height, width, 3)).astype(np.float32)
    windows = random_regions(1, WINDOWS.value)
    num_timed = min(TIMED.value, WINDOWS.value)
    once, each, fully_connected = ways(detector)
    pooled = once(image, windows)
    calls = [
        lambda: once(image, windows),
        lambda: each(image, windows[:, :num_timed]),
        lambda: fully_connected(pooled),
    ]
    latencies, gflops = beside_yardstick(lambda: time_alternately(calls, 1, RUNS.value))
    once_ms, each_ms, fc_ms = (latency.median_ms for latency in latencies)
    each_ms *= WINDOWS.value / num_timed
    ratios = (each_ms / once_ms, (each_ms + fc_ms) / (once_ms + fc_ms))
    return Speedup(name, WINDOWS.value, once_ms, each_ms, fc_ms, *ratios, gflops)


def ways(detector: Any) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """Returns three traced functions.

    The first two map (image, windows) to pooled features, computed once per image and once per window. The third maps
    pooled features to fc7.
    """
    images = tf.TensorSpec([1, None, None, 3], tf.float32)
    regions = tf.TensorSpec([1, None, 4], tf.float32)
    side, levels = detector.scales.window_size, detector.parts.pyramid_bins

    @tf.function(input_signature=[images, regions], autograph=False)
    def once(image: Any, windows: Any) -> Any:
        inputs = detector.preprocess(image)
        return detector.pool(detector.feature_maps(inputs), tf.shape(inputs)[1:3], windows)

    @tf.function(input_signature=[images, tf.TensorSpec([None, 4], tf.float32)], autograph=False)
    def warped(image: Any, windows: Any) -> Any:
        first = tf.zeros(tf.shape(windows)[:1], tf.int32)
        crops = tf.image.crop_and_resize(detector.preprocess(image), windows, first, (side, side))
        return spatial_pyramid(detector.backbone(crops), levels)

    def each(image: Any, windows: Any) -> Any:
        starts = range(0, windows.shape[1], BATCH)
        return tf.concat([warped(image, windows[0, start : start + BATCH]) for start in starts], axis=0)

    @tf.function(input_signature=[tf.TensorSpec([1, None, detector.parts.num_pooled], tf.float32)], autograph=False)
    def fully_connected(pooled: Any) -> Any:
        return detector.fully_connected(pooled).fc7

    return once, each, fully_connected


if __name__ == "__main__":
    app.run(main)
