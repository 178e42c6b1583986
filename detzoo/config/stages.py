"""What a ``model`` block asks for, said once for its checks, its readers' checks and its builder."""

from __future__ import annotations

from typing import Any

from detzoo.config import pb
from detzoo.config.support import RegionExtractor

NUMBER_WITH_MASKS = 3  # of number_of_stages
_FULLY_CONNECTED_FAMILIES = ("vgg16",)  # Its own layers after the crop are fully connected ones.


def knows_classes(model: Any) -> bool:
    """Whether a ``pb.DetectionModel`` tells classes apart; what makes class-agnostic proposals does not."""
    if model.HasField("faster_rcnn"):
        return has_second_stage(model.faster_rcnn)
    return not model.HasField("segmentation_proposals")


def reads_proposals(model: Any) -> bool:
    """Whether a ``pb.DetectionModel`` classifies regions that come from outside: SPP-net, and Fast R-CNN."""
    return model.HasField("spp_net") or (model.HasField("faster_rcnn") and model.faster_rcnn.proposals_from_reader)


def trains_by_steps(model: Any) -> bool:
    """Whether an optimizer trains a ``pb.DetectionModel``; an SPP-net's SVMs and regression need none."""
    return not model.HasField("spp_net") or model.spp_net.HasField("fine_tuning")


def has_second_stage(model: Any) -> bool:
    """Whether a ``pb.FasterRcnn`` classifies its proposals; else it is a first stage alone."""
    return model.number_of_stages >= 2


def is_position_sensitive(model: Any) -> bool:
    """Whether the second stage of a ``pb.FasterRcnn`` is R-FCN's."""
    return model.second_stage_box_predictor.HasField("rfcn_box_predictor")


def predicts_masks(model: Any) -> bool:
    """Whether a ``pb.FasterRcnn`` trains and predicts masks: as in the Object Detection API, in its third stage."""
    asks = model.second_stage_box_predictor.mask_rcnn_box_predictor.predict_instance_masks
    return model.number_of_stages == NUMBER_WITH_MASKS and asks


def keeps_backbone(model: Any, extractor: RegionExtractor) -> bool:
    """Whether the rest of the backbone follows the crop (in R-FCN: goes before it), not fully connected layers.

    ``EXTRACTOR`` means the latter where nothing of the backbone is left: after a pyramid, and after its last map.
    """
    if model.box_features != pb.FasterRcnn.EXTRACTOR:
        return model.box_features == pb.FasterRcnn.BACKBONE
    return not is_backbone_used_up(model, extractor) and extractor.family not in _FULLY_CONNECTED_FAMILIES


def is_backbone_used_up(model: Any, extractor: RegionExtractor) -> bool:
    """Whether regions are cropped from what the whole backbone made, so that nothing of it can follow."""
    return extractor.is_fpn or model.feature_extractor.use_last_map
