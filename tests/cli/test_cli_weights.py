"""``detzoo weights``, and zoo://NAME in the commands that open weights."""

from __future__ import annotations

import json
import pathlib
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from detzoo.builders.detector import build_detector, without_pretrained
from detzoo.checkpoints.layout import variables_by_path
from detzoo.cli.main import main
from detzoo.config.load import load_pipeline
from detzoo.config.zoo import ARCHIVES
from detzoo.ensemble.description import Ensemble, EnsembleModel, read_ensemble, write_ensemble
from detzoo.errors import TrainingError
from detzoo.export.exporter import Export, export_detector
from detzoo.features.pretrained import MissingWeightsError
from detzoo.sweep.plan.files import newest_checkpoint


def test_list_get_and_where(server, archives, tmp_path, capsys):
    folder = tmp_path / "cache" / archives.NAME
    assert main(["weights", "where"]) == 0
    assert capsys.readouterr().out == f"{folder.parent}\n"
    assert main(["weights", "where", archives.NAME]) == 0
    shown = capsys.readouterr()
    assert shown.out == f"{folder}\n"
    assert f"or put {server.url}{archives.ADDRESS} into {folder.parent}" in shown.err
    assert not server.requests
    assert main(["weights", "get", f"zoo://{archives.NAME}"]) == 0
    assert capsys.readouterr().out == f"{folder}\n"
    assert main(["weights", "where", archives.NAME]) == 0
    assert capsys.readouterr().err == ""
    with (folder / "saved_model" / "large").open("wb") as file:
        file.truncate(12_600_000)
    assert main(["weights", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(ARCHIVES) + 2
    [line] = [line for line in lines if archives.NAME in line and "cache is" not in line]
    assert line.split() == [archives.NAME, "20.2", "19", "13", "MB", "ssd_mobilenet_v2_300"]
    [line] = [line for line in lines if line.startswith("mask_rcnn_inception_resnet_v2_1024")]
    assert line.split()[1:] == ["39.0/34.6", "301", "-", "mask_rcnn_inception_resnet_v2_1024"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["get", "ssd_mobilenet_v2_320x320"], 2, "did you mean 'ssd_mobilenet_v2_320x320_coco17_tpu-8'"),
        (["where", "efficientdet_d9"], 2, "the zoo has no archive 'efficientdet_d9'"),
        (["get", "efficientdet_d0_coco17_tpu-32"], 1, "HTTP Error 404"),
        (["get"], 2, "takes NAME; received: nothing"),
        (["where", "a", "b"], 2, "takes [NAME]; received: a b"),
    ],
)
def test_mistakes_get_one_message(server, capsys, words, code, message):
    assert main(["weights", *words]) == code
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.out == ""
    assert "Traceback" not in shown.err


