"""Feature pyramid of a one-stage or two-stage detector: pathway and coarse levels chosen by parts.

Lin et al., arXiv:1612.03144, sections 3 and 5.1.2; for RetinaNet Lin et al., arXiv:1708.02002, section 4.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping

from detzoo.contracts import ConvHyperparams, Tensor
from detzoo.necks import fpn


class CoarseLevels(enum.Enum):
    """Source of the levels past the backbone's."""

    CONVOLVE_PYRAMID = "convolve_pyramid"  # strided convolutions of the coarsest P; the Object Detection API
    CONVOLVE_BACKBONE = "convolve_backbone"  # of the coarsest C, with a ReLU between them; RetinaNet
    SUBSAMPLE = "subsample"  # every other cell of the coarsest P; the pyramid's paper


@dataclasses.dataclass(frozen=True)
class PyramidParts:
    """Parts of a pyramid. The defaults are those of the pyramid's paper; section 5.1.2 measures what each gains."""

    top_down: bool = True  # add coarser maps to finer ones; without it table 1 (d)
    lateral: bool = True  # add the backbone's maps; without it table 1 (e)
    finest_only: bool = False  # predict from the finest level only; table 1 (f)
    coarse_levels: CoarseLevels = CoarseLevels.SUBSAMPLE  # source of the levels past the backbone's
    is_normalized: bool = False  # normalise and activate the 3 x 3 convolutions as the Object Detection API does
    passes_sums: bool = False  # with ``is_normalized``: the map that goes down is not yet smoothed
    use_depthwise: bool = False  # separable 3 x 3 convolutions ("FPN-lite"); only with ``top_down`` and ``lateral``
    explicit_padding: bool = False  # pad every side before a 3 x 3; only with ``top_down`` and ``lateral``


def feature_pyramid(
    maps: Mapping[int, Tensor], depth: int, max_level: int, hyperparams: ConvHyperparams, parts: PyramidParts
) -> dict[int, Tensor]:
    """Builds the maps that a detector predicts from.

    Args:
        maps: Level to C_l of the backbone [B, H_l, W_l, C_l], consecutive levels.
        depth: Channels of every P_l; 256 in the papers.
        max_level: Coarsest level; 6 for Faster R-CNN and 7 for RetinaNet in the papers.
        hyperparams: Hyperparameters of the convolutions.
        parts: Parts of the pyramid.

    Returns:
        Level to P_l [B, H_l, W_l, depth], ascending, from the finest of ``maps`` to ``max_level``.
    """
    hyperparams = hyperparams if parts.is_normalized else fpn.without_nonlinearity(hyperparams)
    form = (parts.use_depthwise, parts.explicit_padding)
    if not parts.top_down:
        pyramid = fpn.bottom_up_only(maps, depth, hyperparams)
    elif not parts.lateral:
        pyramid = fpn.top_down_only(maps, depth, hyperparams)
    elif parts.is_normalized:
        pyramid = fpn.smoothed_top_down(maps, depth, hyperparams, *form, passes_sums=parts.passes_sums)
    else:
        pyramid = fpn.plain_top_down(maps, depth, hyperparams, *form)
    if parts.finest_only:
        finest = min(pyramid)
        return {finest: pyramid[finest]}
    if parts.coarse_levels is CoarseLevels.CONVOLVE_BACKBONE:
        coarse = fpn.coarse_from_backbone(maps, depth, max_level, hyperparams, *form)
    elif parts.coarse_levels is CoarseLevels.CONVOLVE_PYRAMID:
        coarse = fpn.coarse_from_pyramid(pyramid, depth, max_level, hyperparams, *form)
    else:
        coarse = fpn.coarse_by_subsampling(pyramid, max_level)
    return {**pyramid, **coarse}
