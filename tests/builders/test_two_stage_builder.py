"""From a ``faster_rcnn`` block to a detector: every field arrives, every extractor builds, contradictions are named."""

from __future__ import annotations

import functools

import keras
import pytest
import tensorflow as tf
from google.protobuf import text_format

from detzoo.builders.detector import build_detector
from detzoo.builders.features import build_network
from detzoo.builders.region_features import read_region_features
from detzoo.config import pb
from detzoo.config.support import REGION_EXTRACTORS
from detzoo.detectors.faster_rcnn import FasterRcnn
from detzoo.detectors.rfcn import Rfcn
from detzoo.errors import ConfigError
from detzoo.features.network import symbolic
from detzoo.features.rewrite import RegionStride
from detzoo.losses.classification import SigmoidFocal, SoftmaxCrossEntropy
from detzoo.losses.localization import OneMinusIou, SmoothL1, SumOfLosses
from detzoo.ops.box_coder import FasterRcnnBoxCoder
from detzoo.ops.matching import ArgmaxMatcher, BipartiteMatcher
from detzoo.ops.roi_crop import crop_and_max_pool_boxes, max_roi_pool_boxes, roi_align_boxes
from detzoo.postprocess.scores import ScoreFunction


@pytest.fixture(scope="module")
def build(small):
    """A function: kind and pieces of text -> the detector, whose weights have no values."""

    @functools.cache
    def build(kind, *more):
        message = small.message_of(kind, *(f"faster_rcnn {{ {text} }}" for text in more))
        return symbolic(lambda: build_detector(message))

    return build


def shape_of(detector, path):
    return next(tuple(weight.shape) for weight in detector.weights if weight.path == path)


def layer_of(model, name):
    """A layer of a model or of a model inside it."""
    return next(layer for layer in model._flatten_layers() if layer.name == name)


def has(detector, start):
    return any(weight.path.startswith(start) for weight in detector.weights)


MINER = """
    hard_example_miner {
      num_hard_examples: 9 iou_threshold: 0.8
      loss_type: BOTH
    }
    """
