"""What ``feature_extractor.bifpn`` asks for, said once for its checks and its builder.

References:
    Tan, Pang and Le, EfficientDet, arXiv:1911.09070, table 1 (passes and channels of D0 to D7).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from detzoo.config.check.pyramid import COARSEST_LEVEL
from detzoo.config.names import nearest
from detzoo.config.problems import Findings
from detzoo.config.support import PYRAMID_LEVELS, SsdExtractor

FUSIONS = ("fast_attention", "attention", "sum", "weighted_sum")
_FAST, _CONSTANT, _SUM = FUSIONS[:3]
# Fields that other extractors have. The Object Detection API refuses them here, too.
NOT_FOR_BIFPN = ("use_explicit_padding", "use_depthwise", "override_base_feature_extractor_hyperparams")


class Bifpn(NamedTuple):
    """A bidirectional pyramid as a config describes it."""

    min_level: int
    max_level: int
    num_iterations: int
    num_filters: int
    fusion: str

    @property
    def levels(self) -> tuple[int, ...]:
        """Levels of the pyramid, finest first."""
        return tuple(range(self.min_level, self.max_level + 1))


# Of an extractor whose block is left out, by its variant: table 1, and plain sums in the two largest.
_DEFAULTS = {
    "b0": (3, 64, _FAST),
    "b1": (4, 88, _FAST),
    "b2": (5, 112, _FAST),
    "b3": (6, 160, _FAST),
    "b4": (7, 224, _FAST),
    "b5": (7, 288, _FAST),
    "b6": (8, 384, _SUM),
    "b7": (8, 384, _SUM),
}


def bifpn_of(message: Any, extractor: SsdExtractor) -> Bifpn:
    """The pyramid of a ``pb.SsdFeatureExtractor`` whose type has one; EfficientDet's own where the block is left out.

    ``num_filters`` is never below ``min_depth``, as in the Object Detection API.
    """
    block = message.bifpn
    scale = block.num_iterations, block.num_filters, block.combine_method
    iterations, filters, fusion = scale if message.HasField("bifpn") else _DEFAULTS[extractor.variant]
    filters = max(filters, message.min_depth) if filters > 0 else filters
    return Bifpn(block.min_level, block.max_level, iterations, filters, fusion)


def check_bifpn(message: Any, extractor: SsdExtractor, path: str, findings: Findings) -> tuple[int, ...]:
    """Adds what is wrong with the ``bifpn`` of a ``feature_extractor`` block, and with what does not go with it.

    Args:
        message: pb.SsdFeatureExtractor, of a type with such a pyramid.
        extractor: its entry in the table.
        path: of that block.
        findings: where problems go.

    Returns:
        The levels of the pyramid, finest first; () where the config does not say them rightly.
    """
    bifpn = bifpn_of(message, extractor)
    for name in NOT_FOR_BIFPN:
        if getattr(message, name):
            findings.error(f"{path}.{name}", f"is not supported by {message.type}; accepted: false")
    path = f"{path}.bifpn"
    for name in ("num_iterations", "num_filters"):
        if getattr(bifpn, name) < 1:
            own = _DEFAULTS[extractor.variant][name == "num_filters"]
            findings.error(f"{path}.{name}", f"is {getattr(bifpn, name)}; accepted: 1 or more, in EfficientDet {own}")
    if bifpn.fusion not in FUSIONS:
        close = nearest(bifpn.fusion, FUSIONS)
        hint = f"did you mean '{close[0]}'? " if close else ""
        findings.error(f"{path}.combine_method", f"is '{bifpn.fusion}'; {hint}accepted: {', '.join(FUSIONS)}")
    elif bifpn.fusion == _CONSTANT:
        text = (
            "is 'attention': as in the Object Detection API its softmax gives every map the weight 1, and nothing is "
            f"learned. Use {_FAST}, or {_SUM}, which is the same without weights"
        )
        findings.warning(f"{path}.combine_method", text)
    return _levels(bifpn, message.type, path, findings)


def _levels(bifpn: Bifpn, type_name: str, path: str, findings: Findings) -> tuple[int, ...]:
    finest, coarsest = PYRAMID_LEVELS[0], PYRAMID_LEVELS[-1]
    if not finest <= bifpn.min_level <= coarsest:
        text = f"is {bifpn.min_level}; accepted for {type_name}: {finest} to {coarsest}, the levels of the backbone"
        findings.error(f"{path}.min_level", text)
        return ()
    if not bifpn.min_level < bifpn.max_level <= COARSEST_LEVEL:
        text = f"is {bifpn.max_level}; accepted: min_level + 1 ({bifpn.min_level + 1}) to {COARSEST_LEVEL}"
        findings.error(f"{path}.max_level", text)
        return ()
    return bifpn.levels
