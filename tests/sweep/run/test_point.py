"""Accuracy of a sweep's point where nothing that serves can be measured: which config, which weights."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

from detzoo.config.load import LoadedPipeline, load_pipeline, save_pipeline
from detzoo.errors import ConfigError, DetzooError, UsageError
from detzoo.sweep.run import point
from detzoo.sweep.run.point_files import compose_row

CONFIGS = pathlib.Path(__file__).parents[3] / "model_configs"
PYRAMID = str(CONFIGS / "shapes_faster_rcnn_mobilenet_v1_fpn.config")


@pytest.fixture
def loaded() -> LoadedPipeline:
    """A whole detector's config; 50 proposals in testing."""
    return load_pipeline(PYRAMID, ["model.faster_rcnn.first_stage_max_proposals_in_training=70"])


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
    assert point.is_measured_as_exported(load_pipeline(path, overrides).message) is expected


@pytest.fixture
def proposals(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, str, pathlib.Path, dict[str, Any]]]:
    """What is asked of ``propose``, which writes nothing here."""
    asked: list[tuple[Any, str, pathlib.Path, dict[str, Any]]] = []

    def note(pipeline: Any, checkpoint: str, file: pathlib.Path, **options: Any) -> None:
        asked.append((pipeline, checkpoint, file, options))

    monkeypatch.setattr("detzoo.tasks.propose.propose", note)
    return asked


def test_two_networks_are_the_first_two_steps(
    loaded: LoadedPipeline, proposals: list[Any], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detzoo.tasks.evaluate.measure_checkpoint", lambda config, weights: (config, weights))
    before = loaded.message.SerializeToString()
    config, weights = point.measure_two_networks(loaded, "run", tmp_path)
    file = tmp_path / "proposals.npz"
    assert proposals == [(loaded, "run/1_rpn", file, {"reads": "eval_input_reader[0]", "max_proposals": 50})]
    assert weights == "run/2_fast_rcnn"
    assert config.model.faster_rcnn.proposals_from_reader
    assert config.eval_input_reader[0].proposals_path == str(file)
    assert config.eval_input_reader[0].max_number_of_proposals == 50
    assert loaded.message.SerializeToString() == before


def test_proposals_that_are_there_are_not_made_again(
    loaded: LoadedPipeline, proposals: list[Any], tmp_path: pathlib.Path
) -> None:
    save_pipeline(loaded.message, tmp_path / "pipeline.config")
    (tmp_path / "point.json").write_text(json.dumps({"checkpoint": "w", "files": {"train.npz": 7, "eval.npz": 5}}))
    (tmp_path / "train.npz").touch()
    assert point.write_proposals(tmp_path) == 0
    expected = {"reads": "eval_input_reader[0]", "max_proposals": 5}
    assert proposals == [(str(tmp_path / "pipeline.config"), "w", tmp_path / "eval.npz", expected)]


def test_a_first_stage_proposes_for_the_images_of_a_reader(
    loaded: LoadedPipeline, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Any, pathlib.Path, pathlib.Path]] = []

    def note(config: Any, checkpoint: pathlib.Path, file: pathlib.Path) -> int:
        asked.append((config, checkpoint, file))
        return 3

    monkeypatch.setattr("detzoo.tasks.propose.write_training_proposals", note)
    save_pipeline(loaded.message, tmp_path / "pipeline.config")
    (tmp_path / "point.json").write_text(json.dumps({"checkpoint": "weights", "files": {"eval.npz": 30}}))
    assert point.write_proposals(tmp_path) == 0
    [(config, checkpoint, file)] = asked
    model = config.model.faster_rcnn
    assert (model.number_of_stages, model.first_stage_max_proposals) == (1, 30)
    assert not model.HasField("first_stage_max_proposals_in_training")
    assert list(config.train_input_reader.tf_record_input_reader.input_path) == [
        "quickstart/data/heldout-?????-of-00001.tfrecord"
    ]
    assert not config.train_input_reader.shuffle
    assert (checkpoint, file) == (pathlib.Path("weights"), tmp_path / "eval.npz")


@pytest.mark.parametrize(
    ("runtime", "problem", "code", "expected"),
    [
        ("openvino", UsageError("openvino is not installed"), 0, {"skipped": "openvino is not installed"}),
        ("litert", ConfigError("no two-stage detectors"), 0, {"skipped": "no two-stage detectors"}),
        ("litert", DetzooError("scores differ"), 1, {"reason": "scores differ"}),
        ("tensorflow", UsageError("no such GPU"), 1, {"reason": "no such GPU"}),
    ],
)
def test_a_runtime_that_cannot_run_the_detector_skips_the_point(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    runtime: str,
    problem: Exception,
    code: int,
    expected: dict[str, str],
) -> None:
    def fail(*_: Any) -> Any:
        raise problem

    monkeypatch.setattr(point, "_benchmark", fail)
    monkeypatch.setattr(point, "require_runtime", lambda name: None)
    spec = {"how": {"speed": True, "runtime": runtime}, "two_networks": False, "accuracy": True}
    (tmp_path / "point.json").write_text(json.dumps(spec))
    assert point.measure(tmp_path) == code
    result = json.loads((tmp_path / "result.json").read_text())
    assert {name: result.get(name) for name in ("skipped", "reason") if name in result} == expected
    row = compose_row({"key": "k", "name": "n"}, result, result.get("reason"))
    assert (row["status"], row["reason"]) == ("failed" if code else "skipped", str(problem))
