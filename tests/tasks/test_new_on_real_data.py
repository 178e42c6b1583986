"""Real data in each format: one command makes a project that trains and is evaluated without an edit."""

from __future__ import annotations

import json

import pytest

from detzoo.cli import main as cli
from detzoo.config.check.pipeline import check_file
from detzoo.config.problems import Severity

FORMS = ["coco", "voc", "yolo", "csv", "open_images", "labelme", "cvat", "label_studio"]
NUM_IMAGES = 20  # of each data set, unless all of it is asked for


@pytest.fixture(scope="module")
def forms(load_module):
    """The module label_formats.py."""
    return load_module("datasets/label_formats.py")


@pytest.fixture(scope="module", params=["raccoon", "coco128"])
def items(request, forms, shared):
    """The labelled images of a real data set."""
    return getattr(forms, f"read_{request.param}")(shared)


def run(*words):
    assert cli.main([str(word) for word in words]) == 0


@pytest.mark.parametrize("form", FORMS)
def test_each_format_becomes_a_project_that_is_ready(tmp_path, forms, items, form):
    forms.WRITERS[form](items[:NUM_IMAGES], tmp_path / "data")
    run("new", tmp_path / "project", "--data", tmp_path / "data")
    problems = check_file(str(tmp_path / "project/pipeline.config"))
    assert [problem for problem in problems if problem.severity > Severity.NOTE] == []


@pytest.mark.train
def test_a_project_is_trained_evaluated_exported_and_used(tmp_path, forms, shared, capsys):
    photos = forms.read_raccoon(shared)[:NUM_IMAGES]
    forms.write_yolo(photos, tmp_path / "data")
    project, small = tmp_path / "project", "model.ssd.image_resizer.fixed_shape_resizer"
    changes = [f"--set={small}.{side}=96" for side in ("height", "width")]  # for a short test
    run("new", project, "--data", tmp_path / "data")
    run("train", project, "--num_train_steps=2", "--set=train_config.batch_size=2", *changes)
    assert (project / "training/best/checkpoint").is_file()
    run("evaluate", project, *changes)
    assert json.loads((project / "evaluation/metrics.json").read_text())["mAP"] >= 0
    run("export", project, *changes)
    run("detect", project, "--images", photos[0].path)
    assert json.loads((project / "detections/detections.json").read_text()) is not None
    assert " detections on 1 images" in capsys.readouterr().out


@pytest.mark.full_sweep
@pytest.mark.slow
@pytest.mark.train
@pytest.mark.parametrize("form", FORMS)
def test_each_format_trains_for_200_steps_and_is_evaluated(tmp_path, forms, items, form):
    forms.WRITERS[form](items, tmp_path / "data")
    run("new", tmp_path / "project", "--data", tmp_path / "data")
    run("train", tmp_path / "project", "--num_train_steps=200")
    run("evaluate", tmp_path / "project")
    metrics = json.loads((tmp_path / "project/evaluation/metrics.json").read_text())
    # One class of large objects is learned in 200 steps, eighty classes of 100 photographs are not.
    assert metrics["mAP@.50IOU"] > (0.1 if len(forms.names_of(items)) == 1 else -1)
