"""Measures load time and peak memory of a serving process with nothing but a runtime.

Keras, which TensorFlow imports, imports scikit-learn, pandas and matplotlib if they are installed: 190 MiB that a
server without them does not need. The measured process can import TensorFlow and its requirements only.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from detzoo.errors import DetzooError

PROGRAM = pathlib.Path(__file__).with_name("serving_process.py")
TIMEOUT_SECONDS = 600


class ProcessCosts(NamedTuple):
    """Costs of a serving process; memory in MiB, including the import of the runtime."""

    import_seconds: float
    import_peak_mib: float
    load_seconds: float
    load_peak_mib: float
    first_call_seconds: float
    peak_mib: float


class ServingSettings(NamedTuple):
    """Settings of a serving process."""

    optimizer: str = ""  # graph optimizer to enable, "" for none
    hides_gpus: bool = False
    intra_op_threads: int = 0  # 0 for TensorFlow's default
    inter_op_threads: int = 0
    runtime: str = "tensorflow"
    precision: str = "float32"  # of OpenVINO


def measure_process(
    saved_model: str | pathlib.Path,
    given: Sequence[np.ndarray],
    runs: int = 5,
    *,
    tensorflow_alone: bool = True,
    settings: ServingSettings | None = None,
) -> ProcessCosts:
    """Starts a process that loads an exported model and calls it once, then ``runs`` times.

    Args:
        saved_model: Folder with saved_model.pb, or a .tflite or .onnx file.
        given: Inputs of its signature: images, and regions if it takes them.
        runs: Calls after the first.
        tensorflow_alone: Hide packages that TensorFlow does not require.
        settings: Settings of the process; None for TensorFlow's defaults.

    Raises:
        DetzooError: The process failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        input_file = pathlib.Path(folder) / "input.npz"
        # Encoded images are objects to numpy; as fixed-length bytes they need no pickle, but lose trailing zeros.
        np.savez(input_file, *(value.astype("S") if value.dtype == object else value for value in given))
        settings = settings or ServingSettings()
        is_tensorflow = settings.runtime == ServingSettings().runtime  # the others import NumPy alone
        hidden = ",".join(modules_not_required_by("tensorflow")) if tensorflow_alone and is_tensorflow else ""
        chosen = json.dumps(settings._asdict())
        command = [sys.executable, str(PROGRAM), str(saved_model), str(input_file), str(runs), hidden, chosen]
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=TIMEOUT_SECONDS)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise DetzooError(f"the process that serves {saved_model} failed with code {done.returncode}: {last}")
    costs: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return ProcessCosts(**costs)


def modules_not_required_by(package: str) -> list[str]:
    """Returns top-level modules of installed packages that ``package`` does not require, directly or indirectly."""
    required: set[str] = set()
    waiting = [canonicalize_name(package)]
    while waiting:
        name = waiting.pop()
        if name in required:
            continue
        required.add(name)
        try:
            lines = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for requirement in map(Requirement, lines):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(canonicalize_name(requirement.name))
    return sorted(
        module
        for module, owners in importlib.metadata.packages_distributions().items()
        if required.isdisjoint(map(canonicalize_name, owners))
    )
