"""Measures latency and memory of an exported model in LiteRT, ONNX Runtime or OpenVINO.

The rows have the fields of those of a SavedModel. Stages, multiply-adds and tensors belong to TensorFlow's graph, so
they are None here.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from detzoo.benchmark import images
from detzoo.benchmark.measures import COUNTED_STAGES, KINDS, BenchmarkOptions, Stages
from detzoo.benchmark.precision import Kernels
from detzoo.benchmark.process import ServingSettings, measure_process
from detzoo.benchmark.runner import PROCESS_CALLS, SLOW_MS, measure_whole, rounded
from detzoo.errors import UsageError
from detzoo.folders import read_record
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

    def first_run() -> float:
        started = time.perf_counter()
        detector.detect_all(next(upcoming))
        return time.perf_counter() - started

    whole = measure_whole(lambda: detector.detect_all(next(upcoming)), options, first_run)
    logger.info("measuring load time and memory in a fresh process")
    settings = ServingSettings(
        intra_op_threads=options.intra_op_threads, runtime=options.runtime, precision=options.precision
    )
    calls = PROCESS_CALLS if whole.latency.median_ms < SLOW_MS else 1
    process = measure_process(model, [np.stack(batches[0])], calls, settings=settings)
    costs = {
        "stages": dict.fromkeys(Stages._fields),
        "parameters": read_record(model.with_suffix(".json")).get("parameters"),
        "multiply_adds": None,
        "multiply_adds_by_kind": dict.fromkeys(sorted(set(KINDS.values()))),
        "multiply_adds_by_stage": dict.fromkeys(COUNTED_STAGES),
        "memory": {
            **dict.fromkeys(("total_mib", "peak_mib", "weights_mib")),
            "process_peak_mib": round(process.peak_mib, 4),
        },
        "process": rounded(process._asdict()),
        "kernels": {**dict.fromkeys(Kernels._fields), "compiled": None},
    }
    return whole.result(options, pool, costs)
