"""An ONNX model of `detzoo export --format onnx`, run by OpenVINO instead of ONNX Runtime."""

from __future__ import annotations

import pathlib
import types
from collections.abc import Mapping
from typing import Any

import numpy as np

from detzoo.errors import UsageError
from detzoo.extras import require_package
from detzoo.serving.onnx_detector import OnnxDetector

_PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}  # OpenVINO would choose bfloat16 by itself where the CPU has it
_TYPES = {"u8": "tensor(uint8)", "f32": "tensor(float)"}  # OpenVINO's names -> ONNX Runtime's


class OpenvinoDetector(OnnxDetector):
    """Loaded ONNX model in OpenVINO.

    Args:
        model: Path of the file.
        num_threads: Threads; None for OpenVINO's default.
        precision: "float32" or "bfloat16", in which the layers are computed.

    Raises:
        UsageError: The file does not exist, OpenVINO is not installed, or the model has other inputs or outputs.
    """

    def __init__(
        self, model: str | pathlib.Path | bytes, num_threads: int | None = None, precision: str = "float32"
    ) -> None:
        self._precision = precision
        super().__init__(model, num_threads)

    def _open(self, model: str | pathlib.Path | bytes, num_threads: int | None) -> Any:
        return open_model(model, num_threads, self._precision)


def open_model(
    model: str | pathlib.Path | bytes, num_threads: int | None = None, precision: str = "float32"
) -> _Session:
    """Returns the compiled model of a file, with the methods of a session of ONNX Runtime.

    Raises:
        UsageError: The file does not exist, is no ONNX model, or OpenVINO is not installed.
    """
    if isinstance(model, bytes) or not pathlib.Path(model).is_file():
        raise UsageError(f"there is no ONNX model {model!s}; `detzoo export --format onnx` makes one")
    openvino = require_package("openvino", "the runtime openvino")
    settings = {"INFERENCE_PRECISION_HINT": _PRECISIONS[precision], "PERFORMANCE_HINT": "LATENCY"}
    if num_threads:
        settings["INFERENCE_NUM_THREADS"] = str(num_threads)
    try:
        core = openvino.Core()
        read = core.read_model(str(model))
        return _Session(read, core.compile_model(read, "CPU", settings))
    except Exception as problem:  # OpenVINO raises RuntimeError of many kinds
        reason = str(problem).strip().splitlines()[-1][:200]
        raise UsageError(f"{model} cannot be loaded by OpenVINO: {reason}") from problem


class _Session:
    """A compiled model with those methods of ONNX Runtime's sessions that ``OnnxDetector`` calls."""

    def __init__(self, model: Any, compiled: Any) -> None:
        self._model, self._request = model, compiled.create_infer_request()

    def get_inputs(self) -> list[Any]:
        """Returns the inputs with name, type and shape; a size that may vary is None."""
        return [_described(port) for port in self._model.inputs]

    def get_outputs(self) -> list[Any]:
        """Returns the outputs with name, type and shape."""
        return [_described(port) for port in self._model.outputs]

    def get_modelmeta(self) -> Any:
        """Returns an object with the metadata of the file."""
        info = dict(self._model.get_rt_info().items())
        texts: Mapping[str, Any] = info.get("framework", {})
        return types.SimpleNamespace(custom_metadata_map={name: str(text.value) for name, text in texts.items()})

    def run(self, names: None, given: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Returns all outputs."""
        del names
        return [np.array(value) for value in self._request.infer(dict(given)).values()]


def _described(port: Any) -> Any:
    shape = [size.get_length() if size.is_static else None for size in port.partial_shape]
    name = port.element_type.get_type_name()
    return types.SimpleNamespace(name=port.any_name, type=_TYPES.get(name, name), shape=shape)
