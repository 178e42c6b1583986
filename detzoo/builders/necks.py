"""From a ``SsdFeatureExtractor`` message to the neck between its backbone and the head (floor 4)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

from detzoo.builders.hyperparams import build_hyperparams
from detzoo.config import pb
from detzoo.config.bifpn import FUSIONS, NOT_FOR_BIFPN, bifpn_of
from detzoo.config.support import PYRAMID_LEVELS, SsdExtractor, lookup_ssd_extractor
from detzoo.contracts import Tensor
from detzoo.errors import ConfigError
from detzoo.necks.bifpn import BifpnOptions, bidirectional_pyramid
from detzoo.necks.feature_pyramid import CoarseLevels, PyramidParts, feature_pyramid
from detzoo.necks.ssd_levels import add_extra_levels, add_pooled_levels, normalize_levels, scaled_depth

Neck = Callable[[Mapping[int, Tensor]], Mapping[int, Tensor]]

MOST_LEVEL = 12  # a map of stride 4096; coarser ones are a typing error
PYRAMID_OUTPUT_STRIDES = (0, 32)


def neck_levels(message: pb.SsdFeatureExtractor) -> tuple[int, ...]:
    """Levels of the maps that the head reads, in ascending order.

    Args:
        message: pb.SsdFeatureExtractor.

    Raises:
        ConfigError: An unknown extractor, or levels that it does not have.
    """
    extractor = lookup_ssd_extractor(message.type)
    if extractor.is_bifpn:
        _check_bifpn(message, extractor)
        return bifpn_of(message, extractor).levels
    if extractor.is_fpn:
        _check_pyramid(message)
        return tuple(range(message.fpn.min_level, message.fpn.max_level + 1))
    if not extractor.has_fixed_maps and not 1 <= message.num_layers <= extractor.max_num_layers:
        raise ConfigError(
            f"feature_extractor.num_layers is {message.num_layers}; {message.type} has 1 to "
            f"{extractor.max_num_layers} maps."
        )
    return extractor.ssd_levels(message.num_layers)


def num_maps(message: pb.SsdFeatureExtractor, num_backbone_maps: int) -> int:
    """Number of maps that the head reads, where the backbone delivers ``num_backbone_maps``.

    An ``output_stride`` can let two maps of the backbone fall on one level, of which one is left.
    """
    extractor = lookup_ssd_extractor(message.type)
    return len(neck_levels(message)) if extractor.is_pyramid else num_backbone_maps + _num_added(message, extractor)


def build_neck(message: pb.SsdFeatureExtractor, freeze_batchnorm: bool = False) -> Neck:
    """The neck that a ``feature_extractor`` block describes: SSD's extra or pooled levels, or a feature pyramid.

    Args:
        message: pb.SsdFeatureExtractor.
        freeze_batchnorm: The detector's ``freeze_batchnorm``.

    Returns:
        A function from the backbone's maps (level to map) to the maps that the head reads.

    Raises:
        ConfigError: An unknown extractor, levels that it does not have, or hyperparameters that are not supported.
    """
    extractor = lookup_ssd_extractor(message.type)
    neck_levels(message)
    if extractor.is_bifpn:
        return _bidirectional_pyramid(message, extractor, freeze_batchnorm)
    if extractor.num_pooled_levels:
        return functools.partial(add_pooled_levels, count=_num_added(message, extractor))
    return (_pyramid if extractor.is_fpn else _extra_levels)(message, extractor, freeze_batchnorm)


def _extra_levels(message: pb.SsdFeatureExtractor, extractor: SsdExtractor, freeze_batchnorm: bool) -> Neck:
    hyperparams = build_hyperparams(message.conv_hyperparams, freeze_batchnorm)
    num_extra = _num_added(message, extractor)

    def neck(maps: Mapping[int, Tensor]) -> Mapping[int, Tensor]:
        return add_extra_levels(
            normalize_levels(maps, extractor.l2_normalized_levels),
            extractor.extra_depths[:num_extra],
            hyperparams,
            message.depth_multiplier,
            message.min_depth,
            message.use_depthwise,
            message.use_explicit_padding,
            extractor.extra_kernel_sizes[:num_extra],
        )

    return neck


def _num_added(message: pb.SsdFeatureExtractor, extractor: SsdExtractor) -> int:
    """Levels that the neck adds to the backbone's maps."""
    return max(extractor.num_maps(message.num_layers) - len(extractor.backbone_levels), 0)


