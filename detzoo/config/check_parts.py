"""Checks of the blocks that one-stage and two-stage detectors share: resizer, backbone, suppression, miner."""

from __future__ import annotations

import math
from typing import Any

from detzoo.config import pb, support
from detzoo.config.problems import Findings

_SOFTMAX_LOSSES = ("weighted_softmax", "weighted_logits_softmax")


def check_resizer(resizer: Any, path: str, findings: Findings) -> None:
    """Adds what is wrong with a ``pb.ImageResizer``; one that chooses nothing is not this function's matter."""
    kind = resizer.WhichOneof("image_resizer_oneof")
    if kind is None:
        return
    path, chosen = f"{path}.{kind}", getattr(resizer, kind)
    if kind == "fixed_shape_resizer":
        for side in ("height", "width"):
            if getattr(chosen, side) < 1:
                findings.error(f"{path}.{side}", f"is {getattr(chosen, side)}; accepted: pixels, 1 or more")
    elif kind == "keep_aspect_ratio_resizer":
        if not 0 < chosen.min_dimension <= chosen.max_dimension:
            text = f"is {chosen.min_dimension}; accepted: 1 to max_dimension ({chosen.max_dimension})"
            findings.error(f"{path}.min_dimension", text)
        for index, side in enumerate(chosen.training_min_dimensions):
            if not 0 < side <= chosen.max_dimension:
                text = f"is {side}; accepted: 1 to max_dimension ({chosen.max_dimension})"
                findings.error(f"{path}.training_min_dimensions[{index}]", text)
        if len(chosen.per_channel_pad_value) not in (0, 3):
            text = f"has {len(chosen.per_channel_pad_value)} values; accepted: none, or 3 (red, green, blue)"
            findings.error(f"{path}.per_channel_pad_value", text)
    elif kind == "conditional_shape_resizer":
        if chosen.condition == pb.ConditionalShapeResizer.INVALID:
            findings.error(f"{path}.condition", "is INVALID; accepted: GREATER, SMALLER")
        if chosen.size_threshold < 1:
            findings.error(f"{path}.size_threshold", f"is {chosen.size_threshold}; accepted: pixels, 1 or more")
    elif kind == "pad_to_multiple_resizer" and chosen.multiple < 1:
        findings.error(f"{path}.multiple", f"is {chosen.multiple}; accepted: pixels, 1 or more")


def check_backbone(
    message: Any,
    path: str,
    extractor: support.SsdExtractor | support.RegionExtractor,
    findings: Findings,
    files: bool,
) -> None:
    """Adds what is wrong with width, pyramid, padding and weights of a ``feature_extractor`` block."""
    if message.min_depth < 0:
        findings.error(f"{path}.min_depth", f"is {message.min_depth}; accepted: channels, 0 or more")
    if not 0 < message.depth_multiplier < math.inf:
        findings.error(f"{path}.depth_multiplier", f"is {message.depth_multiplier:g}; accepted: above 0")
    elif message.depth_multiplier != 1 and not extractor.has_depth_multiplier:
        text = f"is {message.depth_multiplier:g}, but {message.type} has one width only; accepted: 1"
        findings.error(f"{path}.depth_multiplier", text)
    if message.HasField("fpn") and not extractor.is_fpn:
        stem = message.type.removesuffix(support.KERAS_SUFFIX)
        suffix = message.type.removeprefix(stem)
        with_pyramid = stem + support.FPN_SUFFIX + suffix
        text = f"{message.type} builds no pyramid; use type: '{with_pyramid}' or leave the block out"
        if getattr(extractor, "is_bifpn", False):
            text = f"{message.type} builds a bidirectional pyramid; use the block bifpn"
        findings.error(f"{path}.fpn", text)
    if message.pad_to_multiple < 1:
        findings.error(f"{path}.pad_to_multiple", f"is {message.pad_to_multiple}; accepted: pixels, 1 or more")
    if files or message.pretrained_weights == support.IMAGENET_WEIGHTS:
        problem = support.weights_problem(message.pretrained_weights, extractor)
        if problem:
            findings.error(f"{path}.pretrained_weights", problem)


