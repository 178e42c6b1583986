"""The door for callers from Python: a block with a wrong value is refused by the rule, with the path of the field."""

from __future__ import annotations

import ast
import pathlib
import re

import pytest
from google.protobuf import text_format

from detzoo.builders.augment import build_augmentations
from detzoo.builders.detector import build_detector
from detzoo.builders.inputs import build_dataset
from detzoo.builders.optimizer import build_optimizer
from detzoo.builders.resize import build_model_resizer, build_resizer
from detzoo.config import pb
from detzoo.config.check.model import check_model
from detzoo.config.check.pipeline import check_file, check_pipeline, require
from detzoo.config.problems import Findings
from detzoo.errors import ConfigError

# 64 x 96 pixels, three maps of levels 4 to 6.
SSD = """ssd {
  num_classes: 3
  image_resizer { fixed_shape_resizer { height: 64 width: 96 } }
  feature_extractor { type: 'ssd_mobilenet_v2' num_layers: 3 }
  box_coder { faster_rcnn_box_coder {} }
  matcher { argmax_matcher {} }
  similarity_calculator { iou_similarity {} }
  box_predictor { convolutional_box_predictor { kernel_size: 3 } }
  anchor_generator { ssd_anchor_generator { num_layers: 3 aspect_ratios: 1.0 } }
  post_processing { batch_non_max_suppression {} score_converter: SIGMOID }
  loss { localization_loss { weighted_smooth_l1 {} } classification_loss { weighted_sigmoid {} } }
}"""
ANCHORS, EXTRACTOR, LOSS = "anchor_generator", "feature_extractor", "loss"
MULTISCALE, GRIDS = "multiscale_anchor_generator", "flexible_grid_anchor_generator"
NMS = "post_processing.batch_non_max_suppression"
PYRAMID = "type: 'ssd_mobilenet_v2_fpn'"
BIFPN = "type: 'ssd_efficientnet-b0_bifpn_keras'"
PASSES = "num_iterations: 2 num_filters: 8"


def ssd_with(path: str, text: str) -> pb.DetectionModel:
    """The SSD with the block at a path replaced by protobuf text."""
    model = text_format.Parse(SSD, pb.DetectionModel())
    block, *names = model.ssd, *path.split(".")
    for name in names[:-1] if path else ():
        block = getattr(block, name)
    if path:
        block.ClearField(names[-1])
        block = getattr(block, names[-1])
        block.SetInParent()
    text_format.Merge(text, block)
    return model


def test_the_model_itself_passes():
    require(text_format.Parse(SSD, pb.DetectionModel()), "model", check_model)


