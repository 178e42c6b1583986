"""The tasks as a Python program calls them: results are returned, nothing is printed, the given config is unchanged."""

from __future__ import annotations

import ast
import importlib
import json
import pathlib
import re
import types

import numpy as np
import pytest
from PIL import Image

from detzoo.benchmark import machine, runner
from detzoo.benchmark.measures import BenchmarkOptions
from detzoo.benchmark.process import ProcessCosts
from detzoo.config.load import load_pipeline
from detzoo.config.problems import is_placeholder
from detzoo.data.proposals import read_proposals
from detzoo.ensemble.description import Ensemble, EnsembleModel, MergeOptions
from detzoo.ensemble.selection import MeasuredModel, select
from detzoo.errors import CheckpointError, ConfigError, DataError, UsageError
from detzoo.tasks import models
from detzoo.tasks.benchmark import benchmark
from detzoo.tasks.detect import detect
from detzoo.tasks.ensemble import evaluate_ensemble, write_selection
from detzoo.tasks.evaluate import evaluate, evaluate_new_checkpoints, measure_checkpoint, measure_exported
from detzoo.tasks.export import configured_label_map, export
from detzoo.tasks.models import EVAL_READER, load_checked, load_exported
from detzoo.tasks.propose import propose, search
from detzoo.tasks.recipes import RecipeRun, train_four_step, train_spp_net
from detzoo.tasks.train import train
from detzoo.train.run_record import write_finished
from tests.cli.conftest import save_best, save_checkpoint

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "model_configs"
TASKS = pathlib.Path(__file__).resolve().parents[2] / "detzoo" / "tasks"


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """A function: name of a config -> the same with four drawn images of 64 x 64 pixels, and a small network."""
    from detzoo.datasets.conversion import convert
    from detzoo.datasets.shapes import draw_annotations

    folder = tmp_path_factory.mktemp("shapes")
    convert(draw_annotations(4, 64, 0, 3, 0.2), str(folder / "data"), num_shards=1, with_masks=True)

    def load(name, *overrides):
        loaded = load_pipeline(str(CONFIGS / f"{name}.config"), overrides)
        for reader in (loaded.message.train_input_reader, loaded.message.eval_input_reader[0]):
            reader.label_map_path = str(folder / "label_map.pbtxt")
            reader.tf_record_input_reader.input_path[:] = [str(folder / "data-00000-of-00001.tfrecord")]
        loaded.message.eval_config.batch_size = 2
        return loaded

    return load


SMALL = (
    "model.ssd.image_resizer.fixed_shape_resizer.height=64",
    "model.ssd.image_resizer.fixed_shape_resizer.width=64",
    "model.ssd.feature_extractor.depth_multiplier=0.25",
    "model.ssd.box_predictor.weight_shared_convolutional_box_predictor.depth=16",
    "train_config.batch_size=2",
)


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_is_measured(toy_run, capsys):
    loaded = load_pipeline(str(toy_run.config))
    before = loaded.message.SerializeToString()
    evaluation = evaluate(
        loaded,
        checkpoint_dir=toy_run.model_dir,
        output_dir=toy_run.folder / "out",
        overrides=["eval_config.batch_size=1"],
    )
    assert (evaluation.model, evaluation.step, len(evaluation.result.images)) == (str(toy_run.model_dir), 7, 3)
    written = json.loads((toy_run.folder / "out" / "metrics.json").read_text())
    assert {name: written[name] for name in evaluation.metrics} == evaluation.metrics
    assert (written["step"], written["checkpoint"]) == (7, str(toy_run.model_dir))
    assert capsys.readouterr().out == ""
    assert loaded.message.SerializeToString() == before
    assert loaded.overrides == ()


def test_a_measurement_writes_only_where_it_is_asked_to(toy_run):
    before = files(toy_run.folder)
    evaluation = evaluate(
        toy_run.config, checkpoint_dir=toy_run.model_dir, overrides=[f"{EVAL_READER}.sample_1_of_n_examples=2"]
    )
    assert len(evaluation.result.images) == 2
    assert files(toy_run.folder) == before
    message = load_pipeline(str(toy_run.config)).message
    assert len(measure_checkpoint(message, toy_run.model_dir).images) == 3


