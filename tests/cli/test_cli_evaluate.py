"""``detzoo evaluate`` from flags to files."""

from __future__ import annotations

import json

import pytest

from detzoo.cli.main import main
from detzoo.config.load import load_pipeline, save_pipeline
from tests.cli.conftest import save_best


def arguments(run, *more, output="out"):
    flags = [f"--pipeline_config_path={run.config}", f"--checkpoint_dir={run.model_dir}"]
    return ["evaluate", *flags, f"--output_dir={run.folder / output}", *more]


def test_a_checkpoint_becomes_numbers_and_a_table(toy_run, capsys):
    assert main(arguments(toy_run)) == 0
    shown = capsys.readouterr()
    assert "step 7: 3 images" in shown.out
    assert "mAP@.50IOU" in shown.out
    assert shown.out.endswith(f"{toy_run.folder / 'out' / 'report.html'} explains the numbers\n")
    page = (toy_run.folder / "out" / "report.html").read_text()
    assert page.count("data:image/jpeg") == 2 * 3  # each image has a missed object, and is drawn twice
    metrics = json.loads((toy_run.folder / "out" / "metrics.json").read_text())
    assert metrics["best_score_threshold"] is None  # the toy finds nothing
    assert (metrics["step"], metrics["num_images"]) == (7, 3)
    assert -1 <= metrics["mAP"] <= 1
    assert metrics["per_class"]["cat"]["objects"] == 3
    detections = json.loads((toy_run.folder / "out" / "detections.json").read_text())
    assert {entry["image_id"] for entry in detections} == {100, 101, 102}
    assert len(detections) == 3 * 5


def test_the_numbers_as_json_and_nothing_else(toy_run, capsys):
    assert main(arguments(toy_run, "--json", "--quiet")) == 0
    printed = capsys.readouterr()
    assert [line.split()[1] for line in printed.err.splitlines()] == ["warning:"]  # of an untrained batch normalization
    document = json.loads(printed.out)
    assert document == json.loads((toy_run.folder / "out" / "metrics.json").read_text())
    assert (document["step"], document["num_images"]) == (7, 3)
    assert all(isinstance(document[name], float) for name in ("mAP", "mAP@.50IOU", "AR@100", "seconds"))
    assert main(arguments(toy_run, "--json", f"--checkpoint_dir={toy_run.folder / 'none'}")) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("detzoo: ")


def test_a_better_checkpoint_is_named(toy_run, capsys):
    save_best(toy_run, 5)
    assert main(arguments(toy_run)) == 0
    best = toy_run.model_dir / "best"
    assert f"this is step 7; best is step 5, mAP 0.61: --checkpoint_dir {best}" in capsys.readouterr().err
    assert main(arguments(toy_run, f"--checkpoint_dir={best}")) == 0
    assert "best is" not in capsys.readouterr().err


def test_metrics_sets_and_overrides(toy_run, capsys):
    override = "--set=eval_config.metrics_set[0]=pascal_voc_2007_detection_metrics"
    assert main(arguments(toy_run, override)) == 0
    assert "VOC2007 mAP@.50IOU" in capsys.readouterr().out
    assert main(arguments(toy_run, "--set=eval_config.metrics_set[0]=voc")) == 2
    assert "accepted: coco_detection_metrics" in capsys.readouterr().err


def test_proposals_of_one_model_are_anothers_regions(toy, toy_run, capsys):
    toy_run.kind = toy.ToyProposer
    assert main(arguments(toy_run)) == 0
    shown = capsys.readouterr().out
    assert "AR@1000 (small)" in shown
    assert "explains" not in shown
    assert not (toy_run.folder / "out" / "report.html").exists()
    assert "mAP" not in shown
    metrics = json.loads((toy_run.folder / "out" / "metrics.json").read_text())
    assert 0 <= metrics["AR@10"] == metrics["AR@1000"] <= 1  # there are five proposals per image
    proposals = toy_run.folder / "out" / "proposals.npz"

    toy_run.kind = toy.ToyRegionDetector
    assert main(arguments(toy_run, output="regions")) == 2
    assert "set eval_input_reader[0].proposals_path to the proposals.npz" in capsys.readouterr().err
    path = f"--set=eval_input_reader[0].proposals_path={proposals}"
    assert main(arguments(toy_run, path, output="regions")) == 0
    assert "mAP@.50IOU" in capsys.readouterr().out
    found = json.loads((toy_run.folder / "regions" / "detections.json").read_text())
    first = json.loads((toy_run.folder / "out" / "detections.json").read_text())
    assert len(found) == len(first) == 3 * 5
    for one, other in zip(found, first):
        assert one["image_id"] == other["image_id"]
        assert one["bbox"] == pytest.approx(other["bbox"], abs=1e-3)
    assert main(arguments(toy_run, f"{path}.gone")) == 1
    assert "proposals.npz.gone cannot be read: No such file or directory" in capsys.readouterr().err