@pytest.mark.parametrize(
    ("block", "text", "field", "says"),
    [
        (ANCHORS, "", "", "is missing or empty; choose one of grid_anchor_generator, ssd_anchor_generator"),
        (ANCHORS, "ssd_anchor_generator { num_layers: 0 }", "ssd_anchor_generator.num_layers", "is 0; accepted: 1 to"),
        (
            ANCHORS,
            "ssd_anchor_generator { num_layers: 3 aspect_ratios: 1 scales: 0.1 }",
            "ssd_anchor_generator.scales",
            "has 1 values; accepted: none, or one for each of the 3 num_layers",
        ),
        (
            ANCHORS,
            "ssd_anchor_generator { num_layers: 6 aspect_ratios: 1 height_stride: [1, 2] }",
            "ssd_anchor_generator.height_stride",
            "has 2 values; accepted: none, or one for each of the 6 num_layers",
        ),
        (
            ANCHORS,
            "ssd_anchor_generator { aspect_ratios: -1 }",
            "ssd_anchor_generator.aspect_ratios[0]",
            "is -1; accepted: ",
        ),
        (
            ANCHORS,
            f"{MULTISCALE} {{ min_level: 8 aspect_ratios: 1 }}",
            f"{MULTISCALE}.min_level",
            "is 8, above max_level (7)",
        ),
        (ANCHORS, f"{MULTISCALE} {{ }}", f"{MULTISCALE}.aspect_ratios", "is missing; give at least one width / height"),
        (
            ANCHORS,
            f"{MULTISCALE} {{ aspect_ratios: 1 scales_per_octave: 0 }}",
            f"{MULTISCALE}.scales_per_octave",
            "is 0; accepted: 1 to",
        ),
        (
            ANCHORS,
            f"{MULTISCALE} {{ normalize_coordinates: false }}",
            f"{MULTISCALE}.normalize_coordinates",
            "anchors in pixels are not supported",
        ),
        (ANCHORS, "grid_anchor_generator { aspect_ratios: 1 }", "grid_anchor_generator.scales", "is missing; give"),
        (ANCHORS, f"{GRIDS} {{ }}", f"{GRIDS}.anchor_grid", "has 0 entries; the feature extractor has 3 maps"),
        (
            ANCHORS,
            f"{GRIDS} {{ anchor_grid {{ base_sizes: [1, 2] aspect_ratios: 1 }} }}",
            f"{GRIDS}.anchor_grid[0].aspect_ratios",
            "has 1 values; accepted: one for each of the 2 base_sizes",
        ),
        (
            EXTRACTOR,
            "type: 'ssd_mobilenet_v2' num_layers: 7",
            "num_layers",
            "is 7; accepted for ssd_mobilenet_v2: 1 to 6",
        ),
        (EXTRACTOR, "type: 'ssd_mobilenet_v2' num_layers: 0", "num_layers", "is 0; accepted"),
        (
            EXTRACTOR,
            f"{PYRAMID} fpn {{ min_level: 1 }}",
            "fpn.min_level",
            "is 1; accepted for ssd_mobilenet_v2_fpn: 2 to 5",
        ),
        (EXTRACTOR, f"{PYRAMID} fpn {{ max_level: 2 }}", "fpn.min_level", "is 3, above max_level (2)"),
        (EXTRACTOR, f"{PYRAMID} output_stride: 16", "output_stride", "is 16; accepted for ssd_mobilenet_v2_fpn: 0, 32"),
        (
            EXTRACTOR,
            "type: 'ssd_mobilenet_v1' output_stride: 12",
            "output_stride",
            "is 12; accepted for ssd_mobilenet_v1: 0, 8, 16, 32",
        ),
        (EXTRACTOR, "type: 'ssd_mobilenet_v9'", "type", "there is no feature extractor 'ssd_mobilenet_v9'"),
        (EXTRACTOR, f"{BIFPN} bifpn {{ num_filters: 8 }}", "bifpn.num_iterations", "is 0; accepted: 1 or more"),
        (EXTRACTOR, f"{BIFPN} bifpn {{ num_iterations: 8 }}", "bifpn.num_filters", "is 0; accepted: 1 or more"),
        (EXTRACTOR, f"{BIFPN} bifpn {{ {PASSES} min_level: 1 }}", "bifpn.min_level", "is 1; accepted"),
        (EXTRACTOR, f"{BIFPN} bifpn {{ {PASSES} max_level: 3 }}", "bifpn.max_level", "is 3; accepted: min_level"),
        (
            EXTRACTOR,
            f"{BIFPN} bifpn {{ {PASSES} combine_method: 'mean' }}",
            "bifpn.combine_method",
            "is 'mean'; accepted: fast_attention",
        ),
        (EXTRACTOR, f"{BIFPN} bifpn {{ {PASSES} }} use_depthwise: true", "use_depthwise", "is not supported"),
        (EXTRACTOR, f"{BIFPN} bifpn {{ {PASSES} }} output_stride: 8", "output_stride", "is 8; accepted"),
        (
            EXTRACTOR,
            "type: 'ssd_mobilenet_v2' conv_hyperparams { group_norm {} }",
            "conv_hyperparams.group_norm",
            "not supp",
        ),
        ("box_predictor", "", "", "is missing or empty; choose one of convolutional_box_predictor, weight_shared"),
        ("box_predictor", "rfcn_box_predictor {}", "rfcn_box_predictor", "is the head of a two-stage detector"),
        (
            "box_predictor",
            "convolutional_box_predictor { box_code_size: 7 }",
            "convolutional_box_predictor.box_code_size",
            "is 7; accepted: 4",
        ),
        (
            "box_predictor",
            "convolutional_box_predictor { use_depthwise: true }",
            "convolutional_box_predictor.kernel_size",
            "is 1, which gives use_depthwise nothing to do; accepted with it: 3",
        ),
        (
            "box_predictor",
            "convolutional_box_predictor { min_depth: 3 max_depth: 2 }",
            "convolutional_box_predictor.min_depth",
            "is 3, above max_depth (2)",
        ),
        ("loss.classification_loss", "", "", "is missing or empty; choose one of"),
        (
            "loss.classification_loss",
            "weighted_dice_classification_loss {}",
            "weighted_dice_classification_loss",
            "center_net",
        ),
        ("loss.classification_loss", "weighted_logits_softmax {}", "weighted_logits_softmax", "distillation"),
        (
            "loss.classification_loss",
            "bootstrapped_sigmoid {}",
            "bootstrapped_sigmoid.alpha",
            "is missing; accepted: above 0, at most 1",
        ),
        ("loss.classification_loss", "focal_star { gamma: 0 }", "focal_star.gamma", "is 0; accepted: above 0"),
        ("loss.localization_loss", "", "", "is missing or empty; choose one of"),
        (
            "loss.random_example_sampler",
            "positive_sample_fraction: 0",
            "positive_sample_fraction",
            "is 0; accepted: above 0, at most 1",
        ),
        ("loss.equalization_loss", "weight: 1", "", "the equalization loss is not supported"),
        (NMS, "iou_threshold: 1.5", "iou_threshold", "is 1.5; accepted: 0 to 1"),
        (NMS, "soft_nms_sigma: -1", "soft_nms_sigma", "is -1; accepted: 0 to"),
        (NMS, "max_detections_per_class: 0", "max_detections_per_class", "is 0; accepted: 1 to"),
        (NMS, "max_total_detections: 0", "max_total_detections", "is 0; accepted: 1 to"),
        (NMS, "max_classes_per_detection: 2", "max_classes_per_detection", "accepted: 1"),
        (NMS, "change_coordinate_frame: false", "change_coordinate_frame", "frame than the true image; accepted: true"),
        (
            "post_processing",
            "batch_non_max_suppression {} logit_scale: 0",
            "logit_scale",
            "is 0; accepted: 0.001 to 1000",
        ),
        (
            "post_processing",
            "batch_non_max_suppression {} calibration_config {}",
            "calibration_config",
            "calibration of scores is not supported",
        ),
        ("image_resizer", "", "", "is missing or empty; choose one of"),
        (
            "image_resizer",
            "keep_aspect_ratio_resizer { min_dimension: 9 max_dimension: 8 }",
            "keep_aspect_ratio_resizer.min_dimension",
            "is 9, above max_dimension (8)",
        ),
        (
            "image_resizer",
            "keep_aspect_ratio_resizer { per_channel_pad_value: 1 }",
            "keep_aspect_ratio_resizer.per_channel_pad_value",
            "has 1 values; accepted: none, or 3",
        ),
        (
            "image_resizer",
            "keep_aspect_ratio_resizer { min_dimension: 9 max_dimension: 9 training_min_dimensions: [9, 10] }",
            "keep_aspect_ratio_resizer.training_min_dimensions[1]",
            "is 10; accepted: 1 to max_dimension (9)",
        ),
        ("image_resizer", "fixed_shape_resizer { height: 0 }", "fixed_shape_resizer.height", "is 0; accepted: 1 to"),
        (
            "image_resizer",
            "conditional_shape_resizer { condition: INVALID }",
            "conditional_shape_resizer.condition",
            "is INVALID; accepted: GREATER, SMALLER",
        ),
        (
            "image_resizer",
            "pad_to_multiple_resizer { multiple: -1 }",
            "pad_to_multiple_resizer.multiple",
            "is -1; accepted: 1 to",
        ),
        ("box_coder", "", "", "is missing or empty; choose one of faster_rcnn_box_coder"),
        ("box_coder", "keypoint_box_coder { num_keypoints: 4 }", "keypoint_box_coder.num_keypoints", "accepted: 0"),
        ("box_coder", "square_box_coder {}", "square_box_coder", "predict boxes of 4 numbers, this coder has 3"),
        ("matcher", "", "", "is missing or empty; choose one of argmax_matcher, bipartite_matcher"),
        (
            "matcher",
            "argmax_matcher { unmatched_threshold: 0.6 }",
            "argmax_matcher.unmatched_threshold",
            "is 0.6, above matched_threshold (0.5)",
        ),
        (
            "matcher",
            "argmax_matcher { negatives_lower_than_unmatched: false }",
            "argmax_matcher.negatives_lower_than_unmatched",
            "is false: negatives lie between",
        ),
        ("similarity_calculator", "", "", "is missing or empty; choose one of"),
    ],
)
def test_a_wrong_block_is_refused_at_its_field(block, text, field, says):
    path = f"model.ssd.{block}" + (f".{field}" if field else "")
    with pytest.raises(ConfigError, match=rf"(?m)^{re.escape(path)}: .*{re.escape(says)}"):
        require(ssd_with(block, text), "model", check_model)


