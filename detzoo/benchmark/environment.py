"""Where a number was measured: machine, versions, commit, load."""

from __future__ import annotations

import os
import pathlib
import platform
from typing import Any

import psutil
import tensorflow as tf

from detzoo.errors import DetzooError
from detzoo.provenance import commit, versions


def describe_environment() -> dict[str, Any]:
    """The machine as it is now."""
    return {
        "cpu": cpu_model(),
        "cores": available_cores(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load_average": round(os.getloadavg()[0], 2),
        "intra_op_threads": tf.config.threading.get_intra_op_parallelism_threads() or available_cores(),
        "inter_op_threads": tf.config.threading.get_inter_op_parallelism_threads() or available_cores(),
        "gpus": [tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in visible_gpus()],
        "platform": platform.platform(),
        "versions": versions(),
        "commit": commit(),
    }


def choose_threads(intra_op: int, inter_op: int) -> None:
    """How many threads TensorFlow computes with, inside an operation and beside each other; 0 leaves it to TensorFlow.

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
            "TensorFlow has started already, so its threads cannot be chosen: measure in a process of its own"
        ) from problem


def visible_gpus() -> list[Any]:
    """The GPUs that TensorFlow may use."""
    return list(tf.config.get_visible_devices("GPU"))


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_model() -> str:
    """The processor's name."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
