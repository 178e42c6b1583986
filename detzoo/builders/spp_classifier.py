"""From a ``SppClassifier`` message to a classifier, and to the resizer of its images (floor 4)."""

from __future__ import annotations

from detzoo.config import pb
from detzoo.config.spp_table import BASELINE_BINS, SPP_NETWORKS, map_size, min_size_px
from detzoo.data.class_images import ClassifierResizer
from detzoo.detectors.base import ImageShape
from detzoo.detectors.spp_classifier import SppClassifier, TestView, Views, spp_classifier_network
from detzoo.errors import ConfigError
from detzoo.features.normalization import standardize_imagenet

_VIEWS = {
    pb.SppClassifier.TEN_CROPS: TestView.TEN_CROPS,
    pb.SppClassifier.ONE_CROP: TestView.ONE_CROP,
    pb.SppClassifier.FULL_IMAGE: TestView.FULL_IMAGE,
    pb.SppClassifier.MAP_VIEWS: TestView.MAP_VIEWS,
}


def build_spp_classifier(config: pb.SppClassifier) -> SppClassifier:
    """The classifier of a ``pb.SppClassifier``.

    Raises:
        ConfigError: a number out of range, an unknown network, or a size of image that the network does not take.
    """
    network = config.network
    if config.num_classes < 2:
        raise ConfigError(f"num_classes is {config.num_classes}; a classifier needs 2 or more")
    if network.type not in SPP_NETWORKS:
        raise ConfigError(f"network.type is '{network.type}'; accepted: {', '.join(SPP_NETWORKS)}")
    bins, image_shape = _bins_and_shape(config)
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
    views = Views(_VIEWS[config.test_view], config.crop_size, tuple(config.map_scale))
    return SppClassifier(parts, standardize_imagenet, network.type, bins, views, config.num_classes)


def build_classifier_resizer(config: pb.SppClassifier) -> ClassifierResizer:
    """The resizer of a ``pb.SppClassifier``'s images: to the largest shorter side that a view needs.

    Raises:
        ConfigError: crops would not fit into the resized images.
    """
    is_by_map = config.test_view == pb.SppClassifier.MAP_VIEWS
    if not 0 < config.crop_size <= config.shorter_side:
        raise ConfigError(f"crop_size is {config.crop_size}; accepted: 1 to shorter_side ({config.shorter_side})")
    return ClassifierResizer(
        min_dimension=max(config.map_scale) if is_by_map and config.map_scale else config.shorter_side,
        shorter_side=config.shorter_side,
        crop_size=config.crop_size,
        train_sizes=tuple(config.train_size),
        random_train_size=config.random_train_size,
    )


def _bins_and_shape(config: pb.SppClassifier) -> tuple[tuple[int, ...], ImageShape]:
    """The pyramid's levels and the size of image that is known before the image."""
    network, crop = config.network, config.crop_size
    smallest = min([crop, *config.train_size])
    if map_size(network.type, smallest) < 1:
        raise ConfigError(
            f"{network.type} needs images of {min_size_px(network.type)} pixels or more; the smallest of crop_size and "
            f"train_size is {smallest}"
        )
    if network.pyramid_bins:
        return tuple(network.pyramid_bins), (None, None)
    others = [size for size in config.train_size if size != crop]
    if others or config.test_view in (pb.SppClassifier.FULL_IMAGE, pb.SppClassifier.MAP_VIEWS):
        what = f"train_size {others[0]}" if others else f"test_view {pb.SppClassifier.TestView.Name(config.test_view)}"
        raise ConfigError(
            f"network.pyramid_bins is empty, so the network takes images of crop_size ({crop}) alone, but {what} asks "
            "for others; give it a pyramid, such as pyramid_bins: [6, 3, 2, 1]"
        )
    return BASELINE_BINS, (crop, crop)
