"""Measures what grows with a data set, an evaluation or a sweep, at three sizes.

    python benchmarks/scale.py [--scale 1] [--only import,report] [--output scale.csv]

Times are processor seconds of this process, so that other work on the machine matters little. The exponent is the slope
between the two larger sizes in logarithms: 1 is linear, and a fixed cost makes it smaller. The exit code is 1 if one is
above 1.2. docs/scale.md extrapolates these numbers. ``--scale 4`` takes sizes four times as large.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from sweep_report import synthetic_rows, write_rows

from detzoo.files.images import encode_image
from detzoo.files.issues import IssueLog

MAX_EXPONENT = 1.2
OBJECTS_PER_IMAGE = 7  # COCO's
ROOT = pathlib.Path(__file__).resolve().parents[1]

Part = Callable[[pathlib.Path, int], Callable[[], Any]]


def coco_file(folder: pathlib.Path, num_images: int, encoded: bytes = b"") -> tuple[str, str]:
    """Writes an annotation file like COCO's, with polygons, and its images. Returns the folder and the file."""
    generator = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for number in range(num_images):
        name = f"{number:012d}.jpg"
        (folder / "images" / name).write_bytes(encoded)
        images.append({"id": number, "file_name": name, "height": 120, "width": 160})
        for _ in range(OBJECTS_PER_IMAGE):
            x, y = generator.uniform(0, 80, 2).round(2).tolist()
            outline = generator.uniform(0, 120, 40).round(2).tolist()
            annotation = {"bbox": [x, y, 40.5, 30.25], "segmentation": [outline], "area": 900.5, "iscrowd": 0}
            annotations.append({"id": len(annotations), "image_id": number, "category_id": 1, **annotation})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    (folder / "notes.json").write_text(json.dumps(content))
    return str(folder / "images"), str(folder / "notes.json")


def read_annotations(folder: pathlib.Path, size: int) -> Callable[[], Any]:
    """Reads a COCO file."""
    from detzoo.datasets.import_coco import read_coco

    paths = coco_file(folder, size)
    return lambda: read_coco(*paths, IssueLog())


def import_images(folder: pathlib.Path, size: int) -> Callable[[], Any]:
    """Reads, repairs and writes images of 160 x 120 pixels."""
    from detzoo.datasets.conversion import convert
    from detzoo.datasets.import_coco import read_coco

    pixels = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    paths = coco_file(folder, size, encode_image(pixels, lossy=True))
    return lambda: convert(read_coco(*paths, IssueLog()), str(folder / "out" / "train"), num_shards=4)


def _records(folder: pathlib.Path, size: int) -> str:
    import_images(folder, size)()
    return str(folder / "out" / "train-*")


def inspect(folder: pathlib.Path, size: int) -> Callable[[], Any]:
    """Reads and reports on records."""
    from detzoo.datasets.inspect import inspect_records

    pattern = _records(folder, size)
    return lambda: inspect_records(pattern, None, folder, 4)


def _first_record(folder: pathlib.Path, size: int, epochs: float) -> Callable[[], Any]:
    from detzoo.builders.inputs import build_source
    from detzoo.config import pb

    reader = pb.InputReader()
    reader.tf_record_input_reader.input_path.append(_records(folder, size))
    return lambda: next(iter(build_source(reader).stream(start=int(epochs * size))))


def start_of_training(folder: pathlib.Path, size: int) -> Callable[[], Any]:
    """Finds the records and reads the first one in shuffled order."""
    return _first_record(folder, size, 0.0)


def resume(folder: pathlib.Path, size: int) -> Callable[[], Any]:
    """Continues in the middle of the fourth epoch."""
    return _first_record(folder, size, 3.5)


def _evaluation(size: int, num_classes: int, num_found: int) -> tuple[list[Any], dict[int, str]]:
    from detzoo.evaluate.images import EvaluatedImage

    generator = np.random.default_rng(0)
    images = []
    for number in range(size):
        corners = generator.uniform(0, 400, (OBJECTS_PER_IMAGE, 2))
        gt = np.concatenate([corners, corners + generator.uniform(20, 200, corners.shape)], 1).astype(np.float32)
        classes = generator.integers(0, num_classes, OBJECTS_PER_IMAGE)
        rows = generator.integers(0, OBJECTS_PER_IMAGE, num_found)
        found = gt[rows] + generator.normal(0, 8, (num_found, 4)).astype(np.float32)
        own = np.where(generator.uniform(size=num_found) < 0.5, classes[rows], generator.integers(0, num_classes))
        none = np.zeros(OBJECTS_PER_IMAGE, bool)
        area = np.prod(gt[:, 2:] - gt[:, :2], axis=1)
        scores = generator.uniform(0, 1, num_found).astype(np.float32)
        images.append(EvaluatedImage(str(number), (640, 640), gt, classes, none, none, area, found, scores, own))
    return images, {number + 1: f"class {number}" for number in range(num_classes)}


def evaluate_coco_metrics(folder: pathlib.Path, size: int) -> Callable[[], Any]:
    """COCO's metrics of 80 classes, 100 detections per image."""
    from detzoo.evaluate.coco import evaluate_coco

    images, names = _evaluation(size, 80, 100)
    return lambda: evaluate_coco(images, names)


