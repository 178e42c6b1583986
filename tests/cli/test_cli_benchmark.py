"""``detzoo benchmark`` from flags to numbers."""

from __future__ import annotations

import json

import pytest

from detzoo.benchmark import runner, yardstick
from detzoo.benchmark.process import ProcessCosts
from detzoo.cli.benchmark import image_shape
from detzoo.cli.main import main
from detzoo.errors import UsageError


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(yardstick, "measure_gflops", lambda: 150.0)
    costs = ProcessCosts(3.0, 500.0, 1.0, 600.0, 0.5, 700.0)
    monkeypatch.setattr(runner, "measure_process", lambda *_: costs)


def test_a_config_is_exported_with_random_weights_and_measured(toy_run, quick, capsys):
    output = toy_run.folder / "result.json"
    flags = [f"--pipeline_config_path={toy_run.config}", "--runs=2", "--warmup=1", "--image_size=40x60"]
    assert main(["benchmark", *flags, f"--output={output}"]) == 0
    shown = capsys.readouterr().out
    assert "150 GFLOP/s" in shown
    result = json.loads(output.read_text())
    assert (result["model"], result["image_height"], result["image_width"]) == ("pipeline", 40, 60)
    assert result["device"] == "CPU"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "either --saved_model or --pipeline_config_path"),
        (["--saved_model=a", "--pipeline_config_path=b"], "either --saved_model or --pipeline_config_path"),
        (["--saved_model=nowhere"], "--saved_model nowhere does not exist"),
        (["--saved_model=a", "--output=result.txt"], "end in .json or .csv"),
        (["--saved_model=a", "--image_size=big"], "HEIGHTxWIDTH"),
        (["--saved_model=a", "--device=gpu"], "TensorFlow sees no GPU"),
        (["--saved_model=a", "--runs=0"], "runs"),
    ],
)
def test_mistakes_get_one_message(quick, capsys, flags, message):
    assert main(["benchmark", *flags]) == 2
    assert message in capsys.readouterr().err


def test_image_sizes():
    assert image_shape("480x640") == (480, 640)
    for wrong in ("480", "0x5", "axb", "1x2x3"):
        with pytest.raises(UsageError, match="HEIGHTxWIDTH"):
            image_shape(wrong)
