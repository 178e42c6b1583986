"""Compares the seconds per training step with their targets, and with Model Garden's and torchvision's detectors.

    python benchmarks/train_step.py [--steps 10] [--output train_step.csv] [--only ssd] [--nomodel_garden]
    python benchmarks/train_step.py --torchvision_python /path/to/venv/bin/python
    python benchmarks/train_step.py --config ssd_vgg16_300

Reading the table: one step consists of forward pass, targets, losses, backward pass and update on a batch that stays
in memory, with random weights and with the optimizer and regularization of the published config. "at 150" is the time
for a machine with a yardstick of 150 GFLOP/s in a float32 matrix product, time x yardstick / 150. The yardstick is the
mean of one measurement before and one after the row. bfloat16 is faster only on a GPU, or on a CPU with AVX-512 BF16 or
AMX. Last come the ratios to the other libraries' steps in the same run: of the same detector, except for SSDLite.

torchvision needs a separate environment, which --torchvision_python names (pip install torch torchvision).
"""

from __future__ import annotations

import functools
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from absl import app, flags, logging
from rows import Row, report, timed_row

from detzoo.benchmark.machine import beside_yardstick
from detzoo.builders.detector import without_pretrained
from detzoo.builders.resize import build_resizer
from detzoo.config.load import load_pipeline
from detzoo.contracts import Batch, Groundtruth
from detzoo.train.session import build_trainer
from detzoo.train.strategy import create_strategy

ROOT = pathlib.Path(__file__).resolve().parents[1]
MAX_BOXES, OBJECTS_PER_IMAGE = 100, 7  # rows of the ground truth, and COCO's mean of filled ones

STEPS = flags.DEFINE_integer("steps", 10, "Timed steps, after two steps that trace.", lower_bound=1)
OUTPUT = flags.DEFINE_string("output", None, "CSV file to write the rows to.")
ONLY = flags.DEFINE_string("only", "", "Only rows whose config contains this.")
CONFIG = flags.DEFINE_string("config", None, "Time this config of model_configs/ alone, batch 8.")
MODEL_GARDEN = flags.DEFINE_boolean("model_garden", True, "Measure Model Garden's RetinaNet as well.")
TORCHVISION = flags.DEFINE_string("torchvision_python", None, "Python with torchvision, to measure it as well.")


class Case(NamedTuple):
    """A training and its target of seconds per step at 150."""

    name: str
    config: str
    batch_size: int
    precision: str
    wanted_seconds: float | None


SSD, RETINANET, FASTER_RCNN = "ssd_mobilenet_v2_300", "ssd_resnet50_v1_fpn_640", "faster_rcnn_resnet50_v1_fpn_640"
CASES = (
    Case("SSD MobileNet v2 300, batch 8", SSD, 8, "FLOAT32", 0.4),
    Case("SSD MobileNet v2 300, batch 8, bfloat16", SSD, 8, "BFLOAT16", None),
    Case("RetinaNet ResNet-50 640, batch 2", RETINANET, 2, "FLOAT32", 6.5),
    Case("RetinaNet ResNet-50 640, batch 2, bfloat16", RETINANET, 2, "BFLOAT16", None),
    Case("Faster R-CNN ResNet-50 FPN 640, batch 2", FASTER_RCNN, 2, "FLOAT32", None),
)


class Peer(NamedTuple):
    """A detector of another library, the case that it is compared with, and the wanted ratio of the case's time."""

    name: str
    case: str
    arguments: tuple[str, ...]
    wanted_ratio: float | None


GARDEN_PEERS = (
    Peer("Model Garden RetinaNet, batch 2", CASES[2].name, ("train", "float32", "2"), 0.8),
    Peer("Model Garden RetinaNet, batch 2, bfloat16", CASES[3].name, ("train", "bfloat16", "2"), None),
)
TORCHVISION_PEERS = (
    Peer("torchvision SSDLite 320, batch 8", CASES[0].name, ("ssdlite320_mobilenet_v3_large", "320", "8"), None),
    Peer("torchvision RetinaNet, batch 2", CASES[2].name, ("retinanet_resnet50_fpn", "640", "2"), None),
    Peer("torchvision Faster R-CNN, batch 2", CASES[4].name, ("fasterrcnn_resnet50_fpn", "640", "2"), 0.7),
)


