"""CenterNet's heads: a few convolutions from a map of stride 4 to the values of each cell (floor 2).

Zhou et al., arXiv:1904.07850, section 4: a 3 x 3 convolution, ReLU and a 1 x 1 convolution per head.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from detzoo.contracts import Tensor
from detzoo.ops.peaks import surroundings

MASK_NETWORK = "mask_net"
EMBEDDING_KERNEL = (1, 3)  # of DeepMAC's two heads, as in the Object Detection API

# The rows of a map that are computed are a multiple of this, because every other size costs memory and time once.
ROW_MULTIPLE = 8


class CenterHead(NamedTuple):
    """The layers of a head."""

    num_outputs: int  # channels of its map
    num_filters: tuple[int, ...] = (256,)  # channels of each hidden layer
    # Side, or (height, width), of the kernel of each hidden layer, in cells.
    kernel_sizes: tuple[int | tuple[int, int], ...] = (3,)
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


def head_of_rows(network: keras.Model, name: str, features: Tensor, num_rows: Tensor) -> Tensor:
    """Computes a head of the last stack for the first rows instead of the whole map.

    Args:
        network: Model with the layers of ``center_heads``.
        name: Name of the head.
        features: Map [B, h, w, C] that the head reads.
        num_rows: Number of rows, an int32 scalar.

    Returns:
        float32 [B, r, w, num_outputs] with r >= num_rows or r = h, a multiple of ``ROW_MULTIPLE`` if it is less than h.
        Rows from num_rows on are of no use.
    """
    layers = _layers_of_last_stack(network, name)
    num_rows += sum(layer.kernel_size[0] // 2 for layer in layers[:-1])
    x = features[:, : ROW_MULTIPLE * ((num_rows + ROW_MULTIPLE - 1) // ROW_MULTIPLE)]
    for layer in layers:
        x = layer(x)
    return x


def head_at_cells(network: keras.Model, name: str, features: Tensor) -> Callable[[Tensor], Tensor] | None:
    """Returns a function that computes a head of the last stack for single cells instead of the whole map.

    Args:
        network: Model with the layers of ``center_heads``.
        name: Name of the head.
        features: Map [B, h, w, C] that the head reads.

    Returns:
        Function from cells int32 [B, M] to float32 [B, M, num_outputs]. None if not only the first layer reads a
        neighbourhood, because zeros outside the map would then differ from the values computed there.
    """
    first, *others = _layers_of_last_stack(network, name)
    if any(layer.kernel_size != (1, 1) for layer in others[:-1]):
        return None

    def compute(cells: Tensor) -> Tensor:
        x = _only_position(first, surroundings(features, cells, first.kernel_size))
        for layer in others:
            x = layer(x)
        return tf.reshape(x, [tf.shape(cells)[0], -1, x.shape[-1]])

    return compute


def _layers_of_last_stack(network: keras.Model, name: str) -> list[Any]:
    """Returns the convolutions of a head and its last layer, without weights."""
    layers = [layer for layer in network.layers if layer.name.startswith(f"{layer_prefix(name)}.")]
    prefix = layers[-1].name.rpartition(".")[0]
    return [layer for layer in layers if layer.name.startswith(f"{prefix}.")]


def _only_position(layer: Any, inputs: Tensor) -> Tensor:
    """Applies a convolution to inputs [P, *kernel_size, C] that the kernel covers; returns [P, 1, 1, filters]."""
    if isinstance(layer, keras.layers.SeparableConv2D):
        kernels = [tf.cast(kernel, inputs.dtype) for kernel in (layer.depthwise_kernel, layer.pointwise_kernel)]
        x = tf.nn.separable_conv2d(inputs, *kernels, strides=[1, 1, 1, 1], padding="VALID")
    else:
        x = tf.nn.conv2d(inputs, tf.cast(layer.kernel, inputs.dtype), strides=1, padding="VALID")
    return layer.activation(x + tf.cast(layer.bias, inputs.dtype))


def deep_mask_network(mask_size: int, num_channels: int, trunk: Callable[[Tensor], Tensor]) -> keras.Model:
    """Builds DeepMAC's mask network (arXiv:2104.00613, section 3).

    Args:
        mask_size: Side s of a mask in cells.
        num_channels: Channels C of coordinates and embeddings.
        trunk: Function from a map [P, s, s, C] to one of the same size.

    Returns:
        A model from [P, s, s, C] to logits float32 [P, s, s, 1], its variables under ``mask_net/``.
    """
    crops = keras.Input((mask_size, mask_size, num_channels), name="crops")
    with keras.name_scope(MASK_NETWORK):
        x = keras.layers.Conv2D(1, 1, name="project_out")(trunk(crops))
        logits = keras.layers.Activation("linear", dtype="float32", name="logits")(x)
    return keras.Model(crops, logits, name=MASK_NETWORK)
