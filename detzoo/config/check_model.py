"""Checks of the ``model`` block: its parts, its feature extractor, and whether the parts fit each other."""

from __future__ import annotations

from typing import Any

from detzoo.config import pb, support
from detzoo.config.check_anchors import check_anchors
from detzoo.config.check_losses import check_losses
from detzoo.config.effects import supported_branches
from detzoo.config.problems import Findings

_PATH = "model.ssd"
_REQUIRED_CHOICES = {
    "image_resizer": "image_resizer_oneof",
    "box_coder": "box_coder_oneof",
    "matcher": "matcher_oneof",
    "similarity_calculator": "region_similarity",
    "box_predictor": "box_predictor_oneof",
    "anchor_generator": "anchor_generator_oneof",
}
_OTHER_MODELS = {
    "faster_rcnn": "two-stage detectors (Faster R-CNN, R-FCN, Mask R-CNN) are not supported yet",
    "center_net": "CenterNet is not supported yet",
    "experimental_model": "experimental models are not supported",
}
_SSD_PREDICTORS = ("convolutional_box_predictor", "weight_shared_convolutional_box_predictor")
_OUTPUT_STRIDES = (0, 8, 16, 32)
_PYRAMID_OUTPUT_STRIDES = (0, 32)  # Maps of a pyramid must double in size.
_SOFTMAX_LOSSES = ("weighted_softmax", "weighted_logits_softmax")


def check_model(model: Any, findings: Findings, files: bool) -> None:
    """Adds what is wrong with a ``pb.DetectionModel``. ``files``: whether paths must exist."""
    kind = model.WhichOneof("model")
    if kind is None:
        findings.error("model", "no model is chosen; accepted: ssd")
    elif kind in _OTHER_MODELS:
        findings.error(f"model.{kind}", f"{_OTHER_MODELS[kind]}; accepted: ssd")
    else:
        _check_ssd(model.ssd, findings, files)


def _check_ssd(ssd: Any, findings: Findings, files: bool) -> None:
    if ssd.num_classes < 1:
        findings.error(f"{_PATH}.num_classes", f"is {ssd.num_classes}; accepted: 1 or more, the background not counted")
    for name, oneof in _REQUIRED_CHOICES.items():
        part = getattr(ssd, name)
        if part.WhichOneof(oneof) is None:
            branches = _SSD_PREDICTORS if name == "box_predictor" else supported_branches(part, oneof)
            findings.error(f"{_PATH}.{name}", f"is missing or empty; choose one of {', '.join(branches)}")
    _check_resizer(ssd.image_resizer, findings)
    extractor = _check_extractor(ssd.feature_extractor, findings, files)
    _check_predictor(ssd.box_predictor, findings)
    _check_matcher(ssd.matcher, findings)
    check_losses(ssd, findings)
    _check_post_processing(ssd, findings)
    if extractor is not None:
        check_anchors(ssd, extractor, findings)


def _check_resizer(resizer: Any, findings: Findings) -> None:
    kind = resizer.WhichOneof("image_resizer_oneof")
    if kind is None:
        return
    path, chosen = f"{_PATH}.image_resizer.{kind}", getattr(resizer, kind)
    if kind == "fixed_shape_resizer":
        for side in ("height", "width"):
            if getattr(chosen, side) < 1:
                findings.error(f"{path}.{side}", f"is {getattr(chosen, side)}; accepted: pixels, 1 or more")
    elif kind == "keep_aspect_ratio_resizer":
        if not 0 < chosen.min_dimension <= chosen.max_dimension:
            text = f"is {chosen.min_dimension}; accepted: 1 to max_dimension ({chosen.max_dimension})"
            findings.error(f"{path}.min_dimension", text)
        if len(chosen.per_channel_pad_value) not in (0, 3):
            text = f"has {len(chosen.per_channel_pad_value)} values; accepted: none, or 3 (red, green, blue)"
            findings.error(f"{path}.per_channel_pad_value", text)
    elif kind == "conditional_shape_resizer" and chosen.condition == pb.ConditionalShapeResizer.INVALID:
        findings.error(f"{path}.condition", "is INVALID; accepted: GREATER, SMALLER")
    elif kind == "pad_to_multiple_resizer" and chosen.multiple < 1:
        findings.error(f"{path}.multiple", f"is {chosen.multiple}; accepted: pixels, 1 or more")


