"""``anchor_generator`` of a config -> anchors (floor 5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from detzoo.config import pb
from detzoo.ops.anchors import AnchorGenerator, GridAnchors, MultiscaleAnchors, SsdAnchors, sizes_of, ssd_layer_sizes


def build_anchor_generator(config: pb.AnchorGenerator) -> AnchorGenerator:
    """Builds the generator of a checked ``pb.AnchorGenerator``.

    ``normalize_coordinates`` has no effect, because anchors are always fractions of the image. In a two-stage detector
    both values mean the same boxes, and the check refuses false in a one-stage detector.
    """
    kind = config.WhichOneof("anchor_generator_oneof")
    return _BUILDERS[kind](getattr(config, kind))


def _ssd(config: pb.SsdAnchorGenerator) -> AnchorGenerator:
    layer_sizes = ssd_layer_sizes(
        num_layers=config.num_layers,
        min_scale=config.min_scale,
        max_scale=config.max_scale,
        scales=list(config.scales),
        aspect_ratios=tuple(config.aspect_ratios),
        interpolated_scale_aspect_ratio=config.interpolated_scale_aspect_ratio,
        reduce_boxes_in_lowest_layer=config.reduce_boxes_in_lowest_layer,
    )
    return SsdAnchors(
        layer_sizes,
        base_anchor_size=(config.base_anchor_height, config.base_anchor_width),
        strides_px=_pairs(config.height_stride, config.width_stride),
        offsets_px=_pairs(config.height_offset, config.width_offset),
    )


def _pairs(heights: Sequence[int], widths: Sequence[int]) -> tuple[tuple[int, int], ...] | None:
    return tuple(zip(heights, widths, strict=True)) or None


def _multiscale(config: pb.MultiscaleAnchorGenerator) -> AnchorGenerator:
    return MultiscaleAnchors(
        min_level=config.min_level,
        max_level=config.max_level,
        anchor_scale=config.anchor_scale,
        aspect_ratios=tuple(config.aspect_ratios),
        scales_per_octave=config.scales_per_octave,
    )


def _grid(config: pb.GridAnchorGenerator) -> AnchorGenerator:
    scales, ratios = tuple(config.scales), tuple(config.aspect_ratios)
    unit_sizes = sizes_of(scales * len(ratios), [ratio for ratio in ratios for _ in scales])
    base_size = np.asarray([config.height, config.width], np.float32)
    return GridAnchors(
        (unit_sizes * base_size,),
        strides_px=((config.height_stride, config.width_stride),),
        offsets_px=((config.height_offset, config.width_offset),),
    )


def _flexible_grid(config: pb.FlexibleGridAnchorGenerator) -> AnchorGenerator:
    return GridAnchors(
        tuple(sizes_of(grid.base_sizes, grid.aspect_ratios) for grid in config.anchor_grid),
        strides_px=tuple((grid.height_stride, grid.width_stride) for grid in config.anchor_grid),
        offsets_px=tuple((grid.height_offset, grid.width_offset) for grid in config.anchor_grid),
    )


_BUILDERS: dict[str | None, Callable[[Any], AnchorGenerator]] = {
    "ssd_anchor_generator": _ssd,
    "multiscale_anchor_generator": _multiscale,
    "grid_anchor_generator": _grid,
    "flexible_grid_anchor_generator": _flexible_grid,
}
