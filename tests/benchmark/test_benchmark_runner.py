"""Tests of a benchmark of an exported toy: plausible numbers, output files, measurement in a separate process."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from detzoo.benchmark import machine, process, runner
from detzoo.benchmark.measures import BenchmarkOptions
from detzoo.benchmark.report import (
    COLUMNS,
    check_output,
    compare,
    flatten,
    format_table,
    read_results,
    write_result,
)
from detzoo.errors import DetzooError, UsageError
from detzoo.export.exporter import Export, export_detector
from detzoo.sweep import columns as sweep_columns

# The toy on 32 x 48 has a stem of 3x3 with stride 2 to 16 x 24 x 8, a depthwise 3x3 with stride 2 to 8 x 12 x 8, a
# pointwise layer with stride 2 to 4 x 6 x 16, and 1x1 heads of 4 and 4 channels.
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
        patch.setattr(machine, "MATRIX_SIZE", 64)
        patch.setattr(machine, "measure_gflops", functools.partial(machine.measure_gflops, 2, 64))
        options = BenchmarkOptions(runs=4, warmup=1, batch_size=2, image_shape=(40, 60), min_seconds=0.0)
        return next(runner.benchmark_batch_sizes(exported, options, name="toy"))


def test_counts_are_those_worked_by_hand(result):
    assert result["multiply_adds_by_kind"]["convolution"] == CONVOLUTIONS
    assert result["multiply_adds"] == CONVOLUTIONS + DEPTHWISE
    assert result["parameters"] == PARAMETERS


def test_times_memory_and_environment_are_plausible(result):
    times, stages, costs = result["latency"], result["stages"], result["process"]
    assert 0 < times["p10_ms"] <= times["median_ms"] <= times["p90_ms"]
    assert times["num_runs"] == 4
    assert all(stages[name] >= 0 for name in ("preprocess_ms", "network_ms", "postprocess_ms"))
    assert times["repeat_difference"] >= 0
    assert result["images_per_second"] == pytest.approx(2 * 1000.0 / times["median_ms"], rel=1e-3)
    assert result["first_run_seconds"] > 0
    assert result["load"]["before"] >= 0
    assert result["load"]["during"] >= 0
    assert all(stages[name] is None for name in ("first_stage_ms", "second_stage_ms", "masks_ms"))
    assert 100 < costs["import_peak_mib"] <= costs["load_peak_mib"] <= costs["peak_mib"] < 3000
    assert costs["load_seconds"] > 0
    assert result["yardstick_gflops"] > 0
    assert result["environment"]["cores"] >= 1
    assert "tensorflow" in result["environment"]["versions"]


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(runner, "beside_yardstick", lambda work: (work(), 150.0))
    monkeypatch.setattr(runner, "load_before", lambda: 0.0)
    costs = process.ProcessCosts(3.0, 500.0, 1.0, 600.0, 0.5, 700.0)
    monkeypatch.setattr(runner, "measure_process", lambda *_, **__: costs)


QUICK = BenchmarkOptions(runs=2, warmup=1, image_shape=(40, 60), min_seconds=0.0)


def test_several_batch_sizes_take_one_load(exported, quick):
    results = list(runner.benchmark_batch_sizes(exported, QUICK, [1, 3], "toy"))
    assert [result["batch_size"] for result in results] == [1, 3]
    assert {result["multiply_adds"] for result in results} == {CONVOLUTIONS + DEPTHWISE}
    assert results[0]["memory"]["weights_mib"] == results[1]["memory"]["weights_mib"]
    # Three images take three times the tensors, but for what is made once; nothing is held that was not allocated.
    totals = [result["memory"]["total_mib"] for result in results]
    assert 2.0 * totals[0] < totals[1] < 3.2 * totals[0]
    for result in results:
        memory = result["memory"]
        assert memory["weights_mib"] < memory["peak_mib"] < memory["weights_mib"] + memory["total_mib"]
        assert memory["process_peak_mib"] == 700.0


def test_xla_compiles_the_network_and_says_so(exported, quick):
    result = next(runner.benchmark_batch_sizes(exported, dataclasses.replace(QUICK, jit_compile=True)))
    assert "network" in result["kernels"]["compiled"].split()
    assert "preprocess" not in result["kernels"]["compiled"]  # XLA would resize to other pixels
    assert result["latency"]["median_ms"] > 0
    # Not measured: the fresh process does not use XLA, and XLA's one block is no sum of tensors.
    assert result["memory"] == {"total_mib": None, "peak_mib": None, "weights_mib": None, "process_peak_mib": None}
    assert "XLA" in format_table(result)


def test_on_a_gpu_the_allocator_tells_the_peak(exported, quick, monkeypatch):
    monkeypatch.setattr(runner.memory, "reset_allocator", lambda: None)
    monkeypatch.setattr(runner.memory, "allocator_peak_mib", lambda: 100.0)
    gpu = dataclasses.replace(QUICK, device="GPU")
    first, second = runner.benchmark_batch_sizes(exported, gpu, [1, 2])
    assert first["memory"]["peak_mib"] == 100.0
    # At the second batch size the parts have separate copies of the weights, which do not exist in serving. The toy's
    # weights are all too small to be stored outside of the graph.
    assert second["memory"]["peak_mib"] == 100.0
    assert first["memory"]["total_mib"] > 0


def test_weights_that_only_the_measurement_holds_are_known(tmp_path):
    class Module(tf.Module):
        def __init__(self):
            super().__init__()
            self.filters = tf.Variable(np.random.default_rng(0).normal(size=[3, 3, 32, 64]).astype(np.float32))

        @tf.function(input_signature=[tf.TensorSpec([1, 8, 8, 32], tf.float32, name="input_tensor")])
        def __call__(self, given):
            scores = tf.nn.conv2d(given, self.filters, 1, "SAME")
            return {"detection_boxes": scores, "detection_scores": scores, "detection_classes": scores}

    module = Module()
    tf.saved_model.save(module, str(tmp_path), signatures=module.__call__)
    served = runner._Served(runner.SavedDetector(tmp_path), QUICK)
    assert served.copied_bytes == 0
    assert [part.name for part in served.chain.parts] == ["whole"]
    assert served.copied_bytes == 4 * 3 * 3 * 32 * 64


def test_bfloat16_kernels_are_counted_or_it_is_refused(exported, quick):
    options = dataclasses.replace(QUICK, precision="bfloat16")
    try:
        result = next(runner.benchmark_batch_sizes(exported, options))
    except DetzooError as problem:
        pytest.skip(f"no bfloat16 on this processor: {problem}")
    # Stem, depthwise, pointwise and two heads.
    assert (result["kernels"]["total"], result["kernels"]["in_precision"]) == (5, 5)
    assert result["precision"] == "bfloat16"


def test_real_images_of_different_sizes(exported, quick, tmp_path):
    for number, size in enumerate([(60, 40), (50, 44), (60, 40)]):
        Image.new("RGB", size, (number, 0, 0)).save(tmp_path / f"{number}.png")
    options = dataclasses.replace(QUICK, images=str(tmp_path), image_shape=None, runs=3)
    result = next(runner.benchmark_batch_sizes(exported, options))
    assert (result["image_height"], result["num_images"]) == (None, 3)
    assert f"images of different sizes, CPU, float32, 3 images: {tmp_path}" in format_table(result)


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
    write_result([result], tmp_path / "new" / "result.json")
    assert json.loads((tmp_path / "new" / "result.json").read_text())["parameters"] == PARAMETERS
    for _ in range(2):
        write_result([result], tmp_path / "rows.csv")
    lines = (tmp_path / "rows.csv").read_text().splitlines()
    assert len(lines) == 3
    assert lines[0].startswith(
        "model,started,runtime,device,precision,jit_compile,batch_size,image_height,image_width,images"
    )
    (tmp_path / "old.csv").write_text("model,speed\n")
    for use in (check_output, lambda path: write_result([result], path)):
        with pytest.raises(UsageError, match="lacks started, lacks runtime, has speed"):
            use(tmp_path / "old.csv")


def test_every_number_has_a_column_and_every_column_a_number(result):
    flat = set(flatten(result))
    packages = {name for name in COLUMNS if name.startswith("environment.versions.")}  # some may not be installed
    assert flat <= set(COLUMNS)
    assert set(COLUMNS) - packages <= flat


def test_a_sweep_finds_its_columns(result):
    flat = set(flatten(result))
    measured = {column for column in sweep_columns.NAMES if "." in column}
    assert {
        c for c in measured if not c.startswith(("mAP", "published."))
    } <= flat  # accuracy and papers: the sweep's own
    assert {"device", "precision", "jit_compile", "batch_size", "images_per_second", "first_run_seconds"} <= flat
    assert {"parameters", "multiply_adds", "yardstick_gflops"} <= flat


def test_a_slower_result_of_the_same_is_told(result, tmp_path):
    for suffix in (".json", ".csv"):
        file = tmp_path / f"earlier{suffix}"
        write_result([result], file)
        earlier = read_results(file)
        assert compare(result, earlier) == ""
        median = result["latency"]["median_ms"]
        for factor, said in ((1.04, ""), (1.2, "20% slower than"), (0.9, "10% faster than")):
            again = {**result, "latency": {**result["latency"], "median_ms": factor * median}}
            found = compare(again, earlier)
            assert said in found if said else found == ""
        other = {**again, "precision": "bfloat16"}
        assert compare(other, earlier) == ""
    assert read_results(tmp_path / "nowhere.json") == []
    (tmp_path / "text.json").write_text("no JSON")
    assert read_results(tmp_path / "text.json") == []


def test_the_table_says_what_is_wrong(result):
    bad = {**result, "latency": {**result["latency"], "repeat_difference": 0.08}}
    bad["load"] = {"before": 0.1, "during": 1.5, "is_quiet": False}
    table = format_table(bad)
    assert "differ by 8.0% in their median: UNSTABLE, above 5%" in table
    assert "others used 0.10 cores before and 1.50 during the runs: NOT QUIET" in table
    good = {**bad, "latency": {**result["latency"], "repeat_difference": 0.05}}
    good["load"] = {"before": 0.0, "during": 0.0, "is_quiet": True}
    assert "UNSTABLE" not in format_table(good)
    assert "NOT QUIET" not in format_table(good)


def test_nested_objects_become_columns():
    assert flatten({"a": {"b": 1, "c": {"d": 2}}, "e": ["x", "y"]}) == {"a.b": 1, "a.c.d": 2, "e": "x; y"}


def test_where_results_go_is_checked_first(tmp_path):
    check_output("")
    with pytest.raises(UsageError, match=r"end in \.json or \.csv"):
        check_output("result.txt")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        check_output(str(tmp_path / "folder.csv"))


def test_a_process_that_fails_says_why(tmp_path, monkeypatch):
    (tmp_path / "program.py").write_text("raise ValueError('no such model')")
    monkeypatch.setattr(process, "PROGRAM", tmp_path / "program.py")
    with pytest.raises(DetzooError, match="failed with code 1: ValueError: no such model"):
        process.measure_process(tmp_path, (np.zeros((1, 4, 4, 3), np.uint8),))


def test_the_serving_process_sees_tensorflow_and_what_it_requires():
    hidden = process.modules_not_required_by("tensorflow")
    assert {"detzoo", "pytest", "pycocotools"} <= set(hidden)
    extras = {name for name in ("orbit", "sklearn") if importlib.util.find_spec(name)}
    assert extras <= set(hidden)
    assert not {"tensorflow", "keras", "numpy", "h5py", "google", "rich"} & set(hidden)  # rich: keras requires it


def test_a_hidden_module_cannot_be_imported(tmp_path):
    program = process.PROGRAM
    (tmp_path / "tensorflow.py").write_text("import extra")  # in the place of TensorFlow: what is hidden fails in it
    (tmp_path / "extra.py").write_text("")
    command = [sys.executable, str(program), "model", "input.npy", "1"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    seen = subprocess.run([*command, ""], capture_output=True, text=True, env=environment)
    assert "extra" not in seen.stderr  # it fails later, because there is no model
    unseen = subprocess.run([*command, "extra"], capture_output=True, text=True, env=environment)
    assert "import of extra halted" in unseen.stderr


def test_the_yardstick_counts_two_operations_a_multiply_add(monkeypatch):
    clock = iter(np.arange(100.0))
    monkeypatch.setattr(machine.time, "perf_counter", lambda: next(clock))
    assert machine.measure_gflops(3, 100) == pytest.approx(2 * 100**3 / 1.0 / 1e9)
