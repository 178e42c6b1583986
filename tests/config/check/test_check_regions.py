"""Every check of two-stage detectors finds its problem, at its line, and good configs of each kind have none."""

from __future__ import annotations

import collections

import pytest

from detzoo.config.check.pipeline import check_pipeline
from detzoo.config.load import load_pipeline
from detzoo.config.problems import Severity

MODEL = "model.faster_rcnn"
EXTRACTOR = f"{MODEL}.feature_extractor"
ANCHORS = f"{MODEL}.first_stage_anchor_generator"
GRID = f"{ANCHORS}.grid_anchor_generator"
MULTISCALE = f"{ANCHORS}.multiscale_anchor_generator"
FLEXIBLE = f"{ANCHORS}.flexible_grid_anchor_generator"
HEAD = f"{MODEL}.second_stage_box_predictor"
BOX_HEAD = f"{HEAD}.mask_rcnn_box_predictor"
RFCN = f"{HEAD}.rfcn_box_predictor"
NMS = f"{MODEL}.second_stage_post_processing.batch_non_max_suppression"
MINER = f"{MODEL}.hard_example_miner"
RESIZER = f"{MODEL}.image_resizer"

PYRAMID = [
    f"{EXTRACTOR}.type=faster_rcnn_resnet50_fpn_keras",
    f"{EXTRACTOR}.first_stage_features_stride=",
    f"{EXTRACTOR}.fpn.min_level=2",
    f"{EXTRACTOR}.fpn.max_level=6",
    f"{MULTISCALE}.min_level=2",
    f"{MULTISCALE}.max_level=6",
    f"{MULTISCALE}.aspect_ratios=[1, 2, 0.5]",
]
POSITION_SENSITIVE = [
    f"{RFCN}.crop_height=18",
    f"{RFCN}.crop_width=18",
    f"{MODEL}.initial_crop_size=",
    f"{MODEL}.maxpool_kernel_size=",
    f"{MODEL}.maxpool_stride=",
]
MASKS = [
    f"{MODEL}.number_of_stages=3",
    f"{BOX_HEAD}.predict_instance_masks=true",
    "train_input_reader.load_instance_masks=true",
]
FIRST_STAGE = [
    f"{MODEL}.number_of_stages=1",
    f"{MODEL}.num_classes=0",
    f"{HEAD}=",
    f"{MODEL}.second_stage_post_processing=",
    f"{MODEL}.initial_crop_size=",
    f"{MODEL}.maxpool_kernel_size=",
    f"{MODEL}.maxpool_stride=",
]
FROM_READER = [
    f"{MODEL}.proposals_from_reader=true",
    f"{ANCHORS}=",
    "train_input_reader.proposals_path=gs://bucket/train.npz",
    "eval_input_reader[0].proposals_path=gs://bucket/val.json",
]


def problems(path, *overrides, files=True):
    return check_pipeline(load_pipeline(str(path), overrides), files=files)


def found(path, *overrides, severity=Severity.ERROR):
    return {p.path: p.message for p in problems(path, *overrides) if p.severity is severity}


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        PYRAMID,
        [*PYRAMID, f"{MODEL}.roi_canonical_level=4", f"{MODEL}.roi_max_level=5"],
        POSITION_SENSITIVE,
        MASKS,
        [*MASKS, "eval_input_reader[0].load_instance_masks=true", "eval_config.metrics_set[0]=coco_mask_metrics"],
        FIRST_STAGE,
        [*PYRAMID, *FIRST_STAGE],
        FROM_READER,
        [f"{MODEL}.roi_operation=ROI_ALIGN", f"{MODEL}.maxpool_kernel_size=", f"{MODEL}.maxpool_stride="],
        [f"{MODEL}.second_stage_classification_loss{{}}"],
        [f"{MODEL}.roi_operation=MAX_ROI_POOL", f"{MODEL}.box_features=FULLY_CONNECTED", f"{MODEL}.fc_depth=512"],
        [
            f"{MODEL}.second_stage_classification_loss.weighted_sigmoid{{}}",
            f"{MODEL}.second_stage_post_processing.score_converter=SIGMOID",
        ],
    ],
    ids=[
        "faster_rcnn",
        "pyramid",
        "levels_of_the_paper",
        "rfcn",
        "mask_rcnn",
        "mask_metrics",
        "first_stage",
        "pyramid_first_stage",
        "fast_rcnn",
        "align",
        "empty_loss",
        "pool",
        "sigmoid",
    ],
)
def test_a_good_config_of_each_kind_has_no_problem(region_path, overrides):
    assert problems(region_path, *overrides) == []