def check_box_code(predictor: Any, path: str, findings: Findings) -> None:
    """Adds what is wrong with ``box_code_size`` and, where a head has it, the dropout."""
    if predictor.box_code_size != 4:
        findings.error(f"{path}.box_code_size", f"is {predictor.box_code_size}; accepted: 4")
    if getattr(predictor, "use_dropout", False) and not 0 < predictor.dropout_keep_probability <= 1:
        text = f"is {predictor.dropout_keep_probability:g}; accepted: above 0, at most 1"
        findings.error(f"{path}.dropout_keep_probability", text)


def check_post_processing(post: Any, path: str, loss: str | None, findings: Findings) -> None:
    """Adds what is wrong with a ``pb.PostProcessing``.

    Args:
        post: the message.
        path: its path.
        loss: the classification loss whose logits it converts; None where that is not known, or where the head
            converts them itself.
        findings: where problems go.
    """
    if not post.HasField("batch_non_max_suppression"):
        findings.error(path, "batch_non_max_suppression is missing; an empty block takes its defaults")
        return
    nms, nms_path = post.batch_non_max_suppression, f"{path}.batch_non_max_suppression"
    if not 0 <= nms.score_threshold < 1:
        findings.error(f"{nms_path}.score_threshold", f"is {nms.score_threshold:g}; accepted: 0 to below 1")
    if not 0 <= nms.iou_threshold <= 1:
        findings.error(f"{nms_path}.iou_threshold", f"is {nms.iou_threshold:g}; accepted: 0 to 1")
    if not nms.soft_nms_sigma >= 0:
        findings.error(f"{nms_path}.soft_nms_sigma", f"is {nms.soft_nms_sigma:g}; accepted: 0 (off) or more")
    if not post.logit_scale > 0:
        findings.error(f"{path}.logit_scale", f"is {post.logit_scale:g}; accepted: above 0")
    for name in ("max_detections_per_class", "max_total_detections"):
        if getattr(nms, name) < 1:
            findings.error(f"{nms_path}.{name}", f"is {getattr(nms, name)}; accepted: 1 or more")
    if loss is None:
        return
    wanted = "SOFTMAX" if loss in _SOFTMAX_LOSSES else "SIGMOID"
    converter = pb.PostProcessing.ScoreConverter.Name(post.score_converter)
    if converter != wanted:
        text = f"is {converter}, but the loss {loss} trains logits for {wanted}; scores will not be probabilities"
        findings.warning(f"{path}.score_converter", text)


def check_hard_examples(miner: Any, path: str, findings: Findings) -> None:
    """Adds what is wrong with the numbers of a ``pb.HardExampleMiner``."""
    if not 0 <= miner.iou_threshold <= 1:
        findings.error(f"{path}.iou_threshold", f"is {miner.iou_threshold:g}; accepted: 0 to 1")
    for name in ("num_hard_examples", "max_negatives_per_positive"):
        if getattr(miner, name) < 0:
            findings.error(f"{path}.{name}", f"is {getattr(miner, name)}; accepted: 0 (no limit) or more")
    if miner.min_negatives_per_image < 0:
        text = f"is {miner.min_negatives_per_image}; accepted: 0 or more"
        findings.error(f"{path}.min_negatives_per_image", text)
    if miner.reserve_positives and not 0 < miner.max_negatives_per_positive < miner.num_hard_examples:
        text = (
            f"is true with max_negatives_per_positive {miner.max_negatives_per_positive} and num_hard_examples "
            f"{miner.num_hard_examples}; accepted: a ratio of 1 or more, and more examples than it"
        )
        findings.error(f"{path}.reserve_positives", text)
