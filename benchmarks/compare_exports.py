"""Measures an export of detzoo next to another program's SavedModel with the same weights and interface.

    python benchmarks/compare_exports.py --ours runs/my/export/saved_model --theirs original/saved_model

Both detect on the same image in turn, so that a busy moment of the machine affects both. The ratio
of CPU times (of all threads) hardly depends on what else runs; that of the times on the clock needs a quiet machine.
CenterNet and the Object Detection API: the aim is at most 0.6.
"""

from __future__ import annotations

import os
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from absl import app, flags

from detzoo.serving.saved_detector import SavedDetector
from detzoo.tasks.models import start_tensorflow

OURS = flags.DEFINE_string("ours", None, "SavedModel of detzoo.", required=True)
THEIRS = flags.DEFINE_string("theirs", None, "SavedModel of the other program.", required=True)
RUNS = flags.DEFINE_integer("runs", 20, "Timed calls of each.", lower_bound=1)
SIZE = flags.DEFINE_list("size", ["480", "640"], "Height and width of the image in pixels.")


def main(argv: list[str]) -> None:
    """Measures and prints the rows."""
    del argv
    start_tensorflow()
    detectors = [SavedDetector(path) for path in (OURS.value, THEIRS.value)]
    image = np.random.default_rng(0).integers(0, 256, (*map(int, SIZE.value), 3), np.uint8)
    found = [detector(image) for detector in detectors]  # the first call is slow
    print(f"scores differ by {np.abs(found[0].scores - found[1].scores).max():.1e} at most")
    seconds = np.array([[timed(detector, image) for detector in detectors] for _ in range(RUNS.value)])
    medians = 1000.0 * np.median(seconds, axis=0)  # milliseconds [2 detectors, CPU and clock]
    for column, what in enumerate(("CPU time", "time on the clock")):
        ours, theirs = medians[:, column]
        print(f"{what}: detzoo {ours:.1f} ms, other {theirs:.1f} ms, ratio {ours / theirs:.2f}")


def timed(detector: Any, image: np.ndarray) -> tuple[float, float]:
    """Returns the CPU time of all threads and the time on the clock of a call, in seconds."""
    cpu, clock = time.process_time(), time.monotonic()
    detector(image)
    return time.process_time() - cpu, time.monotonic() - clock


if __name__ == "__main__":
    app.run(main)