@pytest.mark.parametrize(
    ("text", "field", "says"),
    [
        ("use_confidences_as_targets: true", "use_confidences_as_targets", "are not supported"),
        ("explicit_background_class: true", "explicit_background_class", "is not supported"),
        ("num_classes: 0", "num_classes", "is 0; accepted: 1 to"),
        ("loss { expected_loss_weights: EXPECTED_SAMPLING }", "loss.expected_loss_weights", "are not supported"),
        (
            "add_background_class: false loss { classification_loss { weighted_softmax {} } }",
            "add_background_class",
            "weighted_softmax needs a background column",
        ),
        (
            "encode_background_as_zeros: true loss { classification_loss { weighted_softmax {} } }",
            "encode_background_as_zeros",
            "learns nothing from the background",
        ),
        (
            "loss { hard_example_miner {} classification_loss { weighted_sigmoid_focal {} } }",
            "loss.hard_example_miner",
            "chooses hard examples, and so does weighted_sigmoid_focal",
        ),
        (
            "box_predictor { weight_shared_convolutional_box_predictor {} }",
            "anchor_generator.ssd_anchor_generator.reduce_boxes_in_lowest_layer",
            "makes 3 boxes per location of the finest map and 2 on the others",
        ),
        (
            "anchor_generator { ssd_anchor_generator { num_layers: 4 } }",
            "anchor_generator.ssd_anchor_generator.num_layers",
            "is 4, but the extractor makes 3 maps",
        ),
    ],
)
def test_a_detector_with_a_contradiction_is_not_built(text, field, says):
    with pytest.raises(ConfigError, match=rf"(?m)^model\.ssd\.{re.escape(field)}: .*{re.escape(says)}"):
        build_detector(ssd_with("", text))


