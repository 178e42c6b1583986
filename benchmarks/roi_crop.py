"""Times crops of boxes: from a pyramid and from one feature map, and optimized and straightforward implementations.

    python benchmarks/roi_crop.py [--runs 40] [--boxes 1000] [--output roi_crop.csv] [--only pyramid]

Reading the table: the pyramid is that of an 800 x 800 image, P2 to P5 with 256 channels. The boxes have sides from 16
to 800 pixels, evenly distributed in the logarithm, and about half of them belong to P2. All variants of a group are
timed in turn, one run each, so that changes of the machine's speed affect all of them equally. A time is the median.
"at 150" is the time for a machine with a yardstick of 150 GFLOP/s. A ratio is the median of the ratios of neighbouring
runs, and needs no scaling.

A pyramid's crops are computed per level and then put into the order of the boxes, which copies them once: 50 MB for
1000 boxes of 7 x 7 x 256. A bilinear crop with one sample per bin takes hardly longer than this copy, so its ratio
shows the cost of the copy. RoI align and pooled crops have four samples per bin; their ratios show a detector's cost.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from absl import app, flags
from rows import Row, report, timed_row

from detzoo.benchmark.machine import beside_yardstick
from detzoo.ops import roi_crop
from detzoo.ops.position_sensitive_crop import position_sensitive_crop

RUNS = flags.DEFINE_integer("runs", 40, "Runs of each variant.", lower_bound=1)
BOXES = flags.DEFINE_integer("boxes", 1000, "Boxes of the pyramid; the other groups have 300.", lower_bound=1)
OUTPUT = flags.DEFINE_string("output", None, "CSV file to write the rows to.")
ONLY = flags.DEFINE_string("only", "", "Only groups whose name contains this.")

IMAGE_SIDE_PX, LEVELS, WANTED_PYRAMID_RATIO = 800, (2, 3, 4, 5), 1.3
HEAD_BOXES = 300  # number of proposals that Faster R-CNN and R-FCN keep

Ways = dict[str, Callable[[], tf.Tensor]]


def main(argv: list[str]) -> None:
    """Measures and prints the rows."""
    del argv
    groups = {
        "pyramid": pyramid_rows,
        "pooled crop": pooled_crop_rows,
        "position-sensitive": position_sensitive_rows,
    }
    report([row for name, measure in groups.items() if ONLY.value in name for row in measure()], OUTPUT.value)


def pyramid_rows() -> list[Row]:
    """Times each crop from the pyramid, from P2 alone and from P3 alone."""
    generator = np.random.default_rng(0)
    sides = [IMAGE_SIDE_PX >> level for level in LEVELS]
    maps = {
        level: tf.constant(generator.standard_normal((1, side, side, 256)), tf.float32)
        for level, side in zip(LEVELS, sides, strict=True)
    }
    boxes_px = random_boxes_px(generator, BOXES.value)
    levels = roi_crop.assign_levels(boxes_px, LEVELS[0], LEVELS[-1])
    boxes = boxes_px / IMAGE_SIDE_PX
    crops: dict[str, roi_crop.Crop] = {
        "bilinear crop 7x7": functools.partial(roi_crop.crop_and_resize_boxes, crop_size=(7, 7)),
        "RoI align 7x7": functools.partial(roi_crop.roi_align_boxes, crop_size=(7, 7), sampling_ratio=2),
        "crop 14x14, pooled": functools.partial(roi_crop.crop_and_max_pool_boxes, crop_size=(14, 14), pool_size=2),
    }
    rows = []
    for name, crop in crops.items():
        pyramid = tf.function(functools.partial(roi_crop.multilevel_crop, crop=crop))
        single = tf.function(functools.partial(roi_crop.single_level_crop, crop=crop))
        ways: Ways = {
            f"{name}, pyramid": functools.partial(pyramid, maps, boxes, levels),
            f"{name}, P2 alone": functools.partial(single, maps[2], boxes),
            f"{name}, P3 alone": functools.partial(single, maps[3], boxes),
        }
        rows += measure(ways, [WANTED_PYRAMID_RATIO, None])
    return rows


def random_boxes_px(generator: np.random.Generator, count: int) -> tf.Tensor:
    """Returns boxes inside the image, with sides evenly distributed in the logarithm: float32 [1, count, 4]."""
    sides = np.exp(generator.uniform(np.log(16), np.log(IMAGE_SIDE_PX), (1, count, 2)))
    centers = generator.uniform(0, IMAGE_SIDE_PX, (1, count, 2))
    corners = np.concatenate([centers - sides / 2, centers + sides / 2], axis=-1)
    return tf.constant(corners.clip(0, IMAGE_SIDE_PX), tf.float32)


def pooled_crop_rows() -> list[Row]:
    """Times the fused crop and pooling of 300 boxes of a ResNet-101's map, and a large crop with separate pooling."""
    generator = np.random.default_rng(0)
    features = tf.constant(generator.standard_normal((1, 38, 63, 1024)), tf.float32)
    boxes = random_boxes_px(generator, HEAD_BOXES) / IMAGE_SIDE_PX
    rows = []
    for output_stride in (1, 2):

        def long_way(features: tf.Tensor, boxes: tf.Tensor, stride: int = output_stride) -> tf.Tensor:
            crops = tf.image.crop_and_resize(features, boxes[0], tf.zeros([HEAD_BOXES], tf.int32), (14, 14))
            return tf.nn.max_pool2d(crops, 2, 2, "VALID")[:, ::stride, ::stride]

        pooled = functools.partial(
            roi_crop.crop_and_max_pool_boxes, crop_size=(14, 14), pool_size=2, output_stride=output_stride
        )
        short_way = functools.partial(roi_crop.single_level_crop, crop=pooled)
        what = f"crop 14x14x1024, pooled, output stride {output_stride}"
        rows += measure(two_ways(what, short_way, long_way, features, boxes), [None])
        gradients = gradient_of(short_way), gradient_of(long_way)
        rows += measure(two_ways(f"{what}, gradient", *gradients, features, boxes), [None])
    return rows


