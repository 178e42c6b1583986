"""The command `detzoo sweep`: what it says before it starts, resuming, editing, and two points from start to end."""

from __future__ import annotations

import json
import pathlib
import shlex
import sys

import numpy as np
import pytest

from detzoo.cli.main import main
from detzoo.sweep.results import append_row, read_results
from detzoo.sweep.run.examples import keep_image
from tests.problem_text import problem_text

CONFIGS = pathlib.Path(__file__).parents[2] / "model_configs"
TWO = f"""base {{ config: "{CONFIGS}/ssd_mobilenet_v1_300.config" }}
axis {{ resolution {{ values: [300, 600] }} }}
exclude {{ reason: "no need" resolution: 600 }}
measure {{ runs: 3 warmup: 1 }}
"""
# A point's process that measures nothing: it writes what a benchmark would.
FAKE_POINT = """
import json, pathlib, sys
folder = pathlib.Path(sys.argv[1])
spec = json.loads((folder / "point.json").read_text())
measured = {"latency": {"median_ms": 4.5}}
result = {"benchmark": measured | {"parameters": spec["how"]["image_height"]}}
if "450" in spec["name"]:
    result["reason"] = "out of memory: of no account"
(folder / "result.json").write_text(json.dumps(result))
sys.exit("reason" in result)
"""


