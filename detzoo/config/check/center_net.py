"""Rules of a ``center_net`` block."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from detzoo.config import pb, support
from detzoo.config.check.effects import check_choice
from detzoo.config.check.parts import check_resizer
from detzoo.config.label_map import KeypointNames, load_keypoints
from detzoo.config.problems import MISSING, Findings, is_placeholder
from detzoo.errors import DetzooError

_HEATMAP_LOSS = "penalty_reduced_logistic_focal_loss"
_LOCALIZATION_LOSSES = ("l1_localization_loss", "weighted_smooth_l1", "weighted_l2")
_MASK_LOSSES = (
    "weighted_sigmoid",
    "weighted_sigmoid_focal",
    "focal_star",
    "alpha_balanced_sigmoid",
    "bootstrapped_sigmoid",
)
_INTERPOLATIONS = ("nearest", "bilinear")
# Of the candidates of a keypoint; ``detzoo.postprocess.keypoints`` computes them.
KEYPOINT_RANKINGS = ("min_distance", "score_distance_ratio", "score_scaled_distance_ratio", "gaussian_weighted")


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
    _check_keypoints(model, findings)
    _check_masks(model, findings)
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


def _check_keypoints(model: pb.CenterNet, findings: Findings) -> None:
    tasks = list(model.keypoint_estimation_task)
    if not tasks:
        return
    path, place = model.keypoint_label_map_path, "keypoint_label_map_path"
    known: dict[str, KeypointNames] | None = None
    if not path:
        findings.missing(place, "give a label map with keypoints")
    elif is_placeholder(path):
        findings.to_set(place, "your label map with the names of the keypoints")
    elif findings.files:
        try:
            known = load_keypoints(path)
        except DetzooError as problem:
            findings.error(place, "keypoint-label-map", str(problem))
    for index, task in enumerate(tasks):
        here = findings.at(f"keypoint_estimation_task[{index}]")
        check_heatmap_loss(task.loss.classification_loss, here.at("loss"))
        check_localization(task.loss.localization_loss, here.at("loss"))
        check_heads(task, here)
        if not re.fullmatch(r"\w+", task.task_name):
            here.error("task_name", "task-name", f"is '{task.task_name}'; accepted: letters, digits and _")
        elif task.task_name in [other.task_name for other in tasks[:index]]:
            here.error("task_name", "task-name", f"is '{task.task_name}', as in an earlier task; accepted: other names")
        if task.candidate_ranking_mode not in KEYPOINT_RANKINGS:
            text = f"is '{task.candidate_ranking_mode}'; accepted: {', '.join(KEYPOINT_RANKINGS)}"
            here.error("candidate_ranking_mode", "keypoint-ranking", text)
        if known is not None:
            for field, code, text in keypoint_problems(task, known, path, model.num_classes):
                here.error(field, code, text)


def _check_masks(model: pb.CenterNet, findings: Findings) -> None:
    masks, deep = findings.at("mask_estimation_task"), findings.at("deepmac_mask_estimation")
    if model.HasField("mask_estimation_task"):
        check_mask_loss(model.mask_estimation_task.classification_loss, (*_MASK_LOSSES, "weighted_softmax"), masks)
        check_heads(model.mask_estimation_task, masks)
        if model.HasField("deepmac_mask_estimation"):
            masks.error("", "two-masks", "comes with deepmac_mask_estimation; accepted: only one of the two tasks")
    if not model.HasField("deepmac_mask_estimation"):
        return
    task = model.deepmac_mask_estimation
    check_mask_loss(task.classification_loss, _MASK_LOSSES, deep)
    divisor = support.MASK_NETWORKS.get(task.network_type)
    if divisor is None:
        text = f"is '{task.network_type}'; accepted: {', '.join(support.MASK_NETWORKS)}"
        deep.error("network_type", "mask-network", text)
    elif task.mask_size % divisor:
        text = f"is {task.mask_size}, but {task.network_type} halves its map {divisor.bit_length() - 1} times"
        deep.error("mask_size", "mask-size", f"{text}; accepted: multiples of {divisor}")
    allowed = task.allowed_masked_classes_ids
    if above := [number for number in allowed if number > model.num_classes]:
        rest = "no mask is learned" if len(above) == len(allowed) else "they have no effect"
        text = f"has {', '.join(map(str, above))}, above num_classes ({model.num_classes}): {rest}"
        deep.warning("allowed_masked_classes_ids", "class-count", text, ["num_classes"])


def check_mask_loss(loss: pb.ClassificationLoss, accepted: Sequence[str], findings: Findings) -> None:
    """Checks the ``classification_loss`` of masks, whose cells are 0 or 1 for each class."""
    kind = check_choice(loss, "classification_loss", "classification_loss", findings, accepted)
    if kind and kind not in accepted:
        text = f"is no loss of a mask; accepted: {', '.join(accepted)}"
        findings.error(f"classification_loss.{kind}", "not-supported", text)
    elif kind == "weighted_softmax":
        text = "has no class for the background, whose cells are not learned; take weighted_sigmoid"
        findings.warning(f"classification_loss.{kind}", "no-background", text)


def keypoint_problems(
    task: pb.CenterNet.KeypointEstimation, known: Mapping[str, KeypointNames], path: str, num_classes: int
) -> Iterator[tuple[str, str, str]]:
    """Yields field, code and text of each name of a task that its label map has not.

    Args:
        task: Task.
        known: Keypoints of each class of the label map.
        path: File of the label map.
        num_classes: Number of classes of the model.
    """
    field, name = "keypoint_class_name", task.keypoint_class_name
    if name not in known:
        yield field, "keypoint-class", f"is '{name}', but {path} has keypoints of {', '.join(map(repr, known))}"
        return
    if known[name].class_id > num_classes:
        text = f"is '{name}' with id {known[name].class_id}, above num_classes ({num_classes})"
        yield field, "keypoint-class", text
    labels = list(known[name].labels.values())
    if other := sorted(set(task.keypoint_label_to_std) - set(labels)):
        text = f"names {', '.join(other)}, but the keypoints of '{name}' in {path} are {', '.join(labels)}"
        yield "keypoint_label_to_std", "keypoint-names", text


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
