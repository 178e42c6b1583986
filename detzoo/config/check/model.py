"""Rules of the ``model`` block, of one-stage detectors (feature extractor, head, losses) and of segmentation proposals.

The rules of the other kinds of models are in ``two_stage`` and ``spp``.
"""

from __future__ import annotations

import math

from detzoo.config import pb, support
from detzoo.config.check.anchors import HeadMaps, check_anchors, check_cells
from detzoo.config.check.center_net import check_center_net
from detzoo.config.check.effects import check_choice
from detzoo.config.check.parts import (
    BOX_LOSSES,
    COARSEST_LEVEL,
    MAP_LOSSES,
    check_backbone,
    check_hard_examples,
    check_localization_loss,
    check_matcher,
    check_post_processing,
    check_pyramid,
    check_region_extractor,
    check_resizer,
)
from detzoo.config.check.spp import check_spp_classifier, check_spp_net
from detzoo.config.check.two_stage import check_two_stage
from detzoo.config.names import nearest
from detzoo.config.problems import MISSING, Findings
from detzoo.config.stages import HEAD_FACTORS

_REQUIRED_CHOICES = {
    "box_coder": "box_coder_oneof",
    "matcher": "matcher_oneof",
    "similarity_calculator": "region_similarity",
    "anchor_generator": "anchor_generator_oneof",
}
_OTHER_MODELS = {
    "experimental_model": "experimental models are not supported",
}
_PREDICTORS = ("convolutional_box_predictor", "weight_shared_convolutional_box_predictor")
_OUTPUT_STRIDES = (0, 8, 16, 32)
_PYRAMID_OUTPUT_STRIDES = (0, 32)  # Maps of a pyramid must double in size.
# Fields of other extractors that MnasFPN does not read; the first has no effect on MobileDet, either.
_NOT_FOR_MNASFPN = ("override_base_feature_extractor_hyperparams", "conv_hyperparams", "use_depthwise")
# Fields that other extractors have. The Object Detection API refuses them with a bidirectional pyramid, too.
_NOT_FOR_BIFPN = ("use_explicit_padding", "use_depthwise", "override_base_feature_extractor_hyperparams")


def check_model(model: pb.DetectionModel, findings: Findings) -> None:
    """Checks a ``model`` block."""
    kind, accepted = model.WhichOneof("model"), ", ".join(ACCEPTED_MODELS)
    if kind is None:
        findings.error("", MISSING, f"no model is chosen; accepted: {accepted}")
    elif kind in _OTHER_MODELS:
        findings.error(kind, "not-supported", f"{_OTHER_MODELS[kind]}; accepted: {accepted}")
    else:
        _CHECKS[kind](getattr(model, kind), findings.at(kind))


def _check_one_stage(ssd: pb.Ssd, findings: Findings) -> None:
    for name, oneof in _REQUIRED_CHOICES.items():
        check_choice(getattr(ssd, name), oneof, name, findings)
    check_resizer(ssd.image_resizer, findings.at("image_resizer"))
    _check_predictor(ssd.box_predictor, findings)
    is_distance = ssd.similarity_calculator.HasField("neg_sq_dist_similarity")
    check_matcher(ssd.matcher, findings.at("matcher"), lowest=-math.inf if is_distance else 0.0)
    loss = _check_losses(ssd, findings)
    converted = None if _head_applies_sigmoid(ssd.box_predictor) else loss
    check_post_processing(ssd.post_processing, converted, findings.at("post_processing"))
    extractor = support.SSD_EXTRACTORS.get(ssd.feature_extractor.type)
    if extractor is None:
        findings.error("feature_extractor.type", "unknown-extractor", support.refusal(ssd.feature_extractor.type))
        return
    _check_extractor(ssd.feature_extractor, extractor, findings.at("feature_extractor"))
    maps = _head_maps(ssd, extractor, findings.at("feature_extractor"))
    if maps.levels and ssd.anchor_generator.WhichOneof("anchor_generator_oneof"):
        _check_anchors(ssd, maps, findings)


