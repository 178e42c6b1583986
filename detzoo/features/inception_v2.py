"""Inception v2, the "Inception with batch normalisation", which ``keras.applications`` lacks.

References:
    Ioffe and Szegedy, arXiv:1502.03167, figure 5; widths and separable first convolution of the network of
    Huang et al., arXiv:1611.10012 (names of its blocks: Mixed_3b to Mixed_5c).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import keras

from detzoo.contracts import Tensor
from detzoo.features.inception import BATCH_NORM, INCEPTION_V3_HYPERPARAMS
from detzoo.features.network import Network, symbolic

HYPERPARAMS = INCEPTION_V3_HYPERPARAMS
# The Object Detection API's batch norm has gamma in two-stage detectors, and in SSD only if the config sets it.
TWO_STAGE_HYPERPARAMS = dataclasses.replace(HYPERPARAMS, batch_norm=dataclasses.replace(BATCH_NORM, scale=True))
PYRAMID_ENDPOINTS = {2: "conv_2c_activation", 3: "mixed_3c", 4: "mixed_4e", 5: "mixed_5c"}
SSD_ENDPOINTS = PYRAMID_ENDPOINTS | {4: "mixed_4c"}

STEM_DEPTHWISE_FILTERS = 8  # for each of the three colours
_STEM_FILTERS = 64


class _Mixed(NamedTuple):
    """Channels of a block's branches. Each tuple is a chain of convolutions: a 1 x 1, then one or two 3 x 3."""

    name: str
    pointwise: int  # the 1 x 1 branch
    single: tuple[int, int]  # 1 x 1, 3 x 3
    double: tuple[int, int]  # 1 x 1, and two 3 x 3 of the same width
    pooled: int  # the 1 x 1 after the pooling
    pooling: type[keras.layers.Layer] = keras.layers.AveragePooling2D


class _Reduction(NamedTuple):
    """Channels of a block with stride 2: two chains of convolutions and a max pooling."""

    name: str
    single: tuple[int, int]
    double: tuple[int, int]


_BLOCKS: tuple[_Mixed | _Reduction, ...] = (
    _Mixed("mixed_3b", 64, (64, 64), (64, 96), 32),
    _Mixed("mixed_3c", 64, (64, 96), (64, 96), 64),
    _Reduction("mixed_4a", (128, 160), (64, 96)),
    _Mixed("mixed_4b", 224, (64, 96), (96, 128), 128),
    _Mixed("mixed_4c", 192, (96, 128), (96, 128), 128),
    _Mixed("mixed_4d", 160, (128, 160), (128, 160), 96),
    _Mixed("mixed_4e", 96, (128, 192), (160, 192), 96),
    _Reduction("mixed_5a", (128, 192), (192, 256)),
    _Mixed("mixed_5b", 352, (192, 320), (160, 224), 128),
    _Mixed("mixed_5c", 352, (192, 320), (192, 224), 128, keras.layers.MaxPooling2D),
)


def inception_v2(depth_multiplier: float = 1.0, min_depth: int = 1, for_pyramid: bool = False) -> Network:
    """Describes Inception v2: the network, endpoints 2 to 5.

    The multiplied channels of a convolution are rounded down and at least ``min_depth``. For a pyramid level 4 is the
    last block of stride 16 (Mixed_4e) rather than SSD's Mixed_4c.
    """

    def depth(filters: int) -> int:
        return max(int(filters * depth_multiplier), min_depth)

    stem_depthwise = min(depth(_STEM_FILTERS) // 3, STEM_DEPTHWISE_FILTERS)
    blocks = [_scaled(block, depth) for block in _BLOCKS]
    stem = (depth(_STEM_FILTERS), depth(64), depth(192))
    return Network(
        graph=symbolic(lambda: _graph(stem_depthwise, stem, blocks)),
        endpoints=PYRAMID_ENDPOINTS if for_pyramid else SSD_ENDPOINTS,
        hyperparams=HYPERPARAMS,
        two_stage_hyperparams=TWO_STAGE_HYPERPARAMS,
    )


def _graph(stem_depthwise: int, stem: tuple[int, int, int], blocks: list[_Mixed | _Reduction]) -> keras.Model:
    image = keras.Input((None, None, 3))
    x = keras.layers.SeparableConv2D(
        stem[0], 7, strides=2, padding="same", depth_multiplier=stem_depthwise, use_bias=False, name="conv_1a_separable"
    )(image)
    x = _normalize(x, "conv_1a")
    x = keras.layers.MaxPooling2D(3, strides=2, padding="same", name="pool_2a")(x)
    x = _convolution(x, stem[1], 1, "conv_2b")
    x = _convolution(x, stem[2], 3, "conv_2c")
    x = keras.layers.MaxPooling2D(3, strides=2, padding="same", name="pool_3a")(x)
    for block in blocks:
        x = _mixed(x, block) if isinstance(block, _Mixed) else _reduction(x, block)
    return keras.Model(image, x)


def _mixed(x: Tensor, block: _Mixed) -> Tensor:
    name = block.name
    pooled = block.pooling(3, strides=1, padding="same", name=f"{name}_pool")(x)
    branches = [
        _convolution(x, block.pointwise, 1, f"{name}_pointwise"),
        _chain(x, block.single, f"{name}_single", num_spatial=1),
        _chain(x, block.double, f"{name}_double", num_spatial=2),
        _convolution(pooled, block.pooled, 1, f"{name}_pooled"),
    ]
    return keras.layers.Concatenate(name=name)(branches)


def _reduction(x: Tensor, block: _Reduction) -> Tensor:
    name = block.name
    branches = [
        _chain(x, block.single, f"{name}_single", num_spatial=1, strides=2),
        _chain(x, block.double, f"{name}_double", num_spatial=2, strides=2),
        keras.layers.MaxPooling2D(3, strides=2, padding="same", name=f"{name}_pool")(x),
    ]
    return keras.layers.Concatenate(name=name)(branches)


def _chain(x: Tensor, filters: tuple[int, int], name: str, num_spatial: int, strides: int = 1) -> Tensor:
    """Wires a 1 x 1 convolution and ``num_spatial`` 3 x 3, the last with the stride."""
    x = _convolution(x, filters[0], 1, f"{name}_reduce")
    for number in range(1, num_spatial + 1):
        x = _convolution(x, filters[1], 3, f"{name}_{number}", strides=strides if number == num_spatial else 1)
    return x


def _convolution(x: Tensor, filters: int, kernel_size: int, name: str, strides: int = 1) -> Tensor:
    x = keras.layers.Conv2D(filters, kernel_size, strides=strides, padding="same", use_bias=False, name=f"{name}_conv")(
        x
    )
    return _normalize(x, name)


def _normalize(x: Tensor, name: str) -> Tensor:
    x = keras.layers.BatchNormalization(scale=False, name=f"{name}_batch_norm")(x)
    return keras.layers.Activation("relu", name=f"{name}_activation")(x)


def _scaled(block: _Mixed | _Reduction, depth: Callable[[int], int]) -> _Mixed | _Reduction:
    """Returns the block with ``depth`` applied to every number of channels."""
    single = (depth(block.single[0]), depth(block.single[1]))
    double = (depth(block.double[0]), depth(block.double[1]))
    if isinstance(block, _Reduction):
        return block._replace(single=single, double=double)
    return block._replace(pointwise=depth(block.pointwise), single=single, double=double, pooled=depth(block.pooled))