def main(argv: list[str]) -> None:
    """Measures and prints the rows."""
    del argv
    logging.set_verbosity(logging.ERROR)
    tf.get_logger().setLevel("ERROR")
    if CONFIG.value is not None:
        case = Case(f"{CONFIG.value}, batch 8", CONFIG.value, 8, "FLOAT32", None)
        report([measure(case.name, functools.partial(detzoo_steps, case), None)], OUTPUT.value)
        return
    cases = [case for case in CASES if ONLY.value in case.config]
    rows: dict[str, Row] = {}
    for case in cases:
        rows[case.name] = measure(case.name, functools.partial(detzoo_steps, case), case.wanted_seconds)
    programs = [(sys.executable, "model_garden.py", GARDEN_PEERS)] if MODEL_GARDEN.value else []
    if TORCHVISION.value:
        programs.append((TORCHVISION.value, "torchvision_steps.py", TORCHVISION_PEERS))
    ratios = []
    for python, program, peers in programs:
        for peer in peers:
            if peer.case not in rows:
                continue
            row = measure(peer.name, functools.partial(steps_of_peer, python, program, peer), None)
            rows[peer.name] = row
            ratio = rows[peer.case].measured / row.measured
            wanted = f" (at most {peer.wanted_ratio} wanted)" if peer.wanted_ratio else ""
            ratios.append(f"{peer.case} takes {ratio:.2f} of {peer.name}{wanted}")
    report(list(rows.values()), OUTPUT.value)
    print(*ratios, sep="\n")


def measure(what: str, steps: Callable[[], list[float]], wanted: float | None) -> Row:
    """Returns the row of the median step time, measured between two yardsticks."""
    seconds, gflops = beside_yardstick(steps)
    return timed_row(what, float(np.median(seconds)), "s", gflops, wanted)


def detzoo_steps(case: Case) -> list[float]:
    """Returns the seconds of each training step of detzoo."""
    path = ROOT / "model_configs" / f"{case.config}.config"
    overrides = [
        f"train_config.batch_size={case.batch_size}",
        f"train_config.mixed_precision={case.precision}",
    ]
    pipeline = load_pipeline(str(path), overrides).message
    pipeline.model.CopyFrom(without_pretrained(pipeline.model))
    detector = getattr(pipeline.model, str(pipeline.model.WhichOneof("model")))
    batch = random_batch(case.batch_size, build_resizer(detector.image_resizer).static_shape)

    def make_dataset(start_record: int, context: Any) -> tf.data.Dataset:
        del start_record, context
        return tf.data.Dataset.from_tensors(batch).repeat()

    trainer = build_trainer(pipeline, create_strategy("one_device"), make_dataset)
    seconds = []
    for _ in range(STEPS.value + 2):
        started = time.perf_counter()
        trainer.run_steps(1)
        seconds.append(time.perf_counter() - started)
    return seconds[2:]


def random_batch(batch_size: int, image_shape: tuple[int | None, int | None]) -> Batch:
    """Returns a batch of noise with random boxes."""
    generator = np.random.default_rng(0)
    height, width = image_shape
    if height is None or width is None:
        raise ValueError("the config's image_resizer must have one size")
    corners = np.sort(generator.uniform(size=(batch_size, MAX_BOXES, 2, 2)), axis=2).astype(np.float32)
    is_object = np.arange(MAX_BOXES)[np.newaxis] < OBJECTS_PER_IMAGE
    is_object = np.repeat(is_object, batch_size, axis=0)
    none = np.zeros_like(is_object)
    groundtruth = Groundtruth(
        boxes_norm=tf.constant(corners.reshape(batch_size, MAX_BOXES, 4) * is_object[..., np.newaxis]),
        classes=tf.constant(np.where(is_object, generator.integers(0, 90, is_object.shape), -1), tf.int32),
        weights=tf.constant(is_object, tf.float32),
        is_crowd=tf.constant(none),
        is_difficult=tf.constant(none),
        area_px=tf.zeros(is_object.shape),
        masks=tf.zeros([*is_object.shape, 0, 0], tf.uint8),
    )
    return Batch(
        images=tf.constant(generator.uniform(0, 255, (batch_size, height, width, 3)), tf.float32),
        true_shapes=tf.constant([[height, width]] * batch_size),
        original_shapes=tf.constant([[height, width]] * batch_size),
        image_ids=tf.constant([str(number) for number in range(batch_size)]),
        record_index=tf.range(batch_size, dtype=tf.int64),
        groundtruth=groundtruth,
    )


def steps_of_peer(python: str, program: str, peer: Peer) -> list[float]:
    """Returns the seconds of each training step of another library, measured in a separate process."""
    command = [python, str(pathlib.Path(__file__).with_name(program)), *peer.arguments, str(STEPS.value)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


if __name__ == "__main__":
    app.run(main)
