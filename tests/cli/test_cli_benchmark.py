"""``detzoo benchmark`` from flags to numbers."""

from __future__ import annotations

import json

import pytest

from detzoo.benchmark import machine, runner
from detzoo.benchmark.measures import BenchmarkOptions
from detzoo.benchmark.process import ProcessCosts
from detzoo.cli.benchmark import image_shape
from detzoo.cli.main import main
from detzoo.config.load import load_pipeline
from detzoo.errors import UsageError
from detzoo.tasks.benchmark import benchmark


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(machine, "measure_gflops", lambda: 150.0)
    costs = ProcessCosts(3.0, 500.0, 1.0, 600.0, 0.5, 700.0)
    monkeypatch.setattr(runner, "measure_process", lambda *_, **__: costs)
    monkeypatch.setattr(runner, "load_before", lambda: 0.0)


SHORT = ["--runs=2", "--warmup=1", "--image_size=40x60", "--min_seconds=0"]


def test_a_config_is_exported_with_random_weights_and_measured(toy_run, quick, capsys):
    output = toy_run.folder / "result.json"
    flags = [f"--pipeline_config_path={toy_run.config}", *SHORT]
    assert main(["benchmark", *flags, f"--output={output}"]) == 0
    shown = capsys.readouterr().out
    assert "150 GFLOP/s" in shown
    result = json.loads(output.read_text())
    assert (result["model"], result["image_height"], result["image_width"]) == ("pipeline", 40, 60)
    assert result["device"] == "CPU"


def test_each_batch_size_as_json_and_nothing_else(toy_run, quick, capsys):
    output = toy_run.folder / "result.json"
    flags = [f"--pipeline_config_path={toy_run.config}", *SHORT, "--batch_size=1,2", f"--output={output}"]
    assert main(["benchmark", *flags, "--json", "--quiet"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads(output.read_text())
    assert [result["batch_size"] for result in document] == [1, 2]
    assert all(isinstance(result["latency"]["median_ms"], float) for result in document)
    assert main(["benchmark", "--saved_model=nowhere", "--json"]) == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "either --saved_model or --pipeline_config_path"),
        (["--saved_model=a", "--pipeline_config_path=b"], "either --saved_model or --pipeline_config_path"),
        (["--saved_model=nowhere"], "--saved_model nowhere does not exist"),
        (["--saved_model=a", "--output=result.txt"], "end in .json or .csv"),
        (["--saved_model=a", "--image_size=big"], "HEIGHTxWIDTH"),
        (["--saved_model=a", "--runs=0"], "runs"),
        (["--saved_model=a", "--intra_op_threads=-1"], "intra_op_threads"),
        (["--saved_model=a", "--precision=int8"], "precision"),
        (["--saved_model=a", "--batch_size=1,0"], "--batch_size is '1,0'; give whole numbers from 1 on"),
        (["--saved_model=a", "--batch_size=2", "--batch_size=2"], "names a size twice"),
        (["--saved_model=a", "--checkpoint_dir=b"], "--trained_checkpoint_dir goes with --pipeline_config_path"),
        (["--saved_model=a", "--set=model.ssd.num_classes=3"], "--set changes a config"),
    ],
)
def test_mistakes_get_one_message(quick, capsys, flags, message):
    assert main(["benchmark", *flags]) == 2
    assert message in capsys.readouterr().err


def test_what_is_wrong_is_told_before_anything_is_measured(toy_run, quick, capsys, monkeypatch, tmp_path):
    def never(*_):
        raise AssertionError("exported")

    monkeypatch.setattr("detzoo.export.exporter.export_detector", never)
    (tmp_path / "old.csv").write_text("model,speed\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"text")
    for flags, code, message in (
        ([f"--output={tmp_path}/new.json", f"--output={tmp_path}/old.csv"], 2, "other columns than this version"),
        ([f"--images={tmp_path}/empty"], 2, "no image there; looked for .bmp"),
        ([f"--images={tmp_path}/bad"], 1, "none of 1 files could be read as images"),
        (["--device=cpu", "--precision=float16"], 2, "float16 on a CPU; accepted there: float32, bfloat16"),
        (["--precision=bfloat16", "--jit_compile"], 2, "give one of the two"),
        (["--device=gpu"], 2, "TensorFlow sees no GPU"),
        ([f"--checkpoint_dir={tmp_path}/empty"], 1, "holds no checkpoint"),
        (["--intra_op_threads=3"], 1, "TensorFlow has started already"),
    ):
        assert main(["benchmark", f"--pipeline_config_path={toy_run.config}", *flags]) == code, flags
        assert message in capsys.readouterr().err


def test_a_checkpoint_is_measured_at_several_batch_sizes(toy_run, quick, capsys, tmp_path):
    flags = [f"--pipeline_config_path={toy_run.config}", f"--trained_checkpoint_dir={toy_run.model_dir}", *SHORT]
    outputs = [f"--output={tmp_path}/rows.csv", f"--output={tmp_path}/rows.json"]
    assert main(["benchmark", *flags, "--batch_size=1,2", *outputs]) == 0
    assert "2 x 40 x 60" in capsys.readouterr().out
    assert [row["batch_size"] for row in json.loads((tmp_path / "rows.json").read_text())] == [1, 2]
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == 3


def test_the_export_stays_where_the_caller_wants_it(toy_run, quick, tmp_path):
    options = BenchmarkOptions(runs=2, warmup=1, image_shape=(40, 60), device="auto", min_seconds=0.0)
    loaded = load_pipeline(str(toy_run.config))
    folder, weights = tmp_path / "exported", str(toy_run.model_dir)
    [result] = benchmark(loaded, options=options, export_folder=folder, trained_checkpoint_dir=weights)
    assert result["latency"]["median_ms"] > 0
    record = json.loads((tmp_path / "exported" / "export.json").read_text())
    assert (record["checkpoint"], record["parameters"]) == (str(toy_run.model_dir), result["parameters"])
    assert (tmp_path / "exported" / "saved_model" / "saved_model.pb").is_file()


def test_image_sizes():
    assert image_shape("480x640") == (480, 640)
    for wrong in ("480", "0x5", "axb", "1x2x3"):
        with pytest.raises(UsageError, match="HEIGHTxWIDTH"):
            image_shape(wrong)
