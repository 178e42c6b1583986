"""CenterNet's way up from the backbone's maps to one map of stride 4 (floor 2).

References:
    Zhou et al., arXiv:1904.07850, section 5 (three transposed convolutions after ResNet). The pyramid that narrows on
    its way up is the Object Detection API's. Differs from the paper, appendix A: no deformable convolutions, as there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras

from detzoo.contracts import BatchNormHyperparams, ConvHyperparams, Tensor
from detzoo.layers.conv import conv_block, convolution, normalize_and_activate

HYPERPARAMS = ConvHyperparams(  # the Keras layers' own
    kernel_initializer=keras.initializers.GlorotUniform,
    activation="relu",
    batch_norm=BatchNormHyperparams(momentum=0.99, epsilon=1e-3, scale=True),
    force_use_bias=True,
)


def narrowing_pyramid(
    maps: Mapping[int, Tensor], depths: Sequence[int], use_separable: bool = False, interpolation: str = "nearest"
) -> Tensor:
    """Adds coarse maps to finer ones, with fewer channels at each step.

    Args:
        maps: Level to C_l [B, H_l, W_l, C_l], from 2 (stride 4) to 5; the sizes double from level to level.
        depths: Channels of levels 4, 3 and 2 where they are added up. Level 5 has those of level 4, the result those of
            level 2.
        use_separable: Uses separable 3 x 3 convolutions.
        interpolation: "nearest" or "bilinear".

    Returns:
        Map of level 2, [B, H_2, W_2, depths[-1]].
    """
    top, *lower = sorted(maps, reverse=True)
    x = _lateral(maps[top], depths[0], top)
    for level, depth, next_depth in zip(lower, depths, [*depths[1:], depths[-1]], strict=True):
        x = keras.layers.UpSampling2D(2, interpolation=interpolation, name=f"center_upsample_{level}")(x)
        x = keras.layers.Add(name=f"center_merge_{level}")([x, _lateral(maps[level], depth, level)])
        x = conv_block(x, next_depth, 3, HYPERPARAMS, f"center_smooth_{level}", depthwise=use_separable)
    return x


def transposed_convolutions(x: Tensor, depths: Sequence[int], kernel_size: int) -> Tensor:
    """Doubles a map once per entry of ``depths`` by a convolution and a transposed one.

    Args:
        x: Map [B, H, W, C].
        depths: Channels of both convolutions of each step.
        kernel_size: Side of the first convolution of a step.

    Returns:
        Map [B, 2**n H, 2**n W, depths[-1]] for n depths.
    """
    for step, depth in enumerate(depths):
        x = conv_block(x, depth, kernel_size, HYPERPARAMS, f"center_step_{step}")
        x = keras.layers.Conv2DTranspose(depth, 3, strides=2, padding="same", name=f"center_transposed_{step}")(x)
        x = normalize_and_activate(x, HYPERPARAMS, f"center_transposed_{step}")
    return x


def _lateral(x: Tensor, depth: int, level: int) -> Tensor:
    return convolution(depth, 1, HYPERPARAMS, name=f"center_lateral_{level}")(x)
