"""``FasterRcnn`` messages -> a detector of two stages (floor 5)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

import keras

from detzoo.builders.anchors import build_anchor_generator
from detzoo.builders.hyperparams import build_hyperparams
from detzoo.builders.losses import build_classification_loss, build_localization_loss, build_miner
from detzoo.builders.postprocess import build_nms_limits, build_score_converter
from detzoo.builders.region_features import RegionFeatures, read_region_features
from detzoo.builders.resize import build_resizer
from detzoo.builders.targets import build_matcher
from detzoo.config import pb
from detzoo.config.stages import has_second_stage, predicts_masks
from detzoo.contracts import Tensor
from detzoo.detectors.base import Detector
from detzoo.detectors.faster_rcnn import FasterRcnn, MaskStage, RegionCrop
from detzoo.detectors.rfcn import Rfcn
from detzoo.detectors.two_stage import FirstStage, SecondStage, first_stage_network
from detzoo.features.rewrite import RegionStride
from detzoo.heads.box_head import box_predictor, mask_predictor, position_sensitive_maps
from detzoo.heads.context_attention import AttentionParts, Memory, context_attention
from detzoo.heads.dense_head import DenseOutputs
from detzoo.heads.proposal_head import Sharing, proposal_head
from detzoo.losses.classification import ClassificationLoss, SoftmaxCrossEntropy
from detzoo.losses.localization import LocalizationLoss, SmoothL1
from detzoo.losses.region_loss import MaskLoss, ProposalLoss, RegionLoss
from detzoo.ops import roi_crop
from detzoo.ops.box_coder import BoxCoder, FasterRcnnBoxCoder
from detzoo.ops.matching import ArgmaxMatcher, Matcher, iou_similarity
from detzoo.ops.nms import NmsLimits
from detzoo.postprocess.proposals import ProposalSelection
from detzoo.postprocess.region_detections import RegionDetections
from detzoo.targets.anchor_targets import AnchorTargets
from detzoo.targets.proposal_targets import ProposalTargets
from detzoo.targets.region_targets import RegionSampler

# Thresholds of Faster R-CNN, section 3.1.2, and of Fast R-CNN, section 2.3, if the config has no matcher.
_PROPOSAL_MATCHER = ArgmaxMatcher(0.7, 0.3, force_match_for_each_row=True)
_REGION_MATCHER = ArgmaxMatcher(0.5, 0.5)
_MASK_CROP_SIZE = (14, 14)  # Mask R-CNN, section 4: of the mask head on a pyramid

_SHARING = {
    pb.FasterRcnn.CONVOLUTION: Sharing.CONVOLUTION,
    pb.FasterRcnn.ALL: Sharing.ALL,
    pb.FasterRcnn.NONE: Sharing.NONE,
}


def build_two_stage(config: pb.FasterRcnn) -> Detector:
    """Builds the detector of a checked ``pb.FasterRcnn``: Faster R-CNN, R-FCN, Mask R-CNN, either stage alone."""
    features = read_region_features(config.feature_extractor)
    image_shape = build_resizer(config.image_resizer).static_shape
    first_stage, head = (None, None) if config.proposals_from_reader else _first_stage(config)
    extractor = features.backbone(image_shape)
    max_crop_level = config.roi_max_level or None if features.row.is_fpn else None
    network = first_stage_network(image_shape, extractor, features.neck(), head, max_crop_level)
    normalize = extractor.normalize
    if not has_second_stage(config):
        return FasterRcnn(network, normalize, first_stage, None, None, None, None, max(config.num_classes, 1))
    second_stage = _second_stage(config)
    crop_maps = network.output["crop_maps"]
    if config.second_stage_box_predictor.HasField("rfcn_box_predictor"):
        return _rfcn(config, features, network, normalize, first_stage, second_stage)
    crop, box_network = _box_stage(config, features, crop_maps)
    mask_stage = _mask_stage(config, features, crop_maps, box_network) if predicts_masks(config) else None
    return FasterRcnn(
        network,
        normalize,
        first_stage,
        second_stage,
        crop,
        box_network,
        mask_stage,
        config.num_classes,
        gives_features=config.output_final_box_features,
    )


def _first_stage(config: pb.FasterRcnn) -> tuple[FirstStage, Callable[[Mapping[int, Tensor]], DenseOutputs]]:
    anchors = build_anchor_generator(config.first_stage_anchor_generator)
    box_coder = FasterRcnnBoxCoder()
    training_count = config.first_stage_max_proposals_in_training or config.first_stage_max_proposals
    stage = FirstStage(
        anchors=anchors,
        targets=ProposalTargets(
            AnchorTargets(_matcher(config.first_stage_matcher, _PROPOSAL_MATCHER), iou_similarity, box_coder),
            config.first_stage_minibatch_size,
            config.first_stage_positive_balance_fraction,
            keep_crossing=config.keep_anchors_outside_image or config.clip_anchors_to_image,
        ),
        loss=ProposalLoss(
            SoftmaxCrossEntropy(),
            _localization_loss(config.first_stage_localization_loss, box_coder),
            config.first_stage_objectness_loss_weight,
            config.first_stage_localization_loss_weight,
        ),
        select=ProposalSelection(
            box_coder,
            _proposal_limits(config, config.first_stage_max_proposals),
            _proposal_limits(config, training_count),
            config.first_stage_pre_nms_top_k,
        ),
        clips_anchors=config.clip_anchors_to_image,
    )
    is_frozen = not config.feature_extractor.batch_norm_trainable
    head = functools.partial(
        proposal_head,
        num_anchors_per_location=anchors.num_anchors_per_location,
        depth=config.first_stage_box_predictor_depth,
        hyperparams=build_hyperparams(config.first_stage_box_predictor_conv_hyperparams, is_frozen),
        kernel_size=config.first_stage_box_predictor_kernel_size,
        dilation=config.first_stage_atrous_rate,
        sharing=_SHARING[config.first_stage_head_sharing],
    )
    return stage, head


def _proposal_limits(config: pb.FasterRcnn, count: int) -> NmsLimits:
    return NmsLimits(config.first_stage_nms_score_threshold, config.first_stage_nms_iou_threshold, count, count)


def _second_stage(config: pb.FasterRcnn) -> SecondStage:
    box_coder = FasterRcnnBoxCoder()
    miner = None
    weights = (config.second_stage_classification_loss_weight, config.second_stage_localization_loss_weight)
    if config.HasField("hard_example_miner"):
        miner = build_miner(config.hard_example_miner, *weights)
    post = config.second_stage_post_processing
    nms = post.batch_non_max_suppression
    return SecondStage(
        sample=RegionSampler(
            AnchorTargets(_matcher(config.second_stage_matcher, _REGION_MATCHER), iou_similarity, box_coder),
            None if miner else config.second_stage_batch_size,
            config.second_stage_balance_fraction,
            config.add_groundtruth_to_proposals,
        ),
        loss=RegionLoss(
            _classification_loss(config),
            _localization_loss(config.second_stage_localization_loss, box_coder),
            box_coder,
            *weights,
            miner=miner,
        ),
        detections=RegionDetections(
            box_coder, build_score_converter(post), build_nms_limits(nms), nms.use_class_agnostic_nms
        ),
        mask_loss=MaskLoss(config.second_stage_mask_prediction_loss_weight) if predicts_masks(config) else None,
    )


def _classification_loss(config: pb.FasterRcnn) -> ClassificationLoss:
    message = config.second_stage_classification_loss
    if message.WhichOneof("classification_loss") is None:
        return SoftmaxCrossEntropy()
    return build_classification_loss(message)


def _localization_loss(message: pb.LocalizationLoss, box_coder: BoxCoder) -> LocalizationLoss:
    if message.WhichOneof("localization_loss") is None:
        return SmoothL1()
    return build_localization_loss(message, box_coder)


def _matcher(message: pb.Matcher, default: Matcher) -> Matcher:
    return default if message.WhichOneof("matcher_oneof") is None else build_matcher(message)


def _box_stage(
    config: pb.FasterRcnn, features: RegionFeatures, crop_maps: Mapping[int, Tensor]
) -> tuple[RegionCrop, keras.Model]:
    """Builds the crop, and the network from crops (and a memory) to features, boxes and classes."""
    predictor = config.second_stage_box_predictor.mask_rcnn_box_predictor
    channels = next(iter(crop_maps.values())).shape[-1]
    is_fully_connected = features.is_fully_connected(config)
    context = config.context_config if config.HasField("context_config") else None
    attends_to_crops = context is not None and context.attention_position == pb.POST_RPN
    reads_all_cells = is_fully_connected or _has_own_grid(config) or attends_to_crops
    skipped = 1 if reads_all_cells else features.crop_stride()
    crop, crop_size = _build_crop(config, skipped)
    if is_fully_connected:
        region_model = features.fully_connected((*crop_size, channels), config.fc_depth)
    else:
        stride = features.region_stride() if skipped == 1 else RegionStride.DENSE
        region_model = features.after_crop((*crop_size, channels), stride)
    inputs: list[Tensor] = [keras.Input((*crop_size, channels), name="crop")]
    if context is not None:
        inputs.append(keras.Input((None, context.context_feature_length), name="context_features"))
        inputs += [keras.Input((), dtype="int32", name=name) for name in ("valid_context_size", "num_regions")]
    with keras.name_scope("box_head"):
        attended = _with_context(inputs, context, features) if context is not None and attends_to_crops else inputs[0]
    region_features = region_model(attended)
    with keras.name_scope("box_head"):
        if context is not None and not attends_to_crops:
            region_features = _with_context([region_features, *inputs[1:]], context, features)
        outputs = box_predictor(
            region_features,
            config.num_classes,
            build_hyperparams(predictor.fc_hyperparams),
            dropout_rate=1.0 - predictor.dropout_keep_probability if predictor.use_dropout else 0.0,
            share_box_across_classes=predictor.share_box_across_classes,
        )
    given = inputs if context is not None else inputs[0]
    network = keras.Model(given, {"features": region_features, **outputs._asdict()}, name="box_network")
    return RegionCrop(crop, _canonical_level(config, features)), network


def _with_context(inputs: Sequence[Tensor], context: pb.Context, features: RegionFeatures) -> Tensor:
    """Adds the attention of a ``pb.Context`` to regions; ``inputs`` are the regions and a ``Memory``."""
    parts = AttentionParts(
        depth=context.attention_bottleneck_dimension,
        temperature=context.attention_temperature,
        attends_to_memory=context.use_long_term_attention,
        attends_to_image=context.use_self_attention,
        in_sequence=context.self_attention_in_sequence,
        num_heads=context.num_attention_heads,
        num_layers=context.num_attention_layers,
        adds_means=features.row.is_first_generation,
    )
    regions, *memory = inputs
    return context_attention(regions, Memory(*memory), parts)


def _has_own_grid(config: pb.FasterRcnn) -> bool:
    """Returns True if regions become bins, whose values depend on all cells that they cover."""
    return config.roi_operation != pb.FasterRcnn.CROP_AND_RESIZE


def _build_crop(config: pb.FasterRcnn, skipped: int = 1) -> tuple[roi_crop.Crop, tuple[int, int]]:
    """Builds the crop of regions, and returns its size in cells if its reader takes every ``skipped``-th cell."""
    size, pool = config.initial_crop_size, max(config.maxpool_kernel_size, 1)
    pooled = size // pool
    if config.roi_operation == pb.FasterRcnn.ROI_ALIGN:
        ratio = config.roi_align_sampling_ratio
        crop = functools.partial(roi_crop.roi_align_boxes, crop_size=(pooled,) * 2, sampling_ratio=ratio)
    elif config.roi_operation == pb.FasterRcnn.MAX_ROI_POOL:
        crop = functools.partial(roi_crop.max_roi_pool_boxes, crop_size=(pooled,) * 2)
    else:
        crop = functools.partial(
            roi_crop.crop_and_max_pool_boxes, crop_size=(size,) * 2, pool_size=pool, output_stride=skipped
        )
    side = -(-pooled // skipped)
    return crop, (side, side)


def _canonical_level(config: pb.FasterRcnn, features: RegionFeatures) -> int:
    """Returns the level of a region of 224 x 224 pixels; the Object Detection API's is the second coarsest."""
    return config.roi_canonical_level or features.message.fpn.max_level - 1