@pytest.mark.parametrize(
    ("overrides", "path", "says"),
    [
        ([f"{MODEL}.num_classes=0"], f"{MODEL}.num_classes", "accepted: 1 or more"),
        ([*FIRST_STAGE, f"{MODEL}.num_classes=-1"], f"{MODEL}.num_classes", "is -1; accepted: 0 to 65536 classes"),
        ([f"{RESIZER}="], RESIZER, "choose one of keep_aspect_ratio_resizer, fixed_shape_resizer"),
        ([f"{RESIZER}.fixed_shape_resizer.height=0"], f"{RESIZER}.fixed_shape_resizer.height", "1 to 16384 pixels"),
        ([f"{MODEL}.number_of_stages=4"], f"{MODEL}.number_of_stages", "1 to 3: 1 (proposals), 2 (boxes"),
        ([f"{MODEL}.number_of_stages=3"], f"{MODEL}.number_of_stages", "nothing predicts masks"),
        ([*POSITION_SENSITIVE, f"{MODEL}.number_of_stages=3"], f"{MODEL}.number_of_stages", "mask_rcnn_box_predictor"),
        # The feature extractor.
        (
            [f"{EXTRACTOR}.type=faster_rcnn_nas", f"{EXTRACTOR}.first_stage_features_stride=8"],
            f"{EXTRACTOR}.first_stage_features_stride",
            "accepted for faster_rcnn_nas: 16",
        ),
        ([f"{EXTRACTOR}.type=faster_rcnn_resnet51"], f"{EXTRACTOR}.type", "did you mean 'faster_rcnn_resnet50"),
        ([f"{EXTRACTOR}.type=ssd_mobilenet_v2"], f"{EXTRACTOR}.type", "of ssd, not of faster_rcnn"),
        ([f"{EXTRACTOR}="], f"{EXTRACTOR}.type", "no feature extractor is named"),
        (
            [f"{EXTRACTOR}.first_stage_features_stride=12"],
            f"{EXTRACTOR}.first_stage_features_stride",
            "accepted for faster_rcnn_resnet50_keras: 8, 16",
        ),
        (
            [f"{EXTRACTOR}.first_stage_features_stride=32"],
            f"{EXTRACTOR}.first_stage_features_stride",
            "only the last map has (use_last_map: true)",
        ),
        (
            [f"{EXTRACTOR}.type=faster_rcnn_vgg16", f"{EXTRACTOR}.first_stage_features_stride=8"],
            f"{EXTRACTOR}.first_stage_features_stride",
            "accepted for faster_rcnn_vgg16: 16",
        ),
        ([f"{EXTRACTOR}.depth_multiplier=0.5"], f"{EXTRACTOR}.depth_multiplier", "one width only; accepted: 1"),
        ([f"{EXTRACTOR}.pretrained_weights=no.h5"], f"{EXTRACTOR}.pretrained_weights", "there is no file no.h5"),
        ([f"{EXTRACTOR}.fpn{{}}"], f"{EXTRACTOR}.fpn", "use type: 'faster_rcnn_resnet50_fpn_keras' or remove"),
        ([f"{EXTRACTOR}.pad_to_multiple=0"], f"{EXTRACTOR}.pad_to_multiple", "1 to 4096 pixels"),
        ([*PYRAMID, f"{EXTRACTOR}.use_last_map=true"], f"{EXTRACTOR}.use_last_map", "accepted with it: false"),
        ([*PYRAMID, f"{EXTRACTOR}.fpn.min_level=6"], f"{EXTRACTOR}.fpn.min_level", "is 6; accepted for"),
        ([*PYRAMID, f"{EXTRACTOR}.fpn.max_level=1"], f"{EXTRACTOR}.fpn.min_level", "is 2, above max_level (1)"),
        (
            [*PYRAMID, f"{EXTRACTOR}.fpn.top_down_pathway=false", f"{EXTRACTOR}.fpn.lateral_connections=false"],
            f"{EXTRACTOR}.fpn.lateral_connections",
            "nothing makes the finer levels",
        ),
        # Anchors.
        ([f"{ANCHORS}="], ANCHORS, "choose one of grid_anchor_generator, "),
        ([f"{GRID}.scales="], f"{GRID}.scales", "at least one factor"),
        ([f"{GRID}.scales=[1, 0]"], f"{GRID}.scales[1]", "is 0; accepted: above 0"),
        ([f"{GRID}.aspect_ratios="], f"{GRID}.aspect_ratios", "at least one width / height"),
        ([f"{GRID}.height_stride=0"], f"{GRID}.height_stride", "is 0; accepted: 1 to 4096 pixels"),
        ([*PYRAMID, f"{GRID}.scales=[1]", f"{GRID}.aspect_ratios=[1]"], GRID, "feature extractor has 5"),
        ([*PYRAMID, f"{MULTISCALE}.max_level=5"], f"{MULTISCALE}.max_level", "have levels 2 to 6 (model.faster_rcnn."),
        ([*PYRAMID, f"{EXTRACTOR}.fpn.finest_level_only=true"], f"{MULTISCALE}.max_level", "is 6; the maps have lev"),
        ([f"{FLEXIBLE}.anchor_grid[+].height_stride=16"], f"{FLEXIBLE}.anchor_grid[0].base_sizes", "is missing"),
        # The first stage's numbers.
        ([f"{MODEL}.first_stage_minibatch_size=0"], f"{MODEL}.first_stage_minibatch_size", "1 to 65536 anchors"),
        ([f"{MODEL}.first_stage_atrous_rate=0"], f"{MODEL}.first_stage_atrous_rate", "1 to 64 cells"),
        (
            [f"{MODEL}.first_stage_box_predictor_kernel_size=0"],
            f"{MODEL}.first_stage_box_predictor_kernel_size",
            "1 to 31 cells",
        ),
        (
            [f"{MODEL}.first_stage_box_predictor_depth=-4"],
            f"{MODEL}.first_stage_box_predictor_depth",
            "is -4; accepted",
        ),
        ([f"{MODEL}.first_stage_max_proposals=0"], f"{MODEL}.first_stage_max_proposals", "1 to 100000 boxes"),
        (
            [f"{MODEL}.first_stage_positive_balance_fraction=0"],
            f"{MODEL}.first_stage_positive_balance_fraction",
            "above 0, at most 1",
        ),
        (
            [f"{MODEL}.first_stage_nms_iou_threshold=1.5"],
            f"{MODEL}.first_stage_nms_iou_threshold",
            "is 1.5; accepted: 0",
        ),
        ([f"{MODEL}.first_stage_nms_score_threshold=nan"], f"{MODEL}.first_stage_nms_score_threshold", "is nan; accep"),
        (
            [f"{MODEL}.first_stage_localization_loss_weight=-1"],
            f"{MODEL}.first_stage_localization_loss_weight",
            "is -1; accepted: 0 to 10000",
        ),
        (
            [f"{MODEL}.first_stage_pre_nms_top_k=-1"],
            f"{MODEL}.first_stage_pre_nms_top_k",
            "boxes; 0 for all",
        ),
        # The crop.
        ([f"{MODEL}.initial_crop_size="], f"{MODEL}.initial_crop_size", "is missing; accepted: cells, 1 or more"),
        (
            [f"{MODEL}.maxpool_kernel_size=15"],
            f"{MODEL}.maxpool_kernel_size",
            "1 (no pooling) to initial_crop_size (14",
        ),
        ([f"{MODEL}.maxpool_stride=0"], f"{MODEL}.maxpool_stride", "is 0; accepted: 1 (no pooling)"),
        (
            [f"{MODEL}.maxpool_stride="],
            f"{MODEL}.maxpool_stride",
            "is missing, which means 1; accepted: maxpool_kernel",
        ),
        ([f"{MODEL}.maxpool_stride=1"], f"{MODEL}.maxpool_stride", "is 1; accepted: maxpool_kernel_size (2)"),
        ([f"{MODEL}.roi_align_sampling_ratio=0"], f"{MODEL}.roi_align_sampling_ratio", "1 to 16 samples"),
        (
            [*PYRAMID, f"{MODEL}.roi_max_level=7"],
            f"{MODEL}.roi_max_level",
            "a level outside the pyramid; accepted: 2 to 6",
        ),
        ([*PYRAMID, f"{MODEL}.roi_canonical_level=1"], f"{MODEL}.roi_canonical_level", "is 1, a level outside the pyr"),
        ([*PYRAMID, f"{MODEL}.box_features=BACKBONE"], f"{MODEL}.box_features", "accepted: EXTRACTOR, FULLY_CONNECTED"),
        # The second stage.
        ([f"{HEAD}="], HEAD, "choose one of mask_rcnn_box_predictor, rfcn_box_predictor"),
        ([f"{HEAD}.convolutional_box_predictor{{}}"], f"{HEAD}.convolutional_box_predictor", "of a one-stage detector"),
        ([f"{BOX_HEAD}.box_code_size=5"], f"{BOX_HEAD}.box_code_size", "accepted: 4"),
        ([f"{BOX_HEAD}.predict_keypoints=true"], f"{BOX_HEAD}.predict_keypoints", "keypoints are not supported"),
        (
            [f"{BOX_HEAD}.use_dropout=true", f"{BOX_HEAD}.dropout_keep_probability=0"],
            f"{BOX_HEAD}.dropout_keep_probability",
            "above 0, at most 1",
        ),
        ([*MASKS, f"{BOX_HEAD}.mask_height=0"], f"{BOX_HEAD}.mask_height", "1 to 512 cells"),
        ([*POSITION_SENSITIVE, f"{RFCN}.box_code_size=3"], f"{RFCN}.box_code_size", "accepted: 4"),
        ([*POSITION_SENSITIVE, f"{RFCN}.depth=0"], f"{RFCN}.depth", "1 to 8192 channels"),
        ([*POSITION_SENSITIVE, f"{RFCN}.num_spatial_bins_width=0"], f"{RFCN}.num_spatial_bins_width", "1 to 32 bins"),
        ([*PYRAMID, *POSITION_SENSITIVE], RFCN, "crops from one map, but faster_rcnn_resnet50_fpn_keras has a pyramid"),
        ([f"{MODEL}.second_stage_batch_size=0"], f"{MODEL}.second_stage_batch_size", "1 to 65536 proposals"),
        ([f"{MODEL}.second_stage_balance_fraction=1.5"], f"{MODEL}.second_stage_balance_fraction", "is 1.5; accepted"),
        (
            [f"{MODEL}.second_stage_mask_prediction_loss_weight=nan"],
            f"{MODEL}.second_stage_mask_prediction_loss_weight",
            "is nan; accepted: 0 to 10000",
        ),
        ([f"{MODEL}.second_stage_post_processing="], f"{MODEL}.second_stage_post_processing", "suppression is missing"),
        ([f"{NMS}.max_total_detections=0"], f"{NMS}.max_total_detections", "1 to 100000 boxes"),
        ([f"{MINER}.iou_threshold=-0.1"], f"{MINER}.iou_threshold", "is -0.1; accepted: 0 to 1"),
        ([f"{MINER}.num_hard_examples=-1"], f"{MINER}.num_hard_examples", "0 to 1000000 anchors; 0 for no limit"),
        ([f"{MINER}.reserve_positives=true"], f"{MINER}.reserve_positives", "a ratio of 1 or more"),
        (
            [f"{MODEL}.second_stage_classification_loss.penalty_reduced_logistic_focal_loss{{}}"],
            f"{MODEL}.second_stage_classification_loss.penalty_reduced_logistic_focal_loss",
            "not supported in a second stage; accepted: weighted_softmax, weighted_sigmoid, weighted_sigmoid_focal",
        ),
        (
            [f"{MODEL}.first_stage_matcher.argmax_matcher.unmatched_threshold=0.8"],
            f"{MODEL}.first_stage_matcher.argmax_matcher.unmatched_threshold",
            "is 0.8, above matched_threshold (0.5)",
        ),
        (
            [f"{MODEL}.second_stage_localization_loss.sum{{}}"],
            f"{MODEL}.second_stage_localization_loss.sum",
            "has no terms; accepted: 1 or more",
        ),
        (
            [f"{MODEL}.first_stage_localization_loss.sum.term[0].weight=2"],
            f"{MODEL}.first_stage_localization_loss.sum.term[0].loss",
            "is missing or empty; choose one of weighted_l2, weighted_smooth_l1",
        ),
        # Numbers that nobody means.
        ([f"{EXTRACTOR}.min_depth=-5"], f"{EXTRACTOR}.min_depth", "is -5; accepted: 0 to 8192 channels"),
        ([f"{EXTRACTOR}.depth_multiplier=inf"], f"{EXTRACTOR}.depth_multiplier", "is inf; accepted: 0.05 to 8"),
        ([f"{GRID}.scales[2]=inf"], f"{GRID}.scales[2]", "is inf; accepted: above 0"),
        (
            [f"{GRID}.aspect_ratios[1]=nan"],
            f"{GRID}.aspect_ratios[1]",
            "is nan; accepted: 0.001",
        ),
        (
            [f"{RESIZER}.conditional_shape_resizer.size_threshold=0"],
            f"{RESIZER}.conditional_shape_resizer.size_threshold",
            "is 0; accepted: 1 to 16384 pixels",
        ),
        (
            [f"{MODEL}.second_stage_localization_loss_weight=inf"],
            f"{MODEL}.second_stage_localization_loss_weight",
            "is inf; accepted: 0 to 10000",
        ),
        # Features that this version does not support.
        ([f"{MODEL}.output_final_box_rpn_features=true"], f"{MODEL}.output_final_box_rpn_features", "accepted: false"),
        # Context R-CNN.
        (
            [f"{MODEL}.context_config{{}}"],
            "train_input_reader.load_context_features",
            "`detzoo dataset context` writes",
        ),
        ([*POSITION_SENSITIVE, f"{MODEL}.context_config{{}}"], f"{MODEL}.context_config", "combined with an R-FCN"),
        ([*FIRST_STAGE, f"{MODEL}.context_config{{}}"], f"{MODEL}.context_config", "with a first stage alone"),
        (
            [f"{MODEL}.context_config.attention_position=ATTENTION_DEFAULT"],
            f"{MODEL}.context_config.attention_position",
            "accepted: POST_BOX_CLASSIFIER, POST_RPN",
        ),
        (
            [f"{MODEL}.context_config.use_long_term_attention=false"],
            f"{MODEL}.context_config.use_long_term_attention",
            "nothing is attended to",
        ),
        (
            [f"{MODEL}.output_final_box_features=true", *FIRST_STAGE],
            f"{MODEL}.output_final_box_features",
            "accepted: false",
        ),
        # The readers.
        (
            [*MASKS, "train_input_reader.load_instance_masks=false"],
            "train_input_reader.load_instance_masks",
            "(the mask head is trained on them); accepted: true",
        ),
        (
            [*MASKS, "eval_config.metrics_set[0]=coco_mask_metrics"],
            "eval_input_reader[0].load_instance_masks",
            "(eval_config asks for coco_mask_metrics); accepted: true",
        ),
        (
            ["eval_config.metrics_set[0]=coco_mask_metrics"],
            "eval_config.metrics_set[0]",
            "needs masks, which only faster_rcnn with number_of_stages: 3 and predict_instance_masks: true predicts",
        ),
        ([*FROM_READER, f"{MODEL}.number_of_stages=1"], f"{MODEL}.number_of_stages", "removes the first stage"),
        (
            [*FROM_READER, "eval_input_reader[0].proposals_path="],
            "eval_input_reader[0].proposals_path",
            "is missing, but proposals_from_reader is true",
        ),
        (
            [*FROM_READER, "train_input_reader.max_number_of_proposals=0"],
            "train_input_reader.max_number_of_proposals",
            "1 to 100000 regions",
        ),
    ],
)
def test_an_error_names_field_and_remedy(region_path, overrides, path, says):
    errors = found(region_path, *overrides)
    assert says in errors.get(path, ""), errors