L2 = "regularizer { l2_regularizer { weight: 0.5 } } initializer { truncated_normal_initializer { stddev: 0.02 } }"
BOX_HEAD = "second_stage_box_predictor {{ mask_rcnn_box_predictor {{ {} }} }}"
RFCN_HEAD = "second_stage_box_predictor {{ rfcn_box_predictor {{ {} }} }}"
NMS = "second_stage_post_processing {{ batch_non_max_suppression {{ {} }} }}"
EXTRACTOR = "feature_extractor {{ {} }}"
FPN = "feature_extractor {{ fpn {{ {} }} }}"
# Kind, the field's text, what to look at, and the value that proves that it arrived. All rows of one "_together" are
# built at once.
FIELDS = [
    (
        "plain_together",
        "num_classes: 7",
        lambda d: (d.num_classes, shape_of(d, "box_head/class_predictor/bias")),
        (7, (8,)),
    ),
    ("plain", "image_resizer { fixed_shape_resizer { height: 80 width: 48 } }", lambda d: d.input_shape_px, (80, 48)),
    ("plain", "number_of_stages: 1", lambda d: d.proposes_only, True),
    ("plain_together", "first_stage_atrous_rate: 2", lambda d: layer_of(d.network, "conv").dilation_rate, (2, 2)),
    (
        "plain_together",
        "first_stage_box_predictor_kernel_size: 5",
        lambda d: layer_of(d.network, "conv").kernel_size,
        (5, 5),
    ),
    ("plain_together", "first_stage_box_predictor_depth: 24", lambda d: layer_of(d.network, "conv").filters, 24),
    (
        "plain_together",
        f"first_stage_box_predictor_conv_hyperparams {{ {L2} }}",
        lambda d: round(float(layer_of(d.network, "conv").kernel_regularizer.l2), 6),
        0.25,  # the configuration counts half the sum of squares
    ),
    ("plain_together", "first_stage_minibatch_size: 31", lambda d: d._first.targets.sample_size, 31),
    (
        "plain_together",
        "first_stage_positive_balance_fraction: 0.75",
        lambda d: d._first.targets.positive_fraction,
        0.75,
    ),
    (
        "plain_together",
        "first_stage_nms_score_threshold: 0.125",
        lambda d: d._first.select.limits.score_threshold,
        0.125,
    ),
    (
        "plain_together",
        "first_stage_nms_iou_threshold: 0.5",
        lambda d: d._first.select.training_limits.iou_threshold,
        0.5,
    ),
    ("plain", "first_stage_max_proposals: 9", lambda d: d._first.select.limits.max_total_detections, 9),
    ("plain", "first_stage_max_proposals: 9", lambda d: d._first.select.training_limits.max_detections_per_class, 9),
    (
        "plain_together",
        "first_stage_max_proposals_in_training: 20",
        lambda d: [x.max_total_detections for x in (d._first.select.limits, d._first.select.training_limits)],
        [12, 20],
    ),
    ("plain_together", "first_stage_pre_nms_top_k: 50", lambda d: d._first.select.pre_nms_top_k, 50),
    ("plain_together", "first_stage_localization_loss_weight: 2", lambda d: d._first.loss.localization_weight, 2.0),
    ("plain_together", "first_stage_objectness_loss_weight: 3", lambda d: d._first.loss.objectness_weight, 3.0),
    ("plain_together", "keep_anchors_outside_image: true", lambda d: d._first.targets.keep_crossing, True),
    ("plain_together", "clip_anchors_to_image: true", lambda d: d._first.clips_anchors, True),
    ("plain_together", "initial_crop_size: 8", lambda d: d._crop.crop.keywords["crop_size"], (8, 8)),
    ("plain", "maxpool_kernel_size: 4 maxpool_stride: 4", lambda d: d._crop.crop.keywords["pool_size"], 4),
    (
        "plain",
        "roi_operation: ROI_ALIGN",
        lambda d: (d._crop.crop.func, d._crop.crop.keywords["crop_size"]),
        (roi_align_boxes, (2, 2)),
    ),
    (
        "plain",
        "roi_operation: ROI_ALIGN roi_align_sampling_ratio: 3",
        lambda d: d._crop.crop.keywords["sampling_ratio"],
        3,
    ),
    (
        "plain",
        "roi_operation: MAX_ROI_POOL",
        lambda d: (d._crop.crop.func, d._crop.crop.keywords["crop_size"]),
        (max_roi_pool_boxes, (2, 2)),
    ),
    ("plain", "roi_operation: CROP_AND_RESIZE", lambda d: d._crop.crop.func, crop_and_max_pool_boxes),
    ("pyramid", "", lambda d: d._crop.canonical_level, 5),  # one below the coarsest
    ("pyramid", "roi_canonical_level: 4", lambda d: d._crop.canonical_level, 4),
    ("pyramid", "", lambda d: sorted(d.network.output["crop_maps"]), [3, 4, 5, 6]),
    ("pyramid", "roi_max_level: 5", lambda d: sorted(d.network.output["crop_maps"]), [3, 4, 5]),
    ("pyramid", "", lambda d: has(d, "rpn/conv/") and has(d, "rpn/box_predictor_3/"), True),
    ("pyramid", "first_stage_head_sharing: ALL", lambda d: has(d, "rpn/conv/") and has(d, "rpn/box_predictor/"), True),
    (
        "pyramid",
        "first_stage_head_sharing: NONE",
        lambda d: has(d, "rpn/conv_3/") and has(d, "rpn/box_predictor_3/"),
        True,
    ),
    ("plain", "box_features: FULLY_CONNECTED", lambda d: shape_of(d, "box_backbone/fc1/kernel"), (2 * 2 * 128, 1024)),
    ("plain", "box_features: BACKBONE", lambda d: has(d, "box_backbone/conv_pw_13/"), True),
    ("plain", "", lambda d: has(d, "box_backbone/conv_pw_13/"), True),
    ("plain", "box_features: FULLY_CONNECTED fc_depth: 40", lambda d: shape_of(d, "box_backbone/fc2/kernel"), (40, 40)),
    ("pyramid", "", lambda d: shape_of(d, "box_backbone/fc1/kernel"), (2 * 2 * 16, 32)),
    ("plain", "proposals_from_reader: true", lambda d: d.wants_proposals, True),
    ("plain_together", "second_stage_batch_size: 17", lambda d: d._second.sample.sample_size, 17),
    ("plain_together", "second_stage_balance_fraction: 0.5", lambda d: d._second.sample.positive_fraction, 0.5),
    ("plain", "", lambda d: (d._second.sample.positive_fraction, d._second.sample.add_groundtruth), (0.25, True)),
    ("plain_together", "add_groundtruth_to_proposals: false", lambda d: d._second.sample.add_groundtruth, False),
    ("plain_together", "second_stage_localization_loss_weight: 2", lambda d: d._second.loss.localization_weight, 2.0),
    (
        "plain_together",
        "second_stage_classification_loss_weight: 3",
        lambda d: d._second.loss.classification_weight,
        3.0,
    ),
    ("masks_together", "second_stage_mask_prediction_loss_weight: 4", lambda d: d._second.mask_loss.weight, 4.0),
    ("plain", "", lambda d: (d._second.mask_loss, d._second.loss.miner), (None, None)),
    ("plain", MINER, lambda d: (d._second.loss.miner.num_hard_examples, d._second.sample.sample_size), (9, None)),
    ("plain", "", lambda d: type(d._second.loss.classification), SoftmaxCrossEntropy),
    (
        "plain",
        "second_stage_classification_loss {}",
        lambda d: type(d._second.loss.classification),
        SoftmaxCrossEntropy,
    ),
    (
        "plain_together",
        "second_stage_classification_loss { weighted_sigmoid_focal { gamma: 3 alpha: 0.5 } }",
        lambda d: d._second.loss.classification,
        SigmoidFocal(3.0, 0.5),
    ),
    (
        "plain_together",
        "second_stage_localization_loss { sum { term { loss { weighted_smooth_l1 {} } } "
        "term { loss { weighted_iou {} } weight: 2 } } }",
        lambda d: d._second.loss.localization,
        SumOfLosses(((1.0, SmoothL1()), (2.0, OneMinusIou(FasterRcnnBoxCoder())))),
    ),
    ("plain", "", lambda d: (d._first.loss.localization, d._second.loss.localization), (SmoothL1(), SmoothL1())),
    (
        "plain_together",
        "first_stage_localization_loss { weighted_giou {} }",
        lambda d: d._first.loss.localization,
        OneMinusIou(FasterRcnnBoxCoder(), is_generalized=True),
    ),
    (
        "plain_together",
        "first_stage_matcher { argmax_matcher { matched_threshold: 0.625 unmatched_threshold: 0.25 } }",
        lambda d: d._first.targets.assign.matcher,
        ArgmaxMatcher(0.625, 0.25),
    ),
    (
        "plain_together",
        "second_stage_matcher { bipartite_matcher {} }",
        lambda d: type(d._second.sample.assign.matcher),
        BipartiteMatcher,
    ),
    (
        "plain",
        "",
        lambda d: (d._first.targets.assign.matcher, d._second.sample.assign.matcher),
        (ArgmaxMatcher(0.7, 0.3, force_match_for_each_row=True), ArgmaxMatcher(0.5, 0.5)),
    ),
    ("plain_together", NMS.format("iou_threshold: 0.25"), lambda d: d._second.detections.limits.iou_threshold, 0.25),
    ("plain_together", NMS.format("score_threshold: 0.5"), lambda d: d._second.detections.limits.score_threshold, 0.5),
    (
        "plain_together",
        NMS.format("max_total_detections: 6"),
        lambda d: d._second.detections.limits.max_total_detections,
        6,
    ),
    (
        "plain_together",
        NMS.format("use_class_agnostic_nms: true"),
        lambda d: d._second.detections.is_class_agnostic,
        True,
    ),
    (
        "plain_together",
        "second_stage_post_processing { score_converter: SIGMOID }",
        lambda d: d._second.detections.score_converter.function,
        ScoreFunction.SIGMOID,
    ),
    (
        "plain",
        "first_stage_anchor_generator { grid_anchor_generator { scales: 0.1 aspect_ratios: [1, 2, 3] } }",
        lambda d: d._first.anchors.num_anchors_per_location,
        (3,),
    ),
    # MaskRCNNBoxPredictor
    (
        "plain_together",
        BOX_HEAD.format(f"fc_hyperparams {{ {L2} }}"),
        lambda d: round(float(d.box_network.get_layer("class_predictor").kernel_regularizer.l2), 6),
        0.25,
    ),
    (
        "plain_together",
        BOX_HEAD.format("use_dropout: true dropout_keep_probability: 0.75"),
        lambda d: layer_of(d.box_network, "dropout").rate,
        0.25,
    ),
    (
        "plain",
        BOX_HEAD.format("use_dropout: false dropout_keep_probability: 0.75"),
        lambda d: any(isinstance(layer, keras.layers.Dropout) for layer in d.box_network._flatten_layers()),
        False,
    ),
    ("plain", "", lambda d: shape_of(d, "box_head/box_predictor/bias"), (12,)),
    (
        "plain",
        BOX_HEAD.format("share_box_across_classes: true"),
        lambda d: shape_of(d, "box_head/box_predictor/bias"),
        (4,),
    ),
    ("plain", BOX_HEAD.format("predict_instance_masks: true"), lambda d: d.mask_network, None),  # two stages only
    ("masks", "", lambda d: d.mask_network.output_shape, (None, 7, 7, 3)),
    (
        "masks_together",
        BOX_HEAD.format("mask_height: 5 mask_width: 9"),
        lambda d: d.mask_network.output_shape,
        (None, 5, 9, 1),
    ),
    ("masks_together", BOX_HEAD.format("masks_are_class_agnostic: true"), lambda d: d.mask_network.output_shape[-1], 1),
    (
        "masks_together",
        BOX_HEAD.format("mask_prediction_conv_depth: 6"),
        lambda d: shape_of(d, "mask_head/mask_0_conv/kernel")[-1],
        6,
    ),
    # 3 classes, 256 features: (3 * 1.585 + 2 * 8) / 5 = 4.15, so 16.
    (
        "masks",
        BOX_HEAD.format("mask_prediction_conv_depth: 0"),
        lambda d: shape_of(d, "mask_head/mask_0_conv/kernel")[-1],
        16,
    ),
    (
        "masks_together",
        BOX_HEAD.format("mask_prediction_num_conv_layers: 4"),
        lambda d: has(d, "mask_head/mask_2_conv"),
        True,
    ),
    (
        "masks",
        BOX_HEAD.format("""
            convolve_then_upsample_masks: true mask_height: 6
            mask_width: 8
            """),
        lambda d: layer_of(d.mask_network, "mask_upsample").size,
        (6, 8),
    ),
    (
        "masks_together",
        BOX_HEAD.format(f"conv_hyperparams {{ {L2} }}"),
        lambda d: round(float(layer_of(d.mask_network, "mask_0_conv").kernel_regularizer.l2), 6),
        0.25,
    ),
    ("masks", "", lambda d: d._mask_crop, None),  # of the features that boxes are predicted from
    ("pyramid_masks", "", lambda d: d._mask_crop.crop.keywords["crop_size"], (14, 14)),
    # RfcnBoxPredictor: 3 classes and 3 x 3 bins, 4 * 3 * 9 and 4 * 9 channels.
    (
        "rfcn",
        "",
        lambda d: (shape_of(d, "box_head/box_maps_conv/bias"), shape_of(d, "box_head/class_maps_conv/bias")),
        ((108,), (36,)),
    ),
    (
        "rfcn",
        RFCN_HEAD.format("num_spatial_bins_height: 2"),
        lambda d: shape_of(d, "box_head/class_maps_conv/bias"),
        (24,),
    ),
    ("rfcn", RFCN_HEAD.format("num_spatial_bins_width: 1"), lambda d: d._num_bins, (3, 1)),
    ("rfcn_together", RFCN_HEAD.format("crop_height: 9 crop_width: 12"), lambda d: d._crop_size, (9, 12)),
    ("rfcn_together", RFCN_HEAD.format("depth: 10"), lambda d: shape_of(d, "box_head/reduce_conv/kernel")[-1], 10),
    (
        "rfcn_together",
        RFCN_HEAD.format("share_box_across_classes: true"),
        lambda d: shape_of(d, "box_head/box_maps_conv/bias"),
        (36,),
    ),
    (
        "rfcn_together",
        RFCN_HEAD.format(f"conv_hyperparams {{ {L2} }}"),
        lambda d: round(float(layer_of(d.map_network, "reduce_conv").kernel_regularizer.l2), 6),
        0.25,
    ),
    # FasterRcnnFeatureExtractor
    ("plain", EXTRACTOR.format("first_stage_features_stride: 8"), lambda d: sorted(d.network.output["crop_maps"]), [3]),
    (
        "plain_together",
        EXTRACTOR.format("use_last_map: true"),
        lambda d: (sorted(d.network.output["crop_maps"]), has(d, "box_backbone/fc1")),
        ([4], True),
    ),
    (
        "plain",
        EXTRACTOR.format("use_last_map: true first_stage_features_stride: 32"),
        lambda d: sorted(d.network.output["crop_maps"]),
        [5],
    ),
    (
        "plain_together",
        EXTRACTOR.format("depth_multiplier: 0.5"),
        lambda d: shape_of(d, "backbone/conv1/kernel")[-1],
        16,
    ),
    ("plain", EXTRACTOR.format("min_depth: 20"), lambda d: shape_of(d, "backbone/conv1/kernel")[-1], 20),
    ("plain", EXTRACTOR.format("batch_norm_trainable: false"), lambda d: norms_that_train(d), set()),
    ("plain", EXTRACTOR.format("batch_norm_trainable: true"), lambda d: len(norms_that_train(d)) > 20, True),
    (
        "plain",
        EXTRACTOR.format("freeze_backbone: true"),
        lambda d: {weight.path.split("/")[0] for weight in d.trainable_weights},
        {"rpn", "box_head"},
    ),
    (
        "plain",
        EXTRACTOR.format(f"override_base_feature_extractor_hyperparams: true conv_hyperparams {{ {L2} }}"),
        lambda d: round(float(layer_of(d.network, "conv1").kernel_regularizer.l2), 6),
        0.25,
    ),
    # The Object Detection API does not regularize the backbone of two stages.
    ("plain", "", lambda d: layer_of(d.network, "conv1").kernel_regularizer, None),
    (
        "plain",
        EXTRACTOR.format("weight_decay: 0.5"),
        lambda d: round(float(layer_of(d.network, "conv1").kernel_regularizer.l2), 6),
        0.25,
    ),
    (
        "pyramid",
        EXTRACTOR.format("weight_decay: 0.5"),
        lambda d: [round(float(layer_of(d.box_network, name).kernel_regularizer.l2), 6) for name in ("fc1", "fc2")],
        [0.25, 0.25],
    ),
    ("pyramid", "", lambda d: layer_of(d.box_network, "fc1").kernel_regularizer, None),
    (
        "pyramid",
        EXTRACTOR.format(f"conv_hyperparams {{ {L2} }}"),
        lambda d: round(float(layer_of(d.network, "fpn_lateral_3").kernel_regularizer.l2), 6),
        0.25,
    ),
    (
        "pyramid",
        EXTRACTOR.format("conv_hyperparams { batch_norm { scale: true } }"),
        lambda d: has(d, "neck/fpn_smooth_3_batch_norm") and has(d, "box_backbone/fc1_batch_norm"),
        True,
    ),
    (
        "pyramid",
        EXTRACTOR.format("conv_hyperparams { batch_norm { } } fpn { top_down_normalization: false }"),
        lambda d: has(d, "neck/fpn_smooth_3_batch_norm"),
        False,
    ),
    (
        "pyramid",
        FPN.format("additional_layer_depth: 24"),
        lambda d: shape_of(d, "neck/fpn_smooth_3_conv/kernel"),
        (3, 3, 24, 24),
    ),
    ("pyramid", "", lambda d: shape_of(d, "neck/fpn_coarse_6_conv/kernel"), (3, 3, 16, 16)),
    (
        "pyramid",
        FPN.format("coarse_source: BACKBONE"),
        lambda d: shape_of(d, "neck/fpn_coarse_6_conv/kernel"),
        (3, 3, 256, 16),
    ),
    ("pyramid", FPN.format("coarse_source: SUBSAMPLE"), lambda d: has(d, "neck/fpn_coarse_6"), False),
    # Without coarser maps the coarsest is smoothed as well.
    ("pyramid", FPN.format("top_down_pathway: false"), lambda d: has(d, "neck/fpn_smooth_5_conv"), True),
    ("pyramid", FPN.format("lateral_connections: false"), lambda d: has(d, "neck/fpn_lateral_3"), False),
]


