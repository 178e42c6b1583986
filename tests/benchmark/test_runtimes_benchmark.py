"""Benchmarks in runtimes other than TensorFlow: the same fields, and options that they lack."""

from __future__ import annotations

import json

import numpy as np
import pytest

from detzoo.benchmark import latency, machine
from detzoo.benchmark.measures import BenchmarkOptions
from detzoo.benchmark.report import COLUMNS, flatten, format_table
from detzoo.cli.main import main
from detzoo.errors import UsageError
from detzoo.tasks.benchmark import benchmark
from detzoo.tasks.export import export_to_measure
from detzoo.tasks.models import load_exported

OPTIONS = BenchmarkOptions(runs=2, warmup=1, min_seconds=0.0, image_shape=(60, 90), intra_op_threads=1)


@pytest.fixture(scope="module")
def exported(load_module, tmp_path_factory):
    """Runtime -> path of the small one-stage detector's export for it."""
    pytest.importorskip("onnxruntime", reason="needs detzoo[onnx]: onnxruntime is not installed")
    pytest.importorskip("tf2onnx", reason="needs detzoo[onnx]: tf2onnx is not installed")
    from detzoo.config import pb

    message = pb.TrainEvalPipelineConfig(model=load_module("small_one_stage.py").message())
    folder = tmp_path_factory.mktemp("runtimes")
    return {name: export_to_measure(message, folder / name, runtime=name) for name in ("litert", "onnxruntime")}


def test_both_runtimes_have_the_fields_of_a_saved_model(exported, monkeypatch):
    monkeypatch.setattr(machine, "measure_gflops", lambda: 100.0)
    monkeypatch.setattr(latency, "MAX_WARMUP_SECONDS", 0.0)
    for runtime, path in exported.items():
        [result] = benchmark(saved_model=path, options=OPTIONS, batch_sizes=[2])
        assert (result["runtime"], result["device"], result["batch_size"]) == (runtime, "CPU", 2)
        assert set(flatten(result)) <= set(COLUMNS)
        assert set(COLUMNS) - set(flatten(result)) <= {name for name in COLUMNS if "versions" in name}
        assert result["latency"]["median_ms"] > 0
        assert result["images_per_second"] == pytest.approx(2000 / result["latency"]["median_ms"], rel=1e-3)
        assert 10 < result["memory"]["process_peak_mib"] < 400  # TensorFlow alone takes more
        assert result["parameters"] > 1000
        table = format_table(result)
        assert f"serving process with {'LiteRT' if runtime == 'litert' else 'ONNX Runtime'} alone" in table
        assert "multiply-adds" not in table


def test_openvino_finds_what_onnx_runtime_finds(exported):
    pytest.importorskip("openvino", reason="openvino is not installed")
    path = exported["onnxruntime"]
    image = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    one, other = (load_exported(path, runtime=runtime)(image) for runtime in ("onnxruntime", "openvino"))
    assert len(one.scores) > 0
    np.testing.assert_array_equal(one.class_ids, other.class_ids)
    np.testing.assert_allclose(one.boxes_norm, other.boxes_norm, atol=1e-4)
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)
    lower = load_exported(path, runtime="openvino", precision="bfloat16", num_threads=1)(image)
    assert lower.scores[0] == pytest.approx(one.scores[0], abs=0.1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--device=gpu"], "the runtime onnxruntime is measured on CPUs; use --device cpu"),
        (["--precision=bfloat16"], "the runtime onnxruntime has no precision bfloat16; accepted: float32"),
        (["--jit_compile"], "--jit_compile is TensorFlow's; leave it out with the runtime onnxruntime"),
        (["--runtime=tensorflow"], "the runtime tensorflow runs SavedModels; accepted for this model: onnxruntime or"),
    ],
)
def test_options_of_tensorflow_are_refused(exported, capsys, words, message):
    assert main(["benchmark", f"--saved_model={exported['onnxruntime']}", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_file_that_is_not_there_and_a_config_for_a_runtime(exported, tmp_path):
    with pytest.raises(UsageError, match=r"none.onnx: there is no such file"):
        next(benchmark(saved_model=tmp_path / "none.onnx", options=OPTIONS))
    record = json.loads(exported["litert"].with_suffix(".json").read_text())
    assert record["parameters"] > 1000
