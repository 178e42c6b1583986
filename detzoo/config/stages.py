"""What a ``faster_rcnn`` block asks for, said once for its checks, its readers' checks and its builder."""

from __future__ import annotations

from typing import Any

from detzoo.config import pb
from detzoo.config.support import RegionExtractor

NUMBER_WITH_MASKS = 3  # of number_of_stages
_FULLY_CONNECTED_FAMILIES = ("vgg16",)  # Its own layers after the crop are fully connected ones.


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


def is_fully_connected(model: Any, extractor: RegionExtractor) -> bool:
    """Whether what follows the crop are two fully connected layers instead of the rest of the backbone.

    ``EXTRACTOR`` means them where nothing of the backbone is left: after a pyramid, and after its last map.
    """
    if is_position_sensitive(model) or model.box_features == pb.FasterRcnn.BACKBONE:
        return False
    if model.box_features == pb.FasterRcnn.FULLY_CONNECTED:
        return True
    is_last = extractor.family in _FULLY_CONNECTED_FAMILIES or model.feature_extractor.use_last_map
    return extractor.is_fpn or is_last