def norms_that_train(detector):
    return {layer.name for layer in detector._flatten_layers() if getattr(layer, "train_statistics", False)}


@pytest.mark.parametrize(
    ("kind", "text", "look", "expected"), FIELDS, ids=[f"{row[0]}-{row[1][:70]}" for row in FIELDS]
)
def test_every_field_arrives(build, kind, text, look, expected):
    if kind.endswith("_together"):
        detector = build(kind.removesuffix("_together"), *(row[1] for row in FIELDS if row[0] == kind))
    else:
        detector = build(kind, *([text] if text else []))
    assert look(detector) == expected


def test_a_finest_level_alone_needs_one_grid_of_anchors(build):
    # 64 x 96 pixels at stride 8: 8 x 12 cells with 2 anchors.
    grid = """
        min_level: 3 max_level: 3
        anchor_scale: 3 aspect_ratios: [1, 2]
        scales_per_octave: 1
        """
    one_level = (
        f"first_stage_anchor_generator {{ multiscale_anchor_generator {{ {grid} normalize_coordinates: false }} }}"
    )
    detector = build("pyramid", FPN.format("finest_level_only: true"), one_level)
    assert [tuple(x.shape[1:]) for x in detector.network.output["maps"].values()] == [(8, 12, 16)]
    assert tuple(detector.network.output["box_deltas"].shape) == (None, 192, 4)


