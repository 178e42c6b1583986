"""Feature pyramids: semantically strong maps at every level, from a backbone's maps of one image (floor 2).

Reads C_l of an extractor (levels 2 to 5) and returns P_l for a head that all levels share. The pathway and the levels
past the backbone's exist in two forms:

* ``smoothed_top_down``, ``coarse_from_pyramid``: the Object Detection API's. The map that goes down is already
  smoothed in its Keras models, and the plain sum in its TensorFlow 1 graphs. The coarsest has no 3 x 3, every 3 x 3 is
  normalised and activated, and P6, P7 are strided convolutions of P5.
* ``plain_top_down``, ``coarse_from_backbone``: the papers'. The map that goes down is the plain sum, every merged map
  has a plain 3 x 3 convolution, P6 is a strided convolution of C5, and P7 of ReLU(P6).

Arguments of every pyramid:
    maps: Level to C_l [B, H_l, W_l, channels], consecutive levels; sizes may be odd and not square.
    depth: Channels of every P_l.
    hyperparams: Hyperparameters of every convolution; the 1 x 1 laterals always have a bias and no normalisation.
    use_depthwise: Uses separable 3 x 3 convolutions ("FPN-lite").
    explicit_padding: Pads every side before a 3 x 3, see ``detzoo.layers.conv.conv_block``.

A pyramid is level to P_l [B, H_l, W_l, depth], in ascending order of level. A function of coarse levels takes the same
arguments and returns the new levels up to ``max_level`` only, possibly none.

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

KERNEL_SIZE = 3  # of all convolutions except the laterals


def smoothed_top_down(
    maps: Mapping[int, Tensor],
    depth: int,
    hyperparams: ConvHyperparams,
    use_depthwise: bool = False,
    explicit_padding: bool = False,
    passes_sums: bool = False,
) -> dict[int, Tensor]:
    """Builds the Object Detection API's top-down pathway. With ``passes_sums`` the sum goes down, not yet smoothed."""
    top, *lower = sorted(maps, reverse=True)
    passed = _lateral(maps[top], depth, hyperparams, top)
    pyramid = {top: passed}
    for level in lower:
        merged = _merge(passed, _lateral(maps[level], depth, hyperparams, level), level)
        pyramid[level] = _smooth(merged, depth, hyperparams, level, use_depthwise, explicit_padding)
        passed = merged if passes_sums else pyramid[level]
    return dict(sorted(pyramid.items()))


def plain_top_down(
    maps: Mapping[int, Tensor],
    depth: int,
    hyperparams: ConvHyperparams,
    use_depthwise: bool = False,
    explicit_padding: bool = False,
) -> dict[int, Tensor]:
    """Builds the papers' top-down pathway, with the initializer and the regularizer of ``hyperparams`` only."""
    plain = without_nonlinearity(hyperparams)
    top, *lower = sorted(maps, reverse=True)
    merged = {top: _lateral(maps[top], depth, plain, top)}
    for level in lower:
        merged[level] = _merge(merged[level + 1], _lateral(maps[level], depth, plain, level), level)
    return {
        level: _smooth(x, depth, plain, level, use_depthwise, explicit_padding) for level, x in sorted(merged.items())
    }


def bottom_up_only(maps: Mapping[int, Tensor], depth: int, hyperparams: ConvHyperparams) -> dict[int, Tensor]:
    """Builds independent levels, each from a lateral 1 x 1 and a 3 x 3 (section 5.1.2, table 1 d)."""
    return {
        level: _smooth(_lateral(x, depth, hyperparams, level), depth, hyperparams, level)
        for level, x in sorted(maps.items())
    }


def top_down_only(maps: Mapping[int, Tensor], depth: int, hyperparams: ConvHyperparams) -> dict[int, Tensor]:
    """Enlarges the coarsest map level by level, to the sizes of the finer maps (section 5.1.2, table 1 e)."""
    top, *lower = sorted(maps, reverse=True)
    enlarged = {top: _lateral(maps[top], depth, hyperparams, top)}
    for level in lower:
        enlarged[level] = UpsampleLike(name=f"fpn_upsample_{level}")([enlarged[level + 1], maps[level]])
    return {level: _smooth(x, depth, hyperparams, level) for level, x in sorted(enlarged.items())}


def coarse_by_subsampling(pyramid: Mapping[int, Tensor], max_level: int) -> dict[int, Tensor]:
    """Adds levels of every other cell of the level before (section 4.1, footnote 2)."""
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
    relu_between: bool = False,
) -> dict[int, Tensor]:
    """Adds levels past the coarsest P_l, each a 3 x 3 convolution of stride 2 of the level before.

    ``relu_between`` puts a ReLU between these convolutions.
    """
    last = max(pyramid)
    coarse, x = {}, pyramid[last]
    for level in range(last + 1, max_level + 1):
        name = f"fpn_coarse_{level}"
        if relu_between and level > last + 1:
            x = keras.layers.Activation("relu", name=f"{name}_input_relu")(x)
        x = coarse[level] = conv_block(
            x, depth, KERNEL_SIZE, hyperparams, name, 2, depthwise=use_depthwise, explicit_padding=explicit_padding
        )
    return coarse


def coarse_from_backbone(
    maps: Mapping[int, Tensor],
    depth: int,
    max_level: int,
    hyperparams: ConvHyperparams,
    use_depthwise: bool = False,
    explicit_padding: bool = False,
) -> dict[int, Tensor]:
    """Adds levels past the coarsest C_l: the first from C_l, each other from the ReLU of the level before."""
    return coarse_from_pyramid(maps, depth, max_level, hyperparams, use_depthwise, explicit_padding, relu_between=True)


def without_nonlinearity(hyperparams: ConvHyperparams) -> ConvHyperparams:
    """Returns ``hyperparams`` without normalisation and activation."""
    return dataclasses.replace(hyperparams, batch_norm=None, activation=None)


def _lateral(x: Tensor, depth: int, hyperparams: ConvHyperparams, level: int) -> Tensor:
    return convolution(depth, 1, hyperparams, name=f"fpn_lateral_{level}", use_bias=True)(x)


def _smooth(
    x: Tensor,
    depth: int,
    hyperparams: ConvHyperparams,
    level: int,
    use_depthwise: bool = False,
    explicit_padding: bool = False,
) -> Tensor:
    name = f"fpn_smooth_{level}"
    return conv_block(
        x, depth, KERNEL_SIZE, hyperparams, name, depthwise=use_depthwise, explicit_padding=explicit_padding
    )


def _merge(top_down: Tensor, lateral: Tensor, level: int) -> Tensor:
    upsampled = UpsampleLike(name=f"fpn_upsample_{level}")([top_down, lateral])
    return keras.layers.Add(name=f"fpn_merge_{level}")([upsampled, lateral])
