"""Box coder, matcher and similarity of a configuration -> the assignment of anchors (floor 4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from detzoo.config import pb
from detzoo.errors import ConfigError
from detzoo.ops import matching
from detzoo.ops.box_coder import BoxCoder, FasterRcnnBoxCoder, MeanStddevBoxCoder, SquareBoxCoder
from detzoo.ops.matching import Matcher, Similarity
from detzoo.targets.anchor_targets import AnchorTargets


def build_anchor_targets(config: pb.Ssd) -> AnchorTargets:
    """The assignment of a ``pb.Ssd``.

    Args:
        config: the ``model.ssd`` block.

    Returns:
        A callable from anchors and ground truth to Targets.

    Raises:
        ConfigError: a part is missing, contradicts itself or is not supported.
    """
    if config.use_confidences_as_targets:
        raise ConfigError("model.ssd.use_confidences_as_targets is not supported: records carry no confidences here.")
    box_coder = build_box_coder(config.box_coder)
    _check_code_size(config, box_coder)
    return AnchorTargets(
        matcher=build_matcher(config.matcher),
        similarity=build_similarity(config.similarity_calculator),
        box_coder=box_coder,
        negative_class_weight=config.negative_class_weight,
    )


def _check_code_size(config: pb.Ssd, box_coder: BoxCoder) -> None:
    kind = config.box_predictor.WhichOneof("box_predictor_oneof")
    predicted = getattr(getattr(config.box_predictor, kind), "box_code_size", None) if kind else None
    if predicted is not None and predicted != box_coder.code_size:
        raise ConfigError(
            f"box_predictor.{kind}.box_code_size is {predicted}, but {config.box_coder.WhichOneof('box_coder_oneof')} "
            f"has codes of {box_coder.code_size} numbers. Make the two agree."
        )


def build_box_coder(config: pb.BoxCoder) -> BoxCoder:
    """The coder of a ``pb.BoxCoder``.

    Raises:
        ConfigError: no coder is chosen, or one with keypoints.
    """
    return _one_of(_BOX_CODERS, config, "box_coder_oneof", "box_coder")


def build_matcher(config: pb.Matcher) -> Matcher:
    """The matcher of a ``pb.Matcher``.

    Raises:
        ConfigError: no matcher is chosen, or its thresholds contradict each other.
    """
    return _one_of(_MATCHERS, config, "matcher_oneof", "matcher")


def build_similarity(config: pb.RegionSimilarityCalculator) -> Similarity:
    """The similarity of a ``pb.RegionSimilarityCalculator``.

    Raises:
        ConfigError: no similarity is chosen.
    """
    return _one_of(_SIMILARITIES, config, "region_similarity", "similarity_calculator")


def _one_of(builders: dict[str, Callable[[Any], Any]], config: Any, oneof: str, name: str) -> Any:
    kind = config.WhichOneof(oneof)
    if kind is None:
        raise ConfigError(f"{name} is empty; give it one of {', '.join(builders)}.")
    return builders[kind](getattr(config, kind))


def _faster_rcnn_coder(config: pb.FasterRcnnBoxCoder) -> BoxCoder:
    return FasterRcnnBoxCoder((config.y_scale, config.x_scale, config.height_scale, config.width_scale))


def _keypoint_coder(config: pb.KeypointBoxCoder) -> BoxCoder:
    if config.num_keypoints:
        raise ConfigError(
            f"box_coder.keypoint_box_coder.num_keypoints is {config.num_keypoints}, but keypoints are not read. Set it "
            "to 0, or use faster_rcnn_box_coder, which codes the box alike."
        )
    return _faster_rcnn_coder(config)


def _argmax(config: pb.ArgMaxMatcher) -> Matcher:
    if config.ignore_thresholds:
        return matching.ArgmaxMatcher(None, force_match_for_each_row=config.force_match_for_each_row)
    matched, unmatched = config.matched_threshold, config.unmatched_threshold
    if unmatched > matched:
        raise ConfigError(
            f"matcher.argmax_matcher: unmatched_threshold {unmatched:g} is above matched_threshold {matched:g}. Lower "
            "it: anchors between the two are ignored."
        )
    if unmatched == matched and not config.negatives_lower_than_unmatched:
        raise ConfigError(
            "matcher.argmax_matcher: negatives_lower_than_unmatched is false, so that negatives lie between "
            f"unmatched_threshold and matched_threshold, but both are {matched:g}. Lower unmatched_threshold."
        )
    return matching.ArgmaxMatcher(
        matched_threshold=matched,
        unmatched_threshold=unmatched,
        negatives_lower_than_unmatched=config.negatives_lower_than_unmatched,
        force_match_for_each_row=config.force_match_for_each_row,
    )


_BOX_CODERS: dict[str, Callable[[Any], BoxCoder]] = {
    "faster_rcnn_box_coder": _faster_rcnn_coder,
    "mean_stddev_box_coder": lambda config: MeanStddevBoxCoder(config.stddev),
    "square_box_coder": lambda config: SquareBoxCoder((config.y_scale, config.x_scale, config.length_scale)),
    "keypoint_box_coder": _keypoint_coder,
}

_MATCHERS: dict[str, Callable[[Any], Matcher]] = {
    "argmax_matcher": _argmax,
    "bipartite_matcher": lambda config: matching.BipartiteMatcher(),
}

_SIMILARITIES: dict[str, Callable[[Any], Similarity]] = {
    "iou_similarity": lambda config: matching.iou_similarity,
    "ioa_similarity": lambda config: matching.ioa_similarity,
    "neg_sq_dist_similarity": lambda config: matching.negative_squared_distance,
    "thresholded_iou_similarity": lambda config: matching.ThresholdedIou(config.iou_threshold),
}