@pytest.mark.parametrize(
    ("crop_stride", "type_name", "expected"),
    [
        ("TYPE", "faster_rcnn_resnet50", RegionStride.DENSE),
        ("TYPE", "faster_rcnn_resnet50_keras", RegionStride.STRIDED),
        ("TYPE", "faster_rcnn_mobilenet_v1", RegionStride.STRIDED),
        ("STRIDED", "faster_rcnn_resnet50", RegionStride.STRIDED),
        ("DENSE", "faster_rcnn_resnet50_keras", RegionStride.DENSE),
        ("DILATED", "faster_rcnn_resnet50_keras", RegionStride.DILATED),
    ],
)
def test_strides_after_the_crop(crop_stride, type_name, expected):
    message = pb.FasterRcnnFeatureExtractor(type=type_name)
    text_format.Merge(f"crop_stride: {crop_stride}", message)
    features = read_region_features(message)
    assert features.region_stride() is expected
    assert features.crop_stride() == (2 if expected is RegionStride.STRIDED and "resnet" in type_name else 1)


def test_a_strided_resnet_crops_every_other_cell_only(build):
    # 14 x 14 pooled by 2 is 7 x 7, of which conv5 reads 4 x 4; a dense one, and one that reads bins, get all.
    extractor = EXTRACTOR.format("type: 'faster_rcnn_resnet50_keras' depth_multiplier: 1")
    crop = "initial_crop_size: 14"
    detector = build("plain", extractor, crop)
    assert detector._crop.crop.keywords["output_stride"] == 2
    assert (detector.box_network.input_shape, detector.box_network.output["features"].shape[1:3]) == (
        (None, 4, 4, 1024),
        (4, 4),
    )
    dense = build("plain", extractor, crop, EXTRACTOR.format("crop_stride: DENSE"))
    assert (dense.box_network.input_shape[1], dense.box_network.output["features"].shape[1]) == (7, 7)
    aligned = build("plain", extractor, crop, "roi_operation: ROI_ALIGN")
    assert (aligned.box_network.input_shape[1], aligned.box_network.output["features"].shape[1]) == (7, 4)


