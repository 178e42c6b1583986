"""The networks of SPP-net's table 1: ZF-5, Convnet*-5, Overfeat-5 and Overfeat-7 (floor 2).

He et al., arXiv:1406.4729, section 3.1.1: convolutions and poolings, then a spatial pyramid, then two fully connected
layers. ``detzoo.config.spp_table`` has the table itself, and the sizes that follow from it.

The strides (16, and Overfeat's 12) are no levels of a feature pyramid. A detector finds a window on the map by
``stride_px`` and ``offset_px`` of the table.

| table 1 | here |
|---|---|
| ZF-5, map size 27 of conv2 | before its pooling; the 55 of conv1 is after its pooling, as the paper counts |
| LRN | ``LocalResponseNormalization`` with AlexNet's constants, which the table does not give |

Differs from arXiv:1406.4729, whose code subtracts the mean of the pixels and starts from Gaussians of deviation 0.01:
pixels are also divided by their deviation (``standardize_imagenet``), and layers start with He et al.'s initializer,
arXiv:1502.01852. Narrow networks do not learn with the paper's choice: their activations fade, or the first layer's
gradients are too large.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from detzoo.config.spp_table import SPP_NETWORKS, Conv, Lrn, Padding, Pool, Step, padded, scaled_channels
from detzoo.contracts import Tensor
from detzoo.ops.spatial_pyramid import num_bins, spatial_pyramid

BACKBONE, BOX_BACKBONE = "backbone", "box_backbone"  # first components of the variables' paths
# Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep convolutional neural networks" (2012), section 3.3.
LRN_RADIUS, LRN_BIAS, LRN_ALPHA, LRN_BETA = 2, 2.0, 1e-4, 0.75


class FullyConnected(NamedTuple):
    """The two fully connected layers, after ReLU and dropout, each [B, depth]."""

    fc6: Tensor
    fc7: Tensor


@keras.saving.register_keras_serializable(package="detzoo")
class LocalResponseNormalization(keras.layers.Layer):
    """Divides each channel by (2 + 1e-4 x the sum of squares of itself and two channels on either side) ** 0.75.

    Channels past the ends count as 0. Computed in float32 under every dtype policy.
    """

    def call(self, inputs: Tensor) -> Tensor:
        """Normalises ``inputs`` [B, H, W, C]."""
        x = tf.cast(inputs, tf.float32)
        x = tf.nn.local_response_normalization(x, LRN_RADIUS, LRN_BIAS, LRN_ALPHA, LRN_BETA)
        return tf.cast(x, inputs.dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the input's shape."""
        return input_shape


@keras.saving.register_keras_serializable(package="detzoo")
class SpatialPyramid(keras.layers.Layer):
    """``detzoo.ops.spatial_pyramid`` as a layer: [B, H, W, C] -> [B, sum(n * n) * C].

    Args:
        bins: Bins per side of each level.
        **kwargs: Arguments of ``keras.layers.Layer``.
    """

    def __init__(self, bins: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bins = tuple(bins)

    def call(self, inputs: Tensor) -> Tensor:
        """Pools ``inputs``."""
        return spatial_pyramid(inputs, self.bins)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns [B, sum(n * n) * C]."""
        channels = input_shape[-1]
        return (input_shape[0], None if channels is None else num_bins(self.bins) * channels)


def build_conv_layers(
    images: Tensor,
    network: str,
    depth_multiplier: float = 1.0,
    weight_decay: float = 0.0,
    padding: Padding = Padding.TABLE_1,
) -> Tensor:
    """Builds the convolutional layers, with variables such as ``backbone/conv1/kernel``.

    Args:
        images: Keras tensor [B, H, W, 3] from ``standardize_imagenet``; H and W may be unknown, and are at least
            ``min_size_px`` of the table.
        network: Key of ``SPP_NETWORKS``.
        depth_multiplier: Factor of the channels, above 0.
        weight_decay: Weight w of w * sum(x**2) / 2 of each kernel.
        padding: Padding of the input of each layer.

    Returns:
        The last convolution's map [B, h, w, C], see ``map_size`` of the table.
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
    """Builds fc6 and fc7 with ReLU and dropout, with variables such as ``box_backbone/fc6/kernel``.

    ``pooled`` [B, F] are the pyramid's vectors; the weight decay w is that of w * sum(x**2) / 2 of each kernel.
    """
    outputs, x = [], pooled
    with keras.name_scope(BOX_BACKBONE):
        for name in FullyConnected._fields:
            initializer, regularizer = keras.initializers.HeNormal(), _weight_decay(weight_decay)
            x = keras.layers.Dense(
                depth, activation="relu", kernel_initializer=initializer, kernel_regularizer=regularizer, name=name
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
    if window.before or window.after:  # a pooling is after ReLU, so that zeros never become maxima
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