@pytest.mark.parametrize(
    ("overrides", "path", "says"),
    [
        ([f"{GRID}.width_stride=8"], f"{GRID}.width_stride", "is 8, but the map has stride 16 (model.faster_rcnn.f"),
        ([f"{BOX_HEAD}.predict_instance_masks=true"], f"{MODEL}.number_of_stages", "in the third stage only"),
        (
            [f"{MODEL}.second_stage_post_processing.score_converter=SIGMOID"],
            f"{MODEL}.second_stage_post_processing.score_converter",
            "the loss weighted_softmax trains logits for SOFTMAX",
        ),
        (
            [
                f"{MINER}{{}}",
                f"{MODEL}.second_stage_classification_loss.weighted_sigmoid_focal{{}}",
                f"{MODEL}.second_stage_post_processing.score_converter=SIGMOID",
            ],
            MINER,
            "and so does weighted_sigmoid_focal",
        ),
        ([*POSITION_SENSITIVE, f"{MODEL}.fc_depth=512"], f"{MODEL}.fc_depth", "no fully connected layers"),
        ([f"{MODEL}.first_stage_max_proposals=50"], f"{MODEL}.second_stage_batch_size", "is 64, but training has 50"),
        (
            [f"{MODEL}.clip_anchors_to_image=true", f"{MODEL}.keep_anchors_outside_image=true"],
            f"{MODEL}.keep_anchors_outside_image",
            "leaves no anchor that crosses",
        ),
        ([f"{MODEL}.roi_max_level=5"], f"{MODEL}.roi_max_level", "faster_rcnn_resnet50_keras has one map, no pyramid"),
        ([f"{MODEL}.first_stage_head_sharing=ALL"], f"{MODEL}.first_stage_head_sharing", "has no effect"),
        ([f"{MODEL}.fc_depth=512"], f"{MODEL}.fc_depth", "has no effect: no fully connected layers follow the crop"),
        ([*PYRAMID, f"{EXTRACTOR}.crop_stride=DENSE"], f"{EXTRACTOR}.crop_stride", "nothing of the backbone follows"),
        (
            [f"{MODEL}.box_features=FULLY_CONNECTED", f"{EXTRACTOR}.crop_stride=DILATED"],
            f"{EXTRACTOR}.crop_stride",
            "nothing of the backbone follows",
        ),
        (
            [*PYRAMID, f"{EXTRACTOR}.fpn.max_level=5", f"{MULTISCALE}.max_level=5", f"{EXTRACTOR}.fpn.coarse_source=2"],
            f"{EXTRACTOR}.fpn.coarse_source",
            "is SUBSAMPLE, without effect: max_level 5 adds no level",
        ),
        (
            [
                *PYRAMID,
                f"{MULTISCALE}.max_level=2",
                f"{EXTRACTOR}.fpn.finest_level_only=true",
                f"{MODEL}.roi_max_level=5",
            ],
            f"{MODEL}.roi_max_level",
            "all regions are cropped from level 2",
        ),
    ],
)
def test_a_warning_does_not_stop_anything(region_path, overrides, path, says):
    assert found(region_path, *overrides) == {}
    assert says in found(region_path, *overrides, severity=Severity.WARNING).get(path, "")


