"""Load time and peak memory of a serving process, measured in a fresh one that imports TensorFlow alone."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Any, NamedTuple

import numpy as np

from detzoo.errors import DetzooError

PROGRAM = pathlib.Path(__file__).with_name("serving_process.py")
TIMEOUT_SECONDS = 600


class ProcessCosts(NamedTuple):
    """What a process that serves costs; memory in MiB, the import of TensorFlow included."""

    import_seconds: float
    import_peak_mib: float
    load_seconds: float
    load_peak_mib: float
    first_call_seconds: float
    peak_mib: float


def measure_process(saved_model: str | pathlib.Path, given: np.ndarray, runs: int = 5) -> ProcessCosts:
    """Starts a process, loads a SavedModel in it and calls it.

    Args:
        saved_model: folder with saved_model.pb.
        given: input for its signature.
        runs: calls after the first.

    Raises:
        DetzooError: the process failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        input_file = pathlib.Path(folder) / "input.npy"
        # Encoded images are objects to numpy; as fixed-length bytes they need no pickle, but lose trailing zeros.
        np.save(input_file, given.astype("S") if given.dtype == object else given, allow_pickle=False)
        command = [sys.executable, str(PROGRAM), str(saved_model), str(input_file), str(runs)]
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=TIMEOUT_SECONDS)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise DetzooError(f"the process that serves {saved_model} failed with code {done.returncode}: {last}")
    costs: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return ProcessCosts(**costs)
