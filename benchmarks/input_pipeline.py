"""Compares the images per second of the input pipeline with those that training consumes, in the same run.

    python benchmarks/input_pipeline.py [--images GLOB] [--output results.csv] [--notrain]

The rows are the pipeline of SSD MobileNet v2 300 (read, decode, augment as in the config, resize, batch), the same
without augmentation, and training steps of the same detector on one batch that stays in memory. The target for the
ratio of the first to the last is 5 or more. A matrix product before and after each row is the yardstick, so that rows
of different machines, or of a busy machine, can be compared.
"""

from __future__ import annotations

import csv
import glob
import io
import itertools
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from absl import app, flags
from PIL import Image, ImageFilter

from detzoo.builders.inputs import build_dataset
from detzoo.config.load import load_pipeline
from detzoo.contracts import Batch
from detzoo.train.session import build_trainer
from detzoo.train.strategy import create_strategy

WANTED_RATIO = 5.0
CONFIG = pathlib.Path(__file__).parents[1] / "model_configs" / "ssd_mobilenet_v2_300.config"
IMAGE_SIZE = (480, 640)  # of the generated images
NUM_GENERATED = 64
OBJECTS_PER_IMAGE = 7  # COCO's mean

IMAGES = flags.DEFINE_string("images", None, "Glob of JPEG files to use instead of generated 640 x 480 ones.")
CONFIG_PATH = flags.DEFINE_string("pipeline_config_path", str(CONFIG), "Config of augmentations, resizer and detector.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Images per batch of pipeline and training.", lower_bound=1)
SECONDS = flags.DEFINE_float("seconds", 10.0, "Seconds per measurement of a row.", lower_bound=0.1)
TRAIN = flags.DEFINE_boolean("train", True, "Measure training as well; without it there is no ratio.")
OUTPUT = flags.DEFINE_string("output", None, "CSV file to write the rows to.")


class Row(NamedTuple):
    """One line of the table. The last column is the rate for a machine with a yardstick of 150 GFLOP/s."""

    what: str
    images_per_second: float
    yardstick_gflops: float
    images_per_second_at_150: float


def main(argv: list[str]) -> None:
    """Measures and prints the rows; exits with 1 if the ratio is below its target."""
    del argv
    overrides = [f"train_config.batch_size={BATCH_SIZE.value}", "model.ssd.feature_extractor.pretrained_weights="]
    pipeline = load_pipeline(CONFIG_PATH.value, overrides).message
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "images.record"
        write_records(path)
        reader = pipeline.train_input_reader
        reader.ClearField("label_map_path")
        reader.tf_record_input_reader.input_path[:] = [str(path)]
        rows = [measure("input pipeline", lambda: batches(pipeline)), measure("same, not augmented", plain(pipeline))]
        if TRAIN.value:
            rows.append(measure("training", lambda: training(pipeline)))
    report(rows)


def measure(what: str, make: Callable[[], Iterator[Any]]) -> Row:
    """Measures the images per second of an iterator of batches, after a warm-up, and the yardstick around it."""
    from detzoo.benchmark.machine import beside_yardstick

    iterator = make()
    for _ in itertools.islice(iterator, 4):
        pass

    def images_per_second() -> float:
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < SECONDS.value:
            next(iterator)
            count += BATCH_SIZE.value
        return count / (time.perf_counter() - start)

    rate, gflops = beside_yardstick(images_per_second)
    return Row(what, rate, gflops, rate * 150.0 / gflops)


def batches(pipeline: Any) -> Iterator[Batch]:
    """Returns the training input of a config."""
    dataset = build_dataset(
        pipeline.train_input_reader,
        pipeline.model.ssd.image_resizer,
        pipeline.train_config,
        training=True,
        batch_size=pipeline.train_config.batch_size,
        seed=0,
    )
    return iter(dataset)


def plain(pipeline: Any) -> Callable[[], Iterator[Batch]]:
    """Returns a function that makes the training input without augmentations."""
    copy = type(pipeline)()
    copy.CopyFrom(pipeline)
    del copy.train_config.data_augmentation_options[:]
    return lambda: batches(copy)


def training(pipeline: Any) -> Iterator[None]:
    """Runs one training step per ``next``, on one batch that is repeated from memory."""
    batch = next(batches(pipeline))

    def make_dataset(start_record: int, context: tf.distribute.InputContext) -> tf.data.Dataset:
        del start_record, context
        return tf.data.Dataset.from_tensors(batch).repeat()

    trainer = build_trainer(pipeline, create_strategy("one_device"), make_dataset)
    while True:
        trainer.run_steps(1)
        yield


def write_records(path: pathlib.Path) -> None:
    """Writes the images with random boxes as records."""
    random = np.random.default_rng(0)
    if IMAGES.value:
        names = sorted(glob.glob(IMAGES.value))
        if not names:
            sys.exit(f"--images {IMAGES.value} matches no file")
        encoded = [pathlib.Path(name).read_bytes() for name in names]
    else:
        encoded = [generate_jpeg(random) for _ in range(NUM_GENERATED)]
    with tf.io.TFRecordWriter(str(path)) as writer:
        for image in encoded:
            corners = np.sort(random.uniform(size=(2, 2, OBJECTS_PER_IMAGE)), axis=0)
            message = tf.train.Example()
            features = message.features.feature
            features["image/encoded"].bytes_list.value.append(image)
            for index, name in enumerate(("ymin", "xmin", "ymax", "xmax")):
                features[f"image/object/bbox/{name}"].float_list.value.extend(corners[index // 2, index % 2])
            features["image/object/class/label"].int64_list.value.extend(range(1, OBJECTS_PER_IMAGE + 1))
            writer.write(message.SerializeToString())


def generate_jpeg(random: np.random.Generator) -> bytes:
    """Returns a blurred random texture with noise, with about as many bytes as a photograph of the same size."""
    height, width = IMAGE_SIZE
    coarse = Image.fromarray(random.integers(0, 255, (height // 16, width // 16, 3), np.uint8))
    smooth = coarse.resize((width, height), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(2))
    noisy = np.asarray(smooth, np.float32) + random.normal(0, 8, (height, width, 3))
    buffer = io.BytesIO()
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def report(rows: list[Row]) -> None:
    """Prints the table, writes the CSV file, and exits with 1 if the pipeline is too slow."""
    print(" " * 24 + "images/s".rjust(10) + "yardstick GFLOP/s".rjust(20) + "images/s at 150".rjust(18))
    for row in rows:
        scaled = f"{row.yardstick_gflops:20.0f}{row.images_per_second_at_150:18.1f}"
        print(f"{row.what:24}{row.images_per_second:10.1f}{scaled}")
    if OUTPUT.value:
        with open(OUTPUT.value, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(Row._fields)
            writer.writerows(rows)
    if TRAIN.value:
        ratio = rows[0].images_per_second_at_150 / rows[-1].images_per_second_at_150
        verdict = "ok" if ratio >= WANTED_RATIO else "too slow"
        print(f"pipeline / training = {ratio:.1f} (target: at least {WANTED_RATIO:g}), {verdict}")
        sys.exit(0 if ratio >= WANTED_RATIO else 1)


if __name__ == "__main__":
    app.run(main)
