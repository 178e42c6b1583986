"""Checks of what a two-stage detector does with a region: the crop, the layers after it, and the predictor."""

from __future__ import annotations

from typing import Any

from detzoo.config import pb, stages
from detzoo.config.check_parts import check_box_code
from detzoo.config.problems import Findings
from detzoo.config.support import RegionExtractor

_PREDICTORS = ("mask_rcnn_box_predictor", "rfcn_box_predictor")
_MOST_SAID = "mask_prediction_num_conv_layers", "mask_height", "mask_width"


def check_region_head(model: Any, path: str, extractor: RegionExtractor | None, findings: Findings) -> None:
    """Adds what is wrong with the second stage of a ``pb.FasterRcnn`` at ``path``; ``extractor`` None: unknown."""
    predictor, here = model.second_stage_box_predictor, f"{path}.second_stage_box_predictor"
    kind = predictor.WhichOneof("box_predictor_oneof")
    if kind is None:
        findings.error(here, f"is missing or empty; choose one of {', '.join(_PREDICTORS)}")
    elif kind not in _PREDICTORS:
        text = f"is the head of a one-stage detector; accepted in faster_rcnn: {', '.join(_PREDICTORS)}"
        findings.error(f"{here}.{kind}", text)
    elif kind == "rfcn_box_predictor":
        _check_position_sensitive(predictor.rfcn_box_predictor, f"{here}.{kind}", findings)
        if extractor is not None and extractor.is_fpn:
            text = (
                f"crops from one map, but {model.feature_extractor.type} has a pyramid; accepted with it: "
                "mask_rcnn_box_predictor"
            )
            findings.error(f"{here}.{kind}", text)
    else:
        _check_box_head(predictor.mask_rcnn_box_predictor, f"{here}.{kind}", findings)
    if kind != "rfcn_box_predictor":
        _check_crop(model, path, findings)
    if extractor is not None and kind in _PREDICTORS:
        _check_box_features(model, path, extractor, findings)


def _check_position_sensitive(predictor: Any, path: str, findings: Findings) -> None:
    check_box_code(predictor, path, findings)
    if predictor.depth < 1:
        findings.error(f"{path}.depth", f"is {predictor.depth}; accepted: 1 or more channels")
    for side in ("height", "width"):
        bins, crop = getattr(predictor, f"num_spatial_bins_{side}"), getattr(predictor, f"crop_{side}")
        if bins < 1:
            findings.error(f"{path}.num_spatial_bins_{side}", f"is {bins}; accepted: 1 or more")
        elif crop < 1 or crop % bins:
            nearest = max(bins, (crop + bins // 2) // bins * bins)
            text = (
                f"is {crop}, which num_spatial_bins_{side} ({bins}) does not divide; accepted: multiples of {bins}, "
                f"the nearest is {nearest}"
            )
            findings.error(f"{path}.crop_{side}", text)


def _check_box_head(predictor: Any, path: str, findings: Findings) -> None:
    check_box_code(predictor, path, findings)
    if not predictor.predict_instance_masks:
        return
    for name in _MOST_SAID:
        if getattr(predictor, name) < 1:
            findings.error(f"{path}.{name}", f"is {getattr(predictor, name)}; accepted: 1 or more")
    if predictor.mask_prediction_conv_depth < 0:
        text = (
            f"is {predictor.mask_prediction_conv_depth}; accepted: channels, or 0 (derived from those of the features)"
        )
        findings.error(f"{path}.mask_prediction_conv_depth", text)


def _check_crop(model: Any, path: str, findings: Findings) -> None:
    """The crop's size, and the max pooling after it."""
    size = model.initial_crop_size
    if size < 1:
        received = f"is {size}" if model.HasField("initial_crop_size") else "is missing"
        text = f"{received}; accepted: cells, 1 or more, such as 14 before max pooling or 7 without"
        findings.error(f"{path}.initial_crop_size", text)
    is_pooled = model.roi_operation == pb.FasterRcnn.CROP_AND_RESIZE
    for name in ("maxpool_kernel_size", "maxpool_stride"):
        value, is_set = getattr(model, name), model.HasField(name)
        if value < 1 and (is_set or is_pooled):
            received = f"is {value}" if is_set else "is missing"
            findings.error(f"{path}.{name}", f"{received}; accepted: 1 (no pooling) to initial_crop_size ({size})")
        elif value > size >= 1:
            findings.error(f"{path}.{name}", f"is {value}; accepted: 1 (no pooling) to initial_crop_size ({size})")
    if model.roi_align_sampling_ratio < 1:
        text = f"is {model.roi_align_sampling_ratio}; accepted: 1 or more samples in each direction of a bin"
        findings.error(f"{path}.roi_align_sampling_ratio", text)


def _check_box_features(model: Any, path: str, extractor: RegionExtractor, findings: Findings) -> None:
    """Whether what follows the crop is there, and what has no effect on it."""
    extractor_message, crop_stride = model.feature_extractor, f"{path}.feature_extractor.crop_stride"
    is_connected = stages.is_fully_connected(model, extractor)
    if model.fc_depth < 0:
        findings.error(f"{path}.fc_depth", f"is {model.fc_depth}; accepted: channels, or 0 (4096 for VGG, else 1024)")
    elif model.fc_depth and not is_connected:
        findings.warning(f"{path}.fc_depth", "has no effect: no fully connected layers follow the crop (box_features)")
    if model.box_features == pb.FasterRcnn.BACKBONE and not stages.is_position_sensitive(model):
        gone = "after a pyramid" if extractor.is_fpn else "after use_last_map"
        if extractor.is_fpn or extractor_message.use_last_map:
            text = f"is BACKBONE, but {gone} nothing of the backbone is left; accepted: EXTRACTOR, FULLY_CONNECTED"
            findings.error(f"{path}.box_features", text)
    if extractor_message.crop_stride == pb.FasterRcnnFeatureExtractor.TYPE:
        return
    if extractor.is_fpn or is_connected:
        text = "has no effect: fully connected layers follow the crop, nothing of the backbone"
        findings.warning(crop_stride, text)