CHANNELS = {  # of the map of stride 16, and of the last map; other families take them from their graph
    "vgg16": (512, 512),
    "mobilenet_v1": (512, 1024),
    "mobilenet_v2": (96, 1280),
    "inception_v2": (576, 1024),
    "inception_v3": (768, 2048),
    "inception_resnet_v2": (1088, 1536),
    "resnet": (1024, 2048),
    "resnext": (1024, 2048),
}


# Built by default: one variant of each family; the others have the same layers, more often. The searched networks are
# large, and tests/features/test_nasnet.py has small ones.
VARIANTS = {row.family: row.variant for row in reversed(REGION_EXTRACTORS.values()) if "nasnet" not in row.family}


@pytest.mark.parametrize(
    "type_name",
    [
        pytest.param(name, marks=() if row.variant == VARIANTS.get(row.family) else pytest.mark.full_sweep)
        for name, row in sorted(REGION_EXTRACTORS.items())
        if not name.endswith("_keras")
    ],
)
def test_every_extractor_builds(type_name):
    # Types that end in _keras differ by the stride after the crop only.
    row = REGION_EXTRACTORS[type_name]
    message = pb.FasterRcnnFeatureExtractor(type=type_name)
    if row.is_fpn:
        levels = [3, 4] if row.family == "vgg16" else [3, 4, 5]
        message.fpn.min_level, message.fpn.max_level = 3, levels[-1]

    def build():
        features = read_region_features(message)
        extractor = features.backbone((96, 64))
        shapes = {level: tuple(x.shape[1:]) for level, x in extractor.model.output.items()}
        if row.is_fpn or row.family == "vgg16":
            return shapes, None
        return shapes, features.after_crop((7, 7, shapes[4][-1]), RegionStride.DENSE).output_shape

    shapes, after_crop = symbolic(build)
    network = build_network(row, for_pyramid=True)
    before, last = CHANNELS.get(row.family) or (
        network.graph.get_layer(network.endpoints[level]).output.shape[-1] for level in (4, 5)
    )
    if row.is_fpn:
        assert list(shapes) == levels
        assert shapes[4] == (6, 4, before)
    else:
        assert shapes == {4: (6, 4, before)}
        assert after_crop in (None, (None, 7, 7, last))


