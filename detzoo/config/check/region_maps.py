"""Checks of a two-stage detector's maps: stride or pyramid, the anchors on them, and the levels of its regions."""

from __future__ import annotations

from typing import Any

from detzoo.config import pb
from detzoo.config.check.anchors import HeadMaps, anchors_per_location, check_cells, check_generator
from detzoo.config.check.parts import input_size
from detzoo.config.check.pyramid import check_pyramid
from detzoo.config.effects import supported_branches
from detzoo.config.problems import Findings, has_errors
from detzoo.config.support import RegionExtractor

_DEEPEST_STRIDE = 32  # of the last map of every backbone
_STRIDE_BEFORE_LAST = 16  # of the map that proposals are read from, unless use_last_map


def check_region_maps(model: Any, path: str, extractor: RegionExtractor, findings: Findings) -> None:
    """Adds what does not fit between backbone, anchors and crops of a ``pb.FasterRcnn`` at ``path``."""
    message, here = model.feature_extractor, f"{path}.feature_extractor"
    if extractor.is_fpn:
        pyramid = check_pyramid(message, here, findings)
        _check_pyramid_only(model, path, pyramid, findings)
        levels, source = pyramid[:1] if message.fpn.finest_level_only else pyramid, f"{here}.fpn"
    else:
        levels, source = _check_stride(message, here, extractor, findings), f"{here}.first_stage_features_stride"
        _check_without_pyramid(model, path, findings)
    if model.proposals_from_reader:
        return
    anchors, here = model.first_stage_anchor_generator, f"{path}.first_stage_anchor_generator"
    kind = anchors.WhichOneof("anchor_generator_oneof")
    if kind is None:
        branches = ", ".join(supported_branches(anchors, "anchor_generator_oneof"))
        findings.error(here, f"is missing or empty; choose one of {branches}")
        return
    if not getattr(getattr(anchors, kind), "normalize_coordinates", True):
        text = "anchors are fractions of the padded image here, which gives the same boxes"
        findings.no_effect(f"{here}.{kind}.normalize_coordinates", text)
    if levels:
        already = len(findings.problems)
        maps = HeadMaps(levels, source, shares_predictions=model.first_stage_head_sharing == pb.FasterRcnn.ALL)
        check_generator(anchors, here, maps, findings)
        check_cells(anchors, model.image_resizer, f"{path}.image_resizer", findings)
        if not has_errors(findings.problems[already:]):
            _check_anchor_strides(anchors, here, maps, findings)
            _check_max_proposals(model, path, levels, findings)


def _check_stride(message: Any, path: str, extractor: RegionExtractor, findings: Findings) -> tuple[int, ...]:
    """The level of the one map; () where the config does not say it rightly."""
    stride, here = message.first_stage_features_stride, f"{path}.first_stage_features_stride"
    coarsest = _DEEPEST_STRIDE if message.use_last_map else _STRIDE_BEFORE_LAST
    accepted = ", ".join(str(accepted) for accepted in extractor.strides if accepted <= coarsest)
    if stride not in extractor.strides:
        findings.error(here, f"is {stride}; accepted for {message.type}: {accepted}")
        return ()
    if stride > coarsest:
        text = f"is {stride}, which only the last map has; set use_last_map: true, or accepted without it: {accepted}"
        findings.error(here, text)
        return ()
    return (stride.bit_length() - 1,)


def _check_pyramid_only(model: Any, path: str, pyramid: tuple[int, ...], findings: Findings) -> None:
    """What contradicts a pyramid, and the levels that regions are cropped from."""
    message = model.feature_extractor
    if message.use_last_map:
        text = f"is true, but {message.type} reads all maps of its pyramid; accepted with it: false"
        findings.error(f"{path}.feature_extractor.use_last_map", text)
    if message.HasField("first_stage_features_stride"):
        text = "has no effect with a pyramid, whose maps have the strides of fpn.min_level to fpn.max_level"
        findings.note(f"{path}.feature_extractor.first_stage_features_stride", text)
    for name in ("roi_canonical_level", "roi_max_level"):
        level = getattr(model, name)
        if not level or not pyramid:
            continue
        if level not in pyramid:
            text = f"is {level}, a level outside the pyramid; accepted: {pyramid[0]} to {pyramid[-1]} (fpn), or 0"
            findings.error(f"{path}.{name}", text)
        elif message.fpn.finest_level_only:
            text = f"has no effect: with finest_level_only all regions are cropped from level {pyramid[0]}"
            findings.warning(f"{path}.{name}", text)


def _check_without_pyramid(model: Any, path: str, findings: Findings) -> None:
    """What has no effect on one map."""
    for name in ("roi_canonical_level", "roi_max_level", "first_stage_head_sharing"):
        if getattr(model, name):
            text = f"has no effect: {model.feature_extractor.type} has one map, no pyramid"
            findings.warning(f"{path}.{name}", text)


def _check_anchor_strides(anchors: Any, path: str, maps: HeadMaps, findings: Findings) -> None:
    """Grids give their strides in pixels; other than the maps', anchors drift away from the cells that predict them."""
    grids: list[tuple[str, Any]] = []
    if anchors.HasField("grid_anchor_generator"):
        grids = [(f"{path}.grid_anchor_generator", anchors.grid_anchor_generator)]
    elif anchors.HasField("flexible_grid_anchor_generator"):
        path = f"{path}.flexible_grid_anchor_generator"
        grids = [
            (f"{path}.anchor_grid[{index}]", grid)
            for index, grid in enumerate(anchors.flexible_grid_anchor_generator.anchor_grid)
        ]
    for (here, grid), level in zip(grids, maps.levels, strict=False):
        for name in ("height_stride", "width_stride"):
            if getattr(grid, name) != 2**level:
                text = (
                    f"is {getattr(grid, name)}, but the map has stride {2**level} ({maps.source}): anchors lie beside "
                    "the cells that predict them"
                )
                findings.warning(f"{here}.{name}", text)


def _check_max_proposals(model: Any, path: str, levels: tuple[int, ...], findings: Findings) -> None:
    """No more proposals than anchors, where the resizer says how large an input can be."""
    size, counts = input_size(model.image_resizer), anchors_per_location(model.first_stage_anchor_generator)
    if size is None or not counts:
        return
    # An input of free size is padded to the coarsest stride where a pyramid is read.
    multiple = 1 if size.is_static or len(levels) == 1 else 2 ** max(levels)
    height, width = (side + -side % multiple for side in size[:2])
    if len(counts) == 1:
        counts *= len(levels)
    total = sum(
        -(-height // 2**level) * -(-width // 2**level) * count for level, count in zip(levels, counts, strict=True)
    )
    for name in ("first_stage_max_proposals", "first_stage_max_proposals_in_training"):
        if getattr(model, name) > total:
            most = "" if size.is_static else "at most "
            text = (
                f"is {getattr(model, name)}, but an input of {most}{height}x{width} pixels has {most}{total} anchors; "
                f"accepted: 1 to {total}"
            )
            findings.error(f"{path}.{name}", text)
