"""Measures detection on a folder of many images: its speed next to that of the network alone, and its memory.

    python benchmarks/detect_folder.py --saved_model runs/my/export [--num_images 2000] [--size 640x480]

Draws JPEG files into a temporary folder, then measures, each in its turn: the network alone on images in memory; what
`detzoo detect --no_pictures` does with the folder; and reading the files by threads and by processes.

Reading the table: images per second, and milliseconds of all processors per image, best of three turns. The target of
"folder / network" is 0.9, in images per second on an idle machine; on a loaded machine only processor times can be
compared. Memory is resident, at a tenth of the last turn and at its end; growth is what each image adds.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import pathlib
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import psutil
from absl import app, flags
from PIL import Image

from detzoo.datasets.conversion import in_parallel
from detzoo.files.images import read_upright
from detzoo.tasks.detect import model_beside
from detzoo.tasks.detect_files import DetectionOutputs, detect_files
from detzoo.tasks.detect_images import DetectionLimits
from detzoo.tasks.models import load_exported, start_tensorflow, usual_batch_size

WANTED_RATIO = 0.9
NETWORK_IMAGES = 64  # held in memory for the network alone
TURNS = 3

SAVED_MODEL = flags.DEFINE_string("saved_model", None, "The exported model.", required=True)
NUM_IMAGES = flags.DEFINE_integer("num_images", 2000, "Images in the folder.", lower_bound=NETWORK_IMAGES)
SIZE = flags.DEFINE_string("size", "640x480", "Width and height of the images.")
MAX_BOXES = flags.DEFINE_integer("max_boxes", 10, "Detections per image.")


def main(argv: list[str]) -> None:
    """Prints the table. Exits with 1 if the folder is slower than the target."""
    del argv
    start_tensorflow()
    detector = load_exported(SAVED_MODEL.value)
    batch_size = usual_batch_size(model_beside(detector))
    with (
        tempfile.TemporaryDirectory() as name,
        concurrent.futures.ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool,
    ):
        folder = pathlib.Path(name)
        files, limits = draw(folder / "photos", NUM_IMAGES.value), DetectionLimits(max_boxes=MAX_BOXES.value)
        images, outputs = [read_upright(file) for file in files[:NETWORK_IMAGES]], DetectionOutputs(pictures=False)
        batches = [images[first : first + batch_size] for first in range(0, len(images), batch_size)]
        rounds = len(files) // len(images)
        memory: list[float] = []
        of_folder: list[float] = []

        def run_folder() -> None:
            memory.clear()
            detect_files(detector, files, {}, folder / "out", limits, batch_size=batch_size, outputs=outputs)
            of_folder[:] = memory

        work: dict[str, Callable[[], Any]] = {
            "network alone": lambda: through(detector.detect_all(each) for _ in range(rounds) for each in batches),
            "folder": run_folder,
            "read by threads": lambda: through(in_parallel(read, files)),
            "read by processes": lambda: through(pool.map(read, files, chunksize=16)),
        }
        through(pool.map(read, files[:8]))  # the processes have started
        detector.detect_all(batches[0])
        sampler = threading.Thread(target=sample, args=(memory, ended := threading.Event()))
        sampler.start()
        measured = [{name: measure(each, len(files)) for name, each in work.items()} for _ in range(TURNS)]
        ended.set()
        sampler.join()
    best = {name: (max(turn[name][0] for turn in measured), min(turn[name][1] for turn in measured)) for name in work}
    print(f"{len(files)} images of {SIZE.value} in batches of {batch_size}")
    for name, (speed, cost) in best.items():
        print(f"{name:20} {speed:8.1f} images/s {cost:8.2f} ms of processors per image")
    (network, network_cost), (folder_speed, folder_cost) = best["network alone"], best["folder"]
    print(f"{'folder / network':20} {folder_speed / network:8.2f} {network_cost / folder_cost:17.2f} in processor time")
    first, last = of_folder[len(of_folder) // 10], of_folder[-1]
    growth = 1024 * (last - first) / (0.9 * len(files))
    print(f"{'memory':20} {first:8.0f} MiB, at the end {last:.0f} MiB: {growth:.2f} KiB per image")
    if folder_speed < WANTED_RATIO * network:
        sys.exit("NOT REACHED: the folder should have 0.9 of the speed of the network")


def draw(folder: pathlib.Path, num_images: int) -> list[pathlib.Path]:
    """Writes JPEG files of smooth noise and returns their paths."""
    folder.mkdir()
    width, height = map(int, SIZE.value.split("x"))
    generator, files = np.random.default_rng(0), []
    for number in range(num_images):
        small = Image.fromarray(generator.integers(0, 256, (height // 16, width // 16, 3), np.uint8))
        files.append(folder / f"{number:06d}.jpg")
        small.resize((width, height), Image.Resampling.BICUBIC).save(files[-1], quality=90)
    return files


def measure(work: Callable[[], Any], num_images: int) -> tuple[float, float]:
    """Returns images per second, and milliseconds of this process's processors per image."""
    started, busy = time.perf_counter(), time.process_time()
    work()
    busy_ms = 1000 * (time.process_time() - busy)
    return num_images / (time.perf_counter() - started), busy_ms / num_images


def through(items: Iterable[Any]) -> int:
    """Runs through an iterator and returns its length."""
    return sum(1 for _ in items)


def read(file: pathlib.Path) -> int:
    """Decodes an image and returns its size: pixels would be copied between processes."""
    return read_upright(file).size


def sample(memory: list[float], ended: threading.Event) -> None:
    """Adds the resident memory in MiB, ten times per second, from the last start of the folder on."""
    while not ended.wait(0.1):
        memory.append(psutil.Process().memory_info().rss / 2**20)


if __name__ == "__main__":
    app.run(main)
