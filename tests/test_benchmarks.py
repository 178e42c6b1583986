"""Every program in benchmarks/ compiles, and most run with small settings: what is not run rots.

Three run by default, the others with ``--all``.
"""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import io
import os
import pathlib
import subprocess
import sys

import pytest
from absl import flags

from detzoo.export.exporter import Export, export_detector

ROOT = pathlib.Path(__file__).resolve().parents[1]
FOLDER = ROOT / "benchmarks"
PROGRAMS = [path for path in sorted(FOLDER.glob("*.py")) if path.stem != "rows"]
SMALL = ROOT / "model_configs" / "shapes_ssd_mobilenet_v1.config"


def run_process(program: str, *words: str, codes: tuple[int, ...] = (0,)) -> str:
    """Runs a benchmark in a process and returns its output."""
    command = [sys.executable, str(FOLDER / program), *words]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1200)
    assert done.returncode in codes, done.stderr[-2000:]
    return done.stdout


def run(program: str, *words: str, codes: tuple[int, ...] = (0,)) -> str:
    """Runs a benchmark in this process, which has TensorFlow already. Returns what it prints."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{program.removesuffix('.py')}", FOLDER / program)
    module = importlib.util.module_from_spec(spec)
    defined, printed = set(flags.FLAGS), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.syspath_prepend(str(FOLDER))  # they share modules
        patch.setattr(sys, "argv", [program, *words])
        patch.setitem(sys.modules, spec.name, module)
        try:
            spec.loader.exec_module(module)
            flags.FLAGS(sys.argv)
            code = module.main(sys.argv)
        except SystemExit as exit:
            code = exit.code
        finally:
            for name in set(flags.FLAGS) - defined:
                delattr(flags.FLAGS, name)
            for name in [name for name, path in map(_name_and_file, list(sys.modules)) if path.startswith(str(FOLDER))]:
                del sys.modules[name]
    assert (code or 0) in codes, printed.getvalue()[-2000:]
    return printed.getvalue()


def _name_and_file(name: str) -> tuple[str, str]:
    return name, getattr(sys.modules[name], "__file__", None) or ""


@pytest.mark.parametrize("program", [path.name for path in PROGRAMS])
def test_a_benchmark_says_how_to_read_its_table(program):
    text = (ROOT / "benchmarks" / program).read_text(encoding="utf-8")
    compile(text, program, "exec")
    assert f"python benchmarks/{program}" in text


@pytest.mark.full_sweep
@pytest.mark.slow
def test_the_input_pipeline_is_compared_with_training(tmp_path):
    output = tmp_path / "rows.csv"
    flags = ["--pipeline_config_path", str(SMALL), "--seconds", "0.5", "--batch_size", "2", "--output", str(output)]
    # It exits with 1 where the pipeline is less than five times as fast, as it may be with so small a detector.
    assert "pipeline / training =" in run("input_pipeline.py", *flags, codes=(0, 1))
    rows = list(csv.DictReader(output.open(encoding="utf-8")))
    assert all(float(row["images_per_second"]) > 0 for row in rows)
    assert len(rows) >= 3


@pytest.mark.slow
def test_training_steps_are_timed(tmp_path):
    output = tmp_path / "rows.csv"
    run("train_step.py", "--config", SMALL.stem, "--steps", "1", "--output", str(output))
    [row] = csv.DictReader(output.open(encoding="utf-8"))
    assert float(row["measured"]) > 0
    assert float(row["yardstick_gflops"]) > 0


@pytest.mark.full_sweep
@pytest.mark.slow
def test_crops_are_timed(tmp_path):
    output = tmp_path / "rows.csv"
    run_process("roi_crop.py", "--runs", "1", "--boxes", "20", "--output", str(output))
    rows = list(csv.DictReader(output.open(encoding="utf-8")))
    assert all(float(row["measured"]) > 0 for row in rows)
    assert sum(row["unit"] == "x" for row in rows) == 12
    assert sum(row["wanted"] == "1.3" for row in rows) == 3


@pytest.mark.full_sweep
@pytest.mark.slow
def test_a_config_alone_is_timed(tmp_path):
    output = tmp_path / "rows.csv"
    run("latency.py", "--config", SMALL.stem, "--runs", "10", "--output", str(output))
    rows = list(csv.DictReader(output.open(encoding="utf-8")))
    assert [row["what"].removeprefix(SMALL.stem) for row in rows] == [
        "",
        "  post-processing share",
        ", threshold 0.3",
        "  post-processing share, threshold 0.3",
    ]
    times, shares = rows[::2], rows[1::2]
    assert all(float(row["measured"]) > 0 for row in times)
    assert all(float(row["measured"]) >= 0 for row in shares)  # the difference of two medians, 0 at the least


@pytest.mark.full_sweep
@pytest.mark.slow
def test_latency_against_proposals_is_drawn(tmp_path):
    small = ["--extractor", "mobilenet_v1", "--size", "64", "--runs", "1", "--proposals", "4", "--proposals", "40"]
    run("proposals.py", *small, "--output_dir", str(tmp_path))
    rows = list(csv.DictReader((tmp_path / "proposals.csv").open(encoding="utf-8")))
    assert [(row["detector"], row["proposals"]) for row in rows] == [
        (detector, count) for detector in ("Faster R-CNN", "R-FCN") for count in ("4", "40")
    ]
    few, many, once, again = (int(row["multiply_adds"]) for row in rows)
    # A crop of 14 x 14 is pooled to 7 x 7 x 512, on which MobileNet's last two blocks follow with stride 1 (or 2: a
    # quarter of the cells) and 1024 channels; R-FCN has no layer that runs for each region.
    assert many - few > 36 * 16 * (512 * 1024 + 1024 * 1024)
    assert once == again
    assert (tmp_path / "proposals.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.full_sweep
@pytest.mark.slow
def test_features_of_an_image_are_compared_with_those_of_its_windows(tmp_path):
    output = tmp_path / "rows.csv"
    small = ["--set", "model.spp_net.network.depth_multiplier=0.1", "--set", "model.spp_net.network.fc_depth=16"]
    few = ["--config", "spp_net_zf5_1scale_ftfc7", "--windows", "60", "--timed_windows", "20", "--runs", "1"]
    assert "at 150" in run("spp_speedup.py", *small, *few, "--output", str(output))
    [row] = csv.DictReader(output.open(encoding="utf-8"))
    once, each, ratio = (float(row[name]) for name in ("once_ms", "each_ms", "features_ratio"))
    assert ratio == pytest.approx(each / once)
    assert once > 0


@pytest.mark.full_sweep
@pytest.mark.slow
def test_detectors_of_the_embedded_data_set_are_trained_and_measured(tmp_path):
    small = ["--only", "shapes_rfcn", "--num_train_steps", "2", "--num_images", "16", "--output_dir", str(tmp_path)]
    table = run("shapes_accuracy.py", *small).strip().splitlines()
    name, minutes, limit, metric, found, wanted, *verdict = table[-1].split()
    assert (name, limit, wanted, verdict) == ("shapes_rfcn_mobilenet_v1", "10", "0.80", ["NOT", "REACHED"])
    assert metric == "mAP@.50IOU"
    assert float(minutes) > 0
    assert 0 <= float(found) < 0.5


@pytest.mark.full_sweep
@pytest.mark.slow
def test_a_new_project_is_trained_and_measured(tmp_path, shared):
    data = ["--data_dir", str(shared / "data/raccoon"), "--format", "voc", "--output_dir", str(tmp_path)]
    table = run("new_project.py", *data, "--seeds", "1", "--num_train_steps", "2").strip().splitlines()
    seed, found, _, minutes, cpu_minutes, _, *verdict = table[-1].split()
    assert (seed, verdict) == ("0", ["NOT", "REACHED"])
    assert 0 <= float(found) < 0.6
    assert float(minutes) > 0
    assert float(cpu_minutes) > 0


@pytest.mark.full_sweep
@pytest.mark.slow
def test_canvases_are_compared(tmp_path):
    small = ["--only", "shapes_ssd", "--num_train_steps", "2", "--num_images", "16", "--output_dir", str(tmp_path)]
    *_, alone, _ = run("canvas.py", *small).strip().splitlines()
    name, _, *found, spread = alone.split()
    assert (name, float(spread)) == ("shapes_ssd_mobilenet_v1", 0.0)
    assert len(set(found)) == 1
    assert len(found) == 4


@pytest.mark.full_sweep
@pytest.mark.slow
def test_the_report_of_the_papers_grid_is_timed(tmp_path):
    output = tmp_path / "rows.csv"
    # It exits with 1 if it takes more than 20 s by the clock, as it may on a loaded machine.
    flags = ["--output_dir", str(tmp_path / "sweep"), "--output", str(output)]
    printed = run_process("sweep_report.py", *flags, codes=(0, 1))
    assert "report of 147 points" in printed
    start, report = csv.DictReader(output.open(encoding="utf-8"))
    assert 0 < float(start["wall_seconds"]) < float(report["wall_seconds"])
    assert float(report["processor_seconds"]) < 20
    assert (tmp_path / "sweep" / "report.html").is_file()


@pytest.mark.full_sweep
@pytest.mark.slow
def test_runtimes_are_compared_next_to_a_detector_that_is_not_there(tmp_path):
    pytest.importorskip("onnxruntime", reason="needs detzoo[onnx]: onnxruntime is not installed")
    output = tmp_path / "rows.csv"
    words = ["--detectors", str(SMALL), "--runtimes", "tensorflow,onnxruntime,litert", "--runs", "4"]
    shown = run_process("runtimes.py", *words, "--output", str(output))
    assert "skipped: --yolo_python names no Python with ultralytics" in shown
    rows = list(csv.DictReader(output.open()))
    assert [row["runtime"] for row in rows] == ["tensorflow", "onnxruntime", "litert", "onnxruntime"]
    assert float(rows[0]["of_tensorflow"]) == 1.0
    assert all(float(row["memory_mib"]) < float(rows[0]["memory_mib"]) for row in rows[1:3])


@pytest.mark.full_sweep
@pytest.mark.slow
def test_tiles_are_compared_with_whole_images(tmp_path):
    small = ["--num_train_steps", "2", "--num_images", "16", "--num_mosaics", "1", "--output_dir", str(tmp_path)]
    # It exits with 1: a detector of two steps finds nothing, so there is nothing to double.
    *_, whole, large, small_tiles = run("tiles.py", *small, codes=(0, 1)).strip().splitlines()
    assert [line.split()[0] for line in (whole, large, small_tiles)] == ["whole", "640", "400"]


@pytest.mark.full_sweep
@pytest.mark.slow
def test_a_folder_is_timed_and_its_memory_measured(tmp_path, toy):
    export_detector(toy.toy_detector(), toy.ToyResizer(), tmp_path, "image_tensor", Export())
    # It exits with 1: reading files takes longer than the toy's network.
    few = ["--saved_model", str(tmp_path), "--num_images", "64", "--size", "64x48"]
    table = run_process("detect_folder.py", *few, codes=(0, 1))
    assert "64 images of 64x48 in batches of 1" in table
    assert "KiB per image" in table


@pytest.mark.full_sweep
@pytest.mark.slow
def test_costs_are_measured_at_three_sizes(tmp_path):
    output = tmp_path / "rows.csv"
    # It exits with 1 if the tiny sizes do not show a linear cost.
    small = ["--only", "annotations,import,resume,evaluate,detect,sweep", "--scale", "0.02", "--output", str(output)]
    printed = run_process("scale.py", *small, codes=(0, 1))
    rows = list(csv.DictReader(output.open(encoding="utf-8")))
    assert [row["size"] for row in rows if row["what"] == "annotations"] == ["20", "80", "320"]
    assert len({row["what"] for row in rows}) == 7
    assert printed.count("exponent") == 7