def _mask_stage(
    config: pb.FasterRcnn, features: RegionFeatures, crop_maps: Mapping[int, Tensor], box_network: keras.Model
) -> MaskStage:
    predictor = config.second_stage_box_predictor.mask_rcnn_box_predictor
    crop = None
    input_shape = tuple(box_network.output["features"].shape[1:])
    if features.is_fully_connected(config):  # no cells are left in their features
        own = functools.partial(roi_crop.crop_and_resize_boxes, crop_size=_MASK_CROP_SIZE)
        crop = RegionCrop(own, _canonical_level(config, features))
        input_shape = (*_MASK_CROP_SIZE, next(iter(crop_maps.values())).shape[-1])
    inputs = keras.Input(input_shape, name="mask_features")
    with keras.name_scope("mask_head"):
        logits = mask_predictor(
            inputs,
            config.num_classes,
            (predictor.mask_height, predictor.mask_width),
            build_hyperparams(predictor.conv_hyperparams),
            num_conv_layers=predictor.mask_prediction_num_conv_layers,
            depth=predictor.mask_prediction_conv_depth,
            is_class_agnostic=predictor.masks_are_class_agnostic,
            convolve_then_upsample=predictor.convolve_then_upsample_masks,
        )
    return MaskStage(keras.Model(inputs, logits, name="mask_network"), crop)


def _rfcn(
    config: pb.FasterRcnn,
    features: RegionFeatures,
    network: keras.Model,
    normalize: Callable[[Tensor], Tensor],
    first_stage: FirstStage | None,
    second_stage: SecondStage,
) -> Detector:
    predictor = config.second_stage_box_predictor.rfcn_box_predictor
    num_bins = (predictor.num_spatial_bins_height, predictor.num_spatial_bins_width)
    crop_size = (predictor.crop_height, predictor.crop_width)
    (cropped,) = network.output["crop_maps"].values()
    features_map = keras.Input(tuple(cropped.shape[1:]), name="map")
    x = features_map
    if not features.is_fully_connected(config):
        x = features.after_crop((None, None, cropped.shape[-1]), features.region_stride())(x)
    with keras.name_scope("box_head"):
        outputs = position_sensitive_maps(
            x,
            config.num_classes,
            num_bins,
            predictor.depth,
            build_hyperparams(predictor.conv_hyperparams, not features.message.batch_norm_trainable),
            predictor.share_box_across_classes,
        )
    map_network = keras.Model(features_map, outputs._asdict(), name="map_network")
    return Rfcn(network, map_network, normalize, first_stage, second_stage, num_bins, crop_size, config.num_classes)
