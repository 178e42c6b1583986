"""Convolution, batch normalisation and activation as one block over Keras tensors (floor 1).

Extractors, necks and heads are wired from these functions, so that ``conv_hyperparams`` have the same meaning in each.
Layer names derive from the block's name: ``<name>_conv`` (or ``<name>_depthwise``, ``<name>_separable``),
``<name>_batch_norm``, ``<name>_activation``.
"""

from __future__ import annotations

from typing import Any

import keras

from detzoo.contracts import ConvHyperparams, Tensor
from detzoo.layers.normalization import batch_norm_from


def conv_block(
    x: Tensor,
    filters: int,
    kernel_size: int,
    hyperparams: ConvHyperparams,
    name: str,
    strides: int = 1,
    depthwise: bool = False,
    use_activation: bool = True,
    explicit_padding: bool = False,
) -> Tensor:
    """Convolves, normalises and activates: [B, H, W, C] -> [B, ceil(H / strides), ceil(W / strides), filters].

    Args:
        x: Feature map.
        filters: Output channels.
        kernel_size: Side of the square kernel.
        hyperparams: Initializer, regularizer, normalisation and activation.
        name: Prefix of the layers' names; unique in the model.
        strides: Step of the kernel in both directions.
        depthwise: Uses one separable convolution (depthwise, then 1 x 1, one normalisation) instead of a full one.
        use_activation: Ends with the activation.
        explicit_padding: Pads by the kernel's reach on every side of any map ("same" padding adds less at the top left
            if the stride does not divide the size).
    """
    x = pad_explicitly(x, kernel_size, name) if explicit_padding else x
    build_convolution = separable_convolution if depthwise else convolution
    x = build_convolution(
        filters,
        kernel_size,
        hyperparams,
        name=f"{name}_separable" if depthwise else f"{name}_conv",
        use_bias=needs_bias(hyperparams),
        strides=strides,
        padding="valid" if explicit_padding else "same",
    )(x)
    return normalize_and_activate(x, hyperparams, name, use_activation)


def depthwise_block(
    x: Tensor,
    kernel_size: int,
    hyperparams: ConvHyperparams,
    name: str,
    strides: int = 1,
    explicit_padding: bool = False,
) -> Tensor:
    """Convolves each channel separately, then normalises and activates (the first half of a MobileNet block).

    Args:
        x: Feature map [B, H, W, C].
        kernel_size: Side of the square kernel.
        hyperparams: Initializer, regularizer (if ``regularize_depthwise``), normalisation and activation.
        name: Prefix of the layers' names; unique in the model.
        strides: Step of the kernel in both directions.
        explicit_padding: As in ``conv_block``.

    Returns:
        Feature map [B, ceil(H / strides), ceil(W / strides), C].
    """
    x = pad_explicitly(x, kernel_size, name) if explicit_padding else x
    x = keras.layers.DepthwiseConv2D(
        kernel_size,
        strides=strides,
        padding="valid" if explicit_padding else "same",
        use_bias=needs_bias(hyperparams),
        depthwise_initializer=hyperparams.kernel_initializer(),
        depthwise_regularizer=kernel_regularizer(hyperparams) if hyperparams.regularize_depthwise else None,
        name=f"{name}_depthwise",
    )(x)
    return normalize_and_activate(x, hyperparams, name)


def convolution(
    filters: int, kernel_size: int, hyperparams: ConvHyperparams, name: str, padding: str = "same", **kwargs: Any
) -> keras.layers.Conv2D:
    """Builds a convolution with the initializer and regularizer of ``hyperparams``; ``kwargs`` go to Keras's layer."""
    return keras.layers.Conv2D(
        filters,
        kernel_size,
        padding=padding,
        kernel_initializer=hyperparams.kernel_initializer(),
        kernel_regularizer=kernel_regularizer(hyperparams),
        name=name,
        **kwargs,
    )


def separable_convolution(
    filters: int,
    kernel_size: int,
    hyperparams: ConvHyperparams,
    name: str,
    configure_depthwise: bool = True,
    configure_pointwise: bool = False,
    **kwargs: Any,
) -> keras.layers.SeparableConv2D:
    """Builds a separable convolution; ``kwargs`` go to Keras's layer, with "same" as the default of ``padding``.

    By default the initializer and regularizer of ``hyperparams`` apply to the depthwise kernel only, and the 1 x 1
    kernel keeps Keras's Glorot initializer without regularisation. The Object Detection API trains so, unless
    ``apply_conv_hyperparams_pointwise`` is set.
    """
    kwargs = {"padding": "same", **kwargs}
    if configure_depthwise:
        kwargs["depthwise_initializer"] = hyperparams.kernel_initializer()
        kwargs["depthwise_regularizer"] = kernel_regularizer(hyperparams)
    if configure_pointwise:
        kwargs["pointwise_initializer"] = hyperparams.kernel_initializer()
        kwargs["pointwise_regularizer"] = kernel_regularizer(hyperparams)
    return keras.layers.SeparableConv2D(filters, kernel_size, name=name, **kwargs)


def normalize_and_activate(x: Tensor, hyperparams: ConvHyperparams, name: str, use_activation: bool = True) -> Tensor:
    """Adds ``<name>_batch_norm`` and, if ``use_activation``, ``<name>_activation``, if ``hyperparams`` have them."""
    if hyperparams.batch_norm is not None:
        x = batch_norm_from(hyperparams.batch_norm, name=f"{name}_batch_norm")(x)
    if hyperparams.activation is not None and use_activation:
        x = keras.layers.Activation(hyperparams.activation, name=f"{name}_activation")(x)
    return x


def pad_explicitly(x: Tensor, kernel_size: int, name: str) -> Tensor:
    """Pads [B, H, W, C] with zeros by the reach of the kernel, the larger half at the bottom right."""
    before, after = (kernel_size - 1) // 2, kernel_size // 2
    return keras.layers.ZeroPadding2D(((before, after), (before, after)), name=f"{name}_pad")(x)


def needs_bias(hyperparams: ConvHyperparams) -> bool:
    """Returns True if a convolution needs a bias: it is forced, or no batch normalisation with ``center`` follows."""
    batch_norm = hyperparams.batch_norm
    return hyperparams.force_use_bias or batch_norm is None or not batch_norm.center


def kernel_regularizer(hyperparams: ConvHyperparams) -> keras.regularizers.Regularizer | None:
    """Returns a new Keras regularizer, or None without regularisation."""
    if not hyperparams.l1_weight and not hyperparams.l2_weight:
        return None
    return keras.regularizers.L1L2(l1=hyperparams.l1_weight, l2=hyperparams.l2_weight)
