"""Feature pyramids: semantically strong maps at every level, from a backbone's maps of one image.

Reads C_l of an extractor (levels 2 to 5) and hands P_l to a head shared over the levels. The pathway exists twice, and
so do the levels past the backbone's:

* ``smoothed_top_down``, ``coarse_from_pyramid``: the Object Detection API's. The map that goes down is already
  smoothed, the coarsest has no 3 x 3, every 3 x 3 is normalised and activated, and P6, P7 are strided convolutions of
  P5.
* ``plain_top_down``, ``coarse_from_backbone``: the papers'. The map that goes down is the bare sum, every merged map
  has a plain 3 x 3 convolution, P6 is a strided convolution of C5, and P7 of ReLU(P6).

References:
    Lin et al., arXiv:1612.03144, section 3 (top-down pathway and lateral connections);
    Lin et al., arXiv:1708.02002, section 4, footnote 2 (P3 to P7).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import keras

from detzoo.contracts import ConvHyperparams, Tensor
from detzoo.layers.conv import conv_block, convolution
from detzoo.layers.resample import UpsampleLike

KERNEL_SIZE = 3  # of all but the laterals


def smoothed_top_down(
    maps: Mapping[int, Tensor],
    depth: int,
    hyperparams: ConvHyperparams,
    use_depthwise: bool = False,
    explicit_padding: bool = False,
) -> dict[int, Tensor]:
    """The Object Detection API's top-down pathway.

    Args:
        maps: Level to C_l [B, H_l, W_l, channels], consecutive levels; sizes may be odd and not square.
        depth: Channels of every P_l.
        hyperparams: Of every 3 x 3; the 1 x 1 laterals have a bias and no normalisation.
        use_depthwise: Separable 3 x 3 convolutions ("FPN-lite").
        explicit_padding: Pad every side before a 3 x 3, see ``detzoo.layers.conv.conv_block``.

    Returns:
        Level to P_l [B, H_l, W_l, depth], in ascending order of level.
    """
    top, *lower = sorted(maps, reverse=True)
    pyramid = {top: _lateral(maps[top], depth, hyperparams, top)}
    for level in lower:
        merged = _merge(pyramid[level + 1], _lateral(maps[level], depth, hyperparams, level), level)
        pyramid[level] = conv_block(
            merged,
            depth,
            KERNEL_SIZE,
            hyperparams,
            name=f"fpn_smooth_{level}",
            depthwise=use_depthwise,
            explicit_padding=explicit_padding,
        )
    return dict(sorted(pyramid.items()))


def plain_top_down(
    maps: Mapping[int, Tensor],
    depth: int,
    hyperparams: ConvHyperparams,
    use_depthwise: bool = False,
    explicit_padding: bool = False,
) -> dict[int, Tensor]:
    """The papers' top-down pathway: convolutions with a bias only, whatever ``hyperparams`` normalise and activate.

    Args and returns as ``smoothed_top_down``; of ``hyperparams`` the initializer and the regularizer are read.
    """
    plain = without_nonlinearity(hyperparams)
    top, *lower = sorted(maps, reverse=True)
    merged = {top: _lateral(maps[top], depth, plain, top)}
    for level in lower:
        merged[level] = _merge(merged[level + 1], _lateral(maps[level], depth, plain, level), level)
    return {
        level: conv_block(
            x,
            depth,
            KERNEL_SIZE,
            plain,
            name=f"fpn_smooth_{level}",
            depthwise=use_depthwise,
            explicit_padding=explicit_padding,
        )
        for level, x in sorted(merged.items())
    }


def bottom_up_only(maps: Mapping[int, Tensor], depth: int, hyperparams: ConvHyperparams) -> dict[int, Tensor]:
    """A pyramid whose levels do not know of each other: a lateral 1 x 1 and a 3 x 3 each (section 5.1.2, table 1 d).

    Args and returns as ``smoothed_top_down``.
    """
    return {
        level: conv_block(
            _lateral(x, depth, hyperparams, level), depth, KERNEL_SIZE, hyperparams, name=f"fpn_smooth_{level}"
        )
        for level, x in sorted(maps.items())
    }


def top_down_only(maps: Mapping[int, Tensor], depth: int, hyperparams: ConvHyperparams) -> dict[int, Tensor]:
    """A pyramid of the coarsest map alone, enlarged again and again (section 5.1.2, table 1 e).

    Args and returns as ``smoothed_top_down``; of the finer maps only the size is read.
    """
    top, *lower = sorted(maps, reverse=True)
    enlarged = {top: _lateral(maps[top], depth, hyperparams, top)}
    for level in lower:
        enlarged[level] = UpsampleLike(name=f"fpn_upsample_{level}")([enlarged[level + 1], maps[level]])
    return {
        level: conv_block(x, depth, KERNEL_SIZE, hyperparams, name=f"fpn_smooth_{level}")
        for level, x in sorted(enlarged.items())
    }


def coarse_by_subsampling(pyramid: Mapping[int, Tensor], max_level: int) -> dict[int, Tensor]:
    """Levels past the coarsest P_l, each every other cell of the one before (section 4.1, footnote 2).

    Args:
        pyramid: Level to P_l.
        max_level: Coarsest level wanted.

    Returns:
        The new levels only, in ascending order; empty where ``pyramid`` reaches ``max_level``.
    """
    last = max(pyramid)
    coarse, x = {}, pyramid[last]
    for level in range(last + 1, max_level + 1):
        x = coarse[level] = keras.layers.MaxPooling2D(1, strides=2, padding="same", name=f"fpn_coarse_{level}")(x)
    return coarse


def coarse_from_pyramid(
    pyramid: Mapping[int, Tensor],
    depth: int,
    max_level: int,
    hyperparams: ConvHyperparams,
    use_depthwise: bool = False,
    explicit_padding: bool = False,
) -> dict[int, Tensor]:
    """Levels past the coarsest P_l up to ``max_level``, each a 3 x 3 convolution of stride 2 on the one before.

    Args:
        pyramid: Level to P_l.
        depth: Channels of each new level.
        max_level: Coarsest level wanted.
        hyperparams: Of every convolution here.
        use_depthwise: Separable convolutions.
        explicit_padding: Pad every side before a convolution.

    Returns:
        The new levels only, in ascending order; empty where ``pyramid`` reaches ``max_level``.
    """
    last = max(pyramid)
    coarse, x = {}, pyramid[last]
    for level in range(last + 1, max_level + 1):
        x = conv_block(
            x,
            depth,
            KERNEL_SIZE,
            hyperparams,
            name=f"fpn_coarse_{level}",
            strides=2,
            depthwise=use_depthwise,
            explicit_padding=explicit_padding,
        )
        coarse[level] = x
    return coarse


def coarse_from_backbone(
    maps: Mapping[int, Tensor],
    depth: int,
    max_level: int,
    hyperparams: ConvHyperparams,
    use_depthwise: bool = False,
    explicit_padding: bool = False,
) -> dict[int, Tensor]:
    """Levels past the coarsest C_l up to ``max_level``: the first from C_l, each further one from the ReLU before it.

    Args:
        maps: Level to C_l.
        depth: Channels of each new level.
        max_level: Coarsest level wanted.
        hyperparams: Of every convolution here.
        use_depthwise: Separable convolutions.
        explicit_padding: Pad every side before a convolution.

    Returns:
        The new levels only, in ascending order; empty where ``maps`` reach ``max_level``.
    """
    last = max(maps)
    coarse, x = {}, maps[last]
    for level in range(last + 1, max_level + 1):
        if level > last + 1:
            x = keras.layers.Activation("relu", name=f"fpn_coarse_{level}_input_relu")(x)
        x = conv_block(
            x,
            depth,
            KERNEL_SIZE,
            hyperparams,
            name=f"fpn_coarse_{level}",
            strides=2,
            depthwise=use_depthwise,
            explicit_padding=explicit_padding,
        )
        coarse[level] = x
    return coarse


def without_nonlinearity(hyperparams: ConvHyperparams) -> ConvHyperparams:
    """``hyperparams`` with neither normalisation nor activation."""
    return dataclasses.replace(hyperparams, batch_norm=None, activation=None)


def _lateral(x: Tensor, depth: int, hyperparams: ConvHyperparams, level: int) -> Tensor:
    return convolution(depth, 1, hyperparams, name=f"fpn_lateral_{level}", use_bias=True)(x)


def _merge(top_down: Tensor, lateral: Tensor, level: int) -> Tensor:
    upsampled = UpsampleLike(name=f"fpn_upsample_{level}")([top_down, lateral])
    return keras.layers.Add(name=f"fpn_merge_{level}")([upsampled, lateral])
