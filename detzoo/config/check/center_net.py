"""Rules of a ``center_net`` block."""

from __future__ import annotations

from typing import Any

from detzoo.config import pb, support
from detzoo.config.check.effects import check_choice
from detzoo.config.check.parts import check_resizer
from detzoo.config.problems import MISSING, Findings

_HEATMAP_LOSS = "penalty_reduced_logistic_focal_loss"
_LOCALIZATION_LOSSES = ("l1_localization_loss", "weighted_smooth_l1", "weighted_l2")
_INTERPOLATIONS = ("nearest", "bilinear")


def check_center_net(model: pb.CenterNet, findings: Findings) -> None:
    """Checks a ``center_net`` block."""
    check_resizer(model.image_resizer, findings.at("image_resizer"))
    _check_extractor(model.feature_extractor, findings.at("feature_extractor"))
    centers, boxes = findings.at("object_center_params"), findings.at("object_detection_task")
    if not model.HasField("object_detection_task"):
        text = "is missing: boxes from keypoints alone are not supported; add localization_loss"
        boxes.error("", MISSING, f"{text} {{ l1_localization_loss {{}} }}")
    else:
        check_localization(model.object_detection_task.localization_loss, boxes)
    for name in ("keypoint_estimation_task", "mask_estimation_task", "deepmac_mask_estimation"):
        if name in [field.name for field, _ in model.ListFields()]:
            findings.error(name, "not-supported", "is not supported yet")
    check_heatmap_loss(model.object_center_params.classification_loss, centers)
    check_heads(model.object_center_params, centers)
    check_heads(model.object_detection_task, boxes)


def check_heatmap_loss(loss: pb.ClassificationLoss, findings: Findings) -> None:
    """Checks the ``classification_loss`` of a heatmap."""
    kind = check_choice(loss, "classification_loss", "classification_loss", findings, [_HEATMAP_LOSS])
    here = findings.at(f"classification_loss.{kind}")
    if kind and kind != _HEATMAP_LOSS:
        here.error("", "not-supported", f"is no loss of a heatmap; accepted: {_HEATMAP_LOSS}")
        return
    focal = loss.penalty_reduced_logistic_focal_loss
    if kind and not (focal.alpha and focal.beta):
        text = "has no alpha or no beta, which means 0: easy cells outweigh the centres"
        here.warning("", "no-focus", f"{text}; the paper uses alpha: 2 beta: 4")


def check_localization(loss: pb.LocalizationLoss, findings: Findings) -> None:
    """Checks the ``localization_loss`` of sizes, offsets or keypoints."""
    kind = check_choice(loss, "localization_loss", "localization_loss", findings, _LOCALIZATION_LOSSES)
    if kind and kind not in _LOCALIZATION_LOSSES:
        text = f"compares boxes, not sizes and offsets; accepted: {', '.join(_LOCALIZATION_LOSSES)}"
        findings.error(f"localization_loss.{kind}", "not-supported", text)


def check_heads(task: Any, findings: Findings) -> None:
    """Checks the layers of each head of a task: as many kernels as channels."""
    for field, value in task.ListFields():
        if field.name.endswith("_head_params") and len(value.num_filters) != len(value.kernel_sizes):
            filters, kernels = len(value.num_filters), len(value.kernel_sizes)
            text = f"has {kernels} values, num_filters {filters}; accepted: one value for each hidden layer"
            findings.error(f"{field.name}.kernel_sizes", "list-length", text)


def _check_extractor(message: pb.CenterNetFeatureExtractor, findings: Findings) -> None:
    row = support.CENTER_EXTRACTORS.get(message.type)
    if row is None:
        findings.error("type", "unknown-extractor", support.center_refusal(message.type))
        return
    if message.depth_multiplier != 1 and not row.has_depth_multiplier:
        text = f"is {message.depth_multiplier:g}, but {message.type} has one width only; accepted: 1"
        findings.error("depth_multiplier", "one-width", text)
    is_mobile_pyramid = row.is_fpn and row.family == "mobilenet_v2"
    for name in ("use_separable_conv", "upsampling_interpolation"):
        if message.HasField(name) and not is_mobile_pyramid:
            findings.no_effect(name, f"{message.type} does not read it; only mobilenet_v2_fpn does")
    if message.type.endswith("_sep_conv") and not message.use_separable_conv:
        text = (
            "builds ordinary convolutions, as in the Object Detection API; "
            "set use_separable_conv: true for separable ones"
        )
        findings.warning("type", "not-separable", text, ["use_separable_conv"])
    if message.upsampling_interpolation not in _INTERPOLATIONS:
        text = f"is '{message.upsampling_interpolation}'; accepted: {', '.join(_INTERPOLATIONS)}"
        findings.error("upsampling_interpolation", "unknown-interpolation", text)
    problem = support.weights_problem(message.pretrained_weights, row)
    if problem and (findings.files or message.pretrained_weights == support.IMAGENET_WEIGHTS):
        findings.error("pretrained_weights", "pretrained-weights", problem)
