"""A benchmark of an exported toy: every number is there and plausible; files; a process of its own."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from detzoo.benchmark import latency, process, runner, yardstick
from detzoo.benchmark.report import check_output, flatten, format_table, write_result
from detzoo.errors import DetzooError, UsageError
from detzoo.export.exporter import Export, export_detector

# Toy, 32 x 48: stem 3x3 stride 2 to 16 x 24 x 8; depthwise 3x3 stride 2 to 8 x 12 x 8; pointwise stride 2 to
# 4 x 6 x 16; 1x1 heads of 4 and 4 channels.
CONVOLUTIONS = 16 * 24 * 8 * 27 + 4 * 6 * 16 * 8 + 2 * 4 * 6 * 4 * 16
DEPTHWISE = 8 * 12 * 8 * 9
# Filters 216 + 72 + 128 + 64 + 64, biases 16 + 4 + 4, batch norms with gamma 4 x 8 and 4 x 16, without 3 x 8.
PARAMETERS = 216 + 72 + 128 + 64 + 64 + 16 + 4 + 4 + 32 + 64 + 24


@pytest.fixture(scope="module")
def exported(toy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    export_detector(toy.toy_detector(), toy.ToyResizer(), folder, "image_tensor", Export())
    return folder


@pytest.fixture(scope="module")
def result(exported):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(yardstick, "MATRIX_SIZE", 64)
        patch.setattr(yardstick, "measure_gflops", functools.partial(yardstick.measure_gflops, 2, 64))
        options = runner.BenchmarkOptions(runs=4, warmup=1, batch_size=2, image_shape=(40, 60))
        return runner.benchmark_saved_model(exported, options, name="toy")


def test_counts_are_those_worked_by_hand(result):
    assert result["multiply_adds_by_kind"]["convolution"] == CONVOLUTIONS
    assert result["multiply_adds"] == CONVOLUTIONS + DEPTHWISE
    assert result["parameters"] == PARAMETERS


def test_times_memory_and_environment_are_plausible(result):
    times, stages, costs = result["latency"], result["stages"], result["process"]
    assert 0 < times["p10_ms"] <= times["median_ms"] <= times["p90_ms"]
    assert times["num_runs"] == 4
    assert all(stages[name] >= 0 for name in ("preprocess_ms", "network_ms", "postprocess_ms"))
    assert all(stages[name] is None for name in ("first_stage_ms", "second_stage_ms", "masks_ms"))
    assert 100 < costs["import_peak_mib"] <= costs["load_peak_mib"] <= costs["peak_mib"] < 3000
    assert costs["load_seconds"] > 0
    assert result["yardstick_gflops"] > 0
    assert result["environment"]["cores"] >= 1
    assert "tensorflow" in result["environment"]["versions"]


def test_a_model_without_an_export_record_is_counted_as_served(exported, tmp_path):
    (exported / "saved_model").rename(tmp_path / "alone")
    try:
        detector = runner.SavedDetector(tmp_path / "alone")
        served = runner._parameters(detector.folder, runner.to_constants(detector.function))
    finally:
        (tmp_path / "alone").rename(exported / "saved_model")
    # Each of the three batch norms became one bias; the pointwise convolution's own bias went into it.
    assert served == 216 + 72 + 128 + 64 + 64 + 8 + 8 + 16 + 4 + 4


def test_table_json_and_csv(result, tmp_path):
    table = format_table(result)
    assert "2 x 40 x 60, CPU" in table
    assert f"{PARAMETERS:,}" in table
    write_result(result, tmp_path / "new" / "result.json")
    assert json.loads((tmp_path / "new" / "result.json").read_text())["parameters"] == PARAMETERS
    for _ in range(2):
        write_result(result, tmp_path / "rows.csv")
    lines = (tmp_path / "rows.csv").read_text().splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("model,device,batch_size,image_height,image_width,latency.median_ms")
    with pytest.raises(UsageError, match="other columns"):
        write_result({"model": "x"}, tmp_path / "rows.csv")


def test_nested_objects_become_columns():
    assert flatten({"a": {"b": 1, "c": {"d": 2}}, "e": ["x", "y"]}) == {"a.b": 1, "a.c.d": 2, "e": "x y"}


def test_where_results_go_is_checked_first(tmp_path):
    check_output("")
    with pytest.raises(UsageError, match=r"end in \.json or \.csv"):
        check_output("result.txt")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        check_output(str(tmp_path / "folder.csv"))


def test_percentiles_of_known_durations():
    found = latency.summarize([0.001 * ms for ms in range(1, 12)])  # 1 to 11 ms
    assert found == latency.Latency(*map(pytest.approx, (6.0, 2.0, 10.0, 6.0, 11)))


def test_calls_are_timed_in_turn():
    order = []
    calls = [lambda: order.append("a"), lambda: (order.append("b"), time.sleep(0.002))]
    first, second = latency.time_alternately(calls, warmup=1, runs=3)
    assert order == ["a", "b"] + ["a", "b"] * 3
    assert first.median_ms < second.median_ms
    assert second.median_ms >= 2.0


def test_a_process_that_fails_says_why(tmp_path, monkeypatch):
    (tmp_path / "program.py").write_text("raise ValueError('no such model')")
    monkeypatch.setattr(process, "PROGRAM", tmp_path / "program.py")
    with pytest.raises(DetzooError, match="failed with code 1: ValueError: no such model"):
        process.measure_process(tmp_path, np.zeros((1, 4, 4, 3), np.uint8))


def test_the_serving_process_sees_tensorflow_and_what_it_requires():
    hidden = process.modules_not_required_by("tensorflow")
    assert {"detzoo", "pytest", "pycocotools", "orbit", "sklearn"} <= set(hidden)
    assert not {"tensorflow", "keras", "numpy", "h5py", "google", "rich"} & set(hidden)  # rich: keras requires it


def test_a_hidden_module_cannot_be_imported(tmp_path):
    program = process.PROGRAM
    (tmp_path / "tensorflow.py").write_text("import extra")  # in the place of TensorFlow: what is hidden fails in it
    (tmp_path / "extra.py").write_text("")
    command = [sys.executable, str(program), "model", "input.npy", "1"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    seen = subprocess.run([*command, ""], capture_output=True, text=True, env=environment)
    assert "extra" not in seen.stderr  # it fails later, for want of a model
    unseen = subprocess.run([*command, "extra"], capture_output=True, text=True, env=environment)
    assert "import of extra halted" in unseen.stderr


def test_the_yardstick_counts_two_operations_a_multiply_add(monkeypatch):
    clock = iter(np.arange(100.0))
    monkeypatch.setattr(yardstick.time, "perf_counter", lambda: next(clock))
    assert yardstick.measure_gflops(3, 100) == pytest.approx(2 * 100**3 / 1.0 / 1e9)