def test_vgg_s_layers_after_the_crop_are_its_classifier(build):
    extractor = EXTRACTOR.format("type: 'faster_rcnn_vgg16' depth_multiplier: 1")
    detector = build("plain", extractor, "initial_crop_size: 14")
    assert shape_of(detector, "box_backbone/fc1/kernel") == (7 * 7 * 512, 4096)
    assert shape_of(detector, "box_backbone/fc2/kernel") == (4096, 4096)
    assert layer_of(detector.box_network, "fc1_dropout").rate == 0.5


def test_kinds_of_detectors(build):
    assert type(build("rfcn")) is Rfcn
    assert {type(build(kind)) for kind in ("plain", "pyramid", "masks", "first_stage", "from_reader")} == {FasterRcnn}


@pytest.mark.parametrize(
    ("kind", "text", "error"),
    [
        ("plain", "num_classes: 0", "num_classes: is 0; accepted: 1 or more"),
        ("plain", "number_of_stages: 1 proposals_from_reader: true", "proposals_from_reader removes the first stage"),
        ("plain", "first_stage_max_proposals: 0", "first_stage_max_proposals: is 0; accepted: 1 to"),
        ("plain", "initial_crop_size: 0", "initial_crop_size: is 0; accepted: cells, 1 or more"),
        ("plain", "maxpool_stride: 1", r"maxpool_stride: is 1; accepted: maxpool_kernel_size \(2\)"),
        (
            "plain",
            "maxpool_kernel_size: 8 maxpool_stride: 8",
            r"maxpool_kernel_size: is 8; accepted: 1 \(no pooling\) to",
        ),
        ("plain", BOX_HEAD.format("box_code_size: 5"), "mask_rcnn_box_predictor.box_code_size: is 5; accepted: 4"),
        ("plain", EXTRACTOR.format("type: 'faster_rcnn_mobilenet_v9'"), "faster_rcnn_mobilenet_v9"),
        (
            "plain",
            EXTRACTOR.format("first_stage_features_stride: 12"),
            "first_stage_features_stride: is 12; .* 8, 16",
        ),
        ("plain", EXTRACTOR.format("first_stage_features_stride: 32"), "which only the last map has"),
        ("pyramid", "box_features: BACKBONE", "box_features: is BACKBONE, but after a pyramid nothing"),
        ("pyramid", RFCN_HEAD.format(""), "rfcn_box_predictor: crops from one map, but faster_rcnn_mobilenet_v1_fpn"),
        (
            "pyramid",
            FPN.format("max_level: 7"),
            "num_layers: is 4, but the extractor makes 5 maps|anchor_grid: has 4 entries|max_level: is 6; the maps",
        ),
        (
            "pyramid",
            FPN.format("min_level: 1"),
            r"fpn\.min_level: is 1; accepted for faster_rcnn_mobilenet_v1_fpn: 2 to 5",
        ),
        ("rfcn", RFCN_HEAD.format("box_code_size: 5"), "rfcn_box_predictor.box_code_size: is 5; accepted: 4"),
        (
            "rfcn",
            RFCN_HEAD.format("crop_width: 7"),
            r"crop_width: is 7, which num_spatial_bins_width \(3\) does not divide",
        ),
        (
            "masks",
            BOX_HEAD.format("convolve_then_upsample_masks: true mask_height: 5") + "initial_crop_size: 8",
            r"mask_height: is 5, but convolve_then_upsample_masks enlarges 2x2 cells",
        ),
    ],
)
def test_contradictions_are_refused_with_their_field(build, kind, text, error):
    with pytest.raises(ConfigError, match=error):
        build(kind, text)