def test_what_has_no_effect_is_a_note(region_path):
    switches = (
        "inplace_batchnorm_update",
        "use_matmul_crop_and_resize",
        "use_matmul_gather_in_matcher",
        "use_static_balanced_label_sampler",
        "use_static_shapes",
        "use_static_shapes_for_eval",
        "use_partitioned_nms_in_first_stage",
        "use_combined_nms_in_first_stage",
        "resize_masks",
        "return_raw_detections_during_predict",
    )
    overrides = [f"{MODEL}.{name}=true" for name in switches]
    fields = {"proposals_path": "a.npz", "load_context_features": "true", "frame_index": "2"}
    fields = {f"train_input_reader.{name}": value for name, value in fields.items()}
    settings = [f"{path}={value}" for path, value in fields.items()]
    notes = found(region_path, *overrides, *settings, severity=Severity.NOTE)
    assert set(notes) == {f"{MODEL}.{name}" for name in switches} | set(fields)
    assert all(message.startswith("accepted, no effect: ") for message in notes.values())
    assert found(region_path, *overrides, *settings) == {}


def test_fields_of_context_without_effect_are_notes(region_path):
    context = f"{MODEL}.context_config"
    alone = [f"{context}.use_self_attention=true", f"{context}.use_long_term_attention=false"]
    unused = [f"{context}.context_feature_length=20", f"{context}.num_attention_heads=2"]
    notes = found(region_path, *alone, *unused, severity=Severity.NOTE)
    assert set(notes) == {setting.split("=")[0] for setting in unused}
    assert found(region_path, *alone, *unused) == {}
    readers = [f"{reader}.load_context_features=true" for reader in ("train_input_reader", "eval_input_reader[0]")]
    in_sequence = f"{context}.self_attention_in_sequence"
    assert set(found(region_path, f"{in_sequence}=true", *readers, severity=Severity.NOTE)) == {in_sequence}
    assert found(region_path, f"{in_sequence}=true", *readers) == {}


