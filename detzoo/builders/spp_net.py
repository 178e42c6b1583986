"""``SppNet`` messages -> SPP-net's detector (floor 5)."""

from __future__ import annotations

from detzoo.builders.postprocess import build_nms_limits
from detzoo.config import pb
from detzoo.detectors.base import Detector
from detzoo.detectors.spp_net import Features, SppNet, SppParts, WindowScales
from detzoo.features.normalization import standardize_imagenet

DEFAULT_SCALES = (688,)  # arXiv:1406.4729, section 4.1: the 1-scale version

_FEATURES = {pb.SppNet.FC7: Features.FC7, pb.SppNet.FC6: Features.FC6, pb.SppNet.POOL5: Features.POOL5}


def build_spp_net(config: pb.SppNet) -> Detector:
    """Builds the detector of a checked ``pb.SppNet``."""
    network = config.network
    parts = SppParts(
        network=network.type,
        pyramid_bins=tuple(network.pyramid_bins),
        fc_depth=network.fc_depth,
        dropout=network.dropout,
        depth_multiplier=network.depth_multiplier,
        weight_decay=network.weight_decay,
        features=_FEATURES[config.features],
        has_fine_tuning=config.HasField("fine_tuning"),
        has_svm=config.HasField("svm"),
        has_box_regression=config.HasField("box_regression"),
    )
    return SppNet(
        parts,
        WindowScales(tuple(config.scale) or DEFAULT_SCALES, config.window_size),
        build_nms_limits(config.post_processing.batch_non_max_suppression),
        standardize_imagenet,
        config.max_proposals,
        config.num_classes,
    )