def test_a_second_stage_needs_a_head(small):
    message = small.message_of()
    message.faster_rcnn.ClearField("second_stage_box_predictor")
    with pytest.raises(ConfigError, match="second_stage_box_predictor: is missing or empty"):
        symbolic(lambda: build_detector(message))


def test_frozen_batch_norm_reaches_the_heads(build):
    normalized = "conv_hyperparams { batch_norm { } initializer { truncated_normal_initializer { } } }"
    detector = build("rfcn", RFCN_HEAD.format(normalized), EXTRACTOR.format("batch_norm_trainable: false"))
    assert has(detector, "box_head/reduce_batch_norm")
    assert norms_that_train(detector) == set()
    assert "reduce_batch_norm" in norms_that_train(build("rfcn", RFCN_HEAD.format(normalized)))


def test_weights_after_the_crop_come_from_the_file(small, tmp_path):
    twin = keras.applications.MobileNet(alpha=0.25, include_top=False, weights=None, input_shape=(64, 96, 3))
    path = tmp_path / "twin.weights.h5"
    twin.save_weights(path)
    detector = small.build("plain", f"faster_rcnn {{ feature_extractor {{ pretrained_weights: '{path}' }} }}")
    for model, name in ((detector.network, "conv_pw_5"), (detector.box_network, "conv_pw_13")):
        tf.debugging.assert_equal(layer_of(model, name).kernel, twin.get_layer(name).kernel)
