"""Trains a detector from scratch for some minutes on photographs with Pascal VOC annotations.

    python benchmarks/real_data.py --data_dir raccoon_dataset [--test_record raccoon_dataset/test.record]
        [--steps 300] [--detect_images photos] [--output_dir runs/real_data]

``data_dir`` holds ``images/`` and ``annotations/`` (VOC XML). An example is github.com/datitran/raccoon_dataset (MIT
licence, 200 photographs, one class). The program trains model_configs/custom_ssd_mobilenet_v2.config without pretrained
weights, evaluates on the record file if it is given and else on the training images, exports, detects and benchmarks.
Each step is the command that a user runs, and its output is printed.

Reading the table: loss is the mean of the first and of the last logged steps, and must fall. A few hundred steps from
scratch only teach the detector roughly where objects are, so AP@.50 is small. Users start from pretrained weights.
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
CONFIG = ROOT / "model_configs" / "custom_ssd_mobilenet_v2.config"
BATCH_SIZE = 8
LEARNING_RATE = 0.02  # for 8 images per step, from scratch

DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder with images/ and annotations/ (VOC XML).", required=True)
TEST_RECORD = flags.DEFINE_string("test_record", None, "TFRecord to evaluate on; the training images if missing.")
DETECT_IMAGES = flags.DEFINE_string("detect_images", None, "Images to detect on; those of data_dir if missing.")
STEPS = flags.DEFINE_integer("steps", 300, "Training steps.", lower_bound=20)
OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "Folder for the results; a temporary folder if missing.")


def main(argv: list[str]) -> None:
    """Runs the commands and prints the table."""
    del argv
    if OUTPUT_DIR.value:
        measure(pathlib.Path(OUTPUT_DIR.value))
        return
    with tempfile.TemporaryDirectory() as folder:
        measure(pathlib.Path(folder))


def measure(out: pathlib.Path) -> None:
    """Runs all steps in one folder, and times each."""
    data = pathlib.Path(DATA_DIR.value)
    images = DETECT_IMAGES.value or str(data / "images")
    voc = ("--images_dir", data / "images", "--annotations_dir", data / "annotations")
    trained = ("--pipeline_config_path", out / "model/pipeline.config")
    exported = ("--saved_model", out / "export")
    steps = {
        "convert": ("dataset", "voc", *voc, "--output_path", out / "data/train"),
        "train": ("train", "--pipeline_config_path", CONFIG, "--model_dir", out / "model", *changes(out)),
        "evaluate": ("evaluate", *trained, "--checkpoint_dir", out / "model", "--output_dir", out / "evaluation"),
        "export": ("export", *trained, "--trained_checkpoint_dir", out / "model", "--output_directory", out / "export"),
        "detect": ("detect", *exported, "--images", images, "--output_dir", out / "pictures", "--score_threshold", 0.3),
        "benchmark": ("benchmark", *exported, "--output", out / "benchmark.json"),
    }
    seconds = {}
    for name, command in steps.items():
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "detzoo", *map(str, command)], check=True)
        seconds[name] = time.perf_counter() - started
    report(out, seconds)


def changes(out: pathlib.Path) -> list[str]:
    """Returns the flags that set paths, random initial weights, and a schedule of the run's length."""
    rate = "train_config.optimizer.momentum_optimizer.learning_rate.cosine_decay_learning_rate"
    test = TEST_RECORD.value or f"{out}/data/train-?????-of-00001.tfrecord"
    values = {
        "model.ssd.feature_extractor.pretrained_weights": "",
        "train_config.batch_size": BATCH_SIZE,
        "train_config.num_steps": STEPS.value,
        "train_config.eval_every_n_steps": STEPS.value,
        "train_config.log_every_n_steps": 10,
        f"{rate}.learning_rate_base": LEARNING_RATE,
        f"{rate}.total_steps": STEPS.value,
        f"{rate}.warmup_learning_rate": LEARNING_RATE / 10,
        f"{rate}.warmup_steps": STEPS.value // 10,
        "train_input_reader.label_map_path": out / "data/label_map.pbtxt",
        "train_input_reader.tf_record_input_reader.input_path[0]": f"{out}/data/train-?????-of-00001.tfrecord",
        "eval_input_reader[0].label_map_path": out / "data/label_map.pbtxt",
        "eval_input_reader[0].tf_record_input_reader.input_path[0]": test,
    }
    return [word for path, value in values.items() for word in ("--set", f"{path}={value}")]


def report(out: pathlib.Path, seconds: dict[str, float]) -> None:
    """Prints the results."""
    losses = logged_losses(out / "model/train")
    edge = max(1, len(losses) // 10)
    first, last = sum(losses[:edge]) / edge, sum(losses[-edge:]) / edge
    metrics = json.loads((out / "evaluation/metrics.json").read_text())
    row = json.loads((out / "benchmark.json").read_text())
    print(f"\n{'':28} {'value':>10}")
    print(f"{'loss, first logged steps':28} {first:10.3f}")
    print(f"{'loss, last logged steps':28} {last:10.3f}  {'falls' if last < first else 'DOES NOT FALL'}")
    print(f"{'AP@.50':28} {metrics['mAP@.50IOU']:10.3f}")
    print(f"{'latency, median ms':28} {row['latency']['median_ms']:10.1f}  yardstick {row['yardstick_gflops']} GFLOP/s")
    for name, value in seconds.items():
        print(f"{'seconds of ' + name:28} {value:10.1f}")


def logged_losses(events: pathlib.Path) -> list[float]:
    """Returns the total loss at each logged step, in order."""
    import tensorflow as tf
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(events))
    accumulator.Reload()
    return [float(tf.make_ndarray(event.tensor_proto)) for event in accumulator.Tensors("Loss/total_loss")]


if __name__ == "__main__":
    app.run(main)