def test_training_data_is_measured_in_its_order(toy_run):
    records = f"{toy_run.folder}/data.tfrecord"
    overrides = [
        f"train_input_reader.tf_record_input_reader.input_path=['{records}']",
        f"train_input_reader.label_map_path={toy_run.folder}/label_map.pbtxt",
        "train_input_reader.shuffle=true",
    ]
    loaded = load_pipeline(str(toy_run.config), overrides)
    loaded.message.ClearField("eval_input_reader")
    evaluation = evaluate(loaded, checkpoint_dir=toy_run.model_dir, on_train_data=True)
    assert [image.image_id for image in evaluation.result.images] == ["100", "101", "102"]
    with pytest.raises(ConfigError, match="has no eval_input_reader: there is nothing to evaluate on"):
        evaluate(loaded, checkpoint_dir=toy_run.model_dir)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, UsageError, "give either --checkpoint_dir or --saved_model"),
        ({"checkpoint_dir": "a", "saved_model": "b"}, UsageError, "give either --checkpoint_dir or --saved_model"),
        ({"saved_model": "b", "recompute_batch_norm": 3}, UsageError, "--recompute_batch_norm needs a checkpoint"),
        ({"checkpoint_dir": "a", "combine_with": ["b"]}, ConfigError, "--combine_with joins the windows of SPP-nets"),
        ({"checkpoint_dir": "nowhere"}, CheckpointError, "there is no checkpoint at nowhere"),
        ({"checkpoint_dir": "a", "overrides": ["model.ssd.nonsense=1"]}, ConfigError, "--set model.ssd.nonsense=1"),
    ],
)
def test_a_measurement_that_cannot_be_made(toy_run, options, error, message):
    with pytest.raises(error, match=message):
        evaluate(toy_run.config, **options)


def test_each_new_checkpoint_is_measured_until_the_training_ends(toy_run):
    found = []
    for evaluation in evaluate_new_checkpoints(toy_run.config, toy_run.model_dir, toy_run.folder / "out"):
        found.append(evaluation.step)
        if evaluation.step == 7:
            save_checkpoint(toy_run.detector, toy_run.model_dir, 9)
            (toy_run.model_dir / "finished").write_text("{}")
    assert found == [7, 9]
    assert json.loads((toy_run.folder / "out" / "metrics.json").read_text())["step"] == 9
    (toy_run.folder / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"no checkpoint came to .*empty that could be evaluated"):
        list(
            evaluate_new_checkpoints(
                toy_run.config, toy_run.folder / "empty", toy_run.folder / "out", timeout_seconds=0.0
            )
        )


def test_an_exported_model_is_measured_and_detects(toy_run, capsys):
    exported = export(toy_run.config, toy_run.model_dir, toy_run.folder / "exported")
    assert (exported.path, exported.step) == (toy_run.folder / "exported" / "saved_model", 7)
    assert (exported.path / "saved_model.pb").is_file()
    assert exported.report.max_score_difference < 1e-4
    assert exported.finds_boxes

    trained = evaluate(toy_run.config, checkpoint_dir=toy_run.model_dir)
    served = evaluate(toy_run.config, saved_model=exported.path)
    assert served.step is None
    assert served.metrics == pytest.approx(trained.metrics, abs=1e-3)
    message = load_pipeline(str(toy_run.config)).message
    assert measure_exported(message, load_exported(exported.path)).metrics == served.metrics

    photo = toy_run.folder / "photos" / "one.png"
    photo.parent.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 90, 3), np.uint8)).save(photo)
    (photo.parent / "broken.jpg").write_bytes(b"no image")
    folder = toy_run.folder / "pictures"
    summary = detect([str(photo.parent)], folder, saved_model=str(exported.path), score_threshold=0.0, max_boxes=4)
    assert (summary.num_images, len(summary.entries), list(summary.skipped)) == (
        1,
        4,
        [str(photo.parent / "broken.jpg")],
    )
    assert {entry["category_name"] for entry in summary.entries} <= {"cat", "Dog", "bird"}
    assert files(folder) == ["detections.json", "one.png"]
    assert capsys.readouterr().out == ""
    with pytest.raises(DataError, match="none of the 1 files could be read as an image"):
        detect([str(photo.parent / "broken.jpg")], folder, saved_model=str(exported.path))
    with pytest.raises(UsageError, match="--proposals has no meaning for this model"):
        detect([str(photo)], folder, saved_model=str(exported.path), proposals="p.npz")
    with pytest.raises(UsageError, match="needs --saved_model, or --ensemble instead of it"):
        detect([str(photo)], folder)


