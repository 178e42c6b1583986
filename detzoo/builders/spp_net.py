"""From a ``SppNet`` message to SPP-net's detector (floor 4)."""

from __future__ import annotations

from detzoo.builders.postprocess import build_nms_limits
from detzoo.config import pb
from detzoo.config.spp_table import SPP_NETWORKS
from detzoo.detectors.base import Detector
from detzoo.detectors.spp_net import Features, SppNet, SppParts, WindowScales
from detzoo.errors import ConfigError
from detzoo.features.normalization import standardize_imagenet

DEFAULT_SCALES = (688,)  # arXiv:1406.4729, section 4.1: the 1-scale version

_FEATURES = {pb.SppNet.FC7: Features.FC7, pb.SppNet.FC6: Features.FC6, pb.SppNet.POOL5: Features.POOL5}


def build_spp_net(config: pb.SppNet) -> Detector:
    """The detector of a ``pb.SppNet``.

    Raises:
        ConfigError: A value is missing or out of range; the message names its field.
    """
    network = config.network
    if config.num_classes < 1:
        raise ConfigError(f"num_classes is {config.num_classes}; it must be 1 or more (the background is not counted)")
    if network.type not in SPP_NETWORKS:
        raise ConfigError(f"network.type is {network.type!r}; accepted: {', '.join(SPP_NETWORKS)}")
    if not network.pyramid_bins or min(network.pyramid_bins) < 1:
        raise ConfigError(
            f"network.pyramid_bins is {list(network.pyramid_bins)}; windows are pooled in a pyramid, e.g. 6, 3, 2, 1"
        )
    if not (config.HasField("svm") or config.HasField("fine_tuning")):
        raise ConfigError("neither svm nor fine_tuning is set, so that nothing scores the windows; set at least one")
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
        WindowScales(window_scales(config), config.window_size),
        build_nms_limits(config.post_processing.batch_non_max_suppression),
        standardize_imagenet,
        config.max_proposals,
        config.num_classes,
    )


def window_scales(config: pb.SppNet) -> tuple[int, ...]:
    """The shorter sides of a ``pb.SppNet``, pixels."""
    return tuple(config.scale) or DEFAULT_SCALES
