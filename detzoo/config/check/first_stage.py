"""Rules of a two-stage detector's maps: stride or pyramid, the anchors on them, and the levels of its regions."""

from __future__ import annotations

from detzoo.config import pb
from detzoo.config.check.anchors import HeadMaps, anchors_per_location, check_anchors, check_cells
from detzoo.config.check.effects import check_choice
from detzoo.config.check.parts import check_pyramid, input_size
from detzoo.config.problems import Findings, has_errors
from detzoo.config.support import RegionExtractor

_DEEPEST_STRIDE = 32  # of the last map of every backbone
_STRIDE_BEFORE_LAST = 16  # of the map that proposals are read from, unless use_last_map


def check_first_stage(model: pb.FasterRcnn, extractor: RegionExtractor, findings: Findings) -> None:
    """Checks backbone, anchors and crops of a ``faster_rcnn`` block against each other."""
    message, here = model.feature_extractor, findings.at("feature_extractor")
    if extractor.is_fpn:
        pyramid, field = check_pyramid(message, here), "fpn"
        _check_with_pyramid(model, pyramid, findings)
        levels = pyramid[:1] if message.fpn.finest_level_only else pyramid
    else:
        levels, field = _check_stride(message, extractor, here), "first_stage_features_stride"
        for name in ("roi_canonical_level", "roi_max_level", "first_stage_head_sharing"):
            if getattr(model, name):
                text = f"has no effect: {model.feature_extractor.type} has one map, no pyramid"
                findings.warning(name, "no-pyramid", text)
    if model.proposals_from_reader:
        return
    anchors = model.first_stage_anchor_generator
    kind = check_choice(anchors, "anchor_generator_oneof", "first_stage_anchor_generator", findings)
    if not kind:
        return
    generator = findings.at("first_stage_anchor_generator")
    if not getattr(getattr(anchors, kind), "normalize_coordinates", True):
        text = "anchors are fractions of the padded image here, which gives the same boxes"
        generator.no_effect(f"{kind}.normalize_coordinates", text)
    if levels:
        already = len(findings.problems)
        is_shared = model.first_stage_head_sharing == pb.FasterRcnn.ALL
        maps = HeadMaps(levels, f"{here.path}.{field}", shares_predictions=is_shared)
        check_anchors(anchors, maps, generator)
        check_cells(anchors, model.image_resizer, findings.at("image_resizer"))
        if not has_errors(findings.problems[already:]):
            _check_anchor_strides(anchors, maps, generator)
            _check_max_proposals(model, levels, findings)


def _check_stride(
    message: pb.FasterRcnnFeatureExtractor, extractor: RegionExtractor, findings: Findings
) -> tuple[int, ...]:
    """Returns the level of the one map; () if the config has it wrong."""
    stride = message.first_stage_features_stride
    coarsest = _DEEPEST_STRIDE if message.use_last_map else _STRIDE_BEFORE_LAST
    accepted = ", ".join(str(accepted) for accepted in extractor.strides if accepted <= coarsest)
    if stride in extractor.strides and stride <= coarsest:
        return (stride.bit_length() - 1,)
    text = f"is {stride}; accepted for {message.type}: {accepted}"
    if stride in extractor.strides:
        text = f"is {stride}, which only the last map has (use_last_map: true); accepted without it: {accepted}"
    findings.error("first_stage_features_stride", "features-stride", text)
    return ()


def _check_with_pyramid(model: pb.FasterRcnn, pyramid: tuple[int, ...], findings: Findings) -> None:
    """Checks the fields that contradict a pyramid, and the levels that regions are cropped from."""
    message = model.feature_extractor
    if message.use_last_map:
        text = f"is true, but {message.type} reads all maps of its pyramid; accepted with it: false"
        findings.error("feature_extractor.use_last_map", "last-map-of-pyramid", text)
    if message.HasField("first_stage_features_stride"):
        text = "has no effect with a pyramid, whose maps have the strides of fpn.min_level to fpn.max_level"
        findings.note(
            "feature_extractor.first_stage_features_stride", "unused-stride", text, ["min_level", "max_level"]
        )
    for name in ("roi_canonical_level", "roi_max_level"):
        level = getattr(model, name)
        if not level or not pyramid:
            continue
        if level not in pyramid:
            text = f"is {level}, a level outside the pyramid; accepted: {pyramid[0]} to {pyramid[-1]} (fpn), or 0"
            findings.error(name, "region-level", text)
        elif message.fpn.finest_level_only:
            text = f"has no effect: with finest_level_only all regions are cropped from level {pyramid[0]}"
            findings.warning(name, "region-level", text)


def _check_anchor_strides(anchors: pb.AnchorGenerator, maps: HeadMaps, findings: Findings) -> None:
    """Checks strides in pixels. If they are not the maps', anchors drift away from the cells that predict them."""
    if anchors.HasField("grid_anchor_generator"):
        _check_strides(anchors.grid_anchor_generator, maps, 0, findings.at("grid_anchor_generator"))
    elif anchors.HasField("flexible_grid_anchor_generator"):
        for index, grid in enumerate(anchors.flexible_grid_anchor_generator.anchor_grid):
            _check_strides(grid, maps, index, findings.at(f"flexible_grid_anchor_generator.anchor_grid[{index}]"))


def _check_strides(
    grid: pb.GridAnchorGenerator | pb.AnchorGrid, maps: HeadMaps, index: int, findings: Findings
) -> None:
    stride = 2 ** maps.levels[index]
    for name in ("height_stride", "width_stride"):
        if getattr(grid, name) != stride:
            text = (
                f"is {getattr(grid, name)}, but the map has stride {stride} ({maps.source}), so that anchors lie off "
                "the cells that predict them"
            )
            findings.warning(name, "anchor-stride", text, [maps.source.split(".")[-1]])


def _check_max_proposals(model: pb.FasterRcnn, levels: tuple[int, ...], findings: Findings) -> None:
    """Checks that there are no more proposals than anchors, if the resizer limits the size of the input."""
    size, counts = input_size(model.image_resizer), anchors_per_location(model.first_stage_anchor_generator)
    if size is None or not counts:
        return
    # An input of free size is padded to the coarsest stride if a pyramid reads it.
    multiple = 1 if size.is_static or len(levels) == 1 else 2 ** max(levels)
    height, width = (side + -side % multiple for side in size[:2])
    if len(counts) == 1:
        counts *= len(levels)
    total = sum(
        -(-height // 2**level) * -(-width // 2**level) * count for level, count in zip(levels, counts, strict=True)
    )
    most = "" if size.is_static else "at most "
    for name in ("first_stage_max_proposals", "first_stage_max_proposals_in_training"):
        if getattr(model, name) > total:
            text = f"is {getattr(model, name)}, but an input of {most}{height}x{width} pixels has {most}{total} anchors"
            findings.error(name, "more-proposals-than-anchors", f"{text}; accepted: 1 to {total}")
