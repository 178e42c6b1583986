"""The runtimes of exported models: their names, the files that they run, and if they are installed here.

TensorFlow runs SavedModels, LiteRT .tflite files, ONNX Runtime and OpenVINO .onnx files. Nothing in here imports a
runtime.
"""

from __future__ import annotations

import importlib.machinery
import os
import sys

from detzoo.errors import UsageError

TENSORFLOW, ONNX_RUNTIME, LITERT, OPENVINO = "tensorflow", "onnxruntime", "litert", "openvino"
RUNTIMES = (TENSORFLOW, ONNX_RUNTIME, LITERT, OPENVINO)
# Paths in the folder of an export.
EXPORTED_FILES = {TENSORFLOW: "saved_model", ONNX_RUNTIME: "model.onnx", LITERT: "model.tflite", OPENVINO: "model.onnx"}
# Precisions of a benchmark that a runtime has; TensorFlow's are in ``benchmark.precision``.
PRECISIONS = {ONNX_RUNTIME: ("float32",), LITERT: ("float32",), OPENVINO: ("float32", "bfloat16")}
_ABLE = {".onnx": (ONNX_RUNTIME, OPENVINO), ".tflite": (LITERT,)}
_RUNS = {TENSORFLOW: "SavedModels", ONNX_RUNTIME: ".onnx files", LITERT: ".tflite files", OPENVINO: ".onnx files"}


def runtime_of(model: str | os.PathLike[str], wanted: str = "") -> str:
    """Returns the runtime of an exported model: the wanted one, or else the first that runs its format.

    Raises:
        UsageError: The wanted runtime is unknown, or runs other files.
    """
    path = os.fspath(model)
    able = _ABLE.get(os.path.splitext(path)[1], (TENSORFLOW,))
    if wanted and wanted not in able:
        found = _RUNS.get(wanted, f"nothing: runtimes are {', '.join(RUNTIMES)}")
        raise UsageError(f"{path}: the runtime {wanted} runs {found}; accepted for this model: {' or '.join(able)}")
    return wanted or able[0]


def require_runtime(runtime: str) -> None:
    """Checks that the package of a runtime is installed. LiteRT comes with TensorFlow.

    Raises:
        UsageError: The package is missing. The message has the command that installs it.
    """
    package = {ONNX_RUNTIME: "onnxruntime", OPENVINO: "openvino"}.get(runtime)
    if package and importlib.machinery.PathFinder.find_spec(package) is None:
        raise UsageError(
            f"the runtime {runtime} is not installed here. Install: {sys.executable} -m pip install {package}"
        )