def test_an_export_names_the_better_checkpoint_of_the_run(toy_run, caplog):
    save_best(toy_run, 5)
    with caplog.at_level("WARNING", logger="detzoo"):
        export(toy_run.config, toy_run.model_dir, toy_run.folder / "exported")
    assert "this is step 7; best is step 5, mAP 0.61: --trained_checkpoint_dir" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_type": "tf_example"}, "needs an image decoder, and only TensorFlow has one"),
        ({"quantize": "int8"}, "--quantize=int8 needs --representative_data"),
    ],
)
def test_options_that_tflite_does_not_have(toy_run, options, message):
    with pytest.raises(UsageError, match=message):
        export(toy_run.config, toy_run.model_dir, toy_run.folder / "exported", format="tflite", **options)
    assert not (toy_run.folder / "exported").exists()


def test_each_batch_size_is_measured(toy_run, monkeypatch, capsys):
    monkeypatch.setattr(machine, "measure_gflops", lambda: 150.0)
    monkeypatch.setattr(runner, "measure_process", lambda *_, **__: ProcessCosts(3.0, 500.0, 1.0, 600.0, 0.5, 700.0))
    monkeypatch.setattr(runner, "load_before", lambda: 0.0)
    options = BenchmarkOptions(runs=2, warmup=1, image_shape=(40, 60), device="cpu", min_seconds=0.0)
    results = list(benchmark(toy_run.config, options=options, batch_sizes=[1, 2], export_folder=toy_run.folder / "e"))
    assert [(result["model"], result["batch_size"]) for result in results] == [("pipeline", 1), ("pipeline", 2)]
    assert all(result["latency"]["median_ms"] > 0 for result in results)
    [again] = benchmark(saved_model=toy_run.folder / "e", options=options)
    assert again["multiply_adds"] == results[0]["multiply_adds"]
    assert capsys.readouterr().out == ""
    with pytest.raises(UsageError, match="give either --saved_model or --pipeline_config_path"):
        next(benchmark(toy_run.config, saved_model="e"))
    with pytest.raises(UsageError, match="--saved_model nowhere does not exist"):
        next(benchmark(saved_model="nowhere", options=options))


def test_a_training_runs_once(shapes, tmp_path, capsys):
    loaded = shapes("shapes_ssd_mobilenet_v1", *SMALL, "train_config.eval_every_n_steps=0")
    before = loaded.message.SerializeToString()
    first = train(loaded, tmp_path / "run", num_train_steps=1, strategy="one_device")
    assert (first.model_dir, first.step, first.num_train_steps) == (tmp_path / "run", 1, 1)
    assert not first.was_finished
    assert "ckpt-1.index" in files(tmp_path / "run")
    again = train(loaded, tmp_path / "run", num_train_steps=1, strategy="one_device")
    assert again == first._replace(was_finished=True)
    assert len(json.loads((tmp_path / "run" / "run.json").read_text())["sessions"]) == 1
    assert loaded.message.SerializeToString() == before
    assert capsys.readouterr().out == ""


