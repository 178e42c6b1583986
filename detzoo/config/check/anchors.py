"""Checks of anchors: their own numbers, and whether they are of the maps that the head reads."""

from __future__ import annotations

from typing import Any, NamedTuple

from detzoo.config.bifpn import check_bifpn
from detzoo.config.check.parts import input_size
from detzoo.config.check.pyramid import check_pyramid
from detzoo.config.problems import Findings
from detzoo.config.support import SsdExtractor

_EXTRACTOR_PATH = "model.ssd.feature_extractor"
_ANCHORS_PATH = "model.ssd.anchor_generator"
_REDUCED_LOWEST_LAYER = 3  # boxes
_MOST_LEVEL = 30  # of a stride that is checked


class HeadMaps(NamedTuple):
    """The maps that a head reads, as the config says them."""

    levels: tuple[int, ...]  # finest first
    source: str  # path of the field that says so
    are_exact: bool = True  # False where an output stride moves them to other levels
    shares_predictions: bool = False  # one layer predicts for all of them: every location has as many boxes


def check_anchors(ssd: Any, extractor: SsdExtractor, findings: Findings) -> None:
    """Adds what does not fit in an SSD: levels, numbers of maps, lengths of lists, anchors at a location."""
    message = ssd.feature_extractor
    if extractor.is_fpn:
        levels, source = check_pyramid(message, _EXTRACTOR_PATH, findings), f"{_EXTRACTOR_PATH}.fpn"
    elif extractor.is_bifpn:
        levels, source = check_bifpn(message, extractor, _EXTRACTOR_PATH, findings), f"{_EXTRACTOR_PATH}.bifpn"
    else:
        levels, source = _levels_of_ssd(message, extractor, findings), f"{_EXTRACTOR_PATH}.num_layers"
    kind = ssd.anchor_generator.WhichOneof("anchor_generator_oneof")
    if kind is None or not levels:
        return
    is_shared = ssd.box_predictor.HasField("weight_shared_convolutional_box_predictor")
    maps = HeadMaps(levels, source, not message.output_stride, is_shared)
    check_generator(ssd.anchor_generator, _ANCHORS_PATH, maps, findings)
    check_cells(ssd.anchor_generator, ssd.image_resizer, "model.ssd.image_resizer", findings)
    generator = getattr(ssd.anchor_generator, kind)
    if not getattr(generator, "normalize_coordinates", True):
        text = "anchors in pixels are not supported, they are fractions of the padded image; accepted: true"
        findings.error(f"{_ANCHORS_PATH}.{kind}.normalize_coordinates", text)


def check_generator(anchors: Any, path: str, maps: HeadMaps, findings: Findings) -> None:
    """Adds what is wrong with a ``pb.AnchorGenerator`` that has chosen a kind, against the maps of its head."""
    kind = anchors.WhichOneof("anchor_generator_oneof")
    path, generator = f"{path}.{kind}", getattr(anchors, kind)
    _GENERATOR_CHECKS[kind](generator, path, findings)
    levels = maps.levels
    if kind == "multiscale_anchor_generator":
        if maps.are_exact:
            _check_same_levels(generator, path, maps, findings)
    elif kind == "ssd_anchor_generator":
        if generator.num_layers != len(levels) and maps.are_exact:
            text = (
                f"is {generator.num_layers}, but the extractor gives {_maps(levels)} ({maps.source}); make them equal"
            )
            findings.error(f"{path}.num_layers", text)
        if maps.shares_predictions:
            _check_equal_counts(generator, path, findings)
    elif kind == "flexible_grid_anchor_generator":
        if len(generator.anchor_grid) != len(levels):
            text = f"has {len(generator.anchor_grid)} entries; the feature extractor has {_maps(levels)}"
            findings.error(f"{path}.anchor_grid", text)
        counts = {len(grid.base_sizes) for grid in generator.anchor_grid}
        if maps.shares_predictions and len(counts) > 1:
            text = (
                f"gives {min(counts)} to {max(counts)} boxes at a location, but a head that all maps share needs one "
                "number; give every entry as many base_sizes"
            )
            findings.error(f"{path}.anchor_grid", text)
    elif len(levels) != 1:
        text = (
            f"gives anchors for one map; the feature extractor has {len(levels)}. Use ssd_anchor_generator, "
            "multiscale_anchor_generator or flexible_grid_anchor_generator"
        )
        findings.error(path, text)


def check_cells(anchors: Any, resizer: Any, path: str, findings: Findings) -> None:
    """Warns of a fixed input whose sides the strides of multiscale anchors do not divide.

    The Object Detection API puts the first centre of a level half a stride inside where its stride divides the side,
    and on the border elsewhere: half a stride away from the middle of the first cell. The coarsest level alone is no
    warning, because published configs (320 pixels, levels 3 to 7) have that.

    Args:
        anchors: ``pb.AnchorGenerator``.
        resizer: ``pb.ImageResizer``.
        path: Path of the resizer.
        findings: Gets the warning.
    """
    size, generator = input_size(resizer), anchors.multiscale_anchor_generator
    if size is None or not size.is_static or not anchors.HasField("multiscale_anchor_generator"):
        return
    levels = range(max(generator.min_level, 0), min(generator.max_level, _MOST_LEVEL) + 1)
    off = [level for level in levels if size.height % 2**level or size.width % 2**level]
    if len(off) < 2:
        return
    strides = ", ".join(str(2**level) for level in off)
    text = (
        f"makes an input of {size.height}x{size.width} pixels, no multiple of the strides {strides}: there the Object "
        f"Detection API's rule puts anchors half a stride off their cells. Use multiples of {2 ** levels[-1]}, or a "
        "keep_aspect_ratio_resizer without pad_to_max_dimension, whose input is padded to such multiples"
    )
    findings.warning(f"{path}.{resizer.WhichOneof('image_resizer_oneof')}", text)