def test_anchors_in_pixels_are_the_same_boxes_here(region_path):
    overrides = [*PYRAMID, f"{MULTISCALE}.normalize_coordinates=false"]
    assert found(region_path, *overrides) == {}
    assert list(found(region_path, *overrides, severity=Severity.NOTE)) == [f"{MULTISCALE}.normalize_coordinates"]


@pytest.mark.parametrize(("side", "crop", "nearest"), [("height", 11, 12), ("width", 10, 9), ("height", 1, 3)])
def test_a_crop_that_does_not_fit_the_bins_names_the_nearest_that_does(region_path, side, crop, nearest):
    # 3 bins: 11 is one below 12, 10 one above 9; at least one cell for each bin.
    errors = found(region_path, *POSITION_SENSITIVE, f"{RFCN}.crop_{side}={crop}")
    assert list(errors) == [f"{RFCN}.crop_{side}"]
    text = f"is {crop}, which num_spatial_bins_{side} (3) does not divide; accepted: multiples of 3, the nearest is "
    assert errors[f"{RFCN}.crop_{side}"] == f"{text}{nearest}"


@pytest.mark.parametrize(
    ("overrides", "cells", "nearest"),
    [
        ([], 4, 16),  # 14 cells pooled to 7, every other one read by conv5: 4
        ([f"{EXTRACTOR}.type=faster_rcnn_resnet50"], 7, 14),  # the first generation's conv5 has stride 1
        ([f"{EXTRACTOR}.crop_stride=DILATED"], 7, 14),
        ([f"{MODEL}.box_features=FULLY_CONNECTED"], 14, 14),  # no cells are left: masks have a crop of their own
    ],
)
def test_a_mask_that_is_enlarged_last_is_a_multiple_of_its_features(region_path, overrides, cells, nearest):
    overrides = [*MASKS, *overrides, f"{BOX_HEAD}.convolve_then_upsample_masks=true"]  # masks of 15 x 15
    errors = found(region_path, *overrides)
    assert set(errors) == {f"{BOX_HEAD}.mask_height", f"{BOX_HEAD}.mask_width"}
    text = f"is 15, but convolve_then_upsample_masks enlarges {cells}x{cells} cells; accepted: multiples of {cells}, "
    assert errors[f"{BOX_HEAD}.mask_height"] == f"{text}the nearest is {nearest}"
    sizes = [f"{BOX_HEAD}.mask_{side}={nearest}" for side in ("height", "width")]
    assert found(region_path, *overrides, *sizes) == {}