def _pyramid(message: pb.SsdFeatureExtractor, extractor: SsdExtractor, freeze_batchnorm: bool) -> Neck:
    hyperparams = build_hyperparams(message.conv_hyperparams, freeze_batchnorm)
    fpn = message.fpn
    of_backbone = fpn.coarse_source == pb.FeaturePyramidNetworks.BACKBONE
    parts = PyramidParts(
        coarse_levels=CoarseLevels.CONVOLVE_BACKBONE if of_backbone else CoarseLevels.CONVOLVE_PYRAMID,
        is_normalized=fpn.top_down_normalization,
        use_depthwise=message.use_depthwise,
        explicit_padding=message.use_explicit_padding,
    )

    def neck(maps: Mapping[int, Tensor]) -> Mapping[int, Tensor]:
        depth = scaled_depth(fpn.additional_layer_depth, message.depth_multiplier, message.min_depth)
        return feature_pyramid(maps, depth, fpn.max_level, hyperparams, parts)

    return neck


def _bidirectional_pyramid(message: pb.SsdFeatureExtractor, extractor: SsdExtractor, freeze_batchnorm: bool) -> Neck:
    hyperparams = build_hyperparams(message.conv_hyperparams, freeze_batchnorm)
    bifpn = bifpn_of(message, extractor)
    options = BifpnOptions(bifpn.num_iterations, bifpn.num_filters, bifpn.fusion)

    def neck(maps: Mapping[int, Tensor]) -> Mapping[int, Tensor]:
        return bidirectional_pyramid(maps, bifpn.max_level, options, hyperparams)

    return neck


def _check_bifpn(message: pb.SsdFeatureExtractor, extractor: SsdExtractor) -> None:
    bifpn, path = bifpn_of(message, extractor), "feature_extractor.bifpn"
    for name in ("num_iterations", "num_filters"):
        if getattr(bifpn, name) < 1:
            raise ConfigError(f"{path}.{name} is {getattr(bifpn, name)}; it must be 1 or more")
    if bifpn.fusion not in FUSIONS:
        raise ConfigError(f"{path}.combine_method is '{bifpn.fusion}'; accepted: {', '.join(FUSIONS)}")
    if bifpn.min_level not in PYRAMID_LEVELS or not bifpn.min_level < bifpn.max_level <= MOST_LEVEL:
        raise ConfigError(
            f"{path}: min_level {bifpn.min_level} and max_level {bifpn.max_level} are no pyramid. Set min_level to "
            f"{PYRAMID_LEVELS[0]} to {PYRAMID_LEVELS[-1]} and max_level above it, to {MOST_LEVEL}."
        )
    for name in NOT_FOR_BIFPN:
        if getattr(message, name):
            raise ConfigError(f"feature_extractor.{name} is not supported by {message.type}; leave it out")
    _check_output_stride(message)


def _check_pyramid(message: pb.SsdFeatureExtractor) -> None:
    fpn = message.fpn
    if fpn.coarse_source == pb.FeaturePyramidNetworks.SUBSAMPLE or fpn.finest_level_only:
        raise ConfigError("feature_extractor.fpn: SUBSAMPLE and finest_level_only are made for faster_rcnn only")
    if not (fpn.top_down_pathway and fpn.lateral_connections):
        raise ConfigError(
            "feature_extractor.fpn: pyramids without top_down_pathway or lateral_connections are made for faster_rcnn "
            "only"
        )
    if fpn.min_level not in PYRAMID_LEVELS or not fpn.min_level <= fpn.max_level <= MOST_LEVEL:
        raise ConfigError(
            f"feature_extractor.fpn: min_level {fpn.min_level} and max_level {fpn.max_level} are no pyramid. Set "
            f"min_level to {PYRAMID_LEVELS[0]} to {PYRAMID_LEVELS[-1]} and max_level from there to {MOST_LEVEL}."
        )
    _check_output_stride(message)


def _check_output_stride(message: pb.SsdFeatureExtractor) -> None:
    if message.output_stride not in PYRAMID_OUTPUT_STRIDES:
        raise ConfigError(
            f"feature_extractor.output_stride is {message.output_stride}; a pyramid needs maps that double in size, so "
            f"{message.type} takes {PYRAMID_OUTPUT_STRIDES[0]} (the extractor's own) or {PYRAMID_OUTPUT_STRIDES[1]}."
        )
