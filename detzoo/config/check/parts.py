"""Rules of the blocks that several kinds of models share: resizer, backbone, pyramid, suppression, miner."""

from __future__ import annotations

from typing import NamedTuple

from detzoo.config import pb, support
from detzoo.config.check.effects import check_choice
from detzoo.config.problems import MISSING, Findings

COARSEST_LEVEL = 12  # a map of stride 4096; coarser ones are a typing error
SOFTMAX_LOSSES = ("weighted_softmax", "weighted_logits_softmax")
MAP_LOSSES = ("penalty_reduced_logistic_focal_loss", "weighted_dice_classification_loss")
BOX_LOSSES = ("weighted_softmax", "weighted_sigmoid", "weighted_sigmoid_focal")  # the usual ones, for messages


class InputSize(NamedTuple):
    """Sides of the network's input in pixels, before it is padded to a multiple."""

    height: int
    width: int
    is_static: bool  # False: these are upper bounds


def check_resizer(resizer: pb.ImageResizer, findings: Findings) -> None:
    """Checks an ``image_resizer`` block."""
    kind = check_choice(resizer, "image_resizer_oneof", "", findings)
    if kind == "keep_aspect_ratio_resizer":
        keep = resizer.keep_aspect_ratio_resizer
        for index, side in enumerate(keep.training_min_dimensions):
            if side > keep.max_dimension:
                text = f"is {side}; accepted: 1 to max_dimension ({keep.max_dimension})"
                path = f"{kind}.training_min_dimensions[{index}]"
                findings.error(path, "training-dimension", text, ["max_dimension"])
    conditional = resizer.conditional_shape_resizer
    if kind == "conditional_shape_resizer" and conditional.condition == pb.ConditionalShapeResizer.INVALID:
        findings.error(f"{kind}.condition", "resize-condition", "is INVALID; accepted: GREATER, SMALLER")


def input_size(resizer: pb.ImageResizer) -> InputSize | None:
    """Returns the largest input of an ``image_resizer``; None if images have any size or the resizer is wrong."""
    kind = resizer.WhichOneof("image_resizer_oneof")
    height = width = 0
    if kind == "fixed_shape_resizer":
        height, width = resizer.fixed_shape_resizer.height, resizer.fixed_shape_resizer.width
    elif kind == "keep_aspect_ratio_resizer":
        keep = resizer.keep_aspect_ratio_resizer
        height, width = keep.max_dimension if keep.pad_to_max_dimension else keep.min_dimension, keep.max_dimension
    elif kind == "conditional_shape_resizer":
        conditional = resizer.conditional_shape_resizer
        if conditional.condition == pb.ConditionalShapeResizer.GREATER:
            height = width = conditional.size_threshold
    if height <= 0 or width <= 0:
        return None
    is_padded = kind == "keep_aspect_ratio_resizer" and resizer.keep_aspect_ratio_resizer.pad_to_max_dimension
    return InputSize(height, width, kind == "fixed_shape_resizer" or is_padded)


def check_region_extractor(
    message: pb.FasterRcnnFeatureExtractor, findings: Findings
) -> support.RegionExtractor | None:
    """Checks the backbone of a two-stage detector. Returns its entry in the table, None if the type is unknown."""
    extractor = support.REGION_EXTRACTORS.get(message.type)
    if extractor is None:
        findings.error("type", "unknown-extractor", support.region_refusal(message.type))
    else:
        check_backbone(message, extractor, findings)
    return extractor


def check_backbone(
    message: pb.SsdFeatureExtractor | pb.FasterRcnnFeatureExtractor,
    extractor: support.Extractor,
    findings: Findings,
) -> None:
    """Checks width, pyramid and weights of a ``feature_extractor`` block."""
    if message.depth_multiplier != 1 and not extractor.has_depth_multiplier:
        text = f"is {message.depth_multiplier:g}, but {message.type} has one width only; accepted: 1"
        findings.error("depth_multiplier", "one-width", text)
    if message.HasField("fpn") and not extractor.is_fpn:
        stem = message.type.removesuffix(support.KERAS_SUFFIX)
        with_pyramid = stem + support.FPN_SUFFIX + message.type.removeprefix(stem)
        text = f"{message.type} builds no pyramid; use type: '{with_pyramid}' or remove the block"
        if isinstance(extractor, support.SsdExtractor) and extractor.is_bifpn:
            text = f"{message.type} builds a bidirectional pyramid; use the block bifpn"
        findings.error("fpn", "no-pyramid", text)
    problem = support.weights_problem(message.pretrained_weights, extractor)
    if problem and (findings.files or message.pretrained_weights == support.IMAGENET_WEIGHTS):
        findings.error("pretrained_weights", "pretrained-weights", problem)