class TestMoreProposalsThanAnchors:
    """12 anchors a cell on one map, 6 on each level of the pyramid (3 ratios, 2 scales an octave)."""

    FIELD = f"{MODEL}.first_stage_max_proposals"

    def test_one_map_of_a_fixed_size(self, region_path):
        # 96 x 128 at stride 16: 6 x 8 cells, 576 anchors.
        assert found(region_path, f"{self.FIELD}=576") == {}
        message = found(region_path, f"{self.FIELD}=577")[self.FIELD]
        assert message == "is 577, but an input of 96x128 pixels has 576 anchors; accepted: 1 to 576"

    def test_in_training(self, region_path):
        field = f"{self.FIELD}_in_training"
        assert "is 2000, but an input of 96x128 pixels has 576" in found(region_path, f"{field}=2000")[field]

    def test_a_size_that_is_no_multiple_of_the_stride(self, region_path):
        # ceil(90 / 16) x ceil(130 / 16) = 6 x 9 cells: 648 anchors; nothing is padded.
        sizes = [f"{RESIZER}.fixed_shape_resizer.height=90", f"{RESIZER}.fixed_shape_resizer.width=130"]
        errors = found(region_path, *sizes, f"{self.FIELD}=721")
        assert "an input of 90x130 pixels has 648 anchors" in errors[self.FIELD]

    def test_a_pyramid_counts_all_levels(self, region_path):
        # 96 x 128: 24 x 32 + 12 x 16 + 6 x 8 + 3 x 4 + 2 x 2 = 1024 cells, 6144 anchors.
        assert found(region_path, *PYRAMID, f"{self.FIELD}=6144") == {}
        assert "has 6144 anchors" in found(region_path, *PYRAMID, f"{self.FIELD}=6145")[self.FIELD]

    def test_the_finest_level_only(self, region_path):
        # 24 x 32 cells of level 2, 4608 anchors.
        overrides = [*PYRAMID, f"{EXTRACTOR}.fpn.finest_level_only=true", f"{MULTISCALE}.max_level=2"]
        assert "has 4608 anchors" in found(region_path, *overrides, f"{self.FIELD}=4609")[self.FIELD]

    def test_a_flexible_grid_and_ssd_anchors(self, region_path):
        # One grid with 2 boxes per cell has 96 anchors. SSD's single layer always has 3 boxes per cell, 144 anchors.
        grid = [f"{FLEXIBLE}.anchor_grid[0].{name}" for name in ("base_sizes", "aspect_ratios")]
        strides = [f"{FLEXIBLE}.anchor_grid[0].{side}_stride=16" for side in ("height", "width")]
        flexible = [f"{FLEXIBLE}.anchor_grid[+].height_offset=8", f"{grid[0]}=[32, 64]", f"{grid[1]}=[1, 1]", *strides]
        assert "has 96 anchors" in found(region_path, *flexible)[self.FIELD]
        ssd = f"{ANCHORS}.ssd_anchor_generator"
        assert "has 144 anchors" in found(region_path, f"{ssd}.num_layers=1", f"{ssd}.aspect_ratios=[1]")[self.FIELD]

    def test_without_a_static_size_the_largest_counts(self, region_path):
        # At most 96 x 128 pixels either way round, or 128 x 128 where the images are padded: 8 x 8 cells, 768.
        keep = [f"{RESIZER}.keep_aspect_ratio_resizer.{side}" for side in ("min_dimension=96", "max_dimension=128")]
        message = found(region_path, *keep, f"{self.FIELD}=577")[self.FIELD]
        assert "an input of at most 96x128 pixels has at most 576 anchors" in message
        padded = [*keep, f"{RESIZER}.keep_aspect_ratio_resizer.pad_to_max_dimension=true"]
        assert found(region_path, *padded, f"{self.FIELD}=768") == {}
        assert "128x128 pixels has 768 anchors" in found(region_path, *padded, f"{self.FIELD}=769")[self.FIELD]

    def test_without_any_bound_nothing_is_said(self, region_path):
        assert found(region_path, f"{RESIZER}.identity_resizer{{}}", f"{self.FIELD}=100000") == {}

    def test_regions_of_a_reader_are_not_limited(self, region_path):
        assert found(region_path, *FROM_READER, f"{self.FIELD}=100000") == {}


