"""Box coder, matcher and similarity of a config -> the assignment of anchors (floor 5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from detzoo.config import pb
from detzoo.ops import matching
from detzoo.ops.box_coder import BoxCoder, FasterRcnnBoxCoder, MeanStddevBoxCoder, SquareBoxCoder
from detzoo.ops.matching import Matcher, Similarity
from detzoo.targets.anchor_targets import AnchorTargets


def build_anchor_targets(config: pb.Ssd) -> AnchorTargets:
    """Builds the assignment of a checked ``model.ssd`` block: a callable from anchors and ground truth to Targets."""
    return AnchorTargets(
        matcher=build_matcher(config.matcher),
        similarity=build_similarity(config.similarity_calculator),
        box_coder=build_box_coder(config.box_coder),
        negative_class_weight=config.negative_class_weight,
    )


def build_box_coder(config: pb.BoxCoder) -> BoxCoder:
    """Builds the coder of a checked ``pb.BoxCoder``."""
    kind = config.WhichOneof("box_coder_oneof")
    return _BOX_CODERS[kind](getattr(config, kind))


def build_matcher(config: pb.Matcher) -> Matcher:
    """Builds the matcher of a checked ``pb.Matcher``."""
    if config.HasField("bipartite_matcher"):
        return matching.BipartiteMatcher()
    argmax = config.argmax_matcher
    if argmax.ignore_thresholds:
        return matching.ArgmaxMatcher(None, force_match_for_each_row=argmax.force_match_for_each_row)
    return matching.ArgmaxMatcher(
        matched_threshold=argmax.matched_threshold,
        unmatched_threshold=argmax.unmatched_threshold,
        negatives_lower_than_unmatched=argmax.negatives_lower_than_unmatched,
        force_match_for_each_row=argmax.force_match_for_each_row,
    )


def build_similarity(config: pb.RegionSimilarityCalculator) -> Similarity:
    """Builds the similarity of a checked ``pb.RegionSimilarityCalculator``."""
    kind = config.WhichOneof("region_similarity")
    return _SIMILARITIES[kind](getattr(config, kind))


def _corner_coder(config: pb.FasterRcnnBoxCoder | pb.KeypointBoxCoder) -> BoxCoder:
    return FasterRcnnBoxCoder((config.y_scale, config.x_scale, config.height_scale, config.width_scale))


_BOX_CODERS: dict[str | None, Callable[[Any], BoxCoder]] = {
    "faster_rcnn_box_coder": _corner_coder,
    "mean_stddev_box_coder": lambda config: MeanStddevBoxCoder(config.stddev),
    "square_box_coder": lambda config: SquareBoxCoder((config.y_scale, config.x_scale, config.length_scale)),
    "keypoint_box_coder": _corner_coder,
}

_SIMILARITIES: dict[str | None, Callable[[Any], Similarity]] = {
    "iou_similarity": lambda config: matching.iou_similarity,
    "ioa_similarity": lambda config: matching.ioa_similarity,
    "neg_sq_dist_similarity": lambda config: matching.negative_squared_distance,
    "thresholded_iou_similarity": lambda config: matching.ThresholdedIou(config.iou_threshold),
}