def test_a_training_that_cannot_start(toy_run, shapes, tmp_path):
    loaded = shapes("shapes_ssd_mobilenet_v1", *SMALL, "train_config.num_steps=0")
    with pytest.raises(UsageError, match="how many steps"):
        train(loaded, tmp_path / "run")
    with pytest.raises(ConfigError, match=r"to set: train_input_reader.label_map_path"):
        train(toy_run.config, tmp_path / "run", num_train_steps=3)
    assert not (tmp_path / "run").exists()
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "checkpoint").touch()
    write_finished(tmp_path / "done", 8, 8, "reached the last step")
    assert train(toy_run.config, tmp_path / "done", num_train_steps=8) == (
        tmp_path / "done",
        8,
        "reached the last step",
        8,
        True,
    )


def test_a_training_of_four_steps_is_checked_and_known_as_finished(shapes, tmp_path):
    loaded = shapes("shapes_faster_rcnn_mobilenet_v1", "train_config.num_steps=3")
    with pytest.raises(UsageError, match=r"--rpn_set model.x=1: only fields of train_config can differ between"):
        train_four_step(loaded, tmp_path / "run", rpn_set=["model.x=1"])
    with pytest.raises(ConfigError, match=r"batch_size"):
        train_four_step(loaded, tmp_path / "run", box_set=["train_config.batch_sice=8"])
    with pytest.raises(ConfigError, match=r"model.ssd has no two stages"):
        train_four_step(shapes("shapes_ssd_mobilenet_v1"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    done = tmp_path / "done"
    done.mkdir()
    for name in ("checkpoint", "four_step.json"):
        (done / name).touch()
    write_finished(done, 12, 12, "merged")
    assert train_four_step(loaded, done) == RecipeRun(done, (), was_finished=True)


def test_the_chain_of_spp_net_has_its_function(tmp_path):
    config = CONFIGS / "shapes_spp_net_zf5.config"
    with pytest.raises(UsageError, match=r"model.spp_net is trained in several steps, by tasks.recipes.train_spp_net"):
        train(config, tmp_path / "run")
    for name in ("checkpoint", "spp_net.json"):
        (tmp_path / name).touch()
    write_finished(tmp_path, 4, 4, "done")
    assert train_spp_net(config, tmp_path) == RecipeRun(tmp_path, (), was_finished=True)


def test_a_first_stage_proposes_for_each_image_once(shapes, tmp_path):
    from detzoo.builders.detector import build_detector

    side = "model.faster_rcnn.image_resizer.fixed_shape_resizer"
    loaded = shapes("shapes_faster_rcnn_mobilenet_v1", f"{side}.height=64", f"{side}.width=64")
    loaded.message.train_input_reader.shuffle = True
    save_checkpoint(build_detector(loaded.message.model), tmp_path, 3)
    count = propose(loaded, tmp_path, tmp_path / "p.npz", reads=EVAL_READER, max_proposals=6)
    table = read_proposals(str(tmp_path / "p.npz"))
    assert count == len(table.image_ids) == 4
    for image_id in table.image_ids:
        assert 1 <= len(table.lookup(image_id.encode())[0]) <= 6
    assert loaded.message.model.faster_rcnn.number_of_stages != 1
    with pytest.raises(ConfigError, match=r"model.ssd has no first stage that proposes; accepted: model.faster_rcnn"):
        propose(shapes("shapes_ssd_mobilenet_v1"), tmp_path, tmp_path / "q.npz")


def test_a_search_needs_records_or_images(tmp_path):
    with pytest.raises(UsageError, match=r"needs --input_path \(records\), or --images instead of it"):
        search(tmp_path / "p.npz", records="a", images=["b"])
    with pytest.raises(UsageError, match="is a folder; give the file to write"):
        search(tmp_path, records="a")


def test_models_are_measured_together(toy, toy_run, capsys):
    for name, seed in (("one", 1), ("two", 2)):
        save_checkpoint(toy.toy_detector(seed=seed), toy_run.folder / name, seed)
        export(toy_run.config, toy_run.folder / name, toy_run.folder / f"export_{name}")
        evaluate(toy_run.config, saved_model=toy_run.folder / f"export_{name}", output_dir=toy_run.folder / f"e_{name}")
    models = [
        EnsembleModel(name, str(toy_run.folder / f"export_{name}"), str(toy_run.folder / f"e_{name}"))
        for name in ("one", "two")
    ]
    ensemble = Ensemble(tuple(models), MergeOptions(box_voting=True))
    running = evaluate_ensemble(ensemble, toy_run.folder / "running", pipeline=toy_run.config)
    stored = evaluate_ensemble(ensemble, toy_run.folder / "stored")
    assert len(running.images) == len(stored.images) == 3
    assert stored.metrics == pytest.approx(running.metrics, abs=1e-4)
    assert "ensemble.json" in files(toy_run.folder / "running")
    assert capsys.readouterr().out == ""


def test_a_choice_of_one_model_is_no_ensemble(tmp_path):
    per_class = {"a": 0.5, "b": 0.4}
    models = [MeasuredModel(name, name, 0.4, per_class, {}, 3) for name in ("one", "two")]
    selection = select(models, 2, max_similarity=0.5)
    # The two vectors are equal, so their cosine is 1.
    with pytest.raises(DataError, match=r"only 1 model was chosen, an ensemble needs 2; --max_similarity=1.0000"):
        write_selection(selection, "AP", MergeOptions(), tmp_path / "ensemble.json")
    assert not (tmp_path / "ensemble.json").exists()


def test_a_loaded_config_is_copied_and_checked(toy_run):
    loaded = load_pipeline(str(toy_run.config))
    changed = load_checked(loaded, ["model.ssd.num_classes=9"])
    assert (changed.message.model.ssd.num_classes, loaded.message.model.ssd.num_classes) == (9, 3)
    assert changed.overrides == ("model.ssd.num_classes=9",)
    with pytest.raises(ConfigError, match=r"--set model.ssd.num_clases=9: .*num_classes"):
        load_checked(loaded, ["model.ssd.num_clases=9"])
    with pytest.raises(ConfigError, match="no file matches 'none'"):
        load_checked(
            loaded, ["eval_input_reader[0].tf_record_input_reader.input_path=['none']"], "eval_input_reader[0]"
        )


def test_tasks_have_no_flags_and_print_nothing():
    for file in TASKS.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "print", f"{file.name}:{node.lineno}"
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not any(name.split(".")[0] == "absl" for name in names), f"{file.name}:{node.lineno}"


def test_the_documented_functions_exist():
    text = (TASKS.parents[1] / "docs" / "python.md").read_text()
    named = re.findall(r"^\| `(tasks\.\w+)\.(\w+)` \|", text, re.MULTILINE)
    named += [(module.removeprefix("detzoo."), name) for module, name in re.findall(r"from (\S+) import (\w+)", text)]
    assert len(named) >= 13  # the rows of the table
    for module, name in named:
        assert callable(getattr(importlib.import_module(f"detzoo.{module}"), name)), (module, name)


def test_a_label_map_of_one_reader_names_the_classes(tmp_path):
    """The other reader of a published config may still have its placeholder, which the warning does not ask for."""
    (tmp_path / "names.pbtxt").write_text("item { id: 1 name: 'cat' }")
    changes = [f"train_input_reader.label_map_path={tmp_path / 'names.pbtxt'}"]
    message = load_pipeline("ssd_mobilenet_v2_fpnlite_320", changes).message
    assert is_placeholder(message.eval_input_reader[0].label_map_path)
    found = configured_label_map(message, "there are no names")
    assert found is not None
    assert found.names == {1: "cat"}


def test_a_loaded_export_has_the_edges_of_its_config(tmp_path, monkeypatch):
    model = types.SimpleNamespace(folder=tmp_path / "saved_model", keypoint_edges=())
    monkeypatch.setattr(models, "_load_file", lambda *_: model)
    (tmp_path / "pipeline.config").write_text("eval_config { keypoint_edge { start: 5 end: 6 } }")
    assert models.load_exported(model.folder).keypoint_edges == ((5, 6),)
    (tmp_path / "pipeline.config").write_text("of another program")
    assert models.load_exported(model.folder) is model
