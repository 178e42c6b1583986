"""Checks of what a two-stage detector does with a region: the crop, the layers after it, and the predictor."""

from __future__ import annotations

from typing import Any

from detzoo.config import pb, stages
from detzoo.config.problems import Findings
from detzoo.config.support import RegionExtractor

_PREDICTORS = ("mask_rcnn_box_predictor", "rfcn_box_predictor")
_OWN_MASK_CROP = 14  # Mask R-CNN, arXiv:1703.06870, section 4: cells of its head's own crop from a pyramid


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
    if kind != "rfcn_box_predictor":
        _check_crop(model, path, findings)
    if extractor is not None and kind in _PREDICTORS:
        _check_box_features(model, path, extractor, findings)
        _check_mask_size(model, f"{here}.{kind}", extractor, findings)


def _check_position_sensitive(predictor: Any, path: str, findings: Findings) -> None:
    for side in ("height", "width"):
        bins, crop = getattr(predictor, f"num_spatial_bins_{side}"), getattr(predictor, f"crop_{side}")
        if crop % bins:
            nearest = max(bins, (crop + bins // 2) // bins * bins)
            text = (
                f"is {crop}, which num_spatial_bins_{side} ({bins}) does not divide; accepted: multiples of {bins}, "
                f"the nearest is {nearest}"
            )
            findings.error(f"{path}.crop_{side}", text)


def _check_crop(model: Any, path: str, findings: Findings) -> None:
    """The crop's size, and the max pooling after it; one that is not set pools nothing."""
    size = model.initial_crop_size
    if size < 1:
        received = f"is {size}" if model.HasField("initial_crop_size") else "is missing"
        text = f"{received}; accepted: cells, 1 or more, such as 14 before max pooling or 7 without"
        findings.error(f"{path}.initial_crop_size", text)
    wrong = False
    for name in ("maxpool_kernel_size", "maxpool_stride"):
        value = getattr(model, name)
        if model.HasField(name) and (value < 1 or value > size >= 1):
            findings.error(f"{path}.{name}", f"is {value}; accepted: 1 (no pooling) to initial_crop_size ({size})")
            wrong = True
    kernel, stride = _pool_size(model), max(model.maxpool_stride, 1)
    if kernel != stride and not wrong:
        received = f"is {stride}" if model.HasField("maxpool_stride") else "is missing, which means 1"
        findings.error(f"{path}.maxpool_stride", f"{received}; accepted: maxpool_kernel_size ({kernel})")


def _check_box_features(model: Any, path: str, extractor: RegionExtractor, findings: Findings) -> None:
    """Whether what follows the crop is there, and what has no effect on it."""
    keeps_backbone = stages.keeps_backbone(model, extractor)
    if model.fc_depth and (keeps_backbone or stages.is_position_sensitive(model)):
        findings.warning(f"{path}.fc_depth", "has no effect: no fully connected layers follow the crop (box_features)")
    if keeps_backbone and stages.is_backbone_used_up(model, extractor):
        source = "a pyramid" if extractor.is_fpn else "use_last_map"
        text = f"is BACKBONE, but after {source} nothing of the backbone is left; accepted: EXTRACTOR, FULLY_CONNECTED"
        findings.error(f"{path}.box_features", text)
    if model.feature_extractor.crop_stride != pb.FasterRcnnFeatureExtractor.TYPE and not keeps_backbone:
        text = "has no effect: nothing of the backbone follows the crop (box_features)"
        findings.warning(f"{path}.feature_extractor.crop_stride", text)


def _check_mask_size(model: Any, path: str, extractor: RegionExtractor, findings: Findings) -> None:
    """A mask that is enlarged last has a whole number of cells for each cell of the features."""
    predictor, side = model.second_stage_box_predictor.mask_rcnn_box_predictor, _mask_feature_size(model, extractor)
    if not predictor.predict_instance_masks or not predictor.convolve_then_upsample_masks or side < 1:
        return
    for name in ("mask_height", "mask_width"):
        cells = getattr(predictor, name)
        if cells >= 1 and cells % side:
            nearest = max(side, (cells + side // 2) // side * side)
            text = (
                f"is {cells}, but convolve_then_upsample_masks enlarges {side}x{side} cells; accepted: multiples of "
                f"{side}, the nearest is {nearest}"
            )
            findings.error(f"{path}.{name}", text)


def _mask_feature_size(model: Any, extractor: RegionExtractor) -> int:
    """Side of the features that the mask head reads, in cells."""
    if not stages.keeps_backbone(model, extractor):
        return _OWN_MASK_CROP
    pooled, stride = model.initial_crop_size // _pool_size(model), model.feature_extractor.crop_stride
    kind = pb.FasterRcnnFeatureExtractor
    is_strided = stride == kind.STRIDED or (stride == kind.TYPE and not extractor.is_dense_after_crop)
    return -(-pooled // 2) if is_strided else pooled


def _pool_size(model: Any) -> int:
    return max(model.maxpool_kernel_size, 1)
