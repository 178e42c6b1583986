"""Tests of errors in an SPP-net's config: each message names field, value and the accepted values."""

from __future__ import annotations

import pytest

from detzoo.config.check.pipeline import check_file
from detzoo.config.problems import Severity

TEXT = """
model {
  spp_net {
    num_classes: 2
    network { type: "zf_5" pyramid_bins: [6, 3, 2, 1] }
    scale: 480
    scale: 688
    fine_tuning { }
    svm { }
    box_regression { }
    post_processing { batch_non_max_suppression { iou_threshold: 0.3 } }
  }
}
train_config {
  batch_size: 1
  num_steps: 100
  optimizer { momentum_optimizer { learning_rate { constant_learning_rate { learning_rate: 0.0001 } } } }
}
train_input_reader {
  label_map_path: "label_map.pbtxt"
  proposals_path: "train.npz"
  tf_record_input_reader { input_path: "train.tfrecord" }
}
eval_config { metrics_set: "pascal_voc_2007_detection_metrics" }
eval_input_reader {
  label_map_path: "label_map.pbtxt"
  proposals_path: "test.npz"
  tf_record_input_reader { input_path: "test.tfrecord" }
}
"""


def problems_of(tmp_path, text=TEXT, *overrides):
    path = tmp_path / "pipeline.config"
    path.write_text(text)
    return check_file(str(path), overrides, files=False)


def test_a_good_config_has_no_problem(tmp_path):
    assert problems_of(tmp_path) == []


@pytest.mark.parametrize(
    ("override", "field", "message"),
    [
        ("num_classes=0", "num_classes", "is 0; accepted: 1 to "),
        ("network.type=zf5", "network.type", "is 'zf5'; did you mean 'zf_5'?"),
        ("network.type=vgg16", "network.type", "is 'vgg16'; accepted: zf_5, convnet_5, overfeat_5, overfeat_7"),
        ("network.pyramid_bins[1]=0", "network.pyramid_bins[1]", "is 0; accepted: 1 to 64 bins per side"),
        ("network.fc_depth=0", "network.fc_depth", "is 0; accepted: 1 to 16384 units"),
        ("network.dropout=1", "network.dropout", "is 1; accepted: 0 to below 1"),
        ("network.depth_multiplier=0", "network.depth_multiplier", "is 0; accepted: 0.05 to 8"),
        ("network.weight_decay=-1", "network.weight_decay", "is -1; accepted: 0 to 1"),
        ("scale[0]=0", "scale[0]", "is 0; accepted: 1 to 16384 pixels"),
        ("scale[1]=480", "scale[1]", "is 480, a second time"),
        # ZF-5 halves four times, rounding up: 80 pixels give 5 cells, 81 give 6.
        ("scale[0]=64", "scale[0]", "the map of zf_5 then has 4 cells along the shorter side, fewer than the 6 bins"),
        ("scale[0]=64", "scale[0]", "accepted: 81 or more"),
        ("window_size=0", "window_size", "is 0; accepted: 1 to "),
        ("max_proposals=0", "max_proposals", "is 0; accepted: 1 to "),
        ("fine_tuning.batch_size=0", "fine_tuning.batch_size", "is 0; accepted: 1 to "),
        ("fine_tuning.images_per_step=0", "fine_tuning.images_per_step", "is 0; accepted: 1 to "),
        ("fine_tuning.positive_fraction=0", "fine_tuning.positive_fraction", "is 0; accepted: above 0, at most 1"),
        ("fine_tuning.positive_iou=2", "fine_tuning.positive_iou", "is 2; accepted: above 0, at most 1"),
        ("fine_tuning.negative_iou=0.5", "fine_tuning.negative_iou", "accepted: 0 to below positive_iou (0.5)"),
        ("svm.c=0", "svm.c", "is 0; accepted: above 0"),
        ("svm.negative_iou=1.5", "svm.negative_iou", "is 1.5; accepted: 0 to 1"),
        ("svm.mining_rounds=-1", "svm.mining_rounds", "is -1; accepted: 0 to 1000 rounds; 0 for none"),
        ("box_regression.min_iou=0", "box_regression.min_iou", "is 0; accepted: above 0, at most 1"),
        ("box_regression.regularization=-1", "box_regression.regularization", "is -1; accepted: 0 to 1"),
        (
            "cache.max_gigabytes=-1",
            "cache.max_gigabytes",
            "10^9 bytes; 0 keeps nothing",
        ),
    ],
)
def test_a_wrong_value_is_named(tmp_path, override, field, message):
    found = [p for p in problems_of(tmp_path, TEXT, f"model.spp_net.{override}") if p.severity is Severity.ERROR]
    assert [problem.path for problem in found] == [f"model.spp_net.{field}"]
    assert message in found[0].message


@pytest.mark.parametrize(
    ("cut", "path", "message"),
    [
        ("pyramid_bins: [6, 3, 2, 1]", "model.spp_net.network.pyramid_bins", "is missing; windows of any size"),
        ('proposals_path: "train.npz"', "train_input_reader.proposals_path", "spp_net classifies given windows"),
        ('proposals_path: "test.npz"', "eval_input_reader[0].proposals_path", "`detzoo proposals` writes"),
        ("batch_non_max_suppression { iou_threshold: 0.3 }", "model.spp_net.post_processing", "is missing"),
    ],
)
def test_what_is_missing_is_named(tmp_path, cut, path, message):
    [problem] = problems_of(tmp_path, TEXT.replace(cut, ""))
    assert (problem.severity, problem.path) == (Severity.ERROR, path)
    assert message in problem.message


def test_something_must_score_the_windows(tmp_path):
    text = TEXT.replace("svm { }", "")
    assert problems_of(tmp_path, text) == []
    [problem] = problems_of(tmp_path, text, "model.spp_net.features=POOL5")
    assert (problem.path, "accepted: FC7" in problem.message) == ("model.spp_net.features", True)
    [problem, *_] = problems_of(tmp_path, text.replace("fine_tuning { }", ""))
    assert (problem.path, "nothing scores the windows" in problem.message) == ("model.spp_net", True)


def test_images_come_one_at_a_time(tmp_path):
    [problem] = problems_of(tmp_path, TEXT, "eval_config.batch_size=2")
    assert (problem.severity, problem.path) == (Severity.ERROR, "eval_config.batch_size")
    assert "one at a time; accepted: 1" in problem.message


def test_what_has_no_effect_is_told(tmp_path):
    notes = problems_of(tmp_path, TEXT.replace("fine_tuning { }", ""))
    assert [note.path for note in notes] == ["train_config.num_steps", "train_config.optimizer"]
    assert all(note.is_without_effect for note in notes)
    [note] = problems_of(tmp_path, TEXT, "model.spp_net.post_processing.score_converter=SOFTMAX")
    assert note.is_without_effect


def test_images_are_not_augmented(tmp_path):
    text = TEXT.replace("num_steps: 100", "num_steps: 100 data_augmentation_options { random_horizontal_flip { } }")
    (problem,) = problems_of(tmp_path, text)
    assert problem.path == "train_config.data_augmentation_options"
    assert problem.severity is Severity.ERROR
    assert "maps are computed once" in problem.message
