"""``SegmentationProposals`` messages -> a detector of masks (floor 5)."""

from __future__ import annotations

import keras

from detzoo.builders.hyperparams import build_hyperparams
from detzoo.builders.region_features import read_region_features
from detzoo.builders.resize import build_resizer
from detzoo.config import pb
from detzoo.config.stages import HEAD_FACTORS, heads_of
from detzoo.detectors.base import Detector
from detzoo.detectors.segmentation_proposals import SegmentationProposals, sliding_network
from detzoo.heads.mask_proposal_head import mask_network, sliding_heads
from detzoo.losses.region_loss import MaskProposalLoss
from detzoo.ops.sliding_windows import SlidingWindows
from detzoo.targets.mask_proposal_targets import MaskProposalTargets


def build_segmentation_proposals(config: pb.SegmentationProposals) -> Detector:
    """Builds the detector of a checked ``pb.SegmentationProposals``."""
    features = read_region_features(config.feature_extractor)
    kernel_sizes = heads_of(config)
    hyperparams = build_hyperparams(config.conv_hyperparams, not config.feature_extractor.batch_norm_trainable)
    image_shape = build_resizer(config.image_resizer).static_shape
    extractor = features.backbone(image_shape)
    network = sliding_network(
        image_shape,
        extractor,
        features.neck(),
        lambda maps: sliding_heads(maps, kernel_sizes, config.head_depth, hyperparams),
    )
    with keras.name_scope("mask_head"):
        masks = mask_network(kernel_sizes, config.head_depth, config.mask_size, hyperparams)
    pyramid = config.feature_extractor.fpn
    windows = SlidingWindows(
        levels=tuple(range(pyramid.min_level, pyramid.max_level + 1)),
        head_factors=tuple(HEAD_FACTORS[size] for size in kernel_sizes),
        min_object_size_px=config.min_object_size,
        window_scale=config.window_scale,
    )
    targets = MaskProposalTargets(windows.object_sides_px, config.examples_per_image, config.positive_fraction)
    loss = MaskProposalLoss(config.mask_loss_weight, config.score_loss_weight)
    return SegmentationProposals(network, masks, extractor.normalize, windows, targets, loss, config.max_proposals)