def check_pyramid(
    message: pb.SsdFeatureExtractor | pb.FasterRcnnFeatureExtractor, findings: Findings
) -> tuple[int, ...]:
    """Checks the ``fpn`` of a ``feature_extractor`` block whose type has a pyramid.

    Returns:
        The levels of the pyramid, finest first; () if the config has them wrong.
    """
    fpn, findings = message.fpn, findings.at("fpn")
    finest, coarsest = support.PYRAMID_LEVELS[0], support.PYRAMID_LEVELS[-1]
    if not finest <= fpn.min_level <= coarsest:
        text = f"is {fpn.min_level}; accepted for {message.type}: {finest} to {coarsest}, the levels of the backbone"
        findings.error("min_level", "pyramid-levels", text)
        return ()
    if not fpn.lateral_connections and not fpn.top_down_pathway:
        text = "is false, and so is top_down_pathway, so that nothing makes the finer levels; keep one of them"
        findings.error("lateral_connections", "pyramid-paths", text)
    if fpn.coarse_source != pb.FeaturePyramidNetworks.PYRAMID:
        source = pb.FeaturePyramidNetworks.CoarseSource.Name(fpn.coarse_source)
        if fpn.finest_level_only:
            text = f"is {source}, without effect: finest_level_only skips the levels past the backbone's"
            findings.warning("coarse_source", "unused-coarse-source", text)
        elif fpn.max_level <= coarsest:
            text = f"is {source}, without effect: max_level {fpn.max_level} adds no level past the backbone's"
            findings.warning("coarse_source", "unused-coarse-source", text, ["max_level"])
    return tuple(range(fpn.min_level, fpn.max_level + 1))


def check_post_processing(post: pb.PostProcessing, loss: str | None, findings: Findings) -> None:
    """Checks a ``post_processing`` block.

    ``loss`` is the classification loss whose logits it converts; None if unknown, or if the head converts them.
    """
    if not post.HasField("batch_non_max_suppression"):
        findings.error("", MISSING, "batch_non_max_suppression is missing; an empty block takes its defaults")
        return
    wanted = "SOFTMAX" if loss in SOFTMAX_LOSSES else "SIGMOID"
    converter = pb.PostProcessing.ScoreConverter.Name(post.score_converter)
    if loss is not None and converter != wanted:
        text = f"is {converter}, but the loss {loss} trains logits for {wanted}; scores will not be probabilities"
        findings.warning("score_converter", "score-converter", text)


def check_hard_examples(miner: pb.HardExampleMiner, findings: Findings) -> None:
    """Checks the numbers of a ``hard_example_miner`` block."""
    if miner.reserve_positives and not 0 < miner.max_negatives_per_positive < miner.num_hard_examples:
        text = (
            f"is true with max_negatives_per_positive {miner.max_negatives_per_positive} and num_hard_examples "
            f"{miner.num_hard_examples}; accepted: a ratio of 1 or more, and more examples than it"
        )
        findings.error(
            "reserve_positives", "reserved-positives", text, ["max_negatives_per_positive", "num_hard_examples"]
        )


def check_matcher(matcher: pb.Matcher, findings: Findings, lowest: float = 0.0) -> None:
    """Checks the thresholds of a ``matcher`` block. ``lowest`` is the smallest possible similarity."""
    if not matcher.HasField("argmax_matcher"):
        return
    argmax, findings = matcher.argmax_matcher, findings.at("argmax_matcher")
    matched, unmatched = argmax.matched_threshold, argmax.unmatched_threshold
    for name, threshold in (("matched_threshold", matched), ("unmatched_threshold", unmatched)):
        if threshold < lowest:
            text = f"is {threshold:g}, but overlaps are never negative; accepted: 0 to 1"
            findings.error(name, "negative-overlap", text)
    if argmax.ignore_thresholds:
        return
    if unmatched > matched:
        text = f"is {unmatched:g}, above matched_threshold ({matched:g})"
        findings.error("unmatched_threshold", "matcher-thresholds", text, ["matched_threshold"])
    if unmatched == matched and not argmax.negatives_lower_than_unmatched:
        text = "is false: negatives lie between unmatched_threshold and matched_threshold, which are equal"
        reads = ["unmatched_threshold", "matched_threshold"]
        findings.error("negatives_lower_than_unmatched", "matcher-thresholds", text, reads)


def check_localization_loss(loss: pb.LocalizationLoss, findings: Findings) -> None:
    """Checks that a sum of losses has terms, each with a loss that is not a sum."""
    if not loss.HasField("sum"):
        return
    if not loss.sum.term:
        findings.error("sum", MISSING, "has no terms; accepted: 1 or more blocks term { loss { } weight }")
    for index, term in enumerate(loss.sum.term):
        path = f"sum.term[{index}].loss"
        if check_choice(term.loss, "localization_loss", path, findings) == "sum":
            findings.error(path, "nested-sum", "is a sum in a sum; write all terms into one block")
