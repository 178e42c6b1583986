"""Trains detectors from scratch on the embedded data set, and compares minutes and accuracy with their targets.

    python benchmarks/shapes_accuracy.py [--only fpn] [--output_dir runs/shapes]

Draws the quickstart's 1500 training and 200 held-out images, then trains and evaluates each config of
model_configs/shapes_*.config with the commands that a user runs.

Reading the table: minutes are those of the whole `detzoo train`, including start and tracing, on an otherwise idle
machine; the limits are for two CPU cores. Accuracy is measured on the held-out images: AP@.50 of the boxes, and of the
masks if there are any. For segmentation proposals, which are class-agnostic, it is the recall of the masks, AR@100. A
second run into the same folder skips finished trainings, so its minutes are too low.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from absl import app, flags

ROOT = pathlib.Path(__file__).resolve().parents[1]
AP_50, MASK_AP_50, MASK_AR_100 = "mAP@.50IOU", "mask mAP@.50IOU", "mask AR@100"
WANTED = {AP_50: 0.80, MASK_AR_100: 0.50}
# Minutes on two cores.
LIMITS = {
    "shapes_faster_rcnn_mobilenet_v1": 8,
    "shapes_rfcn_mobilenet_v1": 10,
    "shapes_faster_rcnn_mobilenet_v1_fpn": 10,
    "shapes_mask_rcnn_mobilenet_v1_fpn": 10,
    "shapes_ssd_mobilenet_v1": 5,
    "shapes_centernet_mobilenet_v2": 10,
    "shapes_segmentation_proposals": 10,
}
TRAIN_IMAGES, HELDOUT_IMAGES, IMAGE_SIZE = 1500, 200, 160  # as in the quickstart

ONLY = flags.DEFINE_string("only", "", "Only configs whose name contains this.")
OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "Folder for the results; a temporary folder if missing.")
NUM_TRAIN_STEPS = flags.DEFINE_integer("num_train_steps", None, "Replaces the config's steps, to test the benchmark.")
NUM_IMAGES = flags.DEFINE_integer("num_images", TRAIN_IMAGES, "Training images.", lower_bound=16)


def main(argv: list[str]) -> None:
    """Runs the commands and prints the table."""
    del argv
    names = [name for name in LIMITS if ONLY.value in name]
    if not names:
        sys.exit(f"--only {ONLY.value}: no such config; there are {', '.join(LIMITS)}")
    if OUTPUT_DIR.value:
        measure(pathlib.Path(OUTPUT_DIR.value), names)
        return
    with tempfile.TemporaryDirectory() as folder:
        measure(pathlib.Path(folder), names)


def measure(out: pathlib.Path, names: list[str]) -> None:
    """Draws the images, then trains and evaluates each config."""
    draw(out / "data" / "train", NUM_IMAGES.value, seed=1)
    draw(out / "data" / "heldout", HELDOUT_IMAGES, seed=2)
    lines = []
    for name in names:
        minutes, metrics = train_and_evaluate(out, name)
        metric = next(name for name in WANTED if name in metrics)
        found, wanted = metrics[metric], WANTED[metric]
        mask = f"{metrics[MASK_AP_50]:.3f}" if MASK_AP_50 in metrics else ""
        reached = "ok" if found >= wanted and minutes <= LIMITS[name] else "NOT REACHED"
        times = f"{minutes:8.1f} {LIMITS[name]:6d}"
        accuracy = f"{metric:11} {found:6.3f} {wanted:7.2f} {mask:>11}"
        lines.append(f"{name:38} {times}  {accuracy}  {reached}")
    print("\n" + "config".ljust(38), " minutes  limit ", "accuracy".ljust(11), " found  wanted mask AP@.50")
    print("\n".join(lines))


def draw(prefix: pathlib.Path, num_images: int, seed: int) -> None:
    """Draws the embedded data set, unless it exists."""
    if list(prefix.parent.glob(f"{prefix.name}-*.tfrecord")):
        return
    run(
        "dataset",
        "shapes",
        "--output_path",
        prefix,
        "--num_images",
        num_images,
        "--image_size",
        IMAGE_SIZE,
        "--seed",
        seed,
    )


def train_and_evaluate(out: pathlib.Path, name: str) -> tuple[float, dict[str, float]]:
    """Returns the minutes of the training, and the metrics."""
    model, evaluation = out / name / "model", out / name / "evaluation"
    changes = {
        "train_input_reader.label_map_path": out / "data/label_map.pbtxt",
        "train_input_reader.tf_record_input_reader.input_path[0]": f"{out}/data/train-*.tfrecord",
        "eval_input_reader[0].label_map_path": out / "data/label_map.pbtxt",
        "eval_input_reader[0].tf_record_input_reader.input_path[0]": f"{out}/data/heldout-*.tfrecord",
    }
    overrides = [word for path, value in changes.items() for word in ("--set", f"{path}={value}")]
    if NUM_TRAIN_STEPS.value:
        overrides += ["--num_train_steps", str(NUM_TRAIN_STEPS.value)]
    started = time.perf_counter()
    config = ROOT / "model_configs" / f"{name}.config"
    run("train", "--pipeline_config_path", config, "--model_dir", model, *overrides)
    minutes = (time.perf_counter() - started) / 60
    trained = ("--pipeline_config_path", model / "pipeline.config", "--checkpoint_dir", model)
    run("evaluate", *trained, "--output_dir", evaluation)
    return minutes, json.loads((evaluation / "metrics.json").read_text())


def run(*command: object) -> None:
    """Runs a command as a user does; its output is printed."""
    subprocess.run([sys.executable, "-m", "detzoo", *map(str, command)], check=True)


if __name__ == "__main__":
    app.run(main)
