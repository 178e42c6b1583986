"""Where a number was measured: machine, versions, commit, load."""

from __future__ import annotations

import os
import pathlib
import platform
from typing import Any

import psutil
import tensorflow as tf

from detzoo.provenance import commit, versions


def describe_environment() -> dict[str, Any]:
    """The machine as it is now."""
    return {
        "cpu": cpu_model(),
        "cores": available_cores(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load_average": round(os.getloadavg()[0], 2),
        "gpus": [tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in visible_gpus()],
        "platform": platform.platform(),
        "versions": versions(),
        "commit": commit(),
    }


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
