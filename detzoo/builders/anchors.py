"""``anchor_generator`` of a configuration -> anchors (floor 4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from detzoo.config import pb
from detzoo.errors import ConfigError
from detzoo.ops.anchors import AnchorGenerator, GridAnchors, MultiscaleAnchors, SsdAnchors, sizes_of, ssd_layer_sizes


def build_anchor_generator(config: pb.AnchorGenerator, pixels_allowed: bool = False) -> AnchorGenerator:
    """The generator of a ``pb.AnchorGenerator``.

    Args:
        config: the model's ``anchor_generator`` (or ``first_stage_anchor_generator``).
        pixels_allowed: accept ``normalize_coordinates: false``. Anchors are fractions of the image nevertheless: for a
            two-stage detector both mean the same.

    Returns:
        A callable from feature shapes and image shape to anchors, with ``num_anchors_per_location``.

    Raises:
        ConfigError: no generator is chosen, or its lists do not fit each other.
    """
    kind = config.WhichOneof("anchor_generator_oneof")
    if kind is None:
        raise ConfigError(f"anchor_generator is empty; give it one of {', '.join(_BUILDERS)}.")
    generator = getattr(config, kind)
    if not pixels_allowed and kind in _WITH_COORDINATES:
        _check_normalized(f"anchor_generator.{kind}", generator)
    return _BUILDERS[kind](generator)


def _ssd(config: pb.SsdAnchorGenerator) -> AnchorGenerator:
    path = "anchor_generator.ssd_anchor_generator"
    if config.num_layers < 1:
        raise ConfigError(f"{path}.num_layers is {config.num_layers}; it must be at least 1, one a feature map.")
    if config.scales:
        _check_count(f"{path}.scales", config.scales, config.num_layers)
    layer_sizes = ssd_layer_sizes(
        num_layers=config.num_layers,
        min_scale=config.min_scale,
        max_scale=config.max_scale,
        scales=list(config.scales),
        aspect_ratios=_positive(f"{path}.aspect_ratios", config.aspect_ratios, may_be_empty=True),
        interpolated_scale_aspect_ratio=config.interpolated_scale_aspect_ratio,
        reduce_boxes_in_lowest_layer=config.reduce_boxes_in_lowest_layer,
    )
    return SsdAnchors(
        layer_sizes,
        base_anchor_size=(config.base_anchor_height, config.base_anchor_width),
        strides_px=_pairs(path, config, "height_stride", "width_stride"),
        offsets_px=_pairs(path, config, "height_offset", "width_offset"),
    )


def _pairs(path: str, config: Any, height_field: str, width_field: str) -> tuple[tuple[int, int], ...] | None:
    heights, widths = getattr(config, height_field), getattr(config, width_field)
    if not heights and not widths:
        return None
    _check_count(f"{path}.{height_field}", heights, config.num_layers)
    _check_count(f"{path}.{width_field}", widths, config.num_layers)
    return tuple(zip(heights, widths, strict=True))


def _multiscale(config: pb.MultiscaleAnchorGenerator) -> AnchorGenerator:
    path = "anchor_generator.multiscale_anchor_generator"
    if config.min_level > config.max_level:
        raise ConfigError(
            f"{path}: min_level {config.min_level} is above max_level {config.max_level}; set them to the pyramid's "
            "finest and coarsest level."
        )
    if config.scales_per_octave < 1:
        raise ConfigError(f"{path}.scales_per_octave is {config.scales_per_octave}; it must be at least 1.")
    return MultiscaleAnchors(
        min_level=config.min_level,
        max_level=config.max_level,
        anchor_scale=config.anchor_scale,
        aspect_ratios=_positive(f"{path}.aspect_ratios", config.aspect_ratios),
        scales_per_octave=config.scales_per_octave,
    )


def _grid(config: pb.GridAnchorGenerator) -> AnchorGenerator:
    path = "anchor_generator.grid_anchor_generator"
    scales = _positive(f"{path}.scales", config.scales)
    ratios = _positive(f"{path}.aspect_ratios", config.aspect_ratios)
    unit_sizes = sizes_of(scales * len(ratios), [ratio for ratio in ratios for _ in scales])
    base_size = np.asarray([config.height, config.width], np.float32)
    return GridAnchors(
        (unit_sizes * base_size,),
        strides_px=((config.height_stride, config.width_stride),),
        offsets_px=((config.height_offset, config.width_offset),),
    )


def _flexible_grid(config: pb.FlexibleGridAnchorGenerator) -> AnchorGenerator:
    path = "anchor_generator.flexible_grid_anchor_generator"
    if not config.anchor_grid:
        raise ConfigError(f"{path}.anchor_grid is empty; give one grid for each feature map.")
    for index, grid in enumerate(config.anchor_grid):
        name = f"{path}.anchor_grid[{index}]"
        _positive(f"{name}.base_sizes", grid.base_sizes)
        _positive(f"{name}.aspect_ratios", grid.aspect_ratios)
        if len(grid.base_sizes) != len(grid.aspect_ratios):
            raise ConfigError(
                f"{name} has {len(grid.base_sizes)} base_sizes and {len(grid.aspect_ratios)} aspect_ratios; each box "
                "needs one of both."
            )
    return GridAnchors(
        tuple(sizes_of(grid.base_sizes, grid.aspect_ratios) for grid in config.anchor_grid),
        strides_px=tuple((grid.height_stride, grid.width_stride) for grid in config.anchor_grid),
        offsets_px=tuple((grid.height_offset, grid.width_offset) for grid in config.anchor_grid),
    )


def _check_count(path: str, values: Sequence[Any], expected: int) -> None:
    if len(values) != expected:
        raise ConfigError(f"{path} has {len(values)} values, but num_layers is {expected}; give one for each layer.")


def _positive(path: str, values: Sequence[float], may_be_empty: bool = False) -> tuple[float, ...]:
    if (not values and not may_be_empty) or any(value <= 0 for value in values):
        raise ConfigError(f"{path} is {list(values)}; it must be a list of numbers above 0.")
    return tuple(values)


def _check_normalized(path: str, config: Any) -> None:
    if not config.normalize_coordinates:
        raise ConfigError(f"{path}.normalize_coordinates: false is not supported; anchors are fractions of the image.")


_WITH_COORDINATES = ("multiscale_anchor_generator", "flexible_grid_anchor_generator")

_BUILDERS: dict[str, Callable[[Any], AnchorGenerator]] = {
    "ssd_anchor_generator": _ssd,
    "multiscale_anchor_generator": _multiscale,
    "grid_anchor_generator": _grid,
    "flexible_grid_anchor_generator": _flexible_grid,
}
