"""ensemble.json: what is written is read, and what is wrong in it is named."""

from __future__ import annotations

import json
import os

import pytest

from detzoo.ensemble.description import (
    Ensemble,
    EnsembleModel,
    MergeOptions,
    read_ensemble,
    scaled_weights,
    write_ensemble,
)
from detzoo.ensemble.views import ViewPlan
from detzoo.errors import DataError, UsageError


def test_what_is_written_is_read_from_another_folder(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    models = (
        EnsembleModel("a", saved_model="../models/a", evaluation="runs/a"),
        EnsembleModel("b", checkpoint="/elsewhere/ckpt-3", weight=0.5),
    )
    merging = MergeOptions(0.5, 30, 0.01, True, 0.6, "mean")
    ensemble = Ensemble(models, merging, ViewPlan(((2, 3),), 0.5, True))
    write_ensemble("ensemble.json", ensemble, {"metric": "AP"})
    monkeypatch.chdir("/")
    read = read_ensemble(tmp_path / "here")
    assert (read.merging, read.views) == (ensemble.merging, ensemble.views)
    assert [model.weight for model in read.models] == [1.0, 0.5]
    assert os.path.abspath(read.models[0].saved_model) == str(tmp_path / "models" / "a")
    assert os.path.abspath(read.models[0].evaluation) == str(tmp_path / "here" / "runs" / "a")
    assert os.path.abspath(read.models[1].checkpoint) == "/elsewhere/ckpt-3"
    assert read.models[1].saved_model is None


def test_what_is_left_out_has_its_default(tmp_path):
    models = [{"name": "a", "weight": 4}, {"name": "b", "weight": 2}]
    (tmp_path / "e.json").write_text(json.dumps({"models": models}))
    read = read_ensemble(tmp_path / "e.json")
    assert (read.merging, read.views) == (MergeOptions(), ViewPlan())
    assert [model.weight for model in read.models] == [1.0, 0.5]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": []}, "models: accepted: a list of at least one model"),
        ({"models": [{"name": ""}]}, r"models\[0\].name is ''; accepted: a text"),
        ({"models": [{"name": "a"}, {"name": "a"}]}, "the names a, a are not distinct"),
        (
            {"models": [{"name": "a", "saved_mode": "x"}]},
            r"models\[0\] has no 'saved_mode'; did you mean 'saved_model'",
        ),
        ({"models": [{"name": "a", "saved_model": 3}]}, r"models\[0\].saved_model is 3; accepted: a path"),
        ({"models": [{"name": "a", "weight": 0}]}, "a model's weight is 0; accepted: numbers above 0"),
        ({"merging": {"iou": 0.5}}, "merging has no 'iou'; accepted: box_voting, iou_threshold"),
        ({"merging": {"iou_threshold": 2}}, "iou_threshold is 2; accepted: 0 to 1"),
        ({"merging": []}, "merging is no JSON object with iou_threshold"),
        ({"views": {"crops": ["2"]}}, "views.crops has '2', which is not a grid"),
        ({"views": {"crops": "2x2"}}, r'views.crops: accepted: a list such as \["2x2"\]'),
        ({"views": {"overlap": 0.9}}, "overlap of crops is 0.9"),
        ({"view": {}}, "the file has no 'view'; did you mean 'views'"),
    ],
)
def test_mistakes_are_named_with_the_file(tmp_path, change, message):
    content = {"models": [{"name": "a"}], **change}
    (tmp_path / "ensemble.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=f"ensemble.json: .*{message}"):
        read_ensemble(tmp_path / "ensemble.json")


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UsageError, match=r"there is no ensemble at .*none.json"):
        read_ensemble(tmp_path / "none.json")
    (tmp_path / "e.json").write_text("{")
    with pytest.raises(DataError, match=r"e.json is not JSON"):
        read_ensemble(tmp_path / "e.json")


def test_weights_keep_their_ratios():
    assert scaled_weights([1, 4, 2]) == [0.25, 1.0, 0.5]
    with pytest.raises(UsageError, match="a model's weight is -1"):
        scaled_weights([1, -1])
