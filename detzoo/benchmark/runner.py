"""Measures latency, stages, parameters, multiply-adds and memory of a SavedModel."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import itertools
import logging
import math
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from detzoo.benchmark import images, latency, memory, multiply_adds, precision, stages
from detzoo.benchmark.machine import (
    Load,
    LoadMeter,
    beside_yardstick,
    describe_environment,
    judge,
    load_before,
    own_cores,
)
from detzoo.benchmark.measures import KINDS, MAX_DIFFERENCE, BenchmarkOptions, Latency, Stages
from detzoo.benchmark.process import ProcessCosts, ServingSettings, measure_process
from detzoo.errors import DetzooError
from detzoo.folders import EXPORT_RECORD, read_record
from detzoo.serving.frozen import FrozenGraph, node_of, quiet_conversion, to_constants
from detzoo.serving.given_regions import inputs_of
from detzoo.serving.runtimes import TENSORFLOW
from detzoo.serving.saved_detector import SavedDetector

USUAL_SHAPE = (480, 640)  # default (height, width) of random images
MAX_STAGE_SECONDS = 20.0  # the parts of a slow detector are timed in fewer runs than the whole
MIN_STAGE_RUNS = 3
PROCESS_CALLS = 5  # after the first in the fresh process; a slow detector reaches its peak with one more
SLOW_MS = 500.0

logger = logging.getLogger(__name__)


def benchmark_batch_sizes(
    saved_model: str | pathlib.Path,
    options: BenchmarkOptions,
    batch_sizes: Sequence[int] = (),
    name: str = "",
    pool: images.Pool | None = None,
) -> Iterator[dict[str, Any]]:
    """Loads a SavedModel once and measures it at one batch size after the other; () for ``options.batch_size`` alone.

    Yields:
        JSON objects with numbers, ``latency``, ``stages`` (None for a model that does not name its stages),
        ``memory``, ``process``, ``load`` and ``environment``. Numbers that could not be measured are None.

    Raises:
        UsageError: There is no such SavedModel or image, or options exclude each other.
        DataError: An image cannot be read.
        DetzooError: No kernel ran in the precision, or XLA cannot compile any part.
    """
    batch_sizes = batch_sizes or [options.batch_size]
    precision.check_precision(options.precision, options.device, options.jit_compile)
    pool = pool or images_for(options, max(batch_sizes))
    with precision.in_precision(options.precision, options.device):
        detector = SavedDetector(saved_model, needs_boxes=False)
        served = _Served(detector, options)
        for batch_size in batch_sizes:
            chosen = dataclasses.replace(options, batch_size=batch_size)
            yield {"model": name or str(saved_model), **_measure(served, chosen, pool)}


def images_for(options: BenchmarkOptions, batch_size: int) -> images.Pool:
    """Reads and checks the images to send.

    Raises:
        UsageError: There are none, or their sizes do not go together.
        DataError: None of them can be read.
    """
    if not options.images:
        return images.random_images(options.image_shape or USUAL_SHAPE)
    pool = images.read_images(options.images, options.image_shape, options.runs * batch_size)
    images.check_pool(pool, batch_size, needs_one_shape=options.jit_compile)
    return pool


class _Served:
    """A loaded detector, its graph and its parts, which are made at their first use."""

    def __init__(self, detector: SavedDetector, options: BenchmarkOptions) -> None:
        self.detector = detector
        self.kernels: precision.Kernels | None = None  # of the graph that ran; set in low precision
        self._jit_compile = options.jit_compile

    @functools.cached_property
    def frozen(self) -> FrozenGraph:
        """The served graph, with constants."""
        return to_constants(self.detector.function)

    @functools.cached_property
    def chain(self) -> stages.Chain:
        """The parts of the graph."""
        return stages.Chain(self.frozen, self._jit_compile)

    def call(self, given: Any) -> dict[str, Any]:
        """Returns all outputs."""
        return self.chain(given) if self._jit_compile else self.detector.outputs(given)

    @property
    def copied_bytes(self) -> int:
        """Bytes of the copies of weights that exist only for the measurement."""
        copies = self.chain.weights.values() if "chain" in self.__dict__ else ()
        return sum(memory.num_bytes(weights.shape, weights.dtype) for weights in copies)


def _measure(served: _Served, options: BenchmarkOptions, pool: images.Pool) -> dict[str, Any]:
    inputs = images.batches(served.detector, pool, options.batch_size, options.num_proposals)
    if served.detector.wants_proposals:
        logger.info("each image comes with %d random regions (--num_proposals)", options.num_proposals)
    upcoming, has_gpu = itertools.cycle(inputs), options.device == "GPU"

    def first_run() -> float:
        seconds = _first_run(served, options, next(upcoming))
        for given in inputs if len(pool.shapes) > 1 else ():  # kernels prepare for each size
            latency.fetch(served.call(given))
        return seconds

    whole = measure_whole(
        lambda: served.call(next(upcoming)),
        options,
        first_run,
        memory.reset_allocator if has_gpu else lambda: None,  # to what is held now
    )
    times = whole.latency
    allocated = memory.allocator_peak_mib() - memory.mib(served.copied_bytes) if has_gpu else None
    with quiet_conversion():  # graph optimizers write messages from C++
        latency.fetch(served.chain(next(upcoming)))
        counts, by_stage = _count(served, pool, options.num_proposals)
    stage_runs = _stage_runs(options.runs, times.median_ms)
    stage_warmup = max(math.ceil(stage_runs / 5), len(inputs) if len(pool.shapes) > 1 else 1)
    times_of_stages = stages.time_stages(
        served.chain, lambda: next(upcoming), stage_warmup, stage_runs, times.median_ms
    )
    logger.info("measuring the memory of one call, then load time and memory in a fresh process")
    process = _measure_process(served, options, inputs[0], times.median_ms)
    costs = {
        "stages": rounded(times_of_stages._asdict() if times_of_stages else dict.fromkeys(Stages._fields)),
        "parameters": _parameters(served.detector.folder, served.frozen),
        "multiply_adds": sum(counts.values()),
        "multiply_adds_by_kind": {kind: counts.get(kind, 0) for kind in sorted(set(KINDS.values()))},
        "multiply_adds_by_stage": by_stage,
        "memory": _memory(served, options, inputs[0], allocated, process),
        "process": rounded(process._asdict() if process else dict.fromkeys(ProcessCosts._fields)),
        "kernels": {
            **(served.kernels._asdict() if served.kernels else dict.fromkeys(precision.Kernels._fields)),
            "compiled": " ".join(served.chain.compiled) if options.jit_compile else None,
        },
    }
    return whole.result(options, pool, costs)


class Whole(NamedTuple):
    """Measurement of whole calls."""

    started: str  # UTC, ISO 8601
    first_run_seconds: float
    latency: Latency
    gflops: float  # yardstick of that time
    load: Load

    def result(self, options: BenchmarkOptions, pool: images.Pool, costs: dict[str, Any]) -> dict[str, Any]:
        """Returns the JSON object of a result: these numbers, and the ``costs`` by their keys."""
        height, width = pool.shapes[0] if len(pool.shapes) == 1 else (None, None)
        return {
            "started": self.started,
            "runtime": options.runtime or TENSORFLOW,
            "device": options.device,
            "precision": options.precision,
            "jit_compile": options.jit_compile,
            "batch_size": options.batch_size,
            "image_height": height,
            "image_width": width,
            "images": pool.source,
            "num_images": len(pool.images),
            "latency": rounded(self.latency._asdict()),
            "images_per_second": round(1000.0 * options.batch_size / self.latency.median_ms, 3),
            "first_run_seconds": round(self.first_run_seconds, 3),
            **costs,
            "yardstick_gflops": round(self.gflops, 1),
            "load": self.load._asdict(),
            "environment": describe_environment(),
        }


def measure_whole(
    call: Callable[[], Any],
    options: BenchmarkOptions,
    first_run: Callable[[], float],
    before_timing: Callable[[], None] = lambda: None,
) -> Whole:
    """Measures a call; logs a warning if times are too long or do not repeat.

    Args:
        call: The call, each time with other images.
        options: Numbers of calls.
        first_run: Makes the first call, and returns its seconds.
        before_timing: Called between the yardstick and the timed calls.
    """
    started = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    before, first_run_seconds = load_before(), first_run()
    logger.info("measuring the yardstick, then %d runs of batch size %d", options.runs, options.batch_size)
    during: list[float] = []

    def timed() -> Latency:
        before_timing()
        meter = LoadMeter()
        found = latency.time_call(call, options.warmup, options.runs, options.min_seconds)
        during.append(meter.read())
        return found

    times, gflops = beside_yardstick(timed)
    load = judge(before, during[0], len(own_cores()))
    if not load.is_quiet:
        text = "other programs used %.2f cores before and %.2f during the runs, so the times are too long"
        logger.warning(text, load.before, load.during)
    difference = times.repeat_difference or 0.0
    if difference > MAX_DIFFERENCE:
        text = "the medians of both halves of the runs differ by %.1f %%: use more --runs or a quieter machine"
        logger.warning(text, 100 * difference)
    return Whole(started, first_run_seconds, times, gflops, load)


def _first_run(served: _Served, options: BenchmarkOptions, given: Any) -> float:
    """Returns the seconds of the first call at this batch size."""
    found: list[float] = []

    def timed() -> None:
        started = time.perf_counter()
        latency.fetch(served.call(given))
        found.append(time.perf_counter() - started)

    if options.precision != precision.FLOAT32 and served.kernels is None:
        served.kernels = precision.kernels_of(timed, options.precision)
        precision.check_kernels(served.kernels, options.precision, options.device)
        total, lowered = served.kernels
        logger.info("%d of %d convolutions and matrix products run in %s", lowered, total, options.precision)
    else:
        timed()
    if options.jit_compile:
        if not served.chain.compiled:
            raise DetzooError(f"--jit_compile: XLA compiles no part of this model: {served.chain.refusal}")
        logger.info("XLA compiled: %s", ", ".join(served.chain.compiled))
    return found[0]


def _stage_runs(runs: int, median_ms: float) -> int:
    affordable = int(1000.0 * MAX_STAGE_SECONDS / max(median_ms, 1e-3))
    return max(MIN_STAGE_RUNS, min(math.ceil(runs / 2), affordable))


def _count(served: _Served, pool: images.Pool, num_proposals: int) -> tuple[dict[str, int], dict[str, int | None]]:
    """Returns multiply-adds of a typical image, by kind and by stage."""
    typical = pool._replace(images=[pool.typical])
    [given] = images.batches(served.detector, typical, 1, num_proposals)
    chain = served.chain
    light = chain.light
    operations = multiply_adds.count_operations(light.graph_def, light.input_names, _arrays(given), chain.weights)
    by_part: dict[str, int] = dict.fromkeys((part.name for part in chain.parts), 0)
    owner = {node.name: part.name for part in chain.parts for node in part.nodes}  # constants are in several parts
    for name, operation in operations.items():
        if name in owner:
            by_part[owner[name]] += operation.multiply_adds
    return multiply_adds.by_kind(operations), stages.multiply_adds_of(by_part)


def _measure_process(served: _Served, options: BenchmarkOptions, given: Any, median_ms: float) -> ProcessCosts | None:
    """Returns the costs of a fresh process; None with XLA, which that process does not use."""
    if options.jit_compile:
        return None
    settings = ServingSettings(
        precision.OPTIMIZERS.get((options.precision, options.device), ""),
        options.device == "CPU",
        options.intra_op_threads,
        options.inter_op_threads,
    )
    calls = PROCESS_CALLS if median_ms < SLOW_MS else 1
    return measure_process(served.detector.folder, _arrays(given), calls, settings=settings)


def _arrays(given: Any) -> tuple[np.ndarray, ...]:
    return tuple(value.numpy() for value in inputs_of(given))


def _memory(
    served: _Served, options: BenchmarkOptions, given: Any, allocated_mib: float | None, process: ProcessCosts | None
) -> dict[str, float | None]:
    """Returns memory in MiB. With XLA, whose programs allocate one block for all tensors, only the peak on a GPU."""
    found: dict[str, float | None] = {"total_mib": None, "peak_mib": allocated_mib, "weights_mib": None}
    if not options.jit_compile:
        tensors = memory.measure_tensors(served.detector.folder, _arrays(given), options.precision, options.device)
        found["total_mib"], found["weights_mib"] = memory.mib(tensors.total), memory.mib(tensors.weights)
        if allocated_mib is None:
            found["peak_mib"] = memory.mib(tensors.peak)
    return rounded({**found, "process_peak_mib": process.peak_mib if process else None})


def rounded(values: dict[str, Any]) -> dict[str, Any]:
    """Returns the values with four decimals."""
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in values.items()}


def _parameters(folder: pathlib.Path, frozen: FrozenGraph) -> int:
    """Returns the export's count of parameters, or else that of the served weights, with folded normalisation."""
    if parameters := read_record(folder.parent / EXPORT_RECORD).get("parameters"):
        return int(parameters)
    # The numbers in constants that convolutions, matrix products, biases and normalisations read.
    nodes = {node.name: node for node in frozen.graph_def.node}
    readers = (*KINDS, "BiasAdd", "FusedBatchNormV3")
    found: dict[str, int] = {}
    for reader in (node for node in frozen.graph_def.node if node.op in readers):
        for name in reader.input:
            source = nodes[node_of(name)]
            while source.op in ("Identity", "Reshape", "Squeeze"):
                source = nodes[node_of(source.input[0])]
            if source.op == "Const" and source.attr["dtype"].type == tf.float32.as_datatype_enum:
                found[source.name] = math.prod(dim.size for dim in source.attr["value"].tensor.tensor_shape.dim)
    return sum(found.values())
