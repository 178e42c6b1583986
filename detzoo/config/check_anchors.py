"""Checks of an SSD's anchors: against the levels of its feature extractor, and against its head."""

from __future__ import annotations

from typing import Any

from detzoo.config.problems import Findings
from detzoo.config.support import SsdExtractor

_EXTRACTOR_PATH = "model.ssd.feature_extractor"
_ANCHORS_PATH = "model.ssd.anchor_generator"
COARSEST_LEVEL = 12  # a map of stride 4096; coarser ones are a typing error
_REDUCED_LOWEST_LAYER = 3  # boxes


def check_anchors(ssd: Any, extractor: SsdExtractor, findings: Findings) -> None:
    """Adds what does not fit: levels, numbers of maps, lengths of lists, anchors at a location."""
    levels = _check_levels(ssd.feature_extractor, extractor, findings)
    kind = ssd.anchor_generator.WhichOneof("anchor_generator_oneof")
    if kind is None or not levels:
        return
    path, generator = f"{_ANCHORS_PATH}.{kind}", getattr(ssd.anchor_generator, kind)
    if kind == "multiscale_anchor_generator":
        _check_multiscale(generator, path, findings)
        if not ssd.feature_extractor.output_stride:
            _check_same_levels(generator, path, levels, extractor, findings)
    elif kind == "ssd_anchor_generator":
        _check_ssd_generator(generator, path, findings)
        if generator.num_layers != len(levels) and not ssd.feature_extractor.output_stride:
            source = "fpn.min_level to fpn.max_level" if extractor.is_fpn else "num_layers"
            text = f"is {generator.num_layers}, but the extractor gives {len(levels)} maps ({source}); make them equal"
            findings.error(f"{path}.num_layers", text)
        if ssd.box_predictor.HasField("weight_shared_convolutional_box_predictor"):
            _check_equal_counts(generator, path, findings)
    elif kind == "flexible_grid_anchor_generator":
        if len(generator.anchor_grid) != len(levels):
            text = f"has {len(generator.anchor_grid)} entries; the feature extractor has {len(levels)} maps"
            findings.error(f"{path}.anchor_grid", text)
    elif len(levels) != 1:
        text = (
            f"gives anchors for one map; the feature extractor has {len(levels)}. Use ssd_anchor_generator, "
            "multiscale_anchor_generator or flexible_grid_anchor_generator"
        )
        findings.error(path, text)


def _check_levels(message: Any, extractor: SsdExtractor, findings: Findings) -> tuple[int, ...]:
    """The levels of the maps that the head reads, finest first; () where the config does not say it rightly."""
    if not extractor.is_fpn:
        if not 1 <= message.num_layers <= extractor.max_num_layers:
            text = f"is {message.num_layers}; accepted for {message.type}: 1 to {extractor.max_num_layers}"
            findings.error(f"{_EXTRACTOR_PATH}.num_layers", text)
            return ()
        return extractor.ssd_levels(message.num_layers)
    fpn, finest, coarsest = message.fpn, extractor.backbone_levels[0], extractor.backbone_levels[-1]
    if not finest <= fpn.min_level <= coarsest:
        text = f"is {fpn.min_level}; accepted for {message.type}: {finest} to {coarsest}, the levels of the backbone"
        findings.error(f"{_EXTRACTOR_PATH}.fpn.min_level", text)
        return ()
    if not fpn.min_level <= fpn.max_level <= COARSEST_LEVEL:
        text = f"is {fpn.max_level}; accepted: min_level ({fpn.min_level}) to {COARSEST_LEVEL}"
        findings.error(f"{_EXTRACTOR_PATH}.fpn.max_level", text)
        return ()
    if fpn.additional_layer_depth < 1:
        text = f"is {fpn.additional_layer_depth}; accepted: 1 or more channels"
        findings.error(f"{_EXTRACTOR_PATH}.fpn.additional_layer_depth", text)
    return tuple(range(fpn.min_level, fpn.max_level + 1))


def _check_same_levels(
    generator: Any, path: str, levels: tuple[int, ...], extractor: SsdExtractor, findings: Findings
) -> None:
    """Whether the anchors are of the maps' levels; an output stride below the extractor's own changes the latter."""
    source = f"{_EXTRACTOR_PATH}.fpn" if extractor.is_fpn else f"{_EXTRACTOR_PATH}.num_layers"
    for name, wanted in (("min_level", levels[0]), ("max_level", levels[-1])):
        received = getattr(generator, name)
        if received != wanted:
            text = f"is {received}; the maps have levels {levels[0]} to {levels[-1]} ({source}); accepted: {wanted}"
            findings.error(f"{path}.{name}", text)


def _check_multiscale(generator: Any, path: str, findings: Findings) -> None:
    if generator.scales_per_octave < 1:
        findings.error(f"{path}.scales_per_octave", f"is {generator.scales_per_octave}; accepted: 1 or more")
    if not generator.anchor_scale > 0:
        findings.error(f"{path}.anchor_scale", f"is {generator.anchor_scale:g}; accepted: above 0, in strides")
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
    if not generator.scales:
        if not 0 < generator.min_scale <= generator.max_scale:
            text = f"is {generator.min_scale:g}; accepted: above 0, at most max_scale ({generator.max_scale:g})"
            findings.error(f"{path}.min_scale", text)
    elif min(generator.scales) <= 0:
        findings.error(f"{path}.scales", f"holds {min(generator.scales):g}; accepted: above 0")
    if generator.aspect_ratios or not generator.interpolated_scale_aspect_ratio > 0:
        _check_aspect_ratios(generator.aspect_ratios, path, findings)


def _check_aspect_ratios(aspect_ratios: Any, path: str, findings: Findings) -> None:
    if not aspect_ratios:
        findings.error(f"{path}.aspect_ratios", "is missing; give at least one width / height, such as 1.0")
    elif not all(ratio > 0 for ratio in aspect_ratios):
        findings.error(f"{path}.aspect_ratios", f"holds {min(aspect_ratios):g}; accepted: above 0")


def _check_equal_counts(generator: Any, path: str, findings: Findings) -> None:
    """A head whose weights are shared over the levels has one number of anchors at a location."""
    ordinary = len(generator.aspect_ratios) + (generator.interpolated_scale_aspect_ratio > 0)
    lowest = _REDUCED_LOWEST_LAYER if generator.reduce_boxes_in_lowest_layer else ordinary
    if generator.num_layers > 1 and lowest != ordinary:
        text = (
            f"gives the finest map {lowest} boxes at a location and the others {ordinary}, but "
            "weight_shared_convolutional_box_predictor needs one number; set it to false"
        )
        findings.error(f"{path}.reduce_boxes_in_lowest_layer", text)
