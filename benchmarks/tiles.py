"""Compares a detector on large images with the same detector on tiles of them.

    python benchmarks/tiles.py --output_dir runs/shapes [--num_mosaics 4]

Draws mosaics of the embedded data set: 3000 x 2000 pixels, in every second cell of 100 pixels one object of 12 to 60
pixels. Trains model_configs/shapes_ssd_mobilenet_v1.config as benchmarks/shapes_accuracy.py does, unless the folder
has the trained model. The detector is then measured with `detzoo evaluate`, at an input of 640 x 640 pixels.

Reading the table: "tile" is the side of the tiles in pixels, with --tile_overlap 0.2 (0.5 for the smallest); "whole"
is the detector without --tile, which gets the image shrunk to 640 x 640. The target is twice its mAP. Seconds are per
image.
"""

from __future__ import annotations

import io
import json
import os
import pathlib
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import shapes_accuracy as shapes
from absl import app, flags
from PIL import Image

from detzoo.datasets.annotations import AnnotatedImage, AnnotatedObject, Annotations, numbered
from detzoo.datasets.conversion import convert
from detzoo.datasets.shapes import CLASS_NAMES, background, draw_image

CELL_PX, SHAPE = 100, (2000, 3000)
MIN_SIDE_PX, MAX_SIDE_PX = 12, 60  # of objects
INPUT_PX = 640
TILES = (("", ""), ("640", "0.2"), ("400", "0.2"))
WANTED_RATIO = 2.0
CONFIG = "shapes_ssd_mobilenet_v1"

NUM_MOSAICS = flags.DEFINE_integer("num_mosaics", 4, "Images to measure on.", lower_bound=1)


def mosaic(seed: int, shape: tuple[int, int] = SHAPE) -> AnnotatedImage:
    """Draws one mosaic: a shape in every second cell, as on a chess board, and backgrounds between them."""
    height, width = shape
    canvas, objects = np.zeros([height, width, 3], np.uint8), []
    for number, (top, left) in enumerate(np.ndindex(height // CELL_PX, width // CELL_PX)):
        cell = draw_image(number, CELL_PX, seed, max_objects=1)
        y, x = top * CELL_PX, left * CELL_PX
        pixels = np.asarray(Image.open(io.BytesIO(cell.content)))
        sides = np.subtract(cell.objects[0].box[2:], cell.objects[0].box[:2])
        if (top + left) % 2 or not MIN_SIDE_PX <= sides.min() <= sides.max() <= MAX_SIDE_PX:
            canvas[y : y + CELL_PX, x : x + CELL_PX] = background(np.random.default_rng([seed, number]), CELL_PX)
            continue
        canvas[y : y + CELL_PX, x : x + CELL_PX] = pixels
        for item in cell.objects:
            box = tuple(side + offset for side, offset in zip(item.box, (y, x, y, x)))
            objects.append(AnnotatedObject(box, item.class_name, item.where))
    buffer = io.BytesIO()
    Image.fromarray(canvas).save(buffer, "JPEG", quality=95)
    name = f"mosaic_{seed}.jpg"
    return AnnotatedImage(pathlib.Path(name), name, name, tuple(objects), shape, content=buffer.getvalue())


def main(argv: list[str]) -> None:
    """Prints one row per size of tiles. Exits with 1 if no size reaches the target."""
    del argv
    if not shapes.OUTPUT_DIR.value:
        sys.exit("give --output_dir, where the detector is trained once")
    out = pathlib.Path(shapes.OUTPUT_DIR.value)
    model = out / CONFIG / "model"
    if not (model / "finished").is_file():
        shapes.measure(out, [CONFIG])
    images = [mosaic(1000 + number) for number in range(NUM_MOSAICS.value)]
    convert(Annotations(images, numbered(list(CLASS_NAMES))), str(out / "mosaics" / "val"), num_shards=1)
    print(f"\n{NUM_MOSAICS.value} mosaics with {sum(len(image.objects) for image in images)} objects")
    print(f"{'tile':>6} {'mAP':>7} {'AP@.50':>7} {'small':>7} {'medium':>7} {'ratio':>6} {'s/image':>8}")
    found = []
    for tile, overlap in TILES:
        started = time.perf_counter()
        metrics = evaluate(out, model, tile, overlap)
        seconds = (time.perf_counter() - started) / NUM_MOSAICS.value
        found.append(metrics["mAP"])
        shown = [metrics[name] for name in ("mAP", "mAP@.50IOU", "mAP (small)", "mAP (medium)")]
        numbers = " ".join(f"{value:7.3f}" for value in shown)
        print(f"{tile or 'whole':>6} {numbers} {found[-1] / max(found[0], 1e-3):6.1f} {seconds:8.1f}")
    if max(found[1:]) < WANTED_RATIO * found[0]:
        sys.exit("NOT REACHED: tiles should at least double the mAP")


def evaluate(out: pathlib.Path, model: pathlib.Path, tile: str, overlap: str) -> dict[str, float]:
    """Measures the trained detector on the mosaics, whole or in tiles, and returns the metrics."""
    evaluation = out / "mosaics" / f"evaluation_{tile or 'whole'}"
    reader = "eval_input_reader[0]"
    changes = {
        "model.ssd.image_resizer.fixed_shape_resizer.height": INPUT_PX,
        "model.ssd.image_resizer.fixed_shape_resizer.width": INPUT_PX,
        "model.ssd.post_processing.batch_non_max_suppression.max_detections_per_class": 100,
        "model.ssd.post_processing.batch_non_max_suppression.max_total_detections": 300,
        f"{reader}.max_number_of_boxes": 1000,
        f"{reader}.label_map_path": out / "mosaics" / "label_map.pbtxt",
        f"{reader}.tf_record_input_reader.input_path[0]": f"{out}/mosaics/val-*.tfrecord",
    }
    words = [word for path, value in changes.items() for word in ("--set", f"{path}={value}")]
    words += ["--tile", tile, "--tile_overlap", overlap] if tile else []
    paths = ("--pipeline_config_path", model / "pipeline.config", "--checkpoint_dir", model)
    shapes.run("evaluate", *paths, "--output_dir", evaluation, *words)
    return json.loads((evaluation / "metrics.json").read_text())


if __name__ == "__main__":
    app.run(main)
