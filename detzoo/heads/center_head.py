"""CenterNet's heads: a few convolutions from a map of stride 4 to the values of each cell (floor 2).

Zhou et al., arXiv:1904.07850, section 4: a 3 x 3 convolution, ReLU and a 1 x 1 convolution per head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import keras

from detzoo.contracts import Tensor


class CenterHead(NamedTuple):
    """The layers of a head."""

    num_outputs: int  # channels of its map
    num_filters: tuple[int, ...] = (256,)  # channels of each hidden layer
    kernel_sizes: tuple[int, ...] = (3,)  # side of the kernel of each hidden layer, in cells
    bias_init: float = 0.0  # initial bias of the outputs


def layer_prefix(head: str) -> str:
    """Returns the start of the layers' names of a head: its name with "-" for "/", which separates parts of a path."""
    return head.replace("/", "-")


def center_heads(
    features: Sequence[Tensor], heads: Mapping[str, CenterHead], use_depthwise: bool = False
) -> dict[str, list[Tensor]]:
    """Builds every head on every stack's map.

    Args:
        features: Map [B, h, w, C] of each stack.
        heads: Name -> layers.
        use_depthwise: Uses separable convolutions in the hidden layers.

    Returns:
        Name -> float32 [B, h, w, num_outputs] of each stack.
    """
    return {
        name: [_head(x, head, f"{layer_prefix(name)}.{stack}", use_depthwise) for stack, x in enumerate(features)]
        for name, head in heads.items()
    }


def _head(x: Tensor, head: CenterHead, name: str, use_depthwise: bool) -> Tensor:
    hidden = keras.layers.SeparableConv2D if use_depthwise else keras.layers.Conv2D
    for number, (filters, size) in enumerate(zip(head.num_filters, head.kernel_sizes, strict=True)):
        x = hidden(filters, size, padding="same", activation="relu", name=f"{name}.hidden_{number}")(x)
    bias = keras.initializers.Constant(head.bias_init)
    x = keras.layers.Conv2D(head.num_outputs, 1, bias_initializer=bias, name=f"{name}.predictor")(x)
    return keras.layers.Activation("linear", dtype="float32", name=f"{name}.outputs")(x)
