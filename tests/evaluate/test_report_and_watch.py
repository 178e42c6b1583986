"""Tests of the files and the output of an evaluation, and of the wait for new checkpoints."""

from __future__ import annotations

import json

import numpy as np
import pytest

from detzoo.errors import CheckpointError
from detzoo.evaluate.images import EvaluatedImage
from detzoo.evaluate.report import format_table, write_results
from detzoo.evaluate.runner import MASK_METRICS, METRICS_SETS, EvaluationResult, measure
from detzoo.evaluate.watch import new_checkpoints

BOX = np.array([[10.0, 20.0, 50.0, 100.0]], np.float32)
NAMES = {1: "cat", 2: "dog"}


@pytest.fixture
def result():
    no = np.array([False])
    image = EvaluatedImage(
        "img.jpg", (100, 200), BOX, np.array([0]), no, no, np.array([3200.0]), BOX, np.array([0.9]), np.array([0])
    )
    metrics, per_class = measure([image], NAMES, [name for name in METRICS_SETS if name != MASK_METRICS])
    return EvaluationResult(metrics, per_class, [image], NAMES, 1.5)


def test_the_files_can_be_measured_again_by_pycocotools(result, tmp_path):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    write_results(result, tmp_path / "out", {"step": 7})
    numbers = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (numbers["mAP"], numbers["mAP (small)"], numbers["VOC2007 mAP@.50IOU"]) == (pytest.approx(1), -1, 1)
    assert (numbers["step"], numbers["num_images"], numbers["per_class"]["cat"]["objects"]) == (7, 1, 1)
    truth = COCO(str(tmp_path / "out" / "groundtruth.json"))
    assert truth.imgs[1]["file_name"] == "img.jpg"
    evaluation = COCOeval(truth, truth.loadRes(str(tmp_path / "out" / "detections.json")), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)


def test_the_table_shows_numbers_classes_and_gaps(result):
    lines = format_table(result).splitlines()
    assert lines[0].split() == ["mAP", "1.000", "average", "precision,", "IoU", ".50", "to", ".95"]
    assert lines[3].split()[:3] == ["mAP", "(small)", "-"]
    assert lines[-2].split() == ["cat", *["1.000"] * 6, "1"]
    assert lines[-1].split() == ["dog", *["-"] * 6, "0"]


def test_every_new_checkpoint_comes_once_and_the_last_is_not_missed():
    looks = iter(["", "ckpt-1", "ckpt-1", "ckpt-3", "ckpt-3"])

    def newest():
        found = next(looks)
        if not found:
            raise CheckpointError("none yet")
        return found

    states = iter([False, False, False, True, True])
    found = list(new_checkpoints(newest, 5.0, poll_seconds=0.0, is_finished=lambda: next(states)))
    assert found == ["ckpt-1", "ckpt-3"]


def test_the_wait_ends_after_the_time_given():
    assert list(new_checkpoints(lambda: "ckpt-1", 0.05, poll_seconds=0.01)) == ["ckpt-1"]
