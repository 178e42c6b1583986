"""``post_processing`` of a configuration -> final detections (floor 4)."""

from __future__ import annotations

from detzoo.builders.losses import check_background
from detzoo.builders.targets import build_box_coder
from detzoo.config import pb
from detzoo.errors import ConfigError
from detzoo.ops.nms import NmsLimits
from detzoo.postprocess.dense_detections import DenseDetections
from detzoo.postprocess.scores import ScoreConverter, ScoreFunction

_SCORE_FUNCTIONS = {
    pb.PostProcessing.IDENTITY: ScoreFunction.IDENTITY,
    pb.PostProcessing.SIGMOID: ScoreFunction.SIGMOID,
    pb.PostProcessing.SOFTMAX: ScoreFunction.SOFTMAX,
}


def build_dense_detections(config: pb.Ssd) -> DenseDetections:
    """The post-processing of a ``pb.Ssd``.

    Args:
        config: the ``model.ssd`` block.

    Returns:
        A callable from predictions and image shapes to Detections.

    Raises:
        ConfigError: a value is out of range or not supported.
    """
    check_background(config)
    return DenseDetections(
        box_coder=build_box_coder(config.box_coder),
        score_converter=build_score_converter(config.post_processing),
        limits=build_nms_limits(config.post_processing.batch_non_max_suppression),
        has_background_column=config.add_background_class,
        is_class_agnostic=config.post_processing.batch_non_max_suppression.use_class_agnostic_nms,
    )


def build_score_converter(config: pb.PostProcessing) -> ScoreConverter:
    """The score converter of a ``pb.PostProcessing``.

    Raises:
        ConfigError: ``logit_scale`` not above 0, or a calibration.
    """
    if config.HasField("calibration_config"):
        raise ConfigError("post_processing.calibration_config is not supported. Remove it.")
    if config.logit_scale <= 0:
        raise ConfigError(f"post_processing.logit_scale is {config.logit_scale:g}; it must be above 0.")
    return ScoreConverter(_SCORE_FUNCTIONS[config.score_converter], config.logit_scale)


def build_nms_limits(config: pb.BatchNonMaxSuppression) -> NmsLimits:
    """The limits of a ``pb.BatchNonMaxSuppression``.

    Raises:
        ConfigError: a value is out of range or not supported.
    """
    path = "post_processing.batch_non_max_suppression"
    if not 0 <= config.iou_threshold <= 1:
        raise ConfigError(f"{path}.iou_threshold is {config.iou_threshold:g}; it must be from 0 to 1.")
    if config.soft_nms_sigma < 0:
        raise ConfigError(f"{path}.soft_nms_sigma is {config.soft_nms_sigma:g}; it must be 0 (off) or above.")
    for name in ("max_detections_per_class", "max_total_detections"):
        if getattr(config, name) < 1:
            raise ConfigError(f"{path}.{name} is {getattr(config, name)}; it must be at least 1.")
    if config.max_classes_per_detection != 1:
        raise ConfigError(
            f"{path}.max_classes_per_detection is {config.max_classes_per_detection}; only 1 is supported."
        )
    if not config.change_coordinate_frame:
        raise ConfigError(
            f"{path}.change_coordinate_frame: false is not supported; boxes are always fractions of the true image."
        )
    return NmsLimits(
        score_threshold=config.score_threshold,
        iou_threshold=config.iou_threshold,
        max_detections_per_class=config.max_detections_per_class,
        max_total_detections=config.max_total_detections,
        soft_nms_sigma=0.0 if config.use_hard_nms else config.soft_nms_sigma,
    )
