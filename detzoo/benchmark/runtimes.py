"""Measures latency and memory of an exported model in LiteRT, ONNX Runtime or OpenVINO.

The rows have the fields of those of a SavedModel. Stages, multiply-adds and tensors belong to TensorFlow's graph, so
they are None here.
"""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import json
import logging
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from detzoo.benchmark import images, latency
from detzoo.benchmark.machine import LoadMeter, beside_yardstick, describe_environment, judge, load_before, own_cores
from detzoo.benchmark.measures import COUNTED_STAGES, KINDS, BenchmarkOptions, Latency, Stages
from detzoo.benchmark.precision import Kernels
from detzoo.benchmark.process import ServingSettings, measure_process
from detzoo.benchmark.runner import PROCESS_CALLS, SLOW_MS, rounded, warn
from detzoo.errors import UsageError
from detzoo.serving.image_detector import ImageDetector
from detzoo.serving.runtimes import PRECISIONS

logger = logging.getLogger(__name__)


def check_options(options: BenchmarkOptions) -> None:
    """Checks that a runtime other than TensorFlow has what the options ask for.

    Raises:
        UsageError: It does not.
    """
    runtime, precisions = options.runtime, PRECISIONS[options.runtime]
    if options.device.upper() == "GPU":
        raise UsageError(f"the runtime {runtime} is measured on CPUs; use --device cpu")
    if options.precision not in precisions:
        raise UsageError(
            f"the runtime {runtime} has no precision {options.precision}; accepted: {', '.join(precisions)}"
        )
    if options.jit_compile:
        raise UsageError(f"--jit_compile is TensorFlow's; leave it out with the runtime {runtime}")


def benchmark_detector(
    detector: ImageDetector,
    model: pathlib.Path,
    options: BenchmarkOptions,
    batch_sizes: Sequence[int],
    name: str,
    pool: images.Pool,
) -> Iterator[dict[str, Any]]:
    """Measures a loaded model at one batch size after the other.

    Args:
        detector: The model, loaded in ``options.runtime``.
        model: Path of its file, for the measurement of a fresh process.
        options: Options of the measurement.
        batch_sizes: Images per call. LiteRT's models take one image; a call runs them one after the other.
        name: Name of the model in the result.
        pool: Images to send.

    Yields:
        JSON objects as ``runner.benchmark_batch_sizes`` yields them.
    """
    for batch_size in batch_sizes:
        yield {"model": name, **_measure(detector, model, dataclasses.replace(options, batch_size=batch_size), pool)}


def _measure(
    detector: ImageDetector, model: pathlib.Path, options: BenchmarkOptions, pool: images.Pool
) -> dict[str, Any]:
    count, size = len(pool.images), options.batch_size
    batches = [
        [pool.images[(start + offset) % count] for offset in range(size)] for start in range(0, max(count, 2), size)
    ]
    upcoming = itertools.cycle(batches)
    began = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    before, started = load_before(), time.perf_counter()
    detector.detect_all(next(upcoming))
    first_run_seconds = time.perf_counter() - started
    logger.info("measuring the yardstick, then %d runs of batch size %d", options.runs, size)
    during: list[float] = []

    def timed() -> Latency:
        meter = LoadMeter()
        found = latency.time_call(
            lambda: detector.detect_all(next(upcoming)), options.warmup, options.runs, options.min_seconds
        )
        during.append(meter.read())
        return found

    times, gflops = beside_yardstick(timed)
    load = judge(before, during[0], len(own_cores()))
    logger.info("measuring load time and memory in a fresh process")
    settings = ServingSettings(
        intra_op_threads=options.intra_op_threads, runtime=options.runtime, precision=options.precision
    )
    calls = PROCESS_CALLS if times.median_ms < SLOW_MS else 1
    process = measure_process(model, [np.stack(batches[0])], calls, settings=settings)
    warn(times, load)
    shape = pool.shapes[0] if len(pool.shapes) == 1 else (None, None)
    return {
        "started": began,
        "runtime": options.runtime,
        "device": "CPU",
        "precision": options.precision,
        "jit_compile": False,
        "batch_size": size,
        "image_height": shape[0],
        "image_width": shape[1],
        "images": pool.source,
        "num_images": count,
        "latency": rounded(times._asdict()),
        "images_per_second": round(1000.0 * size / times.median_ms, 3),
        "first_run_seconds": round(first_run_seconds, 3),
        "stages": dict.fromkeys(Stages._fields),
        "parameters": _parameters(model),
        "multiply_adds": None,
        "multiply_adds_by_kind": dict.fromkeys(sorted(set(KINDS.values()))),
        "multiply_adds_by_stage": dict.fromkeys(COUNTED_STAGES),
        "memory": {
            **dict.fromkeys(("total_mib", "peak_mib", "weights_mib")),
            "process_peak_mib": round(process.peak_mib, 4),
        },
        "process": rounded(process._asdict()),
        "kernels": {**dict.fromkeys(Kernels._fields), "compiled": None},
        "yardstick_gflops": round(gflops, 1),
        "load": load._asdict(),
        "environment": describe_environment(),
    }


def _parameters(model: pathlib.Path) -> int | None:
    """Returns the number in the record of the export, None without one."""
    try:
        return int(json.loads(model.with_suffix(".json").read_text(encoding="utf-8"))["parameters"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
