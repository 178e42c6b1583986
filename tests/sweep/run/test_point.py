"""Accuracy of a sweep's point where nothing that serves can be measured: which config, which weights."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

from detzoo.cli import sweep_evaluate
from detzoo.config.load import load_pipeline, save_pipeline

CONFIGS = pathlib.Path(__file__).parents[2] / "model_configs"
PYRAMID = str(CONFIGS / "shapes_faster_rcnn_mobilenet_v1_fpn.config")


@pytest.fixture
def message() -> Any:
    """A whole detector's config; 50 proposals in testing."""
    return load_pipeline(PYRAMID, ["model.faster_rcnn.first_stage_max_proposals_in_training=70"]).message


@pytest.mark.parametrize(
    ("path", "overrides", "expected"),
    [
        (str(CONFIGS / "shapes_ssd_mobilenet_v1.config"), [], True),
        (PYRAMID, [], True),
        (PYRAMID, ["model.faster_rcnn.number_of_stages=1"], False),  # boxes without classes
        (PYRAMID, ["model.faster_rcnn.proposals_from_reader=true"], False),  # takes more than an image
        (str(CONFIGS / "shapes_segmentation_proposals.config"), [], False),
    ],
)
def test_what_serves_is_measured_where_it_takes_images_and_gives_classes(
    path: str, overrides: list[str], expected: bool
) -> None:
    assert sweep_evaluate.is_measured_as_exported(load_pipeline(path, overrides).message) is expected


def test_a_first_stage_proposes_for_the_images_of_a_reader(
    message: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Any, pathlib.Path, pathlib.Path]] = []

    def note(config: Any, checkpoint: pathlib.Path, file: pathlib.Path) -> int:
        asked.append((config, checkpoint, file))
        return 3

    monkeypatch.setattr("detzoo.tasks.propose.write_training_proposals", note)
    before = message.SerializeToString()
    sweep_evaluate.propose(message, message.eval_input_reader[0], "weights", 30, tmp_path / "p.npz")
    [(config, checkpoint, file)] = asked
    model = config.model.faster_rcnn
    assert (model.number_of_stages, model.first_stage_max_proposals) == (1, 30)
    assert not model.HasField("first_stage_max_proposals_in_training")
    assert list(config.train_input_reader.tf_record_input_reader.input_path) == [
        "quickstart/data/heldout-?????-of-00001.tfrecord"
    ]
    assert not config.train_input_reader.shuffle
    assert (checkpoint, file) == (pathlib.Path("weights"), tmp_path / "p.npz")
    assert message.SerializeToString() == before


def test_two_networks_are_the_first_two_steps(
    message: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(sweep_evaluate, "propose", lambda *arguments: asked.append(arguments))
    monkeypatch.setattr(sweep_evaluate, "measure_checkpoint", lambda config, weights: (config, weights))
    config, weights = sweep_evaluate.measure_two_networks(message, "run", tmp_path)
    [(proposing, reader, checkpoint, number, file)] = asked
    assert (proposing, reader) == (message, message.eval_input_reader[0])
    assert (checkpoint, number, file) == ("run/1_rpn", 50, tmp_path / "proposals.npz")
    assert weights == "run/2_fast_rcnn"
    assert config.model.faster_rcnn.proposals_from_reader
    assert config.eval_input_reader[0].proposals_path == str(file)
    assert config.eval_input_reader[0].max_number_of_proposals == 50
    assert not message.model.faster_rcnn.proposals_from_reader


def test_proposals_that_are_there_are_not_made_again(
    message: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(sweep_evaluate, "propose", lambda *arguments: asked.append(arguments[1:]))
    save_pipeline(message, tmp_path / "pipeline.config")
    (tmp_path / "point.json").write_text(json.dumps({"checkpoint": "w", "files": {"train.npz": 7, "eval.npz": 5}}))
    (tmp_path / "train.npz").touch()
    assert sweep_evaluate.write_all_proposals(tmp_path) == 0
    assert asked == [(message.eval_input_reader[0], "w", 5, tmp_path / "eval.npz")]
