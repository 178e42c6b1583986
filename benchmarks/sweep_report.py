"""Times `detzoo sweep report` for the 147 points of the paper's grid, with random numbers from a fixed seed.

    python benchmarks/sweep_report.py [--output_dir FOLDER] [--output results.csv] [--runs 1]

The rows are the start of the command (its help) and the report. Each runs in a separate process. Times are in seconds
of the wall clock and of the processor. The target is below 20 s for a report on two cores. --output_dir keeps the
files.
"""

from __future__ import annotations

import argparse
import csv
import pathlib
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

from detzoo.sweep.columns import NAMES

WANTED_SECONDS = 20.0
PROPOSALS = (10, 20, 50, 100, 300)
RESOLUTIONS = (300, 600)
# Extractor -> (billions of multiply-adds at 300 x 300 and stride 16, billions per proposal of the second stage,
# billions per second on the imaginary GPU, parameters in millions, MiB at 300, mAP at 600 with 300 proposals). The
# numbers are rough.
EXTRACTORS = {
    "vgg16": (31.0, 0.12, 3900.0, 138.0, 900.0, 0.26),
    "mobilenet_v1": (1.2, 0.003, 420.0, 6.1, 190.0, 0.19),
    "inception_v2": (3.9, 0.011, 620.0, 12.9, 300.0, 0.215),
    "resnet101": (16.0, 0.055, 2300.0, 62.0, 560.0, 0.315),
    "inception_v3": (9.8, 0.05, 900.0, 36.0, 480.0, 0.255),
    "inception_resnet_v2": (27.0, 0.35, 1500.0, 70.0, 920.0, 0.335),
}
# Only these two have stride 8. R-FCN and SSD lack some extractors, and three large SSDs of the paper had not converged.
# 80 + 60 + 7 points.
STRIDE_8 = ("resnet101", "inception_resnet_v2")
EXTRACTORS_OF = {
    "faster_rcnn": tuple(EXTRACTORS),
    "rfcn": ("mobilenet_v1", "inception_v2", "resnet101", "inception_resnet_v2"),
    "ssd": ("vgg16", "mobilenet_v1", "inception_v2", "resnet101", "inception_resnet_v2"),
}
NOT_CONVERGED = ("vgg16", "resnet101", "inception_resnet_v2")


def synthetic_rows(seed: int = 0, device: str = "GPU") -> list[dict[str, Any]]:
    """Returns the grid's 147 rows; missing values are None."""
    generator = random.Random(seed)
    return [_row(generator, device, *point) for point in grid()]


def grid() -> Iterator[tuple[str, str, int | None, int, int | None]]:
    """Yields (meta-architecture, extractor, output stride, resolution, proposals) of the paper's points."""
    for meta, extractors in EXTRACTORS_OF.items():
        for extractor in extractors:
            for resolution in RESOLUTIONS:
                if meta == "ssd":
                    if resolution == 300 or extractor not in NOT_CONVERGED:
                        yield meta, extractor, None, resolution, None
                    continue
                for stride in (16, 8) if extractor in STRIDE_8 else (16,):
                    for proposals in PROPOSALS:
                        yield meta, extractor, stride, resolution, proposals


def _row(
    generator: random.Random,
    device: str,
    meta: str,
    extractor: str,
    stride: int | None,
    resolution: int,
    boxes: int | None,
) -> dict[str, Any]:
    base, second, speed, millions, mib, best = EXTRACTORS[extractor]
    speed /= 1.0 if device == "GPU" else 25.0
    area = (resolution / 300) ** 2
    extractor_adds = base * area * (1.7 if stride == 8 else 1.0) * (0.75 if meta == "ssd" else 1.0)
    per_box = {"ssd": 0.0, "faster_rcnn": second, "rfcn": second / 60}[meta]
    second_adds = per_box * (boxes or 0) + (0.35 * extractor_adds if meta == "rfcn" else 0.0)
    stages = {
        "preprocess": 1.2 * area**0.5,
        "extractor": 1000 * extractor_adds / speed,
        "rest": 2.0 + 0.12 * 1000 * extractor_adds / speed,
        "second": 1000 * second_adds / speed + 1.5 if boxes else 0.0,
        "postprocess": 4.0 + 2.0 * generator.random(),
    }
    stages = {name: value * generator.uniform(0.95, 1.05) for name, value in stages.items()}
    total = sum(stages.values())
    accuracy = _accuracy(generator, meta, best, stride, resolution, boxes)
    name = "_".join(str(part) for part in (meta, extractor, resolution, stride, boxes) if part is not None)
    config = f"points/{name}/pipeline.config"
    adds = int(1e9 * (1.1 * extractor_adds + second_adds))
    row: dict[str, Any] = dict.fromkeys(NAMES)
    row.update(
        {
            "key": f"{generator.getrandbits(64):016x}",
            "name": name,
            "status": "ok",
            "meta_architecture": meta,
            "extractor": extractor,
            "output_stride": stride,
            "resolution": resolution,
            "proposals": boxes,
            "axes": "{}",
            "config": config,
            "checkpoint": f"checkpoints/{name}/ckpt-90",
            "command": f"detzoo benchmark --pipeline_config_path={config} --device={device.lower()}",
            "device": device,
            "precision": "float32",
            "jit_compile": False,
            "batch_size": 1,
            "latency.median_ms": total,
            "latency.p10_ms": 0.97 * total,
            "latency.p90_ms": 1.06 * total,
            "latency.mean_ms": 1.01 * total,
            "latency.num_runs": 500,
            "latency.repeat_difference": 0.02 * generator.random(),
            "images_per_second": 1000 / total,
            "first_run_seconds": 2 + total / 60,
            "stages.preprocess_ms": stages["preprocess"],
            "stages.network_ms": stages["extractor"] + stages["rest"] + stages["second"],
            "stages.extractor_ms": stages["extractor"],
            "stages.first_stage_ms": stages["extractor"] + stages["rest"] if boxes else None,
            "stages.second_stage_ms": stages["second"] if boxes else None,
            "stages.postprocess_ms": stages["postprocess"],
            "parameters": int(1e6 * millions * (0.6 if meta == "ssd" else 1.0)),
            "multiply_adds": adds,
            "multiply_adds_by_stage.extractor": int(1e9 * extractor_adds),
            "memory.total_mib": mib * area**0.8 * (1.5 if stride == 8 else 1.0) * generator.uniform(0.93, 1.07)
            + 0.9 * (boxes or 0),
            **accuracy,
            "num_eval_images": 8000,
            "metrics": f"points/{name}/metrics.json",
            "environment.cpu": "Intel(R) Xeon(R) CPU E5-1650 v2 @ 3.50GHz",
            "environment.gpus": "NVIDIA GeForce GTX TITAN X" if device == "GPU" else None,
            "environment.cores": 12,
            "environment.versions.tensorflow": "2.20.0",
            "environment.versions.detzoo": "0.5.0",
            "environment.commit": "0123456789abcdef",
            "yardstick_gflops": generator.uniform(148, 152),
            "load.before": 0.1,
            "load.during": 0.1,
            "load.is_quiet": True,
            "started": "2026-01-01T00:00:00Z",
            "seconds": 60 + 0.6 * total,
        }
    )
    row["memory.peak_mib"] = 0.55 * row["memory.total_mib"]
    row["memory.process_peak_mib"] = 900 + row["memory.peak_mib"]
    return row


