"""Facts of a ``model`` block that its checks, its readers' checks, its builder and commands share."""

from __future__ import annotations

import math

from detzoo.config import pb
from detzoo.config.support import RegionExtractor

NUMBER_WITH_MASKS = 3  # of number_of_stages
# Side of a head's convolution -> size of its objects relative to its level's. 7 is about 5 times sqrt(2), half an
# octave (arXiv:1612.03144, appendix A).
HEAD_FACTORS = {5: 1.0, 7: math.sqrt(2.0)}
_FULLY_CONNECTED_FAMILIES = ("vgg16",)  # The family's own layers after the crop are fully connected.


def knows_classes(model: pb.DetectionModel) -> bool:
    """Returns True if a model distinguishes classes, False for class-agnostic proposals."""
    if model.HasField("faster_rcnn"):
        return has_second_stage(model.faster_rcnn)
    return not model.HasField("segmentation_proposals")


def reads_proposals(model: pb.DetectionModel) -> bool:
    """Returns True if a model classifies regions from a file: SPP-net, and Fast R-CNN."""
    return model.HasField("spp_net") or (model.HasField("faster_rcnn") and model.faster_rcnn.proposals_from_reader)


def trains_by_steps(model: pb.DetectionModel) -> bool:
    """Returns True if an optimizer trains a model; an SPP-net's SVMs and regression need none."""
    return not model.HasField("spp_net") or model.spp_net.HasField("fine_tuning")


def keypoint_edges(evaluation: pb.EvalConfig) -> tuple[tuple[int, int], ...]:
    """Returns the pairs of keypoints that pictures connect by lines."""
    return tuple((edge.start, edge.end) for edge in evaluation.keypoint_edge)


def has_second_stage(model: pb.FasterRcnn) -> bool:
    """Returns True if a two-stage detector classifies its proposals, False for a first stage alone."""
    return model.number_of_stages >= 2


def is_position_sensitive(model: pb.FasterRcnn) -> bool:
    """Returns True if the second stage is R-FCN's."""
    return model.second_stage_box_predictor.HasField("rfcn_box_predictor")


def predicts_masks(model: pb.FasterRcnn) -> bool:
    """Returns True if a two-stage detector has masks: as in the Object Detection API, in its third stage."""
    asks = model.second_stage_box_predictor.mask_rcnn_box_predictor.predict_instance_masks
    return model.number_of_stages == NUMBER_WITH_MASKS and asks


def memory_of(model: pb.DetectionModel) -> pb.Context | None:
    """Returns the ``context_config`` of a Context R-CNN that reads a memory, None for other models."""
    detector = model.faster_rcnn
    if detector.HasField("context_config") and detector.context_config.use_long_term_attention:
        return detector.context_config
    return None


def has_mask_head(model: pb.DetectionModel) -> bool:
    """Returns True for a Mask R-CNN, and for a CenterNet of either task of masks, whose boxes have masks."""
    if model.HasField("center_net"):
        return any(map(model.center_net.HasField, ("mask_estimation_task", "deepmac_mask_estimation")))
    return model.HasField("faster_rcnn") and predicts_masks(model.faster_rcnn)


def keeps_backbone(model: pb.FasterRcnn, extractor: RegionExtractor) -> bool:
    """Returns True if the rest of the backbone follows the crop (in R-FCN: precedes it), False for dense layers.

    ``EXTRACTOR`` means dense layers if nothing of the backbone is left: after a pyramid, and after its last map.
    """
    if model.box_features != pb.FasterRcnn.EXTRACTOR:
        return model.box_features == pb.FasterRcnn.BACKBONE
    return not is_backbone_used_up(model, extractor) and extractor.family not in _FULLY_CONNECTED_FAMILIES


def is_backbone_used_up(model: pb.FasterRcnn, extractor: RegionExtractor) -> bool:
    """Returns True if regions are cropped from the output of the whole backbone, so that nothing of it can follow."""
    return extractor.is_fpn or model.feature_extractor.use_last_map


def heads_of(model: pb.SegmentationProposals) -> tuple[int, ...]:
    """Returns the sides of the convolutions of the heads, ascending; both sides by default."""
    return tuple(sorted(set(model.head_kernel_size))) or tuple(HEAD_FACTORS)