@pytest.mark.parametrize(
    ("text", "field", "says"),
    [
        ("", "", "is empty; name an augmentation or delete it"),
        ("convert_class_logits_to_softmax {}", ".convert_class_logits_to_softmax", "is not supported"),
        (
            "scale_boxes_to_pixel_coordinates {}",
            ".scale_boxes_to_pixel_coordinates",
            "fractions of the image throughout",
        ),
        (
            "autoaugment_image { policy_name: 'v9' }",
            ".autoaugment_image.policy_name",
            "is 'v9'; accepted: v0, v1, v2, v3",
        ),
        ("random_crop_image { min_area: 0 }", ".random_crop_image.min_area", "is 0; accepted: "),
        (
            "random_crop_image { min_aspect_ratio: 2 }",
            ".random_crop_image.min_aspect_ratio",
            "is 2, above max_aspect_ratio (1.33)",
        ),
        (
            "ssd_random_crop { operations {} }",
            ".ssd_random_crop.operations[0].min_aspect_ratio",
            "is missing; accepted",
        ),
        ("random_pad_image { pad_color: 1 }", ".random_pad_image.pad_color", "has 1 values; accepted: none, or 3"),
        (
            "random_pad_image { min_image_height: 1 }",
            ".random_pad_image.min_image_height",
            "goes with min_image_width, which is missing",
        ),
        (
            "random_crop_pad_image { max_padded_size_ratio: 1 }",
            ".random_crop_pad_image.max_padded_size_ratio",
            "has 1 values; accepted: none, or 2",
        ),
        (
            "random_distort_color { color_ordering: 2 }",
            ".random_distort_color.color_ordering",
            "is 2; accepted: 0 to 1",
        ),
        ("normalize_image {}", ".normalize_image.original_maxval", "is 0, but must be above original_minval (0)"),
        ("subtract_channel_mean {}", ".subtract_channel_mean.means", "is missing; give 3 values, one per channel"),
        ("resize_image {}", ".resize_image.new_height", "is missing; accepted: 1 to"),
        (
            "remap_labels { original_labels: 0 new_label: 1 }",
            ".remap_labels.original_labels[0]",
            "is 0; accepted: 1 to",
        ),
    ],
)
def test_an_augmentation_that_cannot_be_built_is_refused(text, field, says):
    step = text_format.Parse(text, pb.PreprocessingStep())
    path = re.escape(f"train_config.data_augmentation_options[1]{field}: ")
    with pytest.raises(ConfigError, match=rf"(?m)^{path}.*{re.escape(says)}"):
        build_augmentations([text_format.Parse("rgb_to_gray {}", pb.PreprocessingStep()), step])


