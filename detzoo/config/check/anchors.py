"""Rules of anchors: their own numbers, and their fit to the maps that the head reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from detzoo.config import pb
from detzoo.config.check.parts import input_size
from detzoo.config.problems import Findings

_REDUCED_LOWEST_LAYER = 3  # boxes
_MOST_LEVEL = 30  # of a stride that is checked


class HeadMaps(NamedTuple):
    """The maps that a head reads."""

    levels: tuple[int, ...]  # finest first
    source: str  # path of the field that sets them
    are_exact: bool = True  # False if an output stride moves them to other levels
    shares_predictions: bool = False  # one layer predicts for all of them: all locations have as many boxes


def check_anchors(anchors: pb.AnchorGenerator, maps: HeadMaps, findings: Findings) -> None:
    """Checks an anchor generator with a chosen kind, against the maps of its head."""
    kind = str(anchors.WhichOneof("anchor_generator_oneof"))
    findings, generator = findings.at(kind), getattr(anchors, kind)
    levels, num_maps = maps.levels, "1 map" if len(maps.levels) == 1 else f"{len(maps.levels)} maps"
    if kind == "multiscale_anchor_generator":
        _check_aspect_ratios(generator.aspect_ratios, findings)
        for name, level in (("min_level", levels[0]), ("max_level", levels[-1])) if maps.are_exact else ():
            received = getattr(generator, name)
            if received != level:
                text = f"is {received}; the maps have levels {levels[0]} to {levels[-1]} ({maps.source})"
                findings.error(name, "anchor-levels", f"{text}; accepted: {level}")
    elif kind == "ssd_anchor_generator":
        _check_ssd_generator(generator, maps.shares_predictions, findings)
        if generator.num_layers != len(levels) and maps.are_exact:
            text = f"is {generator.num_layers}, but the extractor makes {num_maps} ({maps.source}); make them equal"
            findings.error("num_layers", "anchor-levels", text, [maps.source.split(".")[-1]])
    elif kind == "flexible_grid_anchor_generator":
        _check_flexible_grid(generator, findings)
        if len(generator.anchor_grid) != len(levels):
            text = f"has {len(generator.anchor_grid)} entries; the feature extractor has {num_maps}"
            findings.error("anchor_grid", "anchor-levels", text)
        counts = {len(grid.base_sizes) for grid in generator.anchor_grid}
        if maps.shares_predictions and len(counts) > 1:
            text = (
                f"makes {min(counts)} to {max(counts)} boxes per location, but a head that all maps share needs one "
                "number; give all entries the same number of base_sizes"
            )
            findings.error("anchor_grid", "anchors-per-location", text)
    else:
        if not generator.scales:
            findings.missing("scales", "give at least one factor of height and width, such as 1.0")
        _check_aspect_ratios(generator.aspect_ratios, findings)
        if len(levels) != 1:
            text = (
                f"makes anchors for one map; the feature extractor has {len(levels)}. Use ssd_anchor_generator, "
                "multiscale_anchor_generator or flexible_grid_anchor_generator"
            )
            findings.error("", "anchor-levels", text)


def check_cells(anchors: pb.AnchorGenerator, resizer: pb.ImageResizer, findings: Findings) -> None:
    """Warns, at the path of the resizer, of a fixed input whose sides the strides of multiscale anchors do not divide.

    The Object Detection API puts the first center of a level half a stride inside if its stride divides the side, and
    on the border if not: half a stride away from the middle of the first cell. The coarsest level alone is no warning,
    because published configs (320 pixels, levels 3 to 7) have that.
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
        f"makes an input of {size.height}x{size.width} pixels, no multiple of the strides {strides}. At such strides "
        "the Object Detection API's rule puts anchors half a stride off their cells. Use multiples of "
        f"{2 ** levels[-1]}, or a keep_aspect_ratio_resizer without pad_to_max_dimension, whose input is padded to "
        "such multiples"
    )
    findings.warning(str(resizer.WhichOneof("image_resizer_oneof")), "anchors-off-cells", text)


def anchors_per_location(anchors: pb.AnchorGenerator) -> list[int] | None:
    """Returns the boxes per location: one number for all maps, or one per map; None if no kind is chosen."""
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


def _check_ssd_generator(generator: pb.SsdAnchorGenerator, is_shared: bool, findings: Findings) -> None:
    for name in ("scales", "height_stride", "width_stride", "height_offset", "width_offset"):
        given = len(getattr(generator, name))
        if given not in (0, generator.num_layers):
            text = f"has {given} values; accepted: none, or one for each of the {generator.num_layers} num_layers"
            findings.error(name, "list-length", text, ["num_layers"])
    for first, second in (("height_stride", "width_stride"), ("height_offset", "width_offset")):
        if bool(getattr(generator, first)) != bool(getattr(generator, second)):
            absent = second if getattr(generator, first) else first
            findings.error("", "incomplete-pair", f"{first} and {second} go together; {absent} is missing")
    if not generator.interpolated_scale_aspect_ratio:
        _check_aspect_ratios(generator.aspect_ratios, findings)
    lowest, ordinary = _ssd_counts(generator)
    if is_shared and generator.num_layers > 1 and lowest != ordinary:
        text = (
            f"makes {lowest} boxes per location of the finest map and {ordinary} on the others, but a head that all "
            "maps share needs one number; set it to false"
        )
        findings.error("reduce_boxes_in_lowest_layer", "anchors-per-location", text)


def _check_aspect_ratios(aspect_ratios: Sequence[float], findings: Findings) -> None:
    if not aspect_ratios:
        findings.missing("aspect_ratios", "give at least one width / height, such as 1.0")


def _ssd_counts(generator: pb.SsdAnchorGenerator) -> tuple[int, int]:
    """Returns the boxes per location of the finest map, and of the others."""
    ordinary = len(generator.aspect_ratios) + (generator.interpolated_scale_aspect_ratio > 0)
    return _REDUCED_LOWEST_LAYER if generator.reduce_boxes_in_lowest_layer else ordinary, ordinary


def _check_flexible_grid(generator: Any, findings: Findings) -> None:
    for index, grid in enumerate(generator.anchor_grid):
        here = findings.at(f"anchor_grid[{index}]")
        if not grid.base_sizes:
            here.missing("base_sizes", "give the side of at least one box, in pixels")
        elif len(grid.base_sizes) != len(grid.aspect_ratios):
            expected = f"one for each of the {len(grid.base_sizes)} base_sizes"
            here.error("aspect_ratios", "list-length", f"has {len(grid.aspect_ratios)} values; accepted: {expected}")