def test_a_proposal_head_that_is_shared_needs_one_number_of_anchors(region_path):
    ssd = f"{ANCHORS}.ssd_anchor_generator"
    overrides = [*PYRAMID, f"{ssd}.num_layers=5", f"{ssd}.aspect_ratios=[1, 2, 0.5]"]
    assert found(region_path, *overrides) == {}  # box and objectness layers of each level are its own
    errors = found(region_path, *overrides, f"{MODEL}.first_stage_head_sharing=ALL")
    assert "3 boxes per location of the finest map and 4 on the others" in errors[f"{ssd}.reduce_boxes_in_lowest_layer"]


def test_the_last_map_may_have_stride_32(region_path):
    # 96 x 128 at stride 32: 3 x 4 cells, 144 anchors.
    overrides = [
        f"{EXTRACTOR}.use_last_map=true",
        f"{EXTRACTOR}.first_stage_features_stride=32",
        f"{GRID}.height_stride=32",
        f"{GRID}.width_stride=32",
        f"{MODEL}.first_stage_max_proposals=144",
    ]
    assert problems(region_path, *overrides) == []
    errors = found(region_path, *overrides, f"{MODEL}.box_features=BACKBONE")
    assert "after use_last_map nothing of the backbone is left" in errors[f"{MODEL}.box_features"]