def _check_extractor(message: Any, findings: Findings, files: bool) -> support.SsdExtractor | None:
    """The extractor's entry in the table, None where there is none."""
    path = f"{_PATH}.feature_extractor"
    extractor = support.SSD_EXTRACTORS.get(message.type)
    if extractor is None:
        findings.error(f"{path}.type", support.refusal(message.type))
        return None
    if message.depth_multiplier <= 0:
        findings.error(f"{path}.depth_multiplier", f"is {message.depth_multiplier:g}; accepted: above 0")
    elif message.depth_multiplier != 1 and not extractor.has_depth_multiplier:
        text = f"is {message.depth_multiplier:g}, but {message.type} has one width only; accepted: 1"
        findings.error(f"{path}.depth_multiplier", text)
    if message.HasField("fpn") and not extractor.is_fpn:
        with_pyramid = message.type.removesuffix(support.KERAS_SUFFIX) + support.FPN_SUFFIX
        text = f"{message.type} builds no pyramid; use type: '{with_pyramid}' or leave the block out"
        findings.error(f"{path}.fpn", text)
    strides = _PYRAMID_OUTPUT_STRIDES if extractor.is_fpn else _OUTPUT_STRIDES
    if message.output_stride not in strides:
        accepted = ", ".join(map(str, strides))
        text = f"is {message.output_stride}; accepted for {message.type}: {accepted} (0: the extractor's own)"
        findings.error(f"{path}.output_stride", text)
    if message.pad_to_multiple < 1:
        findings.error(f"{path}.pad_to_multiple", f"is {message.pad_to_multiple}; accepted: pixels, 1 or more")
    if files or message.pretrained_weights == support.IMAGENET_WEIGHTS:
        problem = support.weights_problem(message.pretrained_weights, extractor)
        if problem:
            findings.error(f"{path}.pretrained_weights", problem)
    return extractor


def _check_predictor(predictor: Any, findings: Findings) -> None:
    kind = predictor.WhichOneof("box_predictor_oneof")
    if kind is None:
        return
    path, chosen = f"{_PATH}.box_predictor.{kind}", getattr(predictor, kind)
    if kind not in _SSD_PREDICTORS:
        findings.error(path, f"is the head of a two-stage detector; accepted in ssd: {', '.join(_SSD_PREDICTORS)}")
        return
    if chosen.box_code_size != 4:
        findings.error(f"{path}.box_code_size", f"is {chosen.box_code_size}; accepted: 4")
    if chosen.kernel_size < 1:
        findings.error(f"{path}.kernel_size", f"is {chosen.kernel_size}; accepted: 1 or more")
    elif chosen.use_depthwise and chosen.kernel_size == 1:
        findings.error(f"{path}.kernel_size", "is 1, which gives use_depthwise nothing to do; accepted with it: 3")
    if chosen.use_dropout and not 0 < chosen.dropout_keep_probability <= 1:
        text = f"is {chosen.dropout_keep_probability:g}; accepted: above 0, at most 1"
        findings.error(f"{path}.dropout_keep_probability", text)
    if kind == "convolutional_box_predictor":
        if chosen.min_depth > chosen.max_depth:
            findings.error(f"{path}.min_depth", f"is {chosen.min_depth}, above max_depth ({chosen.max_depth})")
    elif chosen.num_layers_before_predictor and chosen.depth < 1:
        findings.error(f"{path}.depth", f"is {chosen.depth}; accepted: 1 or more channels of the towers")


def _check_matcher(matcher: Any, findings: Findings) -> None:
    if matcher.WhichOneof("matcher_oneof") != "argmax_matcher":
        return
    argmax, path = matcher.argmax_matcher, f"{_PATH}.matcher.argmax_matcher"
    if not argmax.ignore_thresholds and argmax.unmatched_threshold > argmax.matched_threshold:
        text = f"is {argmax.unmatched_threshold:g}, above matched_threshold ({argmax.matched_threshold:g})"
        findings.error(f"{path}.unmatched_threshold", text)
    between = not argmax.ignore_thresholds and not argmax.negatives_lower_than_unmatched
    if between and argmax.unmatched_threshold == argmax.matched_threshold:
        text = "is false: negatives lie between unmatched_threshold and matched_threshold, which are equal"
        findings.error(f"{path}.negatives_lower_than_unmatched", text)


def _check_post_processing(ssd: Any, findings: Findings) -> None:
    path, post = f"{_PATH}.post_processing", ssd.post_processing
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
    loss = ssd.loss.classification_loss.WhichOneof("classification_loss")
    if loss is None:
        return
    wanted = "SOFTMAX" if loss in _SOFTMAX_LOSSES else "SIGMOID"
    converter = pb.PostProcessing.ScoreConverter.Name(post.score_converter)
    if converter != wanted and not _head_applies_sigmoid(ssd.box_predictor):
        text = f"is {converter}, but the loss {loss} trains logits for {wanted}; scores will not be probabilities"
        findings.warning(f"{path}.score_converter", text)


def _head_applies_sigmoid(predictor: Any) -> bool:
    kind = predictor.WhichOneof("box_predictor_oneof")
    if kind == "convolutional_box_predictor":
        return predictor.convolutional_box_predictor.apply_sigmoid_to_scores
    shared = predictor.weight_shared_convolutional_box_predictor
    return shared.score_converter == pb.WeightSharedConvolutionalBoxPredictor.SIGMOID