def test_continuous_ends_with_a_finished_training(toy_run, capsys, logged_scalars):
    (toy_run.model_dir / "finished").write_text("{}")
    assert main(arguments(toy_run, "--continuous")) == 0
    assert capsys.readouterr().out.count("step 7:") == 1
    metrics = json.loads((toy_run.folder / "out" / "metrics.json").read_text())
    logged = logged_scalars(toy_run.folder / "out")
    assert logged["DetectionBoxes_Precision/mAP"] == [pytest.approx(metrics["mAP"])]
    assert (toy_run.folder / "out" / "report.html").is_file()
    assert main(arguments(toy_run, "--continuous", "--json")) == 0
    [line] = capsys.readouterr().out.splitlines()  # one object per line and checkpoint
    assert json.loads(line)["step"] == 7


def test_an_evaluation_writes_events_unless_it_is_asked_not_to(toy_run):
    out = toy_run.folder / "out"
    pictures = f"--set=eval_config.visualization_export_dir='{out / 'pictures'}'"
    assert main(arguments(toy_run, pictures, "--set=eval_config.num_visualizations=2")) == 0
    [events] = out.glob("events.out.tfevents*")
    for tag in (b"eval_side_by_side_1_0", b"precision_recall@.50IOU/cat", b"DetectionBoxes_Recall/AR@100"):
        assert tag in events.read_bytes()
    assert b"eval_side_by_side_2_0" not in events.read_bytes()
    assert {file.name for file in (out / "pictures").iterdir()} == {"export-image-0.png", "export-image-1.png"}
    assert main(arguments(toy_run, "--norecord_summaries", output="none")) == 0
    assert not list((toy_run.folder / "none").glob("events*"))


def test_continuous_without_a_checkpoint_gives_up_after_the_time(toy_run, capsys):
    (toy_run.folder / "empty").mkdir()
    flags = [f"--checkpoint_dir={toy_run.folder / 'empty'}", "--continuous", "--timeout_secs=0"]
    assert main(arguments(toy_run, *flags)) == 1
    assert "no checkpoint came to" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        ("--checkpoint_dir=nowhere", 1, "there is no checkpoint at nowhere"),
        ("--set=eval_input_reader[0].label_map_path=", 2, "label_map_path: is missing"),
        (
            "--set=eval_input_reader[0].tf_record_input_reader.input_path[0]=none.record",
            2,
            "no file matches 'none.record'",
        ),
        ("--pipeline_config_path=none.config", 2, "no pipeline config at none.config"),
        ("--continous", 2, "continuous"),
    ],
)
def test_mistakes_get_one_message(toy_run, capsys, change, code, message):
    assert main(arguments(toy_run, change)) == code
    assert message in capsys.readouterr().err


def test_a_config_without_an_eval_input_reader(toy_run, capsys):
    message = load_pipeline(str(toy_run.config)).message
    message.ClearField("eval_input_reader")
    save_pipeline(message, toy_run.config)
    assert main(arguments(toy_run)) == 2
    assert "has no eval_input_reader" in capsys.readouterr().err


