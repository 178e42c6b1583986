"""Makes a project from a folder of labels, trains its default model from scratch, and compares it with its targets.

    python benchmarks/new_project.py --data_dir raccoon_dataset --format voc [--seeds 2] [--output_dir runs/new_project]

An example of a folder is github.com/datitran/raccoon_dataset (MIT licence, 200 photographs, one class); its labels are
there in two formats, so --format names one. For each seed, which draws the held-out fifth and the initial weights, the
program runs `detzoo new`, `detzoo train` and `detzoo evaluate` as a user does. Their output is printed.

Reading the table: AP@.50 is that of the best checkpoint on the held-out images. Forty images are few, so it varies by
some hundredths from seed to seed. Minutes are those of the whole `detzoo train` with start, tracing and evaluations.
CPU minutes are the processor time of that process divided by two: the minutes on two cores that do nothing else. The
yardstick is the speed of a matrix product before and after. The target is an AP@.50 of 0.60 within 8 minutes.
"""

from __future__ import annotations

import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from absl import app, flags

from detzoo.benchmark.machine import measure_gflops

WANTED_AP_50, LIMIT_MINUTES, CORES = 0.60, 8, 2

DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder with images and labels.", required=True)
FORMAT = flags.DEFINE_string("format", None, "Format of the labels, if there are several.")
MODEL = flags.DEFINE_string("model", None, "Config to use instead of the default of `detzoo new`.")
SEEDS = flags.DEFINE_integer("seeds", 2, "Number of trainings, with the seeds 0, 1, ...", lower_bound=1)
NUM_TRAIN_STEPS = flags.DEFINE_integer("num_train_steps", None, "Replaces the project's steps, to test the benchmark.")
OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "Folder for the projects; a temporary folder if missing.")


def main(argv: list[str]) -> None:
    """Runs the commands and prints the table."""
    del argv
    if OUTPUT_DIR.value:
        measure(pathlib.Path(OUTPUT_DIR.value))
        return
    with tempfile.TemporaryDirectory() as folder:
        measure(pathlib.Path(folder))


def measure(out: pathlib.Path) -> None:
    """Trains one project for each seed."""
    rows = [measure_seed(out / f"seed_{seed}", seed) for seed in range(SEEDS.value)]
    print(f"\nseed  AP@.50    mAP  minutes  CPU minutes / {CORES}  yardstick")
    for seed, (ap_50, mean_ap, minutes, cpu_minutes, gflops) in enumerate(rows):
        reached = "ok" if ap_50 >= WANTED_AP_50 and cpu_minutes <= LIMIT_MINUTES else "NOT REACHED"
        print(f"{seed:4}  {ap_50:6.3f} {mean_ap:6.3f} {minutes:8.1f} {cpu_minutes:16.1f} {gflops:10.0f}  {reached}")


def measure_seed(project: pathlib.Path, seed: int) -> tuple[float, float, float, float, float]:
    """Returns AP@.50, mAP, the minutes of the training, its CPU minutes per core, and the yardstick in GFLOP/s."""
    flags_of_new = {"--format": FORMAT.value, "--model": MODEL.value}
    run(
        "new",
        project,
        "--data",
        DATA_DIR.value,
        "--seed",
        seed,
        *(w for pair in flags_of_new.items() for w in pair if pair[1]),
    )
    before, started, used = measure_gflops(), time.perf_counter(), cpu_seconds()
    steps = ("--num_train_steps", NUM_TRAIN_STEPS.value) if NUM_TRAIN_STEPS.value else ()
    run("train", project, "--set", f"train_config.seed={seed}", *steps)
    minutes, cpu_minutes = (time.perf_counter() - started) / 60, (cpu_seconds() - used) / 60 / CORES
    gflops = (before + measure_gflops()) / 2
    run("evaluate", project)
    metrics = json.loads((project / "evaluation/metrics.json").read_text())
    return metrics["mAP@.50IOU"], metrics["mAP"], minutes, cpu_minutes, gflops


def cpu_seconds() -> float:
    """Returns the processor time of all finished subprocesses."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def run(*command: object) -> None:
    """Runs a command as a user does; its output is printed."""
    subprocess.run([sys.executable, "-m", "detzoo", *map(str, command)], check=True)


if __name__ == "__main__":
    app.run(main)
