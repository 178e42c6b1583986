"""The machine of a measurement: hardware and versions, load by other programs, and current speed."""

from __future__ import annotations

import os
import pathlib
import platform
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np
import psutil
import tensorflow as tf

from detzoo.errors import DetzooError
from detzoo.provenance import commit, versions

QUIET_SHARE = 0.1  # of the cores: a smaller load changes a median by less than the usual difference of two runs
SECONDS_BEFORE = 0.5  # counters have 100 ticks per second, so this resolves a load of 0.02 cores
MATRIX_SIZE = 3072

Result = TypeVar("Result")


def describe_environment() -> dict[str, Any]:
    """Returns the machine's hardware, load and versions."""
    cores = len(own_cores())
    gpus = tf.config.get_visible_devices("GPU")
    return {
        "cpu": _cpu_model(),
        "cores": cores,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load_average": round(os.getloadavg()[0], 2),
        "intra_op_threads": tf.config.threading.get_intra_op_parallelism_threads() or cores,
        "inter_op_threads": tf.config.threading.get_inter_op_parallelism_threads() or cores,
        "gpus": [tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in gpus],
        "platform": platform.platform(),
        "versions": versions(),
        "commit": commit(),
    }


def _cpu_model() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def own_cores() -> list[int]:
    """Returns the numbers of the cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def choose_threads(intra_op: int, inter_op: int) -> None:
    """Sets the numbers of threads within an operation and of concurrent operations; 0 for TensorFlow's defaults.

    Raises:
        DetzooError: TensorFlow has started already.
    """
    try:
        if intra_op:
            tf.config.threading.set_intra_op_parallelism_threads(intra_op)
        if inter_op:
            tf.config.threading.set_inter_op_parallelism_threads(inter_op)
    except RuntimeError as problem:
        raise DetzooError(
            "TensorFlow has started already, so its threads cannot be chosen: measure in a separate process"
        ) from problem


class Load(NamedTuple):
    """Cores that other programs used."""

    before: float
    during: float
    is_quiet: bool


class LoadMeter:
    """Measures the average number of cores that other programs use from its creation to ``read``.

    Only cores that this process may use are counted. This process and its finished children are not; time that the host
    of a virtual machine takes away is.
    """

    def __init__(self) -> None:
        self._started, self._busy, self._own = time.perf_counter(), busy_seconds(), own_seconds()

    def read(self) -> float:
        """Returns a number of cores, 0 or more."""
        elapsed = time.perf_counter() - self._started
        others = busy_seconds() - self._busy - (own_seconds() - self._own)
        return max(0.0, others / max(elapsed, 1e-9))


def load_before(seconds: float = SECONDS_BEFORE) -> float:
    """Returns the cores that other programs use while this process sleeps."""
    meter = LoadMeter()
    time.sleep(seconds)
    return meter.read()


def judge(before: float, during: float, cores: int) -> Load:
    """Decides if both loads are small enough for times to count."""
    return Load(round(before, 2), round(during, 2), max(before, during) <= QUIET_SHARE * cores)


def busy_seconds() -> float:
    """Returns the processor time of all programs on this process's cores since the machine started."""
    times = psutil.cpu_times(percpu=True)
    chosen = [times[core] for core in own_cores() if core < len(times)] or times
    # "user" and "nice" include the time of guests.
    names = ("user", "nice", "system", "irq", "softirq", "steal")
    return sum(getattr(core, name, 0.0) for core in chosen for name in names)


def own_seconds() -> float:
    """Returns the processor time of this process and of its finished children."""
    times = psutil.Process().cpu_times()
    return times.user + times.system + getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)


def beside_yardstick(work: Callable[[], Result]) -> tuple[Result, float]:
    """Returns the result of ``work`` and the mean of ``measure_gflops`` before and after it.

    A machine's speed changes within seconds, so one of the two alone describes the time between them badly.
    """
    before = measure_gflops()
    result = work()
    return result, (before + measure_gflops()) / 2


def measure_gflops(repeats: int = 3, size: int = MATRIX_SIZE) -> float:
    """Measures the median speed of a float32 matrix product in TensorFlow, in 10**9 operations per second.

    It makes latencies of different machines and hours comparable. A multiply-add counts as two operations, and the time
    includes the wait for the result.
    """
    generator = np.random.default_rng(0)
    matrix = tf.constant(generator.standard_normal((size, size), dtype=np.float32))
    seconds = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        # Outside of a function, so that no graph optimizer lowers the precision.
        tf.linalg.matmul(matrix, matrix)[0, 0].numpy()
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / float(np.median(seconds[1:])) / 1e9
