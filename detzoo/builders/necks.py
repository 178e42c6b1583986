"""``SsdFeatureExtractor`` messages -> the neck between backbone and head (floor 5)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

from detzoo.builders.hyperparams import build_hyperparams
from detzoo.config import pb
from detzoo.config.support import SsdExtractor, bifpn_of, lookup_ssd_extractor
from detzoo.contracts import Tensor
from detzoo.features.inverted_bottleneck import nearest_multiple
from detzoo.necks.bifpn import BifpnOptions, bidirectional_pyramid
from detzoo.necks.feature_pyramid import CoarseLevels, PyramidParts, feature_pyramid
from detzoo.necks.mnasfpn import mnasfpn
from detzoo.necks.ssd_levels import add_extra_levels, add_pooled_levels, normalize_levels, scaled_depth

Neck = Callable[[Mapping[int, Tensor]], Mapping[int, Tensor]]


def neck_levels(message: pb.SsdFeatureExtractor) -> tuple[int, ...]:
    """Returns the levels of the maps that the head reads, in ascending order."""
    extractor = lookup_ssd_extractor(message.type)
    if extractor.is_bifpn:
        return bifpn_of(message, extractor).levels
    if extractor.is_fpn:
        return tuple(range(message.fpn.min_level, message.fpn.max_level + 1))
    return extractor.ssd_levels(message.num_layers)


def num_maps(message: pb.SsdFeatureExtractor, num_backbone_maps: int) -> int:
    """Returns the number of maps that the head reads, if the backbone delivers ``num_backbone_maps``.

    With an ``output_stride`` two maps of the backbone can have one level. Then only one of them is read.
    """
    extractor = lookup_ssd_extractor(message.type)
    return len(neck_levels(message)) if extractor.is_pyramid else num_backbone_maps + _num_added(message, extractor)


def build_neck(message: pb.SsdFeatureExtractor, freeze_batchnorm: bool = False) -> Neck:
    """Builds the neck of a checked ``feature_extractor`` block: SSD's extra or pooled levels, or a feature pyramid.

    Returns:
        A function from the backbone's maps (level to map) to the maps that the head reads.
    """
    extractor = lookup_ssd_extractor(message.type)
    num_added = _num_added(message, extractor)
    if extractor.num_pooled_levels:
        return functools.partial(add_pooled_levels, count=num_added)
    if extractor.is_mnasfpn:

        def scaled(channels: int) -> int:
            return nearest_multiple(channels * message.depth_multiplier, message.min_depth)

        depth = scaled(message.fpn.additional_layer_depth)
        return functools.partial(
            mnasfpn,
            depth=depth,
            scaled=scaled,
            freeze_batchnorm=freeze_batchnorm,
            explicit_padding=message.use_explicit_padding,
        )
    hyperparams = build_hyperparams(message.conv_hyperparams, freeze_batchnorm)
    if extractor.is_bifpn:
        bifpn = bifpn_of(message, extractor)
        options = BifpnOptions(bifpn.num_iterations, bifpn.num_filters, bifpn.fusion)
        return functools.partial(
            bidirectional_pyramid, max_level=bifpn.max_level, options=options, hyperparams=hyperparams
        )
    if extractor.is_fpn:
        fpn = message.fpn
        of_backbone = fpn.coarse_source == pb.FeaturePyramidNetworks.BACKBONE
        parts = PyramidParts(
            coarse_levels=CoarseLevels.CONVOLVE_BACKBONE if of_backbone else CoarseLevels.CONVOLVE_PYRAMID,
            is_normalized=fpn.top_down_normalization,
            passes_sums=extractor.is_first_generation,
            use_depthwise=message.use_depthwise,
            explicit_padding=message.use_explicit_padding,
        )
        depth = scaled_depth(fpn.additional_layer_depth, message.depth_multiplier, message.min_depth)
        return functools.partial(
            feature_pyramid, depth=depth, max_level=fpn.max_level, hyperparams=hyperparams, parts=parts
        )

    def extra_levels(maps: Mapping[int, Tensor]) -> Mapping[int, Tensor]:
        return add_extra_levels(
            normalize_levels(maps, extractor.l2_normalized_levels),
            extractor.extra_depths[:num_added],
            hyperparams,
            message.depth_multiplier,
            message.min_depth,
            message.use_depthwise,
            message.use_explicit_padding,
            extractor.extra_kernel_sizes[:num_added],
        )

    return extra_levels


def _num_added(message: pb.SsdFeatureExtractor, extractor: SsdExtractor) -> int:
    """Returns the number of levels that the neck adds to the backbone's maps."""
    return max(extractor.num_maps(message.num_layers) - len(extractor.backbone_levels), 0)
