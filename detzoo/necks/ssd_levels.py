"""Extra levels on top of a backbone: those of the SSD paper, and those of a pooling pyramid (floor 2).

Reads the last map of an extractor and adds coarser maps, each of half the size of the map before.

References:
    Liu et al., arXiv:1512.02325, section 2.1 (multi-scale feature maps) and 3.1 (L2 normalisation of conv4_3);
    Huang et al., arXiv:1611.10012, section 3.3 and the table of extra depths of each extractor, batch norm in all;
    Jin et al., "Pooling pyramid network for object detection", arXiv:1807.03284, section 2.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import keras

from detzoo.contracts import ConvHyperparams, Tensor
from detzoo.layers.conv import conv_block, depthwise_block
from detzoo.layers.normalization import L2Norm

STRIDED_KERNEL = 3


def normalize_levels(maps: Mapping[int, Tensor], levels: Collection[int]) -> dict[int, Tensor]:
    """L2-normalises the channels of the named levels, with a learned scale that starts at 20.

    In the paper this is VGG's conv4_3, because its features are of larger scale.
    """
    return {level: L2Norm(name=f"l2_norm_{level}")(x) if level in levels else x for level, x in maps.items()}


def add_extra_levels(
    maps: Mapping[int, Tensor],
    depths: Sequence[int],
    hyperparams: ConvHyperparams,
    depth_multiplier: float = 1.0,
    min_depth: int = 1,
    use_depthwise: bool = False,
    explicit_padding: bool = False,
    kernel_sizes: Sequence[int] = (),
) -> dict[int, Tensor]:
    """Adds one level per entry of ``depths``: a 1 x 1 convolution to half the depth, then 3 x 3 with stride 2.

    Args:
        maps: Level to [B, H_l, W_l, C_l]; the extra levels start from the coarsest.
        depths: Nominal channels of each extra level.
        hyperparams: Hyperparameters of every convolution.
        depth_multiplier: Factor of every depth.
        min_depth: Smallest number of channels of any convolution, after the multiplication.
        use_depthwise: Splits the 3 x 3 into a depthwise and a 1 x 1 convolution, each with a normalisation.
        explicit_padding: Pads every side before the strided convolution, see ``detzoo.layers.conv.conv_block``.
        kernel_sizes: Side of each strided kernel; empty for 3 at every level.

    Returns:
        The given levels followed by the extra ones; level l + 1 has ceil(H_l / 2) rows.
    """
    pyramid = dict(maps)
    level = max(pyramid)
    for depth, kernel_size in zip(depths, kernel_sizes or [STRIDED_KERNEL] * len(depths), strict=True):
        x = pyramid[level]
        level += 1
        name = f"extra_{level}"
        filters = scaled_depth(depth, depth_multiplier, min_depth)
        x = conv_block(x, scaled_depth(depth / 2, depth_multiplier, min_depth), 1, hyperparams, f"{name}_reduce")
        if use_depthwise:
            x = depthwise_block(
                x, kernel_size, hyperparams, f"{name}_depthwise", strides=2, explicit_padding=explicit_padding
            )
            x = conv_block(x, filters, 1, hyperparams, name)
        else:
            x = conv_block(x, filters, kernel_size, hyperparams, name, strides=2, explicit_padding=explicit_padding)
        pyramid[level] = x
    return pyramid


def add_pooled_levels(maps: Mapping[int, Tensor], count: int) -> dict[int, Tensor]:
    """Adds ``count`` levels by 2 x 2 max pooling, of the same features, so that a head can share its predictors.

    The pooled levels start from the coarsest; level l + 1 has ceil(H_l / 2) rows and the same channels.
    """
    pyramid = dict(maps)
    for level in range(max(maps) + 1, max(maps) + 1 + count):
        pool = keras.layers.MaxPooling2D(2, strides=2, padding="same", name=f"pool_{level}")
        pyramid[level] = pool(pyramid[level - 1])
    return pyramid


def scaled_depth(depth: float, depth_multiplier: float, min_depth: int) -> int:
    """Returns ``depth`` times the multiplier, rounded down, and at least ``min_depth``."""
    return max(int(depth * depth_multiplier), min_depth)
