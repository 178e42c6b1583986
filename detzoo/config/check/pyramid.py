"""Checks of ``feature_extractor.fpn``: the levels that a pyramid has, and switches that leave nothing of it."""

from __future__ import annotations

from typing import Any

from detzoo.config import pb
from detzoo.config.problems import Findings
from detzoo.config.support import PYRAMID_LEVELS

COARSEST_LEVEL = 12  # a map of stride 4096; coarser ones are a typing error


def check_pyramid(extractor_message: Any, path: str, findings: Findings) -> tuple[int, ...]:
    """Adds what is wrong with the ``fpn`` of a ``feature_extractor`` block.

    Args:
        extractor_message: pb.SsdFeatureExtractor or pb.FasterRcnnFeatureExtractor, of a type with a pyramid.
        path: of that block.
        findings: where problems go.

    Returns:
        The levels of the pyramid, finest first; () where the config does not say them rightly.
    """
    fpn, path = extractor_message.fpn, f"{path}.fpn"
    finest, coarsest = PYRAMID_LEVELS[0], PYRAMID_LEVELS[-1]
    if not finest <= fpn.min_level <= coarsest:
        text = (
            f"is {fpn.min_level}; accepted for {extractor_message.type}: {finest} to {coarsest}, the levels of the "
            "backbone"
        )
        findings.error(f"{path}.min_level", text)
        return ()
    _check_switches(fpn, path, findings)
    return tuple(range(fpn.min_level, fpn.max_level + 1))


def _check_switches(fpn: Any, path: str, findings: Findings) -> None:
    if not fpn.lateral_connections and not fpn.top_down_pathway:
        text = "is false, and so is top_down_pathway: nothing is left that makes the finer levels; keep one of them"
        findings.error(f"{path}.lateral_connections", text)
    if fpn.coarse_source == pb.FeaturePyramidNetworks.PYRAMID:
        return
    source = pb.FeaturePyramidNetworks.CoarseSource.Name(fpn.coarse_source)
    if fpn.finest_level_only:
        text = f"is {source}, without effect: finest_level_only leaves out the levels past the backbone's"
        findings.warning(f"{path}.coarse_source", text)
    elif fpn.max_level <= PYRAMID_LEVELS[-1]:
        text = f"is {source}, without effect: max_level {fpn.max_level} adds no level past the backbone's"
        findings.warning(f"{path}.coarse_source", text)
