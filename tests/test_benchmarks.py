"""Every program in benchmarks/ starts, and the two that train take a step: what is not run rots."""

from __future__ import annotations

import csv
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROGRAMS = [path for path in sorted((ROOT / "benchmarks").glob("*.py")) if path.stem != "rows"]
SMALL = ROOT / "model_configs" / "shapes_ssd_mobilenet_v1.config"


def run(program: str, *words: str, codes: tuple[int, ...] = (0,)) -> str:
    """What a benchmark prints."""
    command = [sys.executable, str(ROOT / "benchmarks" / program), *words]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode in codes, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("program", [path.name for path in PROGRAMS])
def test_a_benchmark_says_how_to_read_its_table(program):
    text = (ROOT / "benchmarks" / program).read_text(encoding="utf-8")
    compile(text, program, "exec")
    assert f"python benchmarks/{program}" in text


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


@pytest.mark.slow
def test_crops_are_timed(tmp_path):
    output = tmp_path / "rows.csv"
    run("roi_crop.py", "--runs", "1", "--boxes", "20", "--output", str(output))
    rows = list(csv.DictReader(output.open(encoding="utf-8")))
    assert all(float(row["measured"]) > 0 for row in rows)
    assert sum(row["unit"] == "x" for row in rows) == 12
    assert sum(row["wanted"] == "1.3" for row in rows) == 3