def evaluate_open_images_metrics(folder: pathlib.Path, size: int) -> Callable[[], Any]:
    """Open Images' metrics of 600 classes, 200 detections per image."""
    from detzoo.evaluate.open_images import evaluate_open_images

    images, names = _evaluation(size, 600, 200)
    return lambda: evaluate_open_images(images, names, challenge=True)


def detect(folder: pathlib.Path, size: int) -> Callable[[], Any]:
    """Reads images and lists 20 detections of each, without the time of a model."""
    from detzoo.serving.image_detector import ImageDetections, ImageDetector
    from detzoo.tasks.detect_files import DetectionOutputs, detect_files
    from detzoo.tasks.detect_images import DetectionLimits

    class Fixed(ImageDetector):
        def __call__(self, image: np.ndarray, *proposals_norm: Any) -> ImageDetections:
            boxes = np.tile(np.array([[0.1, 0.2, 0.5, 0.6]], np.float32), (20, 1))
            return ImageDetections(boxes, np.full(20, 0.9, np.float32), np.ones(20, np.int64))

    pixels = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    (folder / "images").mkdir(parents=True)
    paths = [folder / "images" / f"{number}.jpg" for number in range(size)]
    for path in paths:
        path.write_bytes(encode_image(pixels, lossy=True))
    outputs = DetectionOutputs(pictures=False)
    return lambda: detect_files(Fixed(), paths, {1: "thing"}, folder / "out", DetectionLimits(), outputs=outputs)


def plan_sweep(folder: pathlib.Path, size: int) -> Callable[[], Any]:
    """Plans and checks a sweep of so many points."""
    from detzoo.sweep.plan.sweep_plan import load_plan

    folder.mkdir(parents=True)
    values = list(range(10, 10 + size // 2))
    text = f'base {{ config: "{ROOT}/model_configs/faster_rcnn_resnet101_600.config" }}\n'
    text += f"axis {{ resolution {{ values: [300, 600] }} }}\naxis {{ proposals {{ values: {values} }} }}\n"
    (folder / "my.sweep").write_text(text)
    return lambda: load_plan(str(folder / "my.sweep"))


def report_sweep(folder: pathlib.Path, size: int) -> Callable[[], Any]:
    """Writes the report of so many rows."""
    from detzoo.sweep.report.page import write_report
    from detzoo.sweep.results import read_results

    folder.mkdir(parents=True)
    rows = [
        row | {"key": f"{row['key']}-{seed}", "name": f"{row['name']}-{seed}"}
        for seed in range(14)
        for row in synthetic_rows(seed)
    ]
    write_rows(rows[:size], folder / "results.csv")
    return lambda: write_report(read_results(folder / "results.csv"), folder / "results.csv", folder)


# Part -> its function, and the smallest of its sizes: each further one is four times as large.
PARTS: dict[str, tuple[Part, int]] = {
    "annotations": (read_annotations, 1000),
    "import": (import_images, 100),
    "inspect": (inspect, 100),
    "start of training": (start_of_training, 100),
    "resume": (resume, 100),
    "evaluate, COCO": (evaluate_coco_metrics, 50),
    "evaluate, Open Images": (evaluate_open_images_metrics, 250),
    "detect": (detect, 100),
    "sweep": (plan_sweep, 64),
    "report": (report_sweep, 125),
}


def main(argv: list[str]) -> int:
    """Measures and prints; returns 1 if a part grows faster than linearly."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="factor of all sizes")
    parser.add_argument("--only", default="", help=f"parts, separated by commas: {', '.join(PARTS)}")
    parser.add_argument("--output", help="CSV file to write the rows to")
    options = parser.parse_args(argv[1:])
    chosen = [
        name for name in PARTS if not options.only or any(name.startswith(word) for word in options.only.split(","))
    ]
    rows: list[tuple[str, int, float, float]] = []
    print(f"{'what':<24}{'size':>8}{'CPU s':>10}{'ms each':>10}", flush=True)
    worst = 0.0
    for name in chosen:
        part, smallest = PARTS[name]
        times = []
        for factor in (1, 4, 16):
            size = max(2, int(smallest * factor * options.scale))
            with tempfile.TemporaryDirectory() as folder:
                work = part(pathlib.Path(folder) / "work", size)
                started = time.process_time()
                work()
                times.append(time.process_time() - started)
            rows.append((name, size, times[-1], 1000 * times[-1] / size))
            print(f"{name:<24}{size:>8}{times[-1]:>10.2f}{1000 * times[-1] / size:>10.3f}", flush=True)
        exponent = math.log(max(times[2], 1e-3) / max(times[1], 1e-3)) / math.log(4)
        worst = max(worst, exponent)
        print(f"{name:<24}exponent {exponent:.2f}", flush=True)
    if options.output:
        with open(options.output, "w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(["what", "size", "processor_seconds", "milliseconds_each"])
            writer.writerows(rows)
    return int(worst > MAX_EXPONENT)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
