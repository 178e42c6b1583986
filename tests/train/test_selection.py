"""The history of evaluations: names and directions of metrics, patience, and what a crash leaves."""

from __future__ import annotations

import pytest

from detzoo.errors import ConfigError
from detzoo.train.selection import HISTORY_FILE, Selection, metric_name, metric_value
from detzoo.train.settings import EarlyStopping


def add_all(selection, values, metric="mAP"):
    for index, value in enumerate(values, start=1):
        selection.add(index * 10, {metric: value})


def test_names_of_the_object_detection_api_are_understood():
    metrics = {"mAP@.50IOU": 0.5, "AR@100": 0.25}
    assert metric_value(metrics, "DetectionBoxes_Precision/mAP@.50IOU") == 0.5
    assert metric_value(metrics, "DetectionBoxes_Recall/AR@100") == 0.25
    with pytest.raises(ConfigError, match=r"best_checkpoint_metric 'mAP' is none of .*: mAP@.50IOU, AR@100"):
        metric_value(metrics, "mAP", "best_checkpoint_metric")


def test_recall_takes_the_place_of_precision_for_proposals(tmp_path):
    proposals = {"AR@100": 0.25, "AR@1000": 0.5}
    assert metric_name(proposals, "mAP") == "AR@1000"
    assert metric_value(proposals, "DetectionBoxes_Precision/mAP") == 0.5
    assert metric_name({"mAP": 0.1, "AR@1000": 0.5}, "mAP") == "mAP"
    assert metric_name({"mask AR@100": 0.25, "mask AR@1000": 0.5}, "mAP") == "mask AR@1000"
    with pytest.raises(ConfigError, match=r"early_stopping.metric 'mAP@.50IOU' is none of .*: AR@100, AR@1000"):
        metric_value(proposals, "mAP@.50IOU", "early_stopping.metric")
    selection = Selection(tmp_path, "mAP", EarlyStopping(1))
    add_all(selection, [0.5, 0.4], "AR@1000")
    assert selection.should_stop() == "AR@1000 has not improved for 1 evaluations (best 0.5000)"


def test_a_loss_is_better_when_it_is_lower(tmp_path):
    selection = Selection(tmp_path, "total_loss", None)
    add_all(selection, [3.0, 2.0], "total_loss")
    assert selection.is_best({"total_loss": 1.5})
    assert not selection.is_best({"total_loss": 2.5})
    assert selection.best() == (20, 2.0)


def test_a_classifier_is_best_with_the_fewest_errors(tmp_path):
    selection = Selection(tmp_path, "mAP", EarlyStopping(2))
    add_all(selection, [0.4, 0.3, 0.35], "top-1 error")
    assert selection.best() == (20, 0.3)
    assert selection.is_best({"top-1 error": 0.29, "top-5 error": 0.5})
    assert not selection.is_best({"top-1 error": 0.31, "top-5 error": 0.1})
    assert selection.should_stop() is None
    selection.add(40, {"top-1 error": 0.3})
    assert selection.should_stop() == "top-1 error has not improved for 2 evaluations (best 0.3000)"


def test_patience_counts_evaluations_without_enough_improvement(tmp_path):
    selection = Selection(tmp_path, "mAP", EarlyStopping(2, min_delta=0.1))
    add_all(selection, [0.2, 0.35, 0.4])
    assert selection.should_stop() is None
    selection.add(40, {"mAP": 0.44})
    assert selection.should_stop() == "mAP has not improved for 2 evaluations (best 0.3500)"
    selection.add(50, {"mAP": 0.5})
    assert selection.should_stop() is None


def test_the_first_evaluation_is_the_best_even_at_zero(tmp_path):
    selection = Selection(tmp_path, "mAP", None)
    assert selection.is_best({"mAP": 0.0})
    selection.add(10, {"mAP": 0.0})
    assert not selection.is_best({"mAP": 0.0})


def test_a_resumed_run_forgets_later_steps_and_broken_lines(tmp_path):
    add_all(Selection(tmp_path, "mAP", None), [0.1, 0.2, 0.3])
    file = tmp_path / HISTORY_FILE
    file.write_text(file.read_text() + '{"step": 40, "mA')
    selection = Selection(tmp_path, "mAP", None)
    assert selection.best() == (30, 0.3)
    selection.resume(20)
    assert selection.best() == (20, 0.2)
    assert not selection.has(30)
    assert len(file.read_text().splitlines()) == 2


def test_other_workers_write_nothing(tmp_path):
    selection = Selection(tmp_path, "mAP", None, writable=False)
    selection.add(10, {})
    assert selection.has(10)
    assert not (tmp_path / HISTORY_FILE).exists()