def test_a_saved_model_is_measured_as_its_checkpoint_is(toy_run, capsys):
    assert main(arguments(toy_run)) == 0
    flags = [f"--pipeline_config_path={toy_run.config}", f"--trained_checkpoint_dir={toy_run.model_dir}"]
    assert main(["export", *flags, f"--output_directory={toy_run.folder / 'exported'}"]) == 0
    saved_model = f"--saved_model={toy_run.folder / 'exported'}"
    assert main(["evaluate", flags[0], saved_model, f"--output_dir={toy_run.folder / 'again'}"]) == 0
    assert "exported: 3 images" in capsys.readouterr().out
    listed = [json.loads((toy_run.folder / name / "detections.json").read_text()) for name in ("out", "again")]
    assert [entry["image_id"] for entry in listed[0]] == [entry["image_id"] for entry in listed[1]]
    digests = [json.loads((toy_run.folder / name / "metrics.json").read_text())["weights"] for name in ("out", "again")]
    assert digests[0] == digests[1]
    for first, second in zip(*listed):
        assert second["score"] == pytest.approx(first["score"], abs=1e-3)
        assert second["bbox"] == pytest.approx(first["bbox"], abs=0.1)


def test_a_finished_evaluation_is_explained_without_a_model(toy_run, capsys):
    out = toy_run.folder / "out"
    assert main(arguments(toy_run)) == 0
    capsys.readouterr()
    (out / "report.html").unlink()
    assert main(["evaluate", f"--detections={out}", f"--compare_with={out}"]) == 0
    assert "mAP@.50IOU" in capsys.readouterr().out
    assert '<section id="difference">' in (out / "report.html").read_text()
    config = f"--pipeline_config_path={toy_run.config}"
    assert main(["evaluate", f"--detections={out}", config, f"--output_dir={toy_run.folder / 'page'}"]) == 0
    assert "data:image/jpeg" in (toy_run.folder / "page" / "report.html").read_text()
    assert sorted(path.name for path in (toy_run.folder / "page").iterdir()) == ["metrics.json", "report.html"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--detections=nowhere"], "nowhere/groundtruth.json: No such file or directory"),
        (["--detections=x", "--checkpoint_dir=y"], "so no model is run; leave out --checkpoint_dir"),
        ([], "needs --pipeline_config_path, or --detections without a model"),
        (
            ["--pipeline_config_path=x", "--checkpoint_dir=y", "--output_dir=z", "--continuous", "--compare_with=w"],
            "leave it out with --continuous",
        ),
    ],
)
def test_mistakes_with_reports(capsys, flags, message):
    assert main(["evaluate", *flags]) == 2
    assert message in capsys.readouterr().err


def test_the_other_evaluation_is_read_before_the_model_runs(toy_run, capsys):
    assert main(arguments(toy_run, "--compare_with=nowhere")) == 2
    shown = capsys.readouterr()
    assert "nowhere/groundtruth.json: No such file or directory; `detzoo evaluate` writes it" in shown.err
    assert not (toy_run.folder / "out" / "metrics.json").exists()


def test_tiles_are_measured_with_a_checkpoint_and_with_its_export(toy_run, capsys):
    tiles = ["--tile=32", "--tile_overlap=0.5"]
    assert main([*arguments(toy_run), *tiles]) == 0
    flags = [f"--pipeline_config_path={toy_run.config}", f"--trained_checkpoint_dir={toy_run.model_dir}"]
    assert main(["export", *flags, f"--output_directory={toy_run.folder / 'exported'}"]) == 0
    saved_model = f"--saved_model={toy_run.folder / 'exported'}"
    assert main(["evaluate", flags[0], saved_model, f"--output_dir={toy_run.folder / 'again'}", *tiles]) == 0
    capsys.readouterr()
    listed = [json.loads((toy_run.folder / name / "detections.json").read_text()) for name in ("out", "again")]
    assert len(listed[0]) == len(listed[1]) > 3 * 5, "more than in whole images"
    for first, second in zip(*listed):
        assert second["bbox"] == pytest.approx(first["bbox"], abs=0.1)
    metrics = json.loads((toy_run.folder / "out" / "metrics.json").read_text())
    assert (metrics["tile"], metrics["tile_overlap"]) == (32, 0.5)
    continuous = ["--continuous", "--timeout_secs=0"]
    assert main([*arguments(toy_run), *tiles, *continuous]) == 0
    assert json.loads((toy_run.folder / "out" / "metrics.json").read_text())["mAP"] == metrics["mAP"]
    assert main([*arguments(toy_run), "--tile_overlap=0.5"]) == 2
    assert "--tile_overlap goes with --tile" in capsys.readouterr().err
