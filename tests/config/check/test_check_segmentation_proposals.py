"""Every check of segmentation proposals finds its problem, a good config has none, and the builder agrees."""

from __future__ import annotations

import re

import pytest

from detzoo.builders.detector import build_detector
from detzoo.config.check.pipeline import check_pipeline
from detzoo.config.load import load_pipeline
from detzoo.config.problems import Severity
from detzoo.config.stages import heads_of, knows_classes
from detzoo.errors import ConfigError
from detzoo.features.network import symbolic
from detzoo.sweep.plan.traits import traits_of

MODEL = "model.segmentation_proposals"
EXTRACTOR = f"{MODEL}.feature_extractor"
BLOCK = """model {
  segmentation_proposals {
    image_resizer { fixed_shape_resizer { height: 96 width: 128 } }
    feature_extractor {
      type: "faster_rcnn_mobilenet_v1_fpn" depth_multiplier: 0.25
      min_depth: 8
      fpn {
        min_level: 3 max_level: 6
        additional_layer_depth: 16
      }
      conv_hyperparams { initializer { variance_scaling_initializer { } } }
      batch_norm_trainable: true
    }
    conv_hyperparams { initializer { variance_scaling_initializer { } } }
    head_depth: 16
  }
}
"""
MASKS = ["train_input_reader.load_instance_masks=true", "eval_input_reader[0].load_instance_masks=true"]


@pytest.fixture
def masks_path(config_path):
    """A config without a problem, once its readers read masks."""
    text = config_path.read_text()
    config_path.write_text(BLOCK + text[text.index("train_config") :])
    return config_path


def found(path, *overrides, severity=Severity.ERROR):
    problems = check_pipeline(load_pipeline(str(path), overrides))
    return {problem.path: problem.message for problem in problems if problem.severity is severity}


def test_a_good_config_has_no_problem(masks_path):
    assert check_pipeline(load_pipeline(str(masks_path), [*MASKS, "eval_config="])) == []


def test_a_metrics_set_is_noted_as_without_effect(masks_path):
    notes = found(masks_path, *MASKS, severity=Severity.NOTE)
    assert list(notes) == ["eval_config.metrics_set[0]"]
    assert "always measured by the recall of their masks" in notes["eval_config.metrics_set[0]"]


def test_masks_that_are_not_read_are_told_before_anything_starts(masks_path):
    assert found(masks_path) == {
        "train_input_reader.load_instance_masks": (
            "is false, but segmentation proposals are trained on the records' masks; accepted: true"
        ),
        "eval_input_reader[0].load_instance_masks": (
            "is false, but segmentation proposals are measured by the records' masks; accepted: true"
        ),
    }


BAD_NUMBERS = [
    ("head_kernel_size=[6]", "head_kernel_size", "has 6; accepted: 5, 7, or both"),
    ("head_kernel_size=[5, 5]", "head_kernel_size", "names 5 twice"),
    (
        "examples_per_image=3",
        "positive_fraction",
        "less than one of examples_per_image (3), so that no mask is trained",
    ),
    ("feature_extractor.fpn.finest_level_only=true", "feature_extractor.fpn.finest_level_only", "is true"),
    ("feature_extractor.type=faster_rcnn_resnet50", "feature_extractor.type", "has no pyramid"),
    ("feature_extractor.type=ssd_mobilenet_v1", "feature_extractor.type", "is a feature extractor of ssd"),
    ("feature_extractor.fpn.min_level=1", "feature_extractor.fpn.min_level", "is 1; accepted"),
    ("image_resizer=", "image_resizer", "is missing or empty; choose one of keep_aspect_ratio_resizer"),
]


@pytest.mark.parametrize(("override", "field", "says"), BAD_NUMBERS)
def test_an_error_names_the_field_and_what_is_accepted_and_the_builder_refuses_too(masks_path, override, field, says):
    overrides = [*MASKS, f"{MODEL}.{override}"]
    errors = found(masks_path, *overrides)
    assert says in errors[f"{MODEL}.{field}"]
    with pytest.raises(ConfigError, match=rf"(?m)^{re.escape(MODEL)}\.{re.escape(field)}: .*{re.escape(says)}"):
        symbolic(lambda: build_detector(load_pipeline(str(masks_path), overrides).message.model))


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("head_depth=0", "is 0; accepted: 1 to 8192 channels"),
        ("mask_size=1", "is 1; accepted: 2 to 512 cells"),
        ("min_object_size=0", "is 0; accepted: above 0, at most 16384 pixels"),
        ("window_scale=0.9", "is 0.9; accepted: 1 to 16 times the object"),
        ("examples_per_image=0", "is 0; accepted: 1 to 65536 windows"),
        ("positive_fraction=1.5", "is 1.5; accepted: above 0, at most 1"),
        ("mask_loss_weight=-1", "is -1; accepted: 0 to 10000"),
        ("score_loss_weight=-1", "is -1; accepted: 0 to 10000"),
        ("max_proposals=0", "is 0; accepted: 1 to 65536 regions"),
    ],
)
def test_a_number_out_of_range_is_refused(masks_path, override, says):
    assert says in found(masks_path, *MASKS, f"{MODEL}.{override}")[f"{MODEL}.{override.partition('=')[0]}"]


def test_heads_and_what_they_are_called(masks_path):
    model = load_pipeline(str(masks_path)).message.model
    assert heads_of(model.segmentation_proposals) == (5, 7)
    one = load_pipeline(str(masks_path), [f"{MODEL}.head_kernel_size=[7]"]).message.model
    assert heads_of(one.segmentation_proposals) == (7,)
    assert not knows_classes(model)
    traits = traits_of(model)
    assert (traits.meta_architecture, traits.extractor) == ("segmentation_proposals", "mobilenet_v1")
    assert traits.resolution == 96
