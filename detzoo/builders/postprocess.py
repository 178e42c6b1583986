"""``post_processing`` of a config -> final detections (floor 5)."""

from __future__ import annotations

from detzoo.builders.targets import build_box_coder
from detzoo.config import pb
from detzoo.ops.nms import NmsLimits
from detzoo.postprocess.dense_detections import DenseDetections
from detzoo.postprocess.scores import ScoreConverter, ScoreFunction

_SCORE_FUNCTIONS = {
    pb.PostProcessing.IDENTITY: ScoreFunction.IDENTITY,
    pb.PostProcessing.SIGMOID: ScoreFunction.SIGMOID,
    pb.PostProcessing.SOFTMAX: ScoreFunction.SOFTMAX,
}


def build_dense_detections(config: pb.Ssd) -> DenseDetections:
    """Builds the post-processing of a checked ``model.ssd`` block.

    Returns:
        A callable from predictions and image shapes to Detections.
    """
    return DenseDetections(
        box_coder=build_box_coder(config.box_coder),
        score_converter=build_score_converter(config.post_processing),
        limits=build_nms_limits(config.post_processing.batch_non_max_suppression),
        has_background_column=config.add_background_class,
        is_class_agnostic=config.post_processing.batch_non_max_suppression.use_class_agnostic_nms,
    )


def build_score_converter(config: pb.PostProcessing) -> ScoreConverter:
    """Builds the score converter of a checked ``pb.PostProcessing``."""
    return ScoreConverter(_SCORE_FUNCTIONS[config.score_converter], config.logit_scale)


def build_nms_limits(config: pb.BatchNonMaxSuppression) -> NmsLimits:
    """Builds the limits of a checked ``pb.BatchNonMaxSuppression``."""
    return NmsLimits(
        score_threshold=config.score_threshold,
        iou_threshold=config.iou_threshold,
        max_detections_per_class=config.max_detections_per_class,
        max_total_detections=config.max_total_detections,
        soft_nms_sigma=0.0 if config.use_hard_nms else config.soft_nms_sigma,
    )