def position_sensitive_rows() -> list[Row]:
    """Times R-FCN's class crops (3 x 3 bins of 91 values) for 300 boxes, and a separate crop per bin."""
    generator = np.random.default_rng(0)
    features = tf.constant(generator.standard_normal((1, 38, 63, 3 * 3 * 91)), tf.float32)
    boxes = random_boxes_px(generator, HEAD_BOXES) / IMAGE_SIDE_PX

    def long_way(features: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
        origin, step = boxes[0, :, :2], (boxes[0, :, 2:] - boxes[0, :, :2]) / 3
        bins = []
        for index, group in enumerate(tf.split(features, 9, axis=-1)):
            corner = origin + step * tf.constant(divmod(index, 3), tf.float32)
            bin_boxes = tf.concat([corner, corner + step], axis=-1)
            crops = tf.image.crop_and_resize(group, bin_boxes, tf.zeros([HEAD_BOXES], tf.int32), (6, 6))
            bins.append(tf.reduce_mean(crops, axis=[1, 2]))
        return tf.add_n(bins) / 9

    short_way = functools.partial(position_sensitive_crop, crop_size=(18, 18), num_bins=(3, 3))
    what = "position-sensitive crop 18x18, 3x3 bins, 91 values"
    rows = measure(two_ways(what, short_way, long_way, features, boxes), [None])
    gradients = gradient_of(short_way), gradient_of(long_way)
    return rows + measure(two_ways(f"{what}, gradient", *gradients, features, boxes), [None])


def gradient_of(crop: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Returns a function that computes the crop and its gradient with respect to the features."""

    def gradient(features: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(features)
            loss = tf.reduce_sum(tf.square(crop(features, boxes)))
        return tape.gradient(loss, features)

    return gradient


def two_ways(what: str, short_way: Callable, long_way: Callable, *inputs: tf.Tensor) -> Ways:
    """Returns both variants as graphs, bound to their inputs."""
    return {
        what: functools.partial(tf.function(short_way), *inputs),
        f"{what}, the long way": functools.partial(tf.function(long_way), *inputs),
    }


def measure(ways: Ways, wanted_ratios: list[float | None]) -> list[Row]:
    """Returns one row per variant with its time, and rows with the ratio of the first variant to each other one."""
    seconds, gflops = beside_yardstick(lambda: time_in_turn(list(ways.values())))
    rows = [
        timed_row(name, 1e3 * float(np.median(column)), "ms", gflops, None)
        for name, column in zip(ways, seconds, strict=True)
    ]
    for name, column, wanted in zip(list(ways)[1:], seconds[1:], wanted_ratios, strict=True):
        ratio = float(np.median(seconds[0] / column))
        rows.append(Row(f"  ratio to {name.split(', ')[-1]}", ratio, "x", gflops, ratio, wanted))
    return rows


def time_in_turn(ways: list[Callable[[], tf.Tensor]]) -> np.ndarray:
    """Returns seconds [ways, runs]; each run calls every variant once."""
    for way in ways:
        way()
    seconds = np.empty((len(ways), RUNS.value))
    for run in range(RUNS.value):
        for index, way in enumerate(ways):
            started = time.perf_counter()
            way()
            seconds[index, run] = time.perf_counter() - started
    return seconds


if __name__ == "__main__":
    app.run(main)
