"""Blocks of mobile networks as graphs of stock layers: inverted bottlenecks, their fused form, Tucker convolutions.

Layer names derive from the block's: ``<name>_expand``, ``<name>_depthwise``, ``<name>_squeeze_excite_conv``,
``<name>_project`` and ``<name>_add``; each convolution is followed by ``_bn`` and ``_activation``.

References:
    Sandler et al., arXiv:1801.04381, section 3.3 (inverted bottlenecks). Howard et al., arXiv:1905.02244, section 5.3
    (squeeze and excitation in them). Xiong et al., arXiv:2004.14525, section 3.2 (fused and Tucker convolutions).
    Hu et al., arXiv:1709.01507 (squeeze and excitation).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import keras

from detzoo.contracts import Tensor

DIVISOR = 8  # of all numbers of channels

Activation = str | Callable[[Tensor], Tensor]


class Names(NamedTuple):
    """Names of the layers behind a convolution, templates of its name."""

    norm: str = "{}_bn"
    activation: str = "{}_activation"


_NAMES = Names()


class Squeeze(NamedTuple):
    """Squeeze and excitation: a gate per channel, from the mean of each channel over the map."""

    hidden: Callable[[int], int]  # number of gated channels -> channels between the two 1 x 1 convolutions
    activation: Activation  # activation of the hidden channels
    gate: Activation  # activation of the gates


class Bottleneck(NamedTuple):
    """An inverted bottleneck: a 1 x 1 that widens, a depthwise convolution, gates, and a 1 x 1 that narrows."""

    filters: int  # channels of the output
    expansion: float  # channels of the wide map per channel of the input; 1 has no widening convolution
    kernel_size: int = 3
    strides: int = 1
    activation: Activation = "relu"
    squeeze: Squeeze | None = None
    is_fused: bool = False  # True for one full convolution instead of the widening and the depthwise one
    has_shortcut: bool = True  # adds the input if stride and channels allow it
    is_rounded: bool = True  # rounds the channels of the wide map to a multiple of 8


class Tucker(NamedTuple):
    """A Tucker convolution: a full convolution between two 1 x 1, on fewer channels than input and output have.

    It is the Tucker decomposition of one full convolution, with an activation after the first two factors.
    """

    filters: int
    input_ratio: float  # channels that the kernel reads, per channel of the input
    output_ratio: float  # channels that it writes, per channel of the output
    kernel_size: int = 3
    activation: Activation = "relu6"
    has_shortcut: bool = True


def bottleneck(x: Tensor, block: Bottleneck, name: str, names: Names = _NAMES) -> Tensor:
    """Builds a block on a map [B, H, W, C]; returns [B, ceil(H / strides), ceil(W / strides), filters]."""
    shortcut, channels = x, x.shape[-1]
    expanded = channels * block.expansion
    expanded = nearest_multiple(expanded) if block.is_rounded else int(expanded)
    if expanded > channels:
        size, strides = (block.kernel_size, block.strides) if block.is_fused else (1, 1)
        x = convolve(x, expanded, size, f"{name}_expand", block.activation, strides, names)
    if not block.is_fused:
        x = convolve(x, None, block.kernel_size, f"{name}_depthwise", block.activation, block.strides, names)
    if block.squeeze is not None:
        x = squeeze_excite(x, block.squeeze, f"{name}_squeeze_excite")
    x = convolve(x, block.filters, 1, f"{name}_project", names=names)
    return _add(shortcut, x, name) if block.has_shortcut and block.strides == 1 else x


def tucker(x: Tensor, block: Tucker, name: str) -> Tensor:
    """Builds a block on a map [B, H, W, C]; returns [B, H, W, filters]."""
    shortcut = x
    read, written = half_up(x.shape[-1] * block.input_ratio), half_up(block.filters * block.output_ratio)
    x = convolve(x, read, 1, f"{name}_compress", block.activation)
    x = convolve(x, written, block.kernel_size, f"{name}_core", block.activation)
    x = convolve(x, block.filters, 1, f"{name}_project")
    return _add(shortcut, x, name) if block.has_shortcut else x


def convolve(
    x: Tensor,
    filters: int | None,
    kernel_size: int,
    name: str,
    activation: Activation | None = None,
    strides: int = 1,
    names: Names = _NAMES,
) -> Tensor:
    """Convolves, normalises and activates; ``filters`` None selects a depthwise convolution."""
    arguments = {"strides": strides, "padding": "same", "use_bias": False, "name": name}
    if filters is None:
        x = keras.layers.DepthwiseConv2D(kernel_size, **arguments)(x)
    else:
        x = keras.layers.Conv2D(filters, kernel_size, **arguments)(x)
    x = keras.layers.BatchNormalization(name=names.norm.format(name))(x)
    return x if activation is None else keras.layers.Activation(activation, name=names.activation.format(name))(x)


def squeeze_excite(x: Tensor, squeeze: Squeeze, name: str) -> Tensor:
    """Multiplies each channel of a map by its gate."""
    channels = x.shape[-1]
    gates = keras.layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_avg_pool")(x)
    hidden = squeeze.hidden(channels)
    gates = keras.layers.Conv2D(hidden, 1, activation=squeeze.activation, name=f"{name}_conv")(gates)
    gates = keras.layers.Conv2D(channels, 1, activation=squeeze.gate, name=f"{name}_conv_1")(gates)
    return keras.layers.Multiply(name=f"{name}_mul")([gates, x])


def nearest_multiple(channels: float, least: int = DIVISOR) -> int:
    """Returns the nearest multiple of 8, at least ``least`` and 90 % of ``channels`` (the code of arXiv:1801.04381)."""
    nearest = max(least, int(channels + DIVISOR / 2) // DIVISOR * DIVISOR)
    return nearest + DIVISOR if nearest < 0.9 * channels else nearest


def half_up(channels: float) -> int:
    """Returns the nearest multiple of 8, at least 8 (the code of arXiv:2004.14525)."""
    return max(int(channels / DIVISOR + 0.5) * DIVISOR, DIVISOR)


def _add(shortcut: Tensor, x: Tensor, name: str) -> Tensor:
    return keras.layers.Add(name=f"{name}_add")([shortcut, x]) if shortcut.shape[-1] == x.shape[-1] else x
