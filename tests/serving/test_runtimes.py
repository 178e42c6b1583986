"""The runtime of each kind of file, and the messages of runtimes that cannot run it."""

from __future__ import annotations

import importlib.machinery

import pytest

from detzoo.errors import UsageError
from detzoo.serving.runtimes import EXPORTED_FILES, RUNTIMES, require_runtime, runtime_of
from detzoo.tasks.export import FORMATS_OF_RUNTIMES


def test_a_file_has_a_usual_runtime_and_may_have_another():
    paths = {"exported/saved_model": "tensorflow", "a/model.tflite": "litert", "a/model.onnx": "onnxruntime"}
    assert {path: runtime_of(path) for path in paths} == paths
    assert runtime_of("a/model.onnx", "openvino") == "openvino"
    assert runtime_of("zoo://ssd_mobilenet_v2_320x320_coco17_tpu-8") == "tensorflow"
    assert set(EXPORTED_FILES) == set(FORMATS_OF_RUNTIMES) == set(RUNTIMES)
    assert {runtime: runtime_of(f"x/{file}", runtime) for runtime, file in EXPORTED_FILES.items()}


@pytest.mark.parametrize(
    ("path", "runtime", "message"),
    [
        ("m.onnx", "litert", r"m.onnx: the runtime litert runs .tflite files; accepted .*: onnxruntime or openvino"),
        ("m.tflite", "openvino", r"the runtime openvino runs .onnx files; accepted for this model: litert"),
        ("saved_model", "onnxruntime", r"accepted for this model: tensorflow"),
        ("m.onnx", "cuda", r"the runtime cuda runs nothing: runtimes are tensorflow, onnxruntime, litert, openvino"),
    ],
)
def test_a_runtime_of_other_files_is_refused(path, runtime, message):
    with pytest.raises(UsageError, match=message):
        runtime_of(path, runtime)


def test_a_runtime_that_is_not_installed_names_the_command(monkeypatch):
    monkeypatch.setattr(importlib.machinery.PathFinder, "find_spec", lambda name: None)
    for runtime in ("tensorflow", "litert"):  # parts of the installation
        require_runtime(runtime)
    with pytest.raises(
        UsageError, match=r"the runtime openvino is not installed here. Install: .* pip install openvino"
    ):
        require_runtime("openvino")
