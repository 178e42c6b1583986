"""BiFPN, the bidirectional feature pyramid of EfficientDet: repeated passes top-down and bottom-up.

Reads C_l of an extractor and returns P_l for a head that all levels share. One pass at levels 3 to 7::

    7 ------------------------> 7'      7' = f(7, 6')
    6 ------> t6 -------------> 6'      6' = f(6, t6, 5')       t6 = f(6, 7)
    5 ------> t5 -------------> 5'      5' = f(5, t5, 4')       t5 = f(5, t6)
    4 ------> t4 -------------> 4'      4' = f(4, t4, 3')       t4 = f(4, t5)
    3 ------------------------> 3'                              3' = f(3, t4)

f resizes its inputs to one size, adds them with learned weights, activates, and convolves (separable 3 x 3,
normalised). Coarser maps are doubled by nearest neighbour, finer ones halved by a maximum over 3 x 3. Every node that
reads a map of the backbone has a separate 1 x 1 convolution for it, normalised and not activated. Two nodes read maps 4
and 5 of the first pass, so there are two convolutions of each.

Differs from the paper, section 3.3: the activation is before the convolution, and P6 derives from a projected C5, as in
the authors' code and the Object Detection API.

References:
    Tan, Pang and Le, EfficientDet, arXiv:1911.09070, sections 3.2 (cross-scale connections), 3.3 (weighted fusion).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import keras

from detzoo.contracts import ConvHyperparams, Tensor
from detzoo.layers.conv import convolution, needs_bias, normalize_and_activate, separable_convolution
from detzoo.layers.fusion import WeightedSum
from detzoo.layers.resample import UpsampleLike

KERNEL_SIZE = 3  # of the convolutions and of the maximum that halves a map
UNWEIGHTED = "sum"


class BifpnOptions(NamedTuple):
    """Options of a BiFPN."""

    num_iterations: int  # passes, each top-down and bottom-up
    depth: int  # channels of every level
    fusion: str = "fast_attention"  # "sum", or a method of detzoo.layers.fusion.WeightedSum


def bidirectional_pyramid(
    maps: Mapping[int, Tensor], max_level: int, options: BifpnOptions, hyperparams: ConvHyperparams
) -> dict[int, Tensor]:
    """Runs the passes.

    Args:
        maps: Level to C_l [B, H_l, W_l, channels], consecutive levels; sizes may be odd and not square.
        max_level: Coarsest level, above the finest of ``maps``; levels past those of ``maps`` are halvings of the last.
        options: See ``BifpnOptions``.
        hyperparams: Hyperparameters of every convolution.

    Returns:
        Level to P_l [B, H_l, W_l, depth], in ascending order of level.
    """
    build = _Builder(options, hyperparams)
    pyramid = {level: _Map(level, x, is_projected=False) for level, x in sorted(maps.items()) if level <= max_level}
    for level in range(max(pyramid) + 1, max_level + 1):
        pyramid[level] = build.resampled(pyramid[level - 1], pyramid[level - 1], level, f"bifpn_coarse_{level}")
    for iteration in range(1, options.num_iterations + 1):
        pyramid = _one_pass(pyramid, build, f"bifpn_{iteration}")
    return {level: node.tensor for level, node in pyramid.items()}


class _Map(NamedTuple):
    """A map of the pyramid, or of the backbone (not projected, so with the backbone's channels)."""

    level: int
    tensor: Tensor
    is_projected: bool


def _one_pass(pyramid: dict[int, _Map], build: _Builder, name: str) -> dict[int, _Map]:
    finest, *between, coarsest = pyramid
    down = {coarsest: pyramid[coarsest]}
    for level in (*reversed(between), finest):
        down[level] = build.fused([pyramid[level], down[level + 1]], f"{name}_down_{level}")
    up = {finest: down[finest]}
    for level in between:
        up[level] = build.fused([pyramid[level], down[level], up[level - 1]], f"{name}_up_{level}")
    up[coarsest] = build.fused([pyramid[coarsest], up[coarsest - 1]], f"{name}_up_{coarsest}")
    return up


class _Builder(NamedTuple):
    """Wires the nodes of a BiFPN."""

    options: BifpnOptions
    hyperparams: ConvHyperparams

    def fused(self, inputs: list[_Map], name: str) -> _Map:
        """Computes the paper's f; the first input has the level of the result."""
        like = inputs[0]
        terms = [self.resampled(x, like, like.level, name).tensor for x in inputs]
        if self.options.fusion == UNWEIGHTED:
            x = keras.layers.Add(name=f"{name}_sum")(terms)
        else:
            x = WeightedSum(self.options.fusion, name=f"{name}_sum")(terms)
        if self.hyperparams.activation is not None:
            x = keras.layers.Activation(self.hyperparams.activation, name=f"{name}_activation")(x)
        x = separable_convolution(
            self.options.depth,
            KERNEL_SIZE,
            self.hyperparams,
            name=f"{name}_separable",
            configure_pointwise=True,
            use_bias=needs_bias(self.hyperparams),
        )(x)
        x = normalize_and_activate(x, self.hyperparams, name, use_activation=False)
        return _Map(like.level, x, is_projected=True)

    def resampled(self, x: _Map, like: _Map, level: int, name: str) -> _Map:
        """Returns a map with the pyramid's channels, at its own or a neighbouring level of the size of ``like``."""
        tensor = x.tensor if x.is_projected else self._projected(x, name)
        if x.level < level:
            pool = keras.layers.MaxPooling2D(KERNEL_SIZE, strides=2, padding="same", name=f"{name}_downsample")
            tensor = pool(tensor)
        elif x.level > level:
            tensor = UpsampleLike(name=f"{name}_upsample")([tensor, like.tensor])
        return _Map(level, tensor, is_projected=True)

    def _projected(self, x: _Map, name: str) -> Tensor:
        name = f"{name}_lateral_{x.level}"
        use_bias = needs_bias(self.hyperparams)
        tensor = convolution(self.options.depth, 1, self.hyperparams, name=f"{name}_conv", use_bias=use_bias)(x.tensor)
        return normalize_and_activate(tensor, self.hyperparams, name, use_activation=False)