@pytest.mark.parametrize(
    ("text", "field", "says"),
    [
        ("", "", "is missing or empty; choose one of"),
        ("manual_step_learning_rate { }", ".manual_step_learning_rate.schedule", "is missing; one rate for all steps"),
        (
            "manual_step_learning_rate { schedule { step: 5 } schedule { step: 5 } }",
            ".manual_step_learning_rate.schedule[1].step",
            "is 5, not above the 5 before it; steps must increase",
        ),
        (
            "exponential_decay_learning_rate { decay_steps: 0 }",
            ".exponential_decay_learning_rate.decay_steps",
            "is 0; accepted: 1 to",
        ),
        (
            "cosine_decay_learning_rate { total_steps: 10 warmup_steps: 20 }",
            ".cosine_decay_learning_rate.warmup_steps",
            "is 20, above total_steps (10)",
        ),
        (
            "cosine_decay_learning_rate { learning_rate_base: 0.1 warmup_learning_rate: 0.2 }",
            ".cosine_decay_learning_rate.warmup_learning_rate",
            "is 0.2, above learning_rate_base (0.1)",
        ),
    ],
)
def test_a_schedule_without_meaning_is_refused(text, field, says):
    optimizer = text_format.Parse(f"adam_optimizer {{ learning_rate {{ {text} }} }}", pb.Optimizer())
    path = re.escape(f"train_config.optimizer.adam_optimizer.learning_rate{field}: ")
    with pytest.raises(ConfigError, match=rf"(?m)^{path}.*{re.escape(says)}"):
        build_optimizer(optimizer)


def test_resizers_are_checked_where_they_are_built():
    with pytest.raises(
        ConfigError, match=r"^image_resizer: is missing or empty; choose one of keep_aspect_ratio_resizer"
    ):
        build_resizer(pb.ImageResizer())
    with pytest.raises(ConfigError, match=r"^image_resizer\.fixed_shape_resizer\.height: is 0; accepted: 1 to"):
        build_model_resizer(ssd_with("image_resizer", "fixed_shape_resizer { height: 0 }"))


def test_a_reader_is_checked_where_its_dataset_is_built():
    reader = pb.InputReader(image_folder_reader=pb.ImageFolderReader(path="/nowhere"))
    resizer = build_model_resizer(text_format.Parse(SSD, pb.DetectionModel()))
    with pytest.raises(ConfigError, match=r"^input_reader\.image_folder_reader: reads images without boxes"):
        build_dataset(reader, resizer, None, training=False, batch_size=1, seed=0)


def test_every_error_is_listed():
    model = ssd_with("matcher", "")
    model.ssd.num_classes = 0
    with pytest.raises(ConfigError, match=r"(?s)num_classes: is 0.*matcher: is missing or empty"):
        build_detector(model)


def codes_of_rules():
    """(file:line, code) of every finding that the modules of config/check add."""
    for path in sorted(pathlib.Path(check_pipeline.__code__.co_filename).parent.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("error", "warning", "note"):
                yield f"{path.name}:{node.lineno}", node.args[1]


def test_every_rule_has_a_code_of_its_own_spelling():
    found = list(codes_of_rules())
    assert len(found) > 100
    literals = {where: code.value for where, code in found if isinstance(code, ast.Constant)}
    assert [w for w, code in literals.items() if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", code)] == []
    names = {ast.unparse(code) for where, code in found if where not in literals}
    assert names <= {"MISSING", "OUT_OF_RANGE", "code", "'unknown-network' if network.type else MISSING"}


def codes(path, *overrides):
    return {problem.path: problem.code for problem in check_file(str(path), overrides)}


def test_programs_read_codes(config_path):
    assert codes(config_path, "model.ssd.num_classes=0") == {"model.ssd.num_classes": "out-of-range"}
    assert codes(config_path, "model.ssd.matcher=") == {"model.ssd.matcher": "missing"}
    assert codes(config_path, "train_config.sync_replicas=true") == {"train_config.sync_replicas": "no-effect"}
    config_path.write_text(config_path.read_text().replace("num_classes", "num_clases"))
    assert codes(config_path)["model.ssd.num_clases"] == "unknown-field"


def test_a_finding_that_reads_a_refused_number_is_dropped_whatever_its_words():
    findings = Findings().at("train_config")
    findings.error("num_steps", "out-of-range", "is -1")
    findings.drop_consequences()
    findings.warning("optimizer", "one", "nothing is named here", ["num_steps"])
    findings.warning("batch_size", "two", "mentions num_steps without reading it")
    findings.at("optimizer").warning("", "three", "stays")
    assert [problem.code for problem in findings.problems] == ["out-of-range", "two", "three"]