def anchors_per_location(anchors: Any) -> list[int] | None:
    """Boxes at a location of each map that a ``pb.AnchorGenerator`` says; one number for all maps, or one for each.

    None where no kind is chosen.
    """
    kind = anchors.WhichOneof("anchor_generator_oneof")
    if kind is None:
        return None
    generator = getattr(anchors, kind)
    if kind == "flexible_grid_anchor_generator":
        return [len(grid.base_sizes) for grid in generator.anchor_grid]
    if kind == "grid_anchor_generator":
        return [len(generator.scales) * len(generator.aspect_ratios)]
    if kind == "multiscale_anchor_generator":
        return [len(generator.aspect_ratios) * generator.scales_per_octave]
    lowest, ordinary = _ssd_counts(generator)
    return [lowest] + [ordinary] * (generator.num_layers - 1)


def _maps(levels: tuple[int, ...]) -> str:
    return "1 map" if len(levels) == 1 else f"{len(levels)} maps"


def _levels_of_ssd(message: Any, extractor: SsdExtractor, findings: Findings) -> tuple[int, ...]:
    """The levels of an SSD's maps, finest first; () where ``num_layers`` is wrong."""
    if extractor.has_fixed_maps:
        if message.HasField("num_layers") and message.num_layers != extractor.max_num_layers:
            text = f"{message.type} always makes {extractor.max_num_layers} maps"
            findings.no_effect(f"{_EXTRACTOR_PATH}.num_layers", text)
    elif not 1 <= message.num_layers <= extractor.max_num_layers:
        text = f"is {message.num_layers}; accepted for {message.type}: 1 to {extractor.max_num_layers}"
        findings.error(f"{_EXTRACTOR_PATH}.num_layers", text)
        return ()
    return extractor.ssd_levels(message.num_layers)


def _check_same_levels(generator: Any, path: str, maps: HeadMaps, findings: Findings) -> None:
    """Whether the anchors are of the maps' levels; an output stride below the extractor's own changes the latter."""
    finest, coarsest = maps.levels[0], maps.levels[-1]
    for name, wanted in (("min_level", finest), ("max_level", coarsest)):
        received = getattr(generator, name)
        if received != wanted:
            text = f"is {received}; the maps have levels {finest} to {coarsest} ({maps.source}); accepted: {wanted}"
            findings.error(f"{path}.{name}", text)


def _check_multiscale(generator: Any, path: str, findings: Findings) -> None:
    _check_aspect_ratios(generator.aspect_ratios, path, findings)


def _check_ssd_generator(generator: Any, path: str, findings: Findings) -> None:
    for name in ("scales", "height_stride", "width_stride", "height_offset", "width_offset"):
        given = len(getattr(generator, name))
        if given not in (0, generator.num_layers):
            text = f"has {given} values; accepted: none, or one for each of the {generator.num_layers} num_layers"
            findings.error(f"{path}.{name}", text)
    for first, second in (("height_stride", "width_stride"), ("height_offset", "width_offset")):
        if bool(getattr(generator, first)) != bool(getattr(generator, second)):
            missing = second if getattr(generator, first) else first
            findings.error(path, f"{first} and {second} go together; {missing} is missing")
    if not generator.interpolated_scale_aspect_ratio:
        _check_aspect_ratios(generator.aspect_ratios, path, findings)


def _check_aspect_ratios(aspect_ratios: Any, path: str, findings: Findings) -> None:
    if not aspect_ratios:
        findings.error(f"{path}.aspect_ratios", "is missing; give at least one width / height, such as 1.0")


def _check_equal_counts(generator: Any, path: str, findings: Findings) -> None:
    """A head whose weights are shared over the levels has one number of anchors at a location."""
    lowest, ordinary = _ssd_counts(generator)
    if generator.num_layers > 1 and lowest != ordinary:
        text = (
            f"gives the finest map {lowest} boxes at a location and the others {ordinary}, but "
            "a head that all maps share needs one number; set it to false"
        )
        findings.error(f"{path}.reduce_boxes_in_lowest_layer", text)


def _ssd_counts(generator: Any) -> tuple[int, int]:
    """Boxes at a location of the finest map, and of the others."""
    ordinary = len(generator.aspect_ratios) + (generator.interpolated_scale_aspect_ratio > 0)
    return _REDUCED_LOWEST_LAYER if generator.reduce_boxes_in_lowest_layer else ordinary, ordinary


def _check_grid(generator: Any, path: str, findings: Findings) -> None:
    if not generator.scales:
        findings.error(f"{path}.scales", "is missing; give at least one factor of height and width, such as 1.0")
    _check_aspect_ratios(generator.aspect_ratios, path, findings)


def _check_flexible_grid(generator: Any, path: str, findings: Findings) -> None:
    for index, grid in enumerate(generator.anchor_grid):
        here = f"{path}.anchor_grid[{index}]"
        if not grid.base_sizes:
            findings.error(f"{here}.base_sizes", "is missing; give the side of at least one box, in pixels")
        elif len(grid.base_sizes) != len(grid.aspect_ratios):
            text = (
                f"has {len(grid.aspect_ratios)} values; accepted: one for each of the {len(grid.base_sizes)} base_sizes"
            )
            findings.error(f"{here}.aspect_ratios", text)
        else:
            _check_aspect_ratios(grid.aspect_ratios, here, findings)


_GENERATOR_CHECKS = {
    "grid_anchor_generator": _check_grid,
    "ssd_anchor_generator": _check_ssd_generator,
    "multiscale_anchor_generator": _check_multiscale,
    "flexible_grid_anchor_generator": _check_flexible_grid,
}
