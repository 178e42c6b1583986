"""Rules of a detector's second stage: the crop of a region, the layers after it, and the predictor."""

from __future__ import annotations

from detzoo.config import pb, stages
from detzoo.config.check.effects import check_choice
from detzoo.config.problems import Findings
from detzoo.config.support import RegionExtractor

_PREDICTORS = ("mask_rcnn_box_predictor", "rfcn_box_predictor")
_OWN_MASK_CROP = 14  # Mask R-CNN, arXiv:1703.06870, section 4: cells of its head's own crop from a pyramid


def check_second_stage(model: pb.FasterRcnn, extractor: RegionExtractor | None, findings: Findings) -> None:
    """Checks crop and head of a ``faster_rcnn`` block. ``extractor`` is None if the type is unknown."""
    predictor = model.second_stage_box_predictor
    kind = check_choice(predictor, "box_predictor_oneof", "second_stage_box_predictor", findings, _PREDICTORS)
    head = findings.at(f"second_stage_box_predictor.{kind}")
    if kind and kind not in _PREDICTORS:
        text = f"is the head of a one-stage detector; accepted in faster_rcnn: {', '.join(_PREDICTORS)}"
        head.error("", "head-of-other-model", text)
    if kind == "rfcn_box_predictor":
        for side in ("height", "width"):
            bins = getattr(predictor.rfcn_box_predictor, f"num_spatial_bins_{side}")
            cells = getattr(predictor.rfcn_box_predictor, f"crop_{side}")
            if cells % bins:
                text = f"is {cells}, which num_spatial_bins_{side} ({bins}) does not divide; {_multiples(cells, bins)}"
                head.error(f"crop_{side}", "crop-bins", text, [f"num_spatial_bins_{side}"])
        if extractor is not None and extractor.is_fpn:
            text = f"crops from one map, but {model.feature_extractor.type} has a pyramid"
            head.error("", "rfcn-on-pyramid", f"{text}; accepted with it: mask_rcnn_box_predictor")
    else:
        _check_crop(model, findings)
    if extractor is not None and kind in _PREDICTORS:
        _check_box_features(model, extractor, findings)
        _check_mask_size(model, extractor, head)


def _multiples(cells: int, factor: int) -> str:
    nearest = max(factor, (cells + factor // 2) // factor * factor)
    return f"accepted: multiples of {factor}, the nearest is {nearest}"


def _check_crop(model: pb.FasterRcnn, findings: Findings) -> None:
    """Checks the size of the crop, and the max pooling after it. Without its fields nothing is pooled."""
    size = model.initial_crop_size
    if size < 1:
        received = f"is {size}" if model.HasField("initial_crop_size") else "is missing"
        text = f"{received}; accepted: cells, 1 or more, such as 14 before max pooling or 7 without"
        findings.error("initial_crop_size", "crop-size", text)
    has_error = False
    for name in ("maxpool_kernel_size", "maxpool_stride"):
        value = getattr(model, name)
        if model.HasField(name) and (value < 1 or value > size >= 1):
            text = f"is {value}; accepted: 1 (no pooling) to initial_crop_size ({size})"
            findings.error(name, "pooling-size", text, ["initial_crop_size"])
            has_error = True
    kernel, stride = _pool_size(model), max(model.maxpool_stride, 1)
    if kernel != stride and not has_error:
        received = f"is {stride}" if model.HasField("maxpool_stride") else "is missing, which means 1"
        text = f"{received}; accepted: maxpool_kernel_size ({kernel})"
        findings.error("maxpool_stride", "pooling-stride", text, ["maxpool_kernel_size"])


def _check_box_features(model: pb.FasterRcnn, extractor: RegionExtractor, findings: Findings) -> None:
    """Checks that the layers after the crop exist, and the fields that have no effect on them."""
    keeps_backbone = stages.keeps_backbone(model, extractor)
    if model.fc_depth and (keeps_backbone or stages.is_position_sensitive(model)):
        text = "has no effect: no fully connected layers follow the crop (box_features)"
        findings.warning("fc_depth", "unused-fc-depth", text)
    if keeps_backbone and stages.is_backbone_used_up(model, extractor):
        source = "a pyramid" if extractor.is_fpn else "use_last_map"
        text = f"is BACKBONE, but after {source} nothing of the backbone is left; accepted: EXTRACTOR, FULLY_CONNECTED"
        findings.error("box_features", "no-backbone-left", text)
    if model.feature_extractor.crop_stride != pb.FasterRcnnFeatureExtractor.TYPE and not keeps_backbone:
        text = "has no effect: nothing of the backbone follows the crop (box_features)"
        findings.warning("feature_extractor.crop_stride", "unused-crop-stride", text)


def _check_mask_size(model: pb.FasterRcnn, extractor: RegionExtractor, findings: Findings) -> None:
    """Checks that a mask that is enlarged last has a whole number of cells per cell of the features."""
    predictor, side = model.second_stage_box_predictor.mask_rcnn_box_predictor, _mask_feature_size(model, extractor)
    if not predictor.predict_instance_masks or not predictor.convolve_then_upsample_masks or side < 1:
        return
    for name in ("mask_height", "mask_width"):
        cells = getattr(predictor, name)
        if cells >= 1 and cells % side:
            text = f"is {cells}, but convolve_then_upsample_masks enlarges {side}x{side} cells"
            findings.error(name, "mask-size", f"{text}; {_multiples(cells, side)}")


def _mask_feature_size(model: pb.FasterRcnn, extractor: RegionExtractor) -> int:
    """Returns the side of the features that the mask head reads, in cells."""
    if not stages.keeps_backbone(model, extractor):
        return _OWN_MASK_CROP
    pooled, stride = model.initial_crop_size // _pool_size(model), model.feature_extractor.crop_stride
    kind = pb.FasterRcnnFeatureExtractor
    is_strided = stride == kind.STRIDED or (stride == kind.TYPE and not extractor.is_dense_after_crop)
    return -(-pooled // 2) if is_strided else pooled


def _pool_size(model: pb.FasterRcnn) -> int:
    return max(model.maxpool_kernel_size, 1)
