"""``CenterNet`` messages -> the detector (floor 4)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from detzoo.builders.features import build_network, normalization, padded
from detzoo.builders.losses import build_classification_loss, build_localization_loss
from detzoo.builders.postprocess import build_nms_limits
from detzoo.builders.resize import build_resizer
from detzoo.config import pb
from detzoo.config.check.center_net import keypoint_problems
from detzoo.config.label_map import load_keypoints
from detzoo.config.support import CenterExtractor, lookup_center_extractor, split_mask_network
from detzoo.contracts import FeatureExtractor, FeatureSpec, KeypointTask, Tensor
from detzoo.detectors.base import Detector, ImageShape
from detzoo.detectors.center_masks import CLASS_MAPS, INSTANCE, PIXEL, ClassMasks, DeepMasks
from detzoo.detectors.center_net import CenterNet, center_network
from detzoo.errors import ConfigError
from detzoo.features.hourglass import hourglass, hourglass_at_full_size
from detzoo.features.network import NATIVE_OUTPUT_STRIDE
from detzoo.features.pretrained import load_pretrained
from detzoo.features.resnet import mask_resnet
from detzoo.features.rewrite import build_extractor_model
from detzoo.heads.center_head import EMBEDDING_KERNEL, CenterHead, deep_mask_network
from detzoo.losses.center_loss import CenterLoss
from detzoo.losses.classification import PenaltyReducedFocal
from detzoo.losses.keypoint_loss import KeypointLoss
from detzoo.necks.center_upsampling import narrowing_pyramid, transposed_convolutions
from detzoo.postprocess.center_detections import CenterDetections
from detzoo.postprocess.keypoints import KeypointSearch
from detzoo.targets.center_targets import CenterAssigner
from detzoo.targets.keypoint_targets import KeypointAssigner


def build_center_net(config: pb.CenterNet) -> Detector:
    """Builds the detector of a checked ``pb.CenterNet``."""
    row = lookup_center_extractor(config.feature_extractor.type)
    image_shape = build_resizer(config.image_resizer).static_shape
    extractor = _extractor(config.feature_extractor, row, image_shape)
    network = center_network(
        image_shape, extractor, _neck(config.feature_extractor, row), _heads(config), config.use_depthwise, row.stride
    )
    centers, task = config.object_center_params, config.object_detection_task
    loss = CenterLoss(
        heatmap=build_classification_loss(centers.classification_loss),
        localization=build_localization_loss(task.localization_loss),
        center_weight=centers.object_center_loss_weight,
        size_weight=task.task_loss_weight * task.scale_loss_weight,
        offset_weight=task.task_loss_weight * task.offset_loss_weight,
    )
    suppression = config.post_processing.batch_non_max_suppression
    tasks = [(message, _keypoint_task(message, config)) for message in config.keypoint_estimation_task]
    detections = CenterDetections(
        keypoints=tuple(_keypoint_search(message, task) for message, task in tasks),
        max_detections=centers.max_box_predictions,
        kernel_size=centers.peak_max_pool_kernel_size,
        limits=build_nms_limits(suppression) if config.HasField("post_processing") else None,
    )
    targets = CenterAssigner(config.num_classes, centers.min_box_overlap_iou)
    keypoints = [
        (KeypointAssigner(task, message.offset_peak_radius), _keypoint_loss(message, task)) for message, task in tasks
    ]
    classes, masks = config.num_classes, _masks(config)
    return CenterNet(network, extractor.normalize, targets, loss, detections, classes, row.stride, keypoints, masks)


def _masks(config: pb.CenterNet) -> DeepMasks | ClassMasks | None:
    if config.HasField("mask_estimation_task"):
        task = config.mask_estimation_task
        size, loss = (task.mask_height, task.mask_width), build_classification_loss(task.classification_loss)
        return ClassMasks(size, task.score_threshold, loss, task.task_loss_weight)
    if not config.HasField("deepmac_mask_estimation"):
        return None
    deep = config.deepmac_mask_estimation
    num_channels = deep.pixel_embedding_dim + 2 * deep.use_xy + deep.dim * deep.use_instance_embedding
    family, variant = split_mask_network(deep.network_type)
    build = hourglass_at_full_size if family == "hourglass" else mask_resnet
    trunk = functools.partial(build, variant=variant, stem_filters=deep.num_init_channels)
    return DeepMasks(
        network=deep_mask_network(deep.mask_size, num_channels, trunk),
        mask_size=deep.mask_size,
        use_xy=deep.use_xy,
        use_instance_embedding=deep.use_instance_embedding,
        only_last_stack=deep.use_only_last_stage,
        allowed_classes=tuple(number - 1 for number in deep.allowed_masked_classes_ids),
        loss=build_classification_loss(deep.classification_loss),
        weight=deep.task_loss_weight,
    )


def _keypoint_task(message: pb.CenterNet.KeypointEstimation, config: pb.CenterNet) -> KeypointTask:
    known = load_keypoints(config.keypoint_label_map_path)
    # Not every caller has checked the files that a config names.
    for field, _, text in keypoint_problems(message, known, config.keypoint_label_map_path, config.num_classes):
        raise ConfigError(f"model.center_net.keypoint_estimation_task.{field} {text}")
    keypoints = known[message.keypoint_class_name]
    deviations = tuple(message.keypoint_label_to_std.get(label, 1.0) for label in keypoints.labels.values())
    return KeypointTask(message.task_name, keypoints.class_id - 1, tuple(keypoints.labels), deviations)


def _keypoint_loss(message: pb.CenterNet.KeypointEstimation, task: KeypointTask) -> KeypointLoss:
    focal = message.loss.classification_loss.penalty_reduced_logistic_focal_loss
    return KeypointLoss(
        task=task,
        heatmap=PenaltyReducedFocal(focal.alpha, focal.beta),
        localization=build_localization_loss(message.loss.localization_loss),
        heatmap_weight=message.task_loss_weight * message.keypoint_heatmap_loss_weight,
        offset_weight=message.task_loss_weight * message.keypoint_offset_loss_weight,
        regression_weight=message.task_loss_weight * message.keypoint_regression_loss_weight,
    )


def _keypoint_search(message: pb.CenterNet.KeypointEstimation, task: KeypointTask) -> KeypointSearch:
    return KeypointSearch(
        task=task,
        num_candidates=message.num_candidates_per_keypoint,
        kernel_size=message.peak_max_pool_kernel_size,
        score_threshold=message.keypoint_candidate_score_threshold,
        unmatched_score=message.unmatched_keypoint_score,
        box_scale=message.box_scale,
        search_scale=message.candidate_search_scale,
        ranking=message.candidate_ranking_mode,
        distance_offset=message.score_distance_offset,
        distance_multiplier=message.score_distance_multiplier,
        deviation_multiplier=message.std_dev_multiplier,
        clips=message.clip_out_of_frame_keypoints,
        rescores=message.rescore_instances,
        rescoring_threshold=message.rescoring_threshold,
    )


def _extractor(
    message: pb.CenterNetFeatureExtractor, row: CenterExtractor, image_shape: ImageShape
) -> FeatureExtractor:
    shape = padded(image_shape, row.stride)
    if row.family == "hourglass":
        model = hourglass(row.variant, shape)
    else:
        network = build_network(row, message.depth_multiplier, for_center=True)
        levels = (2, 3, 4, 5) if row.is_fpn else (5,)
        model = build_extractor_model(network, levels, shape, network.hyperparams, NATIVE_OUTPUT_STRIDE)
        if message.pretrained_weights:
            load_pretrained(model, message.pretrained_weights, network.application)
    specs = tuple(FeatureSpec(level, x.shape[-1]) for level, x in model.output.items())
    return FeatureExtractor(model, specs, _normalization(message, row))


def _normalization(message: pb.CenterNetFeatureExtractor, row: CenterExtractor) -> Callable[[Tensor], Tensor]:
    """Returns the function of the pixels: the config's order, means and deviations, then the extractor's own."""
    own = normalization(row)
    means, deviations = list(message.channel_means), list(message.channel_stds)

    def normalize(images: Tensor) -> Tensor:
        if message.bgr_ordering:
            images = tf.reverse(images, axis=[-1])
        if means:
            images -= tf.constant(means)
        if deviations:
            images /= tf.constant(deviations)
        return own(images)

    return normalize


def _neck(
    message: pb.CenterNetFeatureExtractor, row: CenterExtractor
) -> Callable[[Mapping[int, Tensor]], Sequence[Tensor]]:
    if not row.depths:
        return lambda maps: list(maps.values())
    if row.is_fpn:
        interpolation = message.upsampling_interpolation
        return lambda maps: [narrowing_pyramid(maps, row.depths, message.use_separable_conv, interpolation)]
    return lambda maps: [transposed_convolutions(maps[max(maps)], row.depths, row.kernel_size)]


def _heads(config: pb.CenterNet) -> dict[str, CenterHead]:
    centers, task = config.object_center_params, config.object_detection_task
    heads = {
        "object_center": _head(centers, "center_head_params", config.num_classes, centers.heatmap_bias_init),
        "box/scale": _head(task, "scale_head_params", 2),
        "box/offset": _head(task, "offset_head_params", 2),
    }
    for message in config.keypoint_estimation_task:
        keypoints = _keypoint_task(message, config)
        number = len(keypoints.columns)
        offsets = 2 * number if message.per_keypoint_offset else 2
        heads[keypoints.head("heatmap")] = _head(message, "heatmap_head_params", number, message.heatmap_bias_init)
        heads[keypoints.head("regression")] = _head(message, "regress_head_params", 2 * number)
        heads[keypoints.head("offset")] = _head(message, "offset_head_params", offsets)
    if config.HasField("mask_estimation_task"):
        masks = config.mask_estimation_task
        heads[CLASS_MAPS] = _head(masks, "mask_head_params", config.num_classes, masks.heatmap_bias_init)
    if config.HasField("deepmac_mask_estimation"):
        deep = config.deepmac_mask_estimation
        for name, number in ((INSTANCE, deep.dim), (PIXEL, deep.pixel_embedding_dim)):
            heads[name] = CenterHead(number, kernel_sizes=(EMBEDDING_KERNEL,))
    return heads


def _head(owner: Any, field: str, num_outputs: int, bias_init: float = 0.0) -> CenterHead:
    """Returns the layers of a head; those of the paper if the field is not set."""
    if not owner.HasField(field):
        return CenterHead(num_outputs, bias_init=bias_init)
    params = getattr(owner, field)
    return CenterHead(num_outputs, tuple(params.num_filters), tuple(params.kernel_sizes), bias_init)
