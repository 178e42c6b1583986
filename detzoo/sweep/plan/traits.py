"""The values of the named axes that a config has: meta-architecture, extractor, stride, resolution and proposals."""

from __future__ import annotations

import dataclasses
from typing import Any

from detzoo.config import stages
from detzoo.config.support import KERAS_SUFFIX, REGION_EXTRACTORS, SSD_EXTRACTORS

ONE_STAGE = ("ssd", "retinanet", "efficientdet")
TWO_STAGES = ("faster_rcnn", "rfcn", "mask_rcnn", "fast_rcnn", "rpn")
SEGMENTATION = "segmentation_proposals"
SWEPT_MODELS = ("ssd", "faster_rcnn", SEGMENTATION)  # branches of pb.DetectionModel
OWN_STRIDE = 16  # of level 4
META_ARCHITECTURES = (*ONE_STAGE, *TWO_STAGES, SEGMENTATION)


@dataclasses.dataclass(frozen=True)
class Traits:
    """The values of the named axes that a config has; None for axes that do not apply, or if unknown."""

    meta_architecture: str
    extractor: str
    output_stride: int | None
    resolution: int | None
    proposals: int | None


def traits_of(model: Any) -> Traits:
    """Returns the traits of a ``pb.DetectionModel``; "" for unknown names."""
    kind = model.WhichOneof("model")
    if kind == "ssd":
        ssd = model.ssd
        extractor = extractor_of(ssd.feature_extractor.type)
        return Traits(_one_stage(ssd), extractor, ssd_stride_of(ssd.feature_extractor), resolution_of(ssd), None)
    if kind == "faster_rcnn":
        region = model.faster_rcnn
        given = region.proposals_from_reader
        return Traits(
            _two_stages(region),
            extractor_of(region.feature_extractor.type),
            None if _is_pyramid(region) else region.feature_extractor.first_stage_features_stride,
            resolution_of(region),
            None if given else region.first_stage_max_proposals,
        )
    if kind == "center_net":
        center = model.center_net
        return Traits(kind, center.feature_extractor.type, None, resolution_of(center), None)
    if kind == SEGMENTATION:
        masks = model.segmentation_proposals
        return Traits(kind, extractor_of(masks.feature_extractor.type), None, resolution_of(masks), None)
    return Traits(kind or "", "", None, None, None)


def ssd_stride_of(extractor: Any) -> int | None:
    """Returns the stride of an SSD's map of level 4, on which a two-stage detector proposes; None for pyramids."""
    entry = SSD_EXTRACTORS.get(extractor.type)
    if entry is None or entry.is_pyramid:
        return None
    return min(extractor.output_stride or OWN_STRIDE, OWN_STRIDE)


def extractor_of(type_name: str) -> str:
    """Returns the backbone of an extractor's ``type``, e.g. resnet101 of ``ssd_resnet101_v1_fpn_keras``."""
    entry = SSD_EXTRACTORS.get(type_name) or REGION_EXTRACTORS.get(type_name)
    if entry is None:
        return type_name.removesuffix(KERAS_SUFFIX)
    joint = "_" if entry.variant[:1].isalpha() else ""
    return f"{entry.family}{joint}{entry.variant}"


def resolution_of(model: Any) -> int | None:
    """Returns the shorter side of the input in pixels, None if it is that of the images."""
    resizer = model.image_resizer
    kind = resizer.WhichOneof("image_resizer_oneof")
    if kind == "fixed_shape_resizer":
        return min(resizer.fixed_shape_resizer.height, resizer.fixed_shape_resizer.width)
    return resizer.keep_aspect_ratio_resizer.min_dimension if kind == "keep_aspect_ratio_resizer" else None


def _one_stage(ssd: Any) -> str:
    entry = SSD_EXTRACTORS.get(ssd.feature_extractor.type)
    if entry is None:
        return "ssd"
    return "efficientdet" if entry.is_bifpn else "retinanet" if entry.is_fpn else "ssd"


def _two_stages(region: Any) -> str:
    if not stages.has_second_stage(region):
        return "rpn"
    if stages.is_position_sensitive(region):
        return "rfcn"
    if region.proposals_from_reader:
        return "fast_rcnn"
    return "mask_rcnn" if stages.predicts_masks(region) else "faster_rcnn"


def _is_pyramid(region: Any) -> bool:
    entry = REGION_EXTRACTORS.get(region.feature_extractor.type)
    return entry is not None and entry.is_fpn
