"""Checks of the ``model`` block, and of an SSD's parts: its feature extractor, its head, and whether they fit.

Those of other kinds are in ``check_region_model`` and ``check_segmentation_proposals``.
"""

from __future__ import annotations

from typing import Any

from detzoo.config import pb, support
from detzoo.config.check.anchors import check_anchors
from detzoo.config.check.losses import check_losses
from detzoo.config.check.parts import check_backbone, check_post_processing, check_resizer
from detzoo.config.check.region_model import check_region_model
from detzoo.config.check.segmentation_proposals import check_segmentation_proposals
from detzoo.config.check.spp_classifier import check_spp_classifier
from detzoo.config.check.spp_net import check_spp_net
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
ACCEPTED_MODELS = ("ssd", "faster_rcnn", "segmentation_proposals", "spp_classifier", "spp_net")
_OTHER_MODELS = {
    "center_net": "CenterNet is not supported yet",
    "experimental_model": "experimental models are not supported",
}
_SSD_PREDICTORS = ("convolutional_box_predictor", "weight_shared_convolutional_box_predictor")
_OUTPUT_STRIDES = (0, 8, 16, 32)
_PYRAMID_OUTPUT_STRIDES = (0, 32)  # Maps of a pyramid must double in size.


def check_model(model: Any, findings: Findings, files: bool) -> None:
    """Adds what is wrong with a ``pb.DetectionModel``. ``files``: whether paths must exist."""
    kind, accepted = model.WhichOneof("model"), ", ".join(ACCEPTED_MODELS)
    if kind is None:
        findings.error("model", f"no model is chosen; accepted: {accepted}")
    elif kind in _OTHER_MODELS:
        findings.error(f"model.{kind}", f"{_OTHER_MODELS[kind]}; accepted: {accepted}")
    else:
        _CHECKS[kind](getattr(model, kind), findings, files)


def _check_ssd(ssd: Any, findings: Findings, files: bool) -> None:
    for name, oneof in _REQUIRED_CHOICES.items():
        part = getattr(ssd, name)
        if part.WhichOneof(oneof) is None:
            branches = _SSD_PREDICTORS if name == "box_predictor" else supported_branches(part, oneof)
            findings.error(f"{_PATH}.{name}", f"is missing or empty; choose one of {', '.join(branches)}")
    check_resizer(ssd.image_resizer, f"{_PATH}.image_resizer", findings)
    extractor = _check_extractor(ssd.feature_extractor, findings, files)
    _check_predictor(ssd.box_predictor, findings)
    _check_matcher(ssd, findings)
    check_losses(ssd, findings)
    loss = ssd.loss.classification_loss.WhichOneof("classification_loss")
    converted = None if _head_applies_sigmoid(ssd.box_predictor) else loss
    check_post_processing(ssd.post_processing, f"{_PATH}.post_processing", converted, findings)
    if extractor is not None:
        check_anchors(ssd, extractor, findings)


def _check_extractor(message: Any, findings: Findings, files: bool) -> support.SsdExtractor | None:
    """The extractor's entry in the table, None where there is none."""
    path = f"{_PATH}.feature_extractor"
    extractor = support.SSD_EXTRACTORS.get(message.type)
    if extractor is None:
        findings.error(f"{path}.type", support.refusal(message.type))
        return None
    strides = _PYRAMID_OUTPUT_STRIDES if extractor.is_pyramid else _OUTPUT_STRIDES
    if message.output_stride not in strides:
        accepted = ", ".join(map(str, strides))
        text = f"is {message.output_stride}; accepted for {message.type}: {accepted} (0: the extractor's own)"
        findings.error(f"{path}.output_stride", text)
    if message.HasField("bifpn") and not extractor.is_bifpn:
        text = f"{message.type} builds no bidirectional pyramid; only the types with _bifpn do. Leave the block out"
        findings.error(f"{path}.bifpn", text)
    check_backbone(message, path, extractor, findings, files)
    if extractor.is_fpn:
        _check_ablations(message.fpn, f"{path}.fpn", findings)
    return extractor


def _check_ablations(fpn: Any, path: str, findings: Findings) -> None:
    """Parts of a pyramid that two-stage detectors can leave out."""
    for name in ("top_down_pathway", "lateral_connections", "finest_level_only"):
        default = fpn.DESCRIPTOR.fields_by_name[name].default_value
        if getattr(fpn, name) != default:
            findings.error(f"{path}.{name}", f"is not supported in ssd; accepted: {str(default).lower()}")
    if fpn.coarse_source == pb.FeaturePyramidNetworks.SUBSAMPLE:
        findings.error(f"{path}.coarse_source", "SUBSAMPLE is not supported in ssd; accepted: PYRAMID, BACKBONE")


def _check_predictor(predictor: Any, findings: Findings) -> None:
    kind = predictor.WhichOneof("box_predictor_oneof")
    if kind is None:
        return
    path, chosen = f"{_PATH}.box_predictor.{kind}", getattr(predictor, kind)
    if kind not in _SSD_PREDICTORS:
        findings.error(path, f"is the head of a two-stage detector; accepted in ssd: {', '.join(_SSD_PREDICTORS)}")
        return
    if chosen.use_depthwise and chosen.kernel_size == 1:
        findings.error(f"{path}.kernel_size", "is 1, which gives use_depthwise nothing to do; accepted with it: 3")
    if kind != "convolutional_box_predictor" and chosen.num_layers_before_predictor and chosen.depth < 1:
        findings.error(f"{path}.depth", f"is {chosen.depth}; accepted: 1 or more channels of the towers")


def _check_matcher(ssd: Any, findings: Findings) -> None:
    if ssd.matcher.WhichOneof("matcher_oneof") != "argmax_matcher":
        return
    argmax, path = ssd.matcher.argmax_matcher, f"{_PATH}.matcher.argmax_matcher"
    for name in ("matched_threshold", "unmatched_threshold"):
        if getattr(argmax, name) < 0 and not ssd.similarity_calculator.HasField("neg_sq_dist_similarity"):
            text = f"is {getattr(argmax, name):g}, but overlaps are never negative; accepted: 0 to 1"
            findings.error(f"{path}.{name}", text)
    if not argmax.ignore_thresholds and argmax.unmatched_threshold > argmax.matched_threshold:
        text = f"is {argmax.unmatched_threshold:g}, above matched_threshold ({argmax.matched_threshold:g})"
        findings.error(f"{path}.unmatched_threshold", text)
    between = not argmax.ignore_thresholds and not argmax.negatives_lower_than_unmatched
    if between and argmax.unmatched_threshold == argmax.matched_threshold:
        text = "is false: negatives lie between unmatched_threshold and matched_threshold, which are equal"
        findings.error(f"{path}.negatives_lower_than_unmatched", text)


def _head_applies_sigmoid(predictor: Any) -> bool:
    kind = predictor.WhichOneof("box_predictor_oneof")
    if kind == "convolutional_box_predictor":
        return predictor.convolutional_box_predictor.apply_sigmoid_to_scores
    shared = predictor.weight_shared_convolutional_box_predictor
    return shared.score_converter == pb.WeightSharedConvolutionalBoxPredictor.SIGMOID


_CHECKS = {
    "ssd": _check_ssd,
    "faster_rcnn": check_region_model,
    "segmentation_proposals": check_segmentation_proposals,
    "spp_classifier": check_spp_classifier,
    "spp_net": check_spp_net,
}