def _check_extractor(message: pb.SsdFeatureExtractor, extractor: support.SsdExtractor, findings: Findings) -> None:
    strides = _PYRAMID_OUTPUT_STRIDES if extractor.is_pyramid else _OUTPUT_STRIDES
    if message.output_stride not in strides:
        accepted = ", ".join(map(str, strides))
        text = f"is {message.output_stride}; accepted for {message.type}: {accepted} (0 means the extractor's own)"
        findings.error("output_stride", "output-stride", text)
    if message.HasField("bifpn") and not extractor.is_bifpn:
        text = f"{message.type} builds no bidirectional pyramid; only the types with _bifpn do. Remove the block"
        findings.error("bifpn", "no-pyramid", text)
    check_backbone(message, extractor, findings)
    if extractor.family in support.FIXED_FAMILIES:
        for name in _NOT_FOR_MNASFPN if extractor.is_mnasfpn else _NOT_FOR_MNASFPN[:1]:
            if message.HasField(name) and getattr(message, name):
                findings.no_effect(name, f"{message.type} has fixed hyperparameters, as in the Object Detection API")
    if not extractor.is_fpn:
        return
    levels = (message.fpn.min_level, message.fpn.max_level)
    if extractor.is_mnasfpn and levels != support.MNASFPN_LEVELS:
        accepted = "min_level: {} max_level: {}".format(*support.MNASFPN_LEVELS)
        text = f"has levels {levels[0]} to {levels[1]}; accepted for {message.type}: {accepted}"
        findings.error("fpn", "pyramid-levels", text)
    for name in ("top_down_pathway", "lateral_connections", "finest_level_only"):  # of two-stage detectors only
        default = message.fpn.DESCRIPTOR.fields_by_name[name].default_value
        if getattr(message.fpn, name) != default:
            text = f"is not supported in ssd; accepted: {str(default).lower()}"
            findings.error(f"fpn.{name}", "not-supported", text)
    if message.fpn.coarse_source == pb.FeaturePyramidNetworks.SUBSAMPLE:
        text = "SUBSAMPLE is not supported in ssd; accepted: PYRAMID, BACKBONE"
        findings.error("fpn.coarse_source", "not-supported", text)


def _head_maps(ssd: pb.Ssd, extractor: support.SsdExtractor, findings: Findings) -> HeadMaps:
    """Checks the levels of the maps. The result has no levels if the config has them wrong."""
    message = ssd.feature_extractor
    if extractor.is_fpn:
        levels, field = check_pyramid(message, findings), "fpn"
    elif extractor.is_bifpn:
        levels, field = _check_bifpn(message, extractor, findings), "bifpn"
    else:
        levels, field = _levels_of_ssd(message, extractor, findings), "num_layers"
    is_shared = ssd.box_predictor.HasField("weight_shared_convolutional_box_predictor")
    return HeadMaps(levels, f"{findings.path}.{field}", not message.output_stride, is_shared)


def _levels_of_ssd(
    message: pb.SsdFeatureExtractor, extractor: support.SsdExtractor, findings: Findings
) -> tuple[int, ...]:
    if extractor.has_fixed_maps:
        if message.HasField("num_layers") and message.num_layers != extractor.max_num_layers:
            findings.no_effect("num_layers", f"{message.type} always makes {extractor.max_num_layers} maps")
    elif not 1 <= message.num_layers <= extractor.max_num_layers:
        text = f"is {message.num_layers}; accepted for {message.type}: 1 to {extractor.max_num_layers}"
        findings.error("num_layers", "num-layers", text)
        return ()
    return extractor.ssd_levels(message.num_layers)


def _check_bifpn(
    message: pb.SsdFeatureExtractor, extractor: support.SsdExtractor, findings: Findings
) -> tuple[int, ...]:
    bifpn, own = support.bifpn_of(message, extractor), support.EFFICIENTDET[extractor.variant]
    for name in _NOT_FOR_BIFPN:
        if getattr(message, name):
            findings.error(name, "not-supported", f"is not supported by {message.type}; accepted: false")
    findings = findings.at("bifpn")
    for name, number, default in (
        ("num_iterations", bifpn.num_iterations, own.num_iterations),
        ("num_filters", bifpn.num_filters, own.num_filters),
    ):
        if number < 1:
            findings.error(name, "bifpn-size", f"is {number}; accepted: 1 or more, in EfficientDet {default}")
    if bifpn.fusion not in support.FUSIONS:
        close = nearest(bifpn.fusion, support.FUSIONS)
        hint = f"did you mean '{close[0]}'? " if close else ""
        text = f"is '{bifpn.fusion}'; {hint}accepted: {', '.join(support.FUSIONS)}"
        findings.error("combine_method", "unknown-fusion", text)
    elif bifpn.fusion == "attention":
        text = (
            "is 'attention'. As in the Object Detection API its softmax gives every map the weight 1, and nothing is "
            "learned. Use fast_attention, or sum, which is the same without weights"
        )
        findings.warning("combine_method", "constant-fusion", text)
    finest, coarsest = support.PYRAMID_LEVELS[0], support.PYRAMID_LEVELS[-1]
    if not finest <= bifpn.min_level <= coarsest:
        text = f"is {bifpn.min_level}; accepted for {message.type}: {finest} to {coarsest}, the levels of the backbone"
        findings.error("min_level", "pyramid-levels", text)
        return ()
    if not bifpn.min_level < bifpn.max_level <= COARSEST_LEVEL:
        text = f"is {bifpn.max_level}; accepted: min_level + 1 ({bifpn.min_level + 1}) to {COARSEST_LEVEL}"
        findings.error("max_level", "pyramid-levels", text, ["min_level"])
        return ()
    return bifpn.levels


def _check_anchors(ssd: pb.Ssd, maps: HeadMaps, findings: Findings) -> None:
    anchors, here = ssd.anchor_generator, findings.at("anchor_generator")
    check_anchors(anchors, maps, here)
    check_cells(anchors, ssd.image_resizer, findings.at("image_resizer"))
    kind = str(anchors.WhichOneof("anchor_generator_oneof"))
    if not getattr(getattr(anchors, kind), "normalize_coordinates", True):
        text = "anchors in pixels are not supported, they are fractions of the padded image; accepted: true"
        here.error(f"{kind}.normalize_coordinates", "not-supported", text)