@pytest.fixture
def fake_points(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """Points run FAKE_POINT, and the sweep file has three of them."""
    (tmp_path / "fake_point.py").write_text(FAKE_POINT)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("detzoo.sweep.run.sweep.POINT_MODULE", "fake_point")
    file = tmp_path / "my.sweep"
    file.write_text(TWO.replace("[300, 600]", "[300, 450, 600]"))
    return file


def sweep(file: pathlib.Path, output_dir: pathlib.Path, *more: str) -> int:
    return main(["sweep", f"--sweep_config={file}", f"--output_dir={output_dir}", "--noreport", *more])


def test_it_says_what_it_will_do_before_it_does_it(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "my.sweep").write_text(TWO)
    assert sweep(tmp_path / "my.sweep", tmp_path / "out", "--dry_run") == 0
    shown = capsys.readouterr().out
    assert "1 point\n" in shown
    assert "1 combinations left out:\n     1  no need E.g. ssd_mobilenet_v1_300_600" in shown
    assert "1 point without accuracy, weights at random: no checkpoint is given" in shown
    assert "a guess from multiply-adds" in shown
    assert not (tmp_path / "out").exists()


def test_points_are_kept_tried_again_and_measured_anew(
    fake_points: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert sweep(fake_points, out) == 1  # one of two fails
    said = capsys.readouterr()
    assert "[2/2] ssd_mobilenet_v1_300_450: failed: out of memory: of no account (log: " in said.err
    assert "detzoo: 1 point failed; the column `reason` of" in said.err
    first = {row["name"]: row for row in read_results(out / "results.csv")}
    good = first["ssd_mobilenet_v1_300_300"]
    assert (good["status"], good["parameters"], good["latency.median_ms"]) == ("ok", 300, 4.5)
    assert good["reason"] == "no checkpoint is given"
    assert good["config"] == f"points/{good['key']}/pipeline.config"
    assert (out / str(good["config"])).is_file()
    assert shlex.split(str(good["command"]))[:2] == ["detzoo", "benchmark"]
    assert first["ssd_mobilenet_v1_300_450"]["parameters"] == 450

    assert sweep(fake_points, out) == 1  # the failed one again, the other kept
    said = capsys.readouterr()
    assert "1 measured already, 1 that failed is tried again; 1 to do" in said.out
    assert "[1/1] ssd_mobilenet_v1_300_450" in said.err
    assert sweep(fake_points, out, "--noretry_failed") == 0
    assert "2 measured already; 0 to do" in capsys.readouterr().out

    fake_points.write_text(fake_points.read_text().replace("450", "500"))  # one point edited
    assert sweep(fake_points, out) == 0
    assert "1 measured already; 1 to do" in capsys.readouterr().out

    assert sweep(fake_points, out, "--set=measure.runs=4") == 0  # new measurement: all points again
    rows = read_results(out / "results.csv")
    assert sorted(str(row["name"]) for row in rows) == [f"ssd_mobilenet_v1_300_{size}" for size in (300, 450, 500)]
    assert not {row["key"] for row in rows if row["name"] != "ssd_mobilenet_v1_300_450"} & {good["key"]}


def test_published_numbers_come_beside_measured_ones_also_later(
    fake_points: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    out = tmp_path / "out"
    table = """
        published {
          source: "table 9" columns: "mAP"
          row { of: "resolution=300" values: %s }
        }
        """
    plain = fake_points.read_text()
    fake_points.write_text(plain + table % "31.1")
    sweep(fake_points, out)
    found = {row["name"]: row for row in read_results(out / "results.csv")}
    name = "ssd_mobilenet_v1_300_300"
    assert (found[name]["published.mAP"], found[name]["published.source"]) == (0.311, "table 9")
    assert {row["published.mAP"] for other, row in found.items() if other != name} == {None}
    # Corrected numbers reach rows that are measured already.
    fake_points.write_text(plain + table % "31.5")
    sweep(fake_points, out, "--noretry_failed")
    again = {row["name"]: row for row in read_results(out / "results.csv")}
    assert again[name] == {**found[name], "published.mAP": 0.315}


def test_the_small_version_is_what_runs(
    fake_points: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = fake_points.read_text() + 'small { description: "Small" axis { resolution { values: [64, 600] } } }'
    fake_points.write_text(text)
    assert sweep(fake_points, tmp_path / "out", "--small") == 0
    assert capsys.readouterr().out.startswith("Small\n1 point\n")
    [row] = read_results(tmp_path / "out" / "results.csv")
    assert (row["name"], row["parameters"]) == ("ssd_mobilenet_v1_300_64", 64)


def test_shards_do_all_points_once(fake_points: pathlib.Path, tmp_path: pathlib.Path) -> None:
    fake_points.write_text(fake_points.read_text().replace("450", "250, 350, 400"))
    for index in (1, 2):
        assert sweep(fake_points, tmp_path / f"part{index}", f"--shard={index}/2") == 0
    parts = [str(tmp_path / f"part{index}") for index in (1, 2)]
    assert [len(read_results(f"{part}/results.csv")) for part in parts] == [2, 2]
    assert main(["sweep", "merge", f"--output_dir={tmp_path / 'all'}", *parts]) == 0
    assert len(read_results(tmp_path / "all" / "results.csv")) == 4


def test_all_problems_of_file_and_results_at_once(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "my.sweep").write_text(TWO + "axis { path { path: 'model.sdd.x' values: '1' } }")
    append_row(tmp_path / "out.csv", {"key": "a", "name": "a", "status": "ok", "mAP": 0.25})
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "results.csv").write_text((tmp_path / "out.csv").read_text().replace("0.25", "good"))
    assert sweep(tmp_path / "my.sweep", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert problem_text("my.sweep", 5, "axis[1].path.values[0]", "model.sdd.x=1: ") in said
    assert "did you mean 'ssd'" in said
    assert "results.csv:2: column 'mAP': found 'good'; accepted: a number, or nothing" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sweep", "--sweep_config=x"], "needs --output_dir"),
        (["sweep", "--sweep_config=no.sweep", "--output_dir=out"], "there is no sweep file at no.sweep"),
        (["sweep", "--sweep_config=x", "--output_dir=out", "--shard=3/2"], "accepted: I/N"),
        (["sweep", "merge", "--output_dir=out"], "takes PART...; received: nothing"),
        (["sweep", "merge", "--output_dir=out", "p", "p"], "p is given twice"),
        (["sweep", "marge"], "`detzoo sweep` has no 'marge'; did you mean 'merge'?"),
    ],
)
def test_usage_errors(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert message in capsys.readouterr().err


def test_help_has_the_flags_and_the_subcommands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "--help"]) == 0
    shown = capsys.readouterr().out
    for expected in ("--sweep_config", "--shard", "--dry_run", "merge", "report", "choose"):
        assert expected in shown


def test_starting_needs_no_tensorflow(tmp_path: pathlib.Path) -> None:
    import subprocess

    (tmp_path / "my.sweep").write_text(TWO)
    program = (
        "import sys; from detzoo.cli.main import main; "
        f"main(['sweep', '--sweep_config={tmp_path / 'my.sweep'}', '--output_dir={tmp_path / 'o'}', '--dry_run']); "
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_starting_needs_no_modules_of_posix(tmp_path: pathlib.Path) -> None:
    import subprocess

    (tmp_path / "my.sweep").write_text(TWO)
    words = ["sweep", f"--sweep_config={tmp_path / 'my.sweep'}", f"--output_dir={tmp_path / 'o'}", "--dry_run"]
    program = "import sys; sys.modules.update(fcntl=None, termios=None); from detzoo.cli.main import main; "
    program += f"sys.exit(main({words}))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_example_images_are_kept_once_under_safe_names(tmp_path: pathlib.Path) -> None:
    import numpy as np

    pixels = np.zeros([8, 12, 3], np.uint8)
    assert keep_image(tmp_path / "examples", "a/../b<c>", pixels) == "a_.._b_c_.jpg"
    first = (tmp_path / "examples" / "a_.._b_c_.jpg").stat().st_mtime_ns
    keep_image(tmp_path / "examples", "a/../b<c>", pixels + 255)
    assert (tmp_path / "examples" / "a_.._b_c_.jpg").stat().st_mtime_ns == first
    assert [file.name for file in (tmp_path / "examples").iterdir()] == ["a_.._b_c_.jpg"]


@pytest.mark.train
@pytest.mark.slow
def test_two_points_from_nothing_to_the_report(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "tiny.sweep"
    steps = "train_config.num_steps=2"
    width = "model.faster_rcnn.feature_extractor.depth_multiplier=0.25"
    file.write_text(
        f"""base {{ config: "{CONFIGS}/shapes_faster_rcnn_mobilenet_v1.config" set: "{steps}" set: "{width}" }}
        axis {{ resolution {{ values: 64 }} }} axis {{ proposals {{ values: [2, 4] }} }}
        set: "train_config.batch_size=2"
        data {{
          embedded {{
            num_train_images: 8 num_eval_images: 4
            image_size: 64
          }}
        }}
        accuracy {{ num_examples: 2 }}
        measure {{ runs: 3 warmup: 1 }} train {{}}"""
    )
    out = tmp_path / "out"
    assert main(["sweep", f"--sweep_config={file}", f"--output_dir={out}"]) == 0
    rows = read_results(out / "results.csv")
    assert [(row["proposals"], row["status"], row["num_eval_images"]) for row in rows] == [(2, "ok", 4), (4, "ok", 4)]
    assert all(isinstance(row[name], float) for row in rows for name in ("mAP", "latency.median_ms"))
    assert rows[0]["checkpoint"] == rows[1]["checkpoint"]  # one training
    assert len(list((out / "training").iterdir())) == 1
    metrics = json.loads((out / str(rows[0]["metrics"])).read_text())
    assert metrics["mAP"] == rows[0]["mAP"]
    assert set(metrics["per_class"]) == set(json.loads((out / str(rows[1]["metrics"])).read_text())["per_class"])
    examples = json.loads((out / "points" / str(rows[0]["key"]) / "examples.json").read_text())
    assert [(e["width"], e["height"]) for e in examples] == [(64, 64), (64, 64)]
    assert all((out / "examples" / e["image"]).is_file() for e in examples)
    assert all(len(e["boxes_px"]) == len(e["scores"]) == len(e["classes"]) for e in examples)
    assert (out / "report.html").is_file()
    assert not list(out.glob("points/*/export"))


@pytest.mark.train
@pytest.mark.slow
def test_a_second_stage_is_trained_and_measured_on_the_proposals_of_a_first_one(tmp_path: pathlib.Path) -> None:
    file, base = tmp_path / "tiny.sweep", f'config: "{CONFIGS}/shapes_faster_rcnn_mobilenet_v1_fpn.config"'
    file.write_text(
        f"""base {{ {base} name: "rpn" set: "model.faster_rcnn.number_of_stages=1" }}
        base {{
          {base} name: "fast" set: "model.faster_rcnn.proposals_from_reader=true"
          set: "train_input_reader.max_number_of_proposals=9" set: "eval_input_reader[0].max_number_of_proposals=5"
        }}
        set: "train_config.num_steps=1" set: "train_config.batch_size=2"
        set: "model.faster_rcnn.feature_extractor.depth_multiplier=0.25"
        set: "model.faster_rcnn.image_resizer.fixed_shape_resizer.height=64"
        set: "model.faster_rcnn.image_resizer.fixed_shape_resizer.width=64"
        data {{
          embedded {{
            num_train_images: 8 num_eval_images: 4
            image_size: 64
          }}
        }}
        measure {{ speed: false }} train {{ proposals_from: "rpn" }}
        published {{
          source: "a paper" columns: "mAP"
          row {{ of: "base=fast" values: 33.9 }}
        }}"""
    )
    out = tmp_path / "out"
    assert sweep(file, out) == 0
    rpn, fast = read_results(out / "results.csv")
    assert (rpn["status"], fast["status"]) == ("ok", "ok")
    assert isinstance(rpn["AR@1000"], float)
    assert (rpn["mAP"], rpn["latency.median_ms"], fast["latency.median_ms"]) == (None, None, None)
    assert isinstance(fast["mAP"], float)
    assert fast["published.mAP"] == 0.339
    assert fast["environment.versions.tensorflow"]
    [folder] = (out / "proposals").iterdir()
    for name, images, most in (("train", 8, 9), ("eval", 4, 5)):
        with np.load(folder / f"{name}.npz") as found:
            counts = np.diff(found["offsets"])
        assert len(counts) == images
        assert 0 < counts.max() <= most


@pytest.mark.slow
def test_a_checkpoint_that_does_not_fit_is_named_before_the_first_point(
    tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str], load_module
) -> None:
    from detzoo.config.load import load_pipeline
    from detzoo.tasks.models import build_untrained

    half = load_pipeline(str(CONFIGS / "shapes_ssd_mobilenet_v1.config")).message.model
    load_module("cli/conftest.py").save_checkpoint(build_untrained(half), tmp_path / "half", 3)
    file = tmp_path / "my.sweep"
    file.write_text(
        f"""base {{ config: "{CONFIGS}/shapes_ssd_mobilenet_v1.config" }}
        axis {{
          path {{
            path: "model.ssd.feature_extractor.depth_multiplier" values: ["0.5", "0.25"]
            name: "w"
          }}
        }}
        axis {{ resolution {{ values: [64, 96] }} }}
        accuracy {{ checkpoint: "{tmp_path}/half" measure: false }}"""
    )
    assert sweep(file, tmp_path / "out") == 1
    said = capfd.readouterr().err
    wrong = "shapes_ssd_mobilenet_v1_w0.25_64, shapes_ssd_mobilenet_v1_w0.25_96"
    assert f"{wrong}: the checkpoint {tmp_path}/half/ckpt-3 (a detector of detzoo) is of another model" in said
    assert "shapes_ssd_mobilenet_v1_w0.5_64: the checkpoint" not in said
    assert not (tmp_path / "out" / "results.csv").exists()