def test_the_file_of_regions_must_exist(region_path):
    folder, field = region_path.parent, "train_input_reader.proposals_path"
    (folder / "proposals.npz").write_bytes(b"x")
    assert found(region_path, *FROM_READER, f"{field}={folder}/proposals.npz") == {}
    errors = found(region_path, *FROM_READER, f"{field}={folder}/proposal.npz")
    assert f"there is no file '{folder}/proposal.npz'; did you mean proposals.npz?" in errors[field]
    overrides = [*FROM_READER, f"{field}=PATH_TO_BE_CONFIGURED/proposals.npz"]
    to_set = found(region_path, *overrides, severity=Severity.TO_SET)
    assert to_set == {field: f"give the file of your regions: --set {field}=PATH"}
    assert problems(region_path, *FROM_READER, f"{field}={folder}/proposal.npz", files=False) == []


def test_a_first_stage_alone_reads_records_of_any_classes(region_path):
    assert problems(region_path, *FIRST_STAGE, f"{MODEL}.num_classes=1") == []  # the label map has two
    text = str(problems(region_path, f"{MODEL}.num_classes=1"))
    assert "goes up to id 2 ('dog'), but num_classes is 1; set model.faster_rcnn.num_classes: 2" in text


def test_lines_of_problems(region_path):
    text = region_path.read_text()
    for good, bad in (
        ("scales: [0.25, 0.5, 1.0, 2.0]", "scales: [0.25, -0.5]"),
        ("first_stage_max_proposals: 300", "first_stage_max_proposals: -1"),
        ("initial_crop_size: 14", "initial_crop_size: 1"),
        ("score_converter: SOFTMAX", "score_converter: SIGMOID"),
    ):
        assert good in text
        text = text.replace(good, bad)
    region_path.write_text(text)
    lines, wrong = text.splitlines(), problems(region_path)
    named = [p.path.split(".")[-1] for p in wrong]
    assert named == [
        "scales[1]",
        "first_stage_max_proposals",
        "maxpool_kernel_size",
        "maxpool_stride",
        "score_converter",
    ]
    for problem, name in zip(wrong, named, strict=True):
        assert name.partition("[")[0] in lines[problem.line - 1], problem


def test_a_default_that_does_not_fit_is_shown_at_its_block(region_path):
    region_path.write_text(region_path.read_text().replace("    first_stage_max_proposals: 300\n", ""))
    [problem] = problems(region_path, f"{GRID}.scales=[1]")  # 6 x 8 x 3 anchors, the default is 300
    assert (problem.path, problem.line) == (f"{MODEL}.first_stage_max_proposals", 2)
    assert "is 300, but an input of 96x128 pixels has 144 anchors" in problem.message


def test_several_labels_of_a_box_need_sigmoids(region_path):
    overrides, loss = ["train_config.merge_multiple_label_boxes=true"], f"{MODEL}.second_stage_classification_loss"
    [problem] = problems(region_path, *overrides)
    assert problem.path == loss
    assert "is a softmax with one right class" in problem.message
    sigmoids = [f"{loss}.weighted_sigmoid{{}}", f"{MODEL}.second_stage_post_processing.score_converter=SIGMOID"]
    assert problems(region_path, *overrides, *sigmoids) == []
    assert problems(region_path, *overrides, *FIRST_STAGE) == []


def test_published_two_stage_configs(shared):
    refused = collections.defaultdict(set)
    paths = [p for p in (shared / "configs" / "published").glob("*/*.config") if "  faster_rcnn {" in p.read_text()]
    for path in paths:
        for problem in problems(path, files=False):
            if problem.severity is Severity.ERROR:
                refused[path.stem].add(problem.path)
    assert len(paths) == 40
    assert not refused