def _accuracy(
    generator: random.Random, meta: str, best: float, stride: int | None, resolution: int, boxes: int | None
) -> dict[str, float]:
    value = best * {"ssd": 0.78, "faster_rcnn": 1.0, "rfcn": 0.97}[meta] * (1.05 if stride == 8 else 1.0)
    value *= 1.0 if resolution == 600 else 0.84
    value *= {None: 1.0, 10: 0.82, 20: 0.9, 50: 0.96, 100: 0.985, 300: 1.0}[boxes]
    value *= generator.uniform(0.985, 1.015)
    small = value * {"ssd": 0.16, "faster_rcnn": 0.38, "rfcn": 0.36}[meta] * (1.0 if resolution == 600 else 0.5)
    return {
        "mAP": value,
        "mAP@.50IOU": 1.5 * value + 0.04 * generator.uniform(0.9, 1.1),
        "mAP@.75IOU": 1.06 * value * generator.uniform(0.985, 1.015),
        "mAP (small)": small,
        "mAP (medium)": 1.1 * value * generator.uniform(0.97, 1.03),
        "mAP (large)": 1.65 * value * generator.uniform(0.96, 1.04),
        "AR@1": 0.9 * value,
        "AR@10": 1.25 * value,
        "AR@100": 1.35 * value,
    }


def write_rows(rows: Sequence[dict[str, Any]], path: pathlib.Path) -> None:
    """Writes results.csv as `detzoo sweep` does."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(NAMES), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: _cell(row[name]) for name in NAMES})


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else value


def main() -> None:
    """Measures and prints; exits with 1 if a report exceeds its target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", help="folder for results.csv and the report; a temporary one if missing")
    parser.add_argument("--output", help="CSV file to write the rows to")
    parser.add_argument("--runs", type=int, default=1, help="number of timed reports; the median counts")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(options.output_dir or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        points = synthetic_rows()
        write_rows(points, folder / "results.csv")
        start = [sys.executable, "-m", "detzoo", "sweep", "report"]
        rows = [("start", *_timed([*start, "--help"], 1))]
        rows.append((f"report of {len(points)} points", *_timed([*start, f"--output_dir={folder}"], options.runs)))
        size = (folder / "report.html").stat().st_size / 1e6
    print("what".ljust(24), "wall s".rjust(7), "processor s".rjust(12))
    for what, wall, processor in rows:
        print(what.ljust(24), f"{wall:7.2f}", f"{processor:12.2f}")
    print(f"report.html has {size:.1f} MB. The target is below {WANTED_SECONDS:.0f} s")
    if options.output:
        with open(options.output, "w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(["what", "wall_seconds", "processor_seconds"])
            writer.writerows((what, f"{wall:.3f}", f"{processor:.3f}") for what, wall, processor in rows)
    sys.exit(int(rows[-1][1] > WANTED_SECONDS))


def _timed(command: Sequence[str], runs: int) -> tuple[float, float]:
    """Returns the wall clock and processor seconds of the run with the median wall clock."""
    found = []
    for _ in range(runs):
        used, start = _children_seconds(), time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        found.append((time.perf_counter() - start, _children_seconds() - used))
    return sorted(found)[(len(found) - 1) // 2]


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