def _check_predictor(predictor: pb.BoxPredictor, findings: Findings) -> None:
    kind = check_choice(predictor, "box_predictor_oneof", "box_predictor", findings, _PREDICTORS)
    findings = findings.at(f"box_predictor.{kind}")
    if kind and kind not in _PREDICTORS:
        text = f"is the head of a two-stage detector; accepted in ssd: {', '.join(_PREDICTORS)}"
        findings.error("", "head-of-other-model", text)
    if kind not in _PREDICTORS:
        return
    chosen = getattr(predictor, kind)
    if chosen.use_depthwise and chosen.kernel_size == 1:
        text = "is 1, which gives use_depthwise nothing to do; accepted with it: 3"
        findings.error("kernel_size", "depthwise-kernel", text)
    if kind != "convolutional_box_predictor" and chosen.num_layers_before_predictor and chosen.depth < 1:
        findings.error("depth", "tower-depth", f"is {chosen.depth}; accepted: 1 or more channels of the towers")


def _check_losses(ssd: pb.Ssd, findings: Findings) -> str | None:
    """Checks the losses, and which of them go together. Returns the classification loss."""
    loss, here = ssd.loss, findings.at("loss")
    check_choice(loss.localization_loss, "localization_loss", "localization_loss", here)
    check_localization_loss(loss.localization_loss, here.at("localization_loss"))
    kind = check_choice(loss.classification_loss, "classification_loss", "classification_loss", here)
    if kind == "weighted_softmax":
        if not ssd.add_background_class:
            text = "is false, but weighted_softmax needs a background column for anchors without an object"
            findings.error("add_background_class", "softmax-background", text)
        elif ssd.encode_background_as_zeros:
            text = "is true, but then weighted_softmax learns nothing from the background; accepted with it: false"
            findings.error("encode_background_as_zeros", "softmax-background", text)
    elif kind in MAP_LOSSES:
        text = f"is a loss of center_net's maps; accepted in ssd: {', '.join(BOX_LOSSES)}"
        here.error(f"classification_loss.{kind}", "not-supported", text)
    elif kind == "weighted_sigmoid_focal" and loss.HasField("hard_example_miner"):
        text = "chooses hard examples, and so does weighted_sigmoid_focal; keep one of them"
        here.error("hard_example_miner", "miner-with-focal-loss", text)
    check_hard_examples(loss.hard_example_miner, here.at("hard_example_miner"))
    return kind or None


def _head_applies_sigmoid(predictor: pb.BoxPredictor) -> bool:
    if predictor.HasField("convolutional_box_predictor"):
        return predictor.convolutional_box_predictor.apply_sigmoid_to_scores
    shared = predictor.weight_shared_convolutional_box_predictor
    return shared.score_converter == pb.WeightSharedConvolutionalBoxPredictor.SIGMOID


def _check_segmentation_proposals(model: pb.SegmentationProposals, findings: Findings) -> None:
    """Checks a ``segmentation_proposals`` block."""
    check_resizer(model.image_resizer, findings.at("image_resizer"))
    message, here = model.feature_extractor, findings.at("feature_extractor")
    extractor = check_region_extractor(message, here)
    if extractor is not None and not extractor.is_fpn:
        text = f"is '{message.type}', which has no pyramid; accepted: the types that end in {support.FPN_SUFFIX}"
        here.error("type", "no-pyramid", text)
    elif extractor is not None:
        if message.fpn.finest_level_only:
            text = "is true, but masks of other sizes are predicted on other levels than the finest; accepted: false"
            here.error("fpn.finest_level_only", "not-supported", text)
        check_pyramid(message, here)
    sizes = list(model.head_kernel_size)
    if unknown := [size for size in sizes if size not in HEAD_FACTORS]:
        text = f"has {unknown[0]}; accepted: {', '.join(map(str, HEAD_FACTORS))}, or both"
        findings.error("head_kernel_size", "head-kernels", text)
    elif len(set(sizes)) != len(sizes):
        findings.error("head_kernel_size", "head-kernels", f"names {sizes[0]} twice; accepted: each once")
    if int(model.examples_per_image * model.positive_fraction) < 1:
        text = (
            f"is {model.positive_fraction:g}, less than one of examples_per_image ({model.examples_per_image}), so "
            "that no mask is trained"
        )
        findings.error("positive_fraction", "no-positive-example", text, ["examples_per_image"])


_CHECKS = {
    "ssd": _check_one_stage,
    "faster_rcnn": check_two_stage,
    "center_net": check_center_net,
    "segmentation_proposals": _check_segmentation_proposals,
    "spp_classifier": check_spp_classifier,
    "spp_net": check_spp_net,
}
ACCEPTED_MODELS = tuple(_CHECKS)