def test_models_with_weights_are_marked(capsys):
    assert main(["models", "--match=efficientdet_d0"]) == 0
    assert main(["models", "--match=ssd_vgg16_300"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert [(line[0], line[6]) for line in lines if len(line) > 6 and "x" in line[1]] == [
        ("efficientdet_d0", "zoo"),
        ("ssd_vgg16_300", "-"),
    ]


def test_config_check_compares_names_and_downloads_nothing(server, archives, capsys):
    config = str(pathlib.Path(__file__).resolve().parents[2] / "model_configs" / "ssd_mobilenet_v2_300.config")
    field = "train_config.fine_tune_checkpoint"
    assert main(["config", "check", config, f"--set={field}=zoo://{archives.NAME}"]) == 0
    capsys.readouterr()
    assert main(["config", "check", config, f"--set={field}=zoo://ssd_mobilenet_v2_320x320"]) == 2
    shown = capsys.readouterr().out
    assert f"error: {field}: the zoo has no archive 'ssd_mobilenet_v2_320x320'; did you mean '{archives.NAME}'" in shown
    assert not server.requests


def test_an_archive_is_detected_with_and_evaluated(server, archives, toy, toy_run, tmp_path, capsys):
    source = tmp_path / "source"
    export_detector(toy.toy_detector(), toy.ToyResizer(), source, "image_tensor", Export("", ""))
    (source / "label_map.pbtxt").unlink(missing_ok=True)
    tf.io.gfile.rmtree(str(source / "checkpoint"))
    toy_run.model_dir.rename(source / "checkpoint")
    server.content = archives.archive_of_folder(source)
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.full((50, 90, 3), 120, np.uint8)).save(tmp_path / "photos" / "0.png")
    name, out = f"zoo://{archives.NAME}", tmp_path / "out"
    flags = [f"--images={tmp_path / 'photos'}", f"--output_dir={out}", "--score_threshold=0.0"]
    assert main(["detect", f"--saved_model={name}", *flags]) == 0
    found = json.loads((out / "detections.json").read_text())
    assert {entry["category_name"] for entry in found} <= {"person", "bicycle", "car"}  # COCO's classes 1 to 3
    assert found
    words = [f"--pipeline_config_path={toy_run.config}", f"--checkpoint_dir={name}", f"--output_dir={out}"]
    assert main(["evaluate", *words]) == 0
    assert json.loads((out / "metrics.json").read_text())
    assert len(server.requests) == 1


@pytest.mark.train
def test_a_training_starts_with_an_archive(server, archives, load_module, tmp_path, monkeypatch, capsys):
    """The training is ended before its first step, when all variables must have the values of the archive.

    ImageNet's weights are not available, and not needed.
    """
    tiny, runs = load_module("cli/test_cli_train.py"), load_module("cli/conftest.py")
    (tmp_path / "labels.pbtxt").write_text("item { id: 1 name: 'cat' }\n")
    with tf.io.TFRecordWriter(str(tmp_path / "cats.record")) as writer:
        for number in range(4):
            writer.write(runs.example(number))
    text = (tiny.MODEL + tiny.READERS).replace("LABELS", str(tmp_path / "labels.pbtxt"))
    text = text.replace("RECORDS", str(tmp_path / "cats.record"))
    text = text.replace("min_depth: 8", "min_depth: 8 pretrained_weights: 'imagenet'")
    line = f'fine_tune_checkpoint: "zoo://{archives.NAME}"\n  fine_tune_checkpoint_type: "full"\n'
    config = tmp_path / "pipeline.config"
    config.write_text(text.replace("train_config {\n", f"train_config {{\n  {line}"))
    detector = build_detector(without_pretrained(load_pipeline(config).message.model))
    generator = np.random.default_rng(3)
    stored = variables_by_path(detector.variables)
    for variable in stored.values():
        variable.assign(generator.uniform(0.5, 1.0, variable.shape))
    runs.save_checkpoint(detector, tmp_path / "source" / "checkpoint", 0)
    server.content = archives.archive_of_folder(tmp_path / "source")
    started = []

    def run(loop):
        started.append(variables_by_path(loop._trainer.detector.variables))
        raise TrainingError("it has started")

    def not_available(*arguments):
        raise MissingWeightsError("pretrained_weights: not available")

    monkeypatch.setattr("detzoo.train.session.TrainingLoop.run", run)
    monkeypatch.setattr("detzoo.features.pretrained._imagenet_weights", not_available)
    assert main(["train", f"--pipeline_config_path={config}", f"--model_dir={tmp_path / 'run'}"]) == 1
    shown = capsys.readouterr().err
    assert f"restored {len(stored)} variables" in shown
    assert "it has started" in shown
    [values] = started
    assert values.keys() == stored.keys()
    for path, variable in values.items():
        np.testing.assert_array_equal(variable.numpy(), stored[path].numpy(), err_msg=path)
    assert len(server.requests) == 1


@pytest.mark.train
@pytest.mark.parametrize(("new", "fails"), [("backbone/stem/kernel", True), ("head/class_predictor_4/kernel", False)])
def test_a_checkpoint_without_the_whole_backbone_needs_imagenets_weights(monkeypatch, new, fails):
    """The warm start is replaced by its report."""
    from detzoo.checkpoints.restore import WarmStart
    from detzoo.train import session

    report = WarmStart("ckpt-0", "a detector", ["neck/x/kernel"], {new: "not in the checkpoint"}, [], [])
    monkeypatch.setattr(session, "warm_start", lambda *arguments: report)
    loop = SimpleNamespace(checkpoints=SimpleNamespace(restore_latest=lambda: None))
    trainer = SimpleNamespace(detector=None, average=None)
    config = SimpleNamespace(fine_tune_checkpoint="zoo://x", fine_tune_checkpoint_type="full")
    missing = MissingWeightsError("ImageNet's weights are not available")
    if fails:
        with pytest.raises(MissingWeightsError, match="are not available"):
            session._start(loop, trainer, config, pathlib.Path(), missing)
    else:
        assert session._start(loop, trainer, config, pathlib.Path(), missing) is None


def test_ensembles_and_sweeps_keep_the_names(archives, tmp_path, server):
    name = f"zoo://{archives.NAME}"
    write_ensemble(tmp_path / "ensemble.json", Ensemble((EnsembleModel("a", name), EnsembleModel("b", "runs/b"))))
    first, second = read_ensemble(tmp_path / "ensemble.json").models
    assert first.saved_model == name
    assert pathlib.Path(second.saved_model) == pathlib.Path("runs/b").absolute()
    assert newest_checkpoint(name) == name
    assert newest_checkpoint("zoo://unknown") == ""
    assert not server.requests
