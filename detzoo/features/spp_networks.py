"""The networks of SPP-net's table 1: ZF-5, Convnet*-5, Overfeat-5 and Overfeat-7 (floor 2).

He et al., arXiv:1406.4729, section 3.1.1. Convolutions and poolings here, then a pyramid (``spp_layers``), then two
fully connected layers. The table itself, and all that follows from it without building anything, is
``detzoo.config.spp_table``.

Their strides (16, and Overfeat's 12) are no levels of a feature pyramid. What a detector needs to find a window on the
map is ``stride_px`` and ``offset_px``.

| table 1 | here |
|---|---|
| ZF-5, map size 27 of conv2 | before its pooling; the 55 of conv1 is after its pooling, as the paper counts |
| LRN | ``LocalResponseNormalization`` with AlexNet's constants, which the table does not give |

Differs from arXiv:1406.4729, whose code subtracts the mean of the pixels and starts from Gaussians of deviation 0.01:
pixels are divided by their deviation, too, and layers start with He et al.'s initializer, arXiv:1502.01852. Narrow
networks do not learn from the former: what they see fades, or the first layer's gradients are too large.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import keras

from detzoo.config.spp_table import (
    BASELINE_BINS,
    SPP_NETWORKS,
    Conv,
    Lrn,
    Padding,
    Pool,
    Step,
    map_size,
    map_sizes,
    min_size_px,
    num_channels,
    offset_px,
    padded,
    scaled_channels,
    stride_px,
)
from detzoo.contracts import Tensor
from detzoo.features.normalization import standardize_imagenet
from detzoo.features.spp_layers import LocalResponseNormalization

__all__ = (  # with the table's own, so that who builds a network finds its numbers here
    "BACKBONE",
    "BASELINE_BINS",
    "BOX_BACKBONE",
    "SPP_NETWORKS",
    "FullyConnected",
    "Padding",
    "build_conv_layers",
    "build_fully_connected",
    "map_size",
    "map_sizes",
    "min_size_px",
    "normalize_pixels",
    "num_channels",
    "offset_px",
    "stride_px",
)

BACKBONE, BOX_BACKBONE = "backbone", "box_backbone"  # first components of the variables' paths


def normalize_pixels(images: Tensor) -> Tensor:
    """What the networks expect of RGB images float32 [..., 3], 0..255: mean 0 and deviation 1 over ImageNet."""
    return standardize_imagenet(images)


class FullyConnected(NamedTuple):
    """The two fully connected layers, after ReLU and dropout, each [B, depth]."""

    fc6: Tensor
    fc7: Tensor


def build_conv_layers(
    images: Tensor,
    network: str,
    depth_multiplier: float = 1.0,
    weight_decay: float = 0.0,
    padding: Padding = Padding.TABLE_1,
) -> Tensor:
    """The convolutional layers; their variables' paths are ``backbone/conv1/kernel`` and so on.

    Args:
        images: [B, H, W, 3] from ``normalize_pixels``, a Keras tensor; H and W known or not, at least ``min_size_px``.
        network: key of ``SPP_NETWORKS``.
        depth_multiplier: factor of the channels, above 0.
        weight_decay: weight w of w * sum(x**2) / 2 of each kernel.
        padding: around the input of each layer.

    Returns:
        The last convolution's map [B, h, w, C], see ``map_size``.
    """
    x = images
    with keras.name_scope(BACKBONE):
        for number, stage in enumerate(SPP_NETWORKS[network], start=1):
            for step in stage:
                x = _apply(step, x, number, depth_multiplier, weight_decay, padding)
    return x


def build_fully_connected(
    pooled: Tensor, depth: int = 4096, dropout_rate: float = 0.5, weight_decay: float = 0.0
) -> FullyConnected:
    """fc6 and fc7 with ReLU and dropout; their variables' paths are ``box_backbone/fc6/kernel`` and so on.

    Args:
        pooled: [B, F], the pyramid's vectors.
        depth: units of both.
        dropout_rate: share of their outputs that training drops.
        weight_decay: weight w of w * sum(x**2) / 2 of each kernel.
    """
    outputs, x = [], pooled
    with keras.name_scope(BOX_BACKBONE):
        for name in FullyConnected._fields:
            x = keras.layers.Dense(
                depth,
                activation="relu",
                kernel_initializer=keras.initializers.HeNormal(),
                kernel_regularizer=_weight_decay(weight_decay),
                name=name,
            )(x)
            if dropout_rate:
                x = keras.layers.Dropout(dropout_rate, name=f"{name}_dropout")(x)
            outputs.append(x)
    return FullyConnected(*outputs)


def _apply(
    step: Step, x: Tensor, number: int, depth_multiplier: float, weight_decay: float, padding: Padding
) -> Tensor:
    if isinstance(step, Lrn):
        return LocalResponseNormalization(name=f"lrn{number}")(x)
    window = padded(step.window, padding)
    kind = "conv" if isinstance(step, Conv) else "pool"
    if window.before or window.after:  # zeros are no new maxima: what is pooled is after ReLU
        sides = (window.before, window.after)
        x = keras.layers.ZeroPadding2D((sides, sides), name=f"{kind}{number}_pad")(x)
    if isinstance(step, Pool):
        return keras.layers.MaxPooling2D(window.size, window.stride, name=f"pool{number}")(x)
    return keras.layers.Conv2D(
        scaled_channels(step.filters, depth_multiplier),
        window.size,
        window.stride,
        activation="relu",
        kernel_initializer=keras.initializers.HeNormal(),
        kernel_regularizer=_weight_decay(weight_decay),
        name=f"conv{number}",
    )(x)


def _weight_decay(weight: float) -> Any:
    return keras.regularizers.L2(weight / 2) if weight else None
