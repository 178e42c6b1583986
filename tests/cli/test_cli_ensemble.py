"""``detzoo ensemble`` and ``detzoo detect --ensemble`` from flags to files."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from detzoo.cli.main import main
from detzoo.export.exporter import Export, export_detector

LABEL_MAP = """
    item { id: 1 name: 'cat' }
    item {
      id: 2 name: 'dog'
      display_name: 'Dog'
    }
    item { id: 3 name: 'bird' }
    """


@pytest.fixture(scope="module")
def exports(toy, tmp_path_factory):
    """Two toys of different weights, exported."""
    folder = tmp_path_factory.mktemp("exports")
    for name, seed in (("one", 1), ("two", 2)):
        export = Export("", LABEL_MAP)
        export_detector(toy.toy_detector(seed=seed), toy.ToyResizer(), folder / name, "image_tensor", export)
    return folder


@pytest.fixture
def evaluations(toy_run, exports):
    """Each toy evaluated alone: the folders of their numbers."""
    for name in ("one", "two"):
        flags = [f"--pipeline_config_path={toy_run.config}", f"--saved_model={exports / name}"]
        assert main(["evaluate", *flags, f"--output_dir={toy_run.folder / name}"]) == 0
    return toy_run.folder


def read(folder, file="metrics.json"):
    return json.loads((folder / file).read_text())


def evaluate(*flags):
    return main(["ensemble", "evaluate", *(str(flag) for flag in flags)])


def test_models_that_run_and_their_finished_evaluations_merge_to_the_same(toy_run, exports, evaluations, capsys):
    folder = toy_run.folder
    options = ["--box_voting", "--scores=mean", "--weights=1,0.5", "--iou_threshold=0.3"]
    running = [f"--pipeline_config_path={toy_run.config}", f"--saved_models={exports / 'one'},{exports / 'two'}"]
    assert evaluate(*running, *options, f"--output_dir={folder / 'running'}") == 0
    stored = f"--evaluations={folder / 'one'},{folder / 'two'}"
    assert evaluate(stored, *options, f"--output_dir={folder / 'stored'}") == 0
    shown = capsys.readouterr().out
    assert shown.count("one + two: 3 images") == 2
    assert "mAP@.50IOU" in shown
    listed = [read(folder / name, "detections.json") for name in ("running", "stored")]
    assert len(listed[0]) == len(listed[1]) > 0
    for first, second in zip(*listed):
        assert (first["image_id"], first["category_id"]) == (second["image_id"], second["category_id"])
        assert second["score"] == pytest.approx(first["score"], abs=1e-5)
        assert second["bbox"] == pytest.approx(first["bbox"], abs=1e-2)
    assert read(folder / "running")["mAP"] == pytest.approx(read(folder / "stored")["mAP"], abs=1e-6)
    # A measured ensemble can be run again from its description, which the metrics name.
    description = read(folder / "running", "ensemble.json")
    assert [model["weight"] for model in description["models"]] == [1.0, 0.5]
    assert read(folder / "stored")["ensemble"]["merging"]["scores"] == "mean"
    again = [f"--ensemble={folder / 'running'}", running[0], f"--output_dir={folder / 'again'}"]
    assert evaluate(*again) == 0
    assert read(folder / "again", "detections.json") == listed[0]


def test_one_model_sees_more_views(toy_run, exports, tmp_path, capsys):
    running = [f"--pipeline_config_path={toy_run.config}", f"--saved_models={exports / 'one'}"]
    assert evaluate(*running, "--flip", "--crops=1x2", "--iou_threshold=1", f"--output_dir={tmp_path / 'views'}") == 0
    assert "1 model x 6 views of each image" in capsys.readouterr().err
    assert read(tmp_path / "views", "ensemble.json")["views"] == {"crops": ["1x2"], "overlap": 0.25, "flip": True}
    found = read(tmp_path / "views", "detections.json")
    assert 3 * 10 <= len(found) <= 3 * 6 * 5  # five a view; those of the whole image and of its mirror image all stay

    pixels = np.random.default_rng(0).integers(0, 256, (50, 90, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    flags = [f"--ensemble={tmp_path / 'views'}", f"--images={tmp_path / 'photo.png'}", "--score_threshold=0"]
    assert main(["detect", *flags, f"--output_dir={tmp_path / 'pictures'}"]) == 0
    entries = read(tmp_path / "pictures", "detections.json")
    assert 10 <= len(entries) <= 30
    assert {entry["category_name"] for entry in entries} <= {"cat", "Dog", "bird"}
    assert (tmp_path / "pictures" / "photo.png").is_file()


def write_metrics(folder, per_class, **more):
    folder.mkdir(parents=True)
    rows = {name: {"AP": value, "objects": 4} for name, value in zip("pqr", per_class)}
    numbers = {"mAP": sum(per_class) / len(per_class), "num_images": 8, "per_class": rows, **more}
    (folder / "metrics.json").write_text(json.dumps(numbers))


def test_a_choice_is_printed_and_written(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_metrics(tmp_path / "runs" / "a" / "out", [0.9, 0.5], saved_model="exports/a")
    write_metrics(tmp_path / "runs" / "b" / "out", [0.9, 0.4], checkpoint="b/ckpt-1")
    write_metrics(tmp_path / "runs" / "c" / "out", [0.2, 0.6])
    assert main(["ensemble", "select", "--evaluations=runs/*/out", "--num_models=2", "--box_voting"]) == 0
    shown = capsys.readouterr()
    assert "too close to a" in shown.out
    assert "2 of 3 chosen" in shown.out
    assert "the gain is not shown: there is no detections.json in runs/a/out" in shown.err
    written = json.loads((tmp_path / "ensemble.json").read_text())
    assert [model["name"] for model in written["models"]] == ["a", "c"]
    assert written["models"][0]["saved_model"] == "exports/a"
    assert written["merging"]["box_voting"] is True
    assert [row["decision"] for row in written["selection"]["considered"]] == ["chosen", "too close to a", "chosen"]


def test_a_choice_is_measured(evaluations, capsys):
    output = evaluations / "chosen" / "ensemble.json"
    flags = [f"--evaluations={evaluations}/one,{evaluations}/two", "--max_similarity=1", f"--output={output}"]
    alone = {name: read(evaluations / name)["mAP"] for name in ("one", "two")}
    code = main(["ensemble", "select", *flags])
    shown = capsys.readouterr()
    if min(alone.values()) == 0:  # a toy that finds nothing is not chosen
        assert code == 1
        assert "only 1 model was chosen" in shown.err or "finds nothing" in shown.out
        return
    assert code == 0
    measured = read(evaluations / "chosen", "ensemble.json")["selection"]["measured"]
    assert [gain["label"] for gain in measured] == ["the best model", "the ensemble"]
    assert measured[0]["overall"] == max(alone.values())
    assert evaluate(f"--ensemble={output}", f"--output_dir={evaluations / 'merged'}") == 0
    assert measured[1]["overall"] == pytest.approx(read(evaluations / "merged")["mAP"])


def test_points_of_a_sweep_are_candidates(tmp_path, capsys):
    from detzoo.sweep.results import append_row

    for name, precisions in (("fast", [0.5, 0.4]), ("slow", [0.2, 0.7])):
        write_metrics(tmp_path / "points" / name, precisions)
        metrics = f"points/{name}/metrics.json"
        row = {
            "key": name,
            "name": f"ssd {name}",
            "status": "ok",
            "metrics": metrics,
            "checkpoint": str(tmp_path / name),
        }
        append_row(tmp_path / "results.csv", row)
    append_row(tmp_path / "results.csv", {"key": "x", "name": "broken", "status": "failed", "reason": "killed"})
    output = tmp_path / "ensemble.json"
    assert main(["ensemble", "select", f"--evaluations={tmp_path}", f"--output={output}", "--nomeasure"]) == 0
    shown = capsys.readouterr()
    assert "1 of 3 points have no accuracy" in shown.err
    models = json.loads(output.read_text())["models"]
    assert [(model["name"], model["checkpoint"]) for model in models] == [("ssd fast", "fast"), ("ssd slow", "slow")]


def test_too_much_alike_is_an_error_with_a_way_out(tmp_path, capsys):
    write_metrics(tmp_path / "a", [0.4, 0.4])
    write_metrics(tmp_path / "b", [0.3, 0.3])
    flags = [f"--evaluations={tmp_path}/a,{tmp_path}/b", "--max_similarity=0.9", f"--output={tmp_path / 'e.json'}"]
    assert main(["ensemble", "select", *flags]) == 1
    assert "only 1 model was chosen, an ensemble needs 2; --max_similarity=1.00000 takes" in capsys.readouterr().err
    assert not (tmp_path / "e.json").exists()


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["select", "--evaluations=DIR/one"], 2, "from at least 2 evaluations, received 1"),
        (["select", "--evaluations=DIR/one,DIR/./one"], 2, "is given twice (the other time as"),
        (["select", "--evaluations=DIR/one,DIR/none"], 2, "none/metrics.json: does not exist"),
        (["select", "--evaluations=DIR/x*"], 2, "x* matches nothing"),
        (["select", "--evaluations=DIR/one,DIR/two", "--max_similarity=1.5"], 2, "max_similarity"),
        (["evaluate", "--saved_models=EXPORTS/one"], 2, "one model alone is no ensemble: give a second one"),
        (["evaluate", "--evaluations=DIR/one"], 2, "merging finished evaluations takes at least 2"),
        (["evaluate"], 2, "give one of --ensemble, --saved_models and --evaluations; received none"),
        (["evaluate", "--saved_models=EXPORTS/one,EXPORTS/two"], 2, "running models needs --pipeline_config_path"),
        (["evaluate", "--saved_models=EXPORTS/one,EXPORTS/none", "CONFIG"], 2, "none does not exist"),
        (["evaluate", "--saved_models=EXPORTS/one,EXPORTS/one/", "CONFIG"], 2, "is given twice"),
        (["evaluate", "--evaluations=DIR/one,DIR/two", "--flip"], 2, "looked at by running the models"),
        (["evaluate", "--evaluations=DIR/one,DIR/two", "--weights=1"], 2, "--weights has 1 numbers for 2 models"),
        (["evaluate", "--evaluations=DIR/one,DIR/two", "--weights=1,x"], 2, "accepted: a number above 0 for each"),
        (
            ["evaluate", "--evaluations=DIR/one,DIR/two", "--iou_threshold=2"],
            2,
            "--iou_threshold=2: 2.0 is not a number in the range",
        ),
        (["evaluate", "--evaluations=DIR/one,DIR/two", "--crops=0x2"], 2, "--crops has 0x2; accepted: ROWSxCOLUMNS"),
        (["evaluate", "--evaluations=DIR/one,DIR/two", "--crop_overlap=0.5"], 2, "--crop_overlap needs --crops"),
        (["evaluate", "--evaluations=DIR/one,DIR/two", "CONFIG"], 2, "to run models give --saved_models instead"),
        (["evaluate", "--evaluations=DIR/one,DIR/two"], 2, "groundtruth.json: No such file or directory"),
        (["evaluate", "--ensemble=DIR/unexported.json", "CONFIG"], 2, "b has no SavedModel (its evaluation measured"),
        (["evaluate", "--ensemble=DIR/unexported.json"], 2, "a, b: no finished evaluation to merge"),
    ],
)
def test_mistakes_get_one_message(flags, code, message, toy_run, exports, capsys):
    folder = toy_run.folder
    write_metrics(folder / "one", [0.4, 0.3])
    write_metrics(folder / "two", [0.1, 0.5])
    models = [{"name": "a", "saved_model": str(exports / "one")}, {"name": "b", "checkpoint": "b/ckpt-7"}]
    (folder / "unexported.json").write_text(json.dumps({"models": models}))
    places = {"DIR": folder, "EXPORTS": exports, "CONFIG": f"--pipeline_config_path={toy_run.config}"}
    for name, place in places.items():
        flags = [flag.replace(name, str(place)) for flag in flags]
    output = f"--output={folder / 'e.json'}" if flags[0] == "select" else f"--output_dir={folder / 'out'}"
    assert main(["ensemble", *flags, output]) == code
    assert message in capsys.readouterr().err


def test_models_with_other_classes_are_refused(toy_run, exports, capsys):
    both = f"--saved_models={exports / 'one'},{exports / 'two'}"
    config = f"--pipeline_config_path={toy_run.config}"
    label_map = exports / "two" / "label_map.pbtxt"
    text = label_map.read_text()
    try:
        label_map.write_text(text.replace("bird", "wolf"))
        assert evaluate(both, config, f"--output_dir={toy_run.folder / 'out'}") == 2
        assert "different label maps and cannot be merged: id 3 is 'bird' and 'wolf'" in capsys.readouterr().err
        label_map.write_text("item { id: 1 name: 'cat' }")
        assert evaluate(both, config, f"--output_dir={toy_run.folder / 'out'}") == 2
        assert "cannot be merged: 3 and 1 classes" in capsys.readouterr().err
    finally:
        label_map.write_text(text)
    of_the_data = toy_run.folder / "label_map.pbtxt"
    of_the_data.write_text(of_the_data.read_text().replace("bird", "wolf"))
    assert evaluate(both, config, f"--output_dir={toy_run.folder / 'out'}") == 2
    assert "the models' classes are not those of" in capsys.readouterr().err


def test_detect_wants_one_of_a_model_and_an_ensemble(exports, tmp_path, capsys):
    flags = [f"--images={tmp_path}", f"--output_dir={tmp_path}"]
    assert main(["detect", *flags]) == 2
    assert main(["detect", *flags, f"--saved_model={exports / 'one'}", "--ensemble=e.json"]) == 2
    assert capsys.readouterr().err.count("needs --saved_model, or --ensemble instead of it") == 2
