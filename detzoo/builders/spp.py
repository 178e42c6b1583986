"""``SppClassifier`` and ``SppNet`` messages -> SPP-net's classifier with its resizer, and its detector (floor 5)."""

from __future__ import annotations

from detzoo.builders.postprocess import build_nms_limits
from detzoo.config import pb
from detzoo.config.check.pipeline import require
from detzoo.config.check.spp import check_spp_classifier
from detzoo.config.spp_table import BASELINE_BINS
from detzoo.data.class_images import ClassifierResizer
from detzoo.detectors.base import Detector, ImageShape
from detzoo.detectors.spp_classifier import SppClassifier, TestView, Views, spp_classifier_network
from detzoo.detectors.spp_net import Features, SppNet, SppParts, WindowScales
from detzoo.features.normalization import standardize_imagenet

DEFAULT_SCALES = (688,)  # arXiv:1406.4729, section 4.1: the 1-scale version

_FEATURES = {pb.SppNet.FC7: Features.FC7, pb.SppNet.FC6: Features.FC6, pb.SppNet.POOL5: Features.POOL5}
_VIEWS = {
    pb.SppClassifier.TEN_CROPS: TestView.TEN_CROPS,
    pb.SppClassifier.ONE_CROP: TestView.ONE_CROP,
    pb.SppClassifier.FULL_IMAGE: TestView.FULL_IMAGE,
    pb.SppClassifier.MAP_VIEWS: TestView.MAP_VIEWS,
}


def build_spp_classifier(config: pb.SppClassifier) -> SppClassifier:
    """Builds the classifier of a checked ``pb.SppClassifier``."""
    network, crop = config.network, config.crop_size
    bins = tuple(network.pyramid_bins) or BASELINE_BINS
    image_shape: ImageShape = (None, None) if network.pyramid_bins else (crop, crop)
    parts = spp_classifier_network(
        image_shape,
        network.type,
        bins,
        config.num_classes,
        fc_depth=network.fc_depth,
        dropout_rate=network.dropout,
        depth_multiplier=network.depth_multiplier,
        weight_decay=network.weight_decay,
    )
    views = Views(_VIEWS[config.test_view], crop, tuple(config.map_scale))
    return SppClassifier(parts, standardize_imagenet, network.type, bins, views, config.num_classes)


def build_classifier_resizer(config: pb.SppClassifier) -> ClassifierResizer:
    """Builds the resizer of a ``pb.SppClassifier``'s images: to the largest shorter side that a view needs.

    Raises:
        ConfigError: A value breaks a rule of ``detzoo config check``; the message names its field.
    """
    require(config, "model.spp_classifier", check_spp_classifier)
    is_by_map = config.test_view == pb.SppClassifier.MAP_VIEWS
    return ClassifierResizer(
        min_dimension=max(config.map_scale) if is_by_map and config.map_scale else config.shorter_side,
        shorter_side=config.shorter_side,
        crop_size=config.crop_size,
        train_sizes=tuple(config.train_size),
        random_train_size=config.random_train_size,
    )


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
