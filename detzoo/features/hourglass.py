"""Stacked hourglasses: down to a coarse map and up again, with a shortcut at every size (floor 2).

References:
    Newell et al., arXiv:1603.06937 (hourglasses); Zhou et al., arXiv:1904.07850, section 5 and appendix, and Law and
    Deng, arXiv:1808.01244, section 3.4 (Hourglass-104: strides instead of pooling, two stacks). The smaller variants
    are the Object Detection API's.

The layers' names are the paths of attributes in its checkpoints, with "." between the attributes.
"""

from __future__ import annotations

from typing import NamedTuple

import keras

from detzoo.contracts import BatchNormHyperparams, ConvHyperparams, Tensor
from detzoo.features.rewrite import MODEL_NAME
from detzoo.layers.conv import convolution, pad_explicitly
from detzoo.layers.normalization import batch_norm_from

# Differs from the Object Detection API: momentum 0.9. Its 0.1 is PyTorch's, which weighs the batch instead.
BATCH_NORM = BatchNormHyperparams(momentum=0.9, epsilon=1e-5, scale=True, synchronized=True)
HYPERPARAMS = ConvHyperparams(kernel_initializer=keras.initializers.GlorotUniform)


class HourglassSize(NamedTuple):
    """The numbers of an hourglass network."""

    stem_filters: int  # channels of the first convolution
    filters: tuple[int, ...]  # channels at stride 4, 8, ...
    blocks: tuple[int, ...]  # residual blocks at stride 4, 8, ...
    num_stacks: int = 1


SIZES = {
    "10": HourglassSize(32, (64, 64), (1, 1)),
    "20": HourglassSize(48, (96, 96, 144), (1, 2, 2)),
    "32": HourglassSize(48, (96, 96, 144, 144), (2, 2, 2, 2)),
    "52": HourglassSize(64, (128, 128, 192, 192, 192, 256), (2, 2, 2, 2, 2, 4)),
    "100": HourglassSize(64, (128, 128, 192, 192, 192, 256), (4, 4, 4, 4, 4, 8)),  # of mask heads only
    "104": HourglassSize(128, (256, 256, 384, 384, 384, 512), (2, 2, 2, 2, 2, 4), num_stacks=2),
}


def hourglass(variant: str, image_shape: tuple[int | None, int | None]) -> keras.Model:
    """Builds the hourglass network with the given number of layers (a key of ``SIZES``).

    Returns:
        A model ``backbone`` from normalised images [B, H, W, 3] to a dict: number of the stack to its map [B, H / 4,
        W / 4, filters]. H and W are multiples of the stride of the coarsest map.
    """
    size = SIZES[variant]
    image = keras.Input((*image_shape, 3), name="image")
    with keras.name_scope(MODEL_NAME):
        x = _convolve(image, size.stem_filters, 7, "downsample_input.conv_block", strides=2)
        x = _residual(x, size.filters[0], "downsample_input.residual_block", strides=2)
        outputs = _stacks(x, size)
    return keras.Model(image, outputs, name=MODEL_NAME)


def hourglass_at_full_size(x: Tensor, variant: str, stem_filters: int) -> Tensor:
    """Adds an hourglass network that starts without strides.

    Args:
        x: Map [B, H, W, C]. H and W are multiples of 2 per size of the hourglass after the first.
        variant: Key of ``SIZES``.
        stem_filters: Channels of the first convolution; the other layers are widened or narrowed by the same factor.

    Returns:
        Map [B, H, W, filters] of the last stack.
    """
    own = SIZES[variant]
    size = own._replace(
        stem_filters=stem_filters, filters=tuple(stem_filters * each // own.stem_filters for each in own.filters)
    )
    x = _convolve(x, size.stem_filters, 3, "conv_input.conv_block")
    x = _residual(x, size.filters[0], "conv_input.residual_block")
    return _stacks(x, size)[size.num_stacks - 1]


def _stacks(x: Tensor, size: HourglassSize) -> dict[int, Tensor]:
    outputs: dict[int, Tensor] = {}
    for stack in range(size.num_stacks):
        if stack > 0:
            x = _next_input(x, outputs[stack - 1], stack - 1)
        shape = _hourglass(x, size.filters, size.blocks, f"hourglass_network.{stack}")
        outputs[stack] = _convolve(shape, size.filters[0], 3, f"output_conv.{stack}")
    return outputs


def _next_input(before: Tensor, output: Tensor, number: int) -> Tensor:
    """Merges input and output of a stack into the input of the next (arXiv:1603.06937, section 3.2)."""
    filters = before.shape[-1]
    merged = keras.layers.Add(name=f"intermediate_add.{number}")(
        [
            _convolve(before, filters, 1, f"intermediate_conv1.{number}", use_activation=False),
            _convolve(output, filters, 1, f"intermediate_conv2.{number}", use_activation=False),
        ]
    )
    merged = keras.layers.ReLU(name=f"intermediate_relu.{number}")(merged)
    return _residual(merged, filters, f"intermediate_residual.{number}")


def _hourglass(x: Tensor, filters: tuple[int, ...], blocks: tuple[int, ...], name: str) -> Tensor:
    """Adds what passes at the size of ``x`` to what returns from the coarser maps."""
    fine, coarse = filters[:2]
    shortcut = _residuals(x, [fine] * blocks[0], f"{name}.encoder_block1")
    below = _residuals(x, [coarse] * blocks[0], f"{name}.encoder_block2", strides=2)
    if len(filters) > 2:
        below = _hourglass(below, filters[1:], blocks[1:], f"{name}.inner_block.0")
    else:
        below = _residuals(below, [coarse] * blocks[1], f"{name}.inner_block")
    below = _residuals(below, [coarse] * (blocks[0] - 1) + [fine], f"{name}.decoder_block")
    enlarged = keras.layers.UpSampling2D(2, name=f"{name}.upsample")(below)
    return keras.layers.Add(name=f"{name}.merge_features")([shortcut, enlarged])


def _residuals(x: Tensor, filters: list[int], name: str, strides: int = 1) -> Tensor:
    for number, channels in enumerate(filters):
        x = _residual(x, channels, f"{name}.{number}", strides if number == 0 else 1)
    return x


def _residual(x: Tensor, filters: int, name: str, strides: int = 1) -> Tensor:
    shortcut = x
    if strides > 1 or x.shape[-1] != filters:
        shortcut = _convolve(x, filters, 1, f"{name}.skip", strides, use_activation=False)
    x = _convolve(x, filters, 3, f"{name}.conv_block", strides)
    x = _convolve(x, filters, 3, name, use_activation=False)
    x = keras.layers.Add(name=f"{name}.add")([x, shortcut])
    return keras.layers.ReLU(name=f"{name}.relu")(x)


def _convolve(
    x: Tensor, filters: int, kernel_size: int, name: str, strides: int = 1, use_activation: bool = True
) -> Tensor:
    """Convolves and normalises; pads by the kernel's reach on every side, which "same" does for a stride of 1 only."""
    padding = "same"
    if strides > 1:
        x, padding = pad_explicitly(x, kernel_size, name), "valid"
    x = convolution(
        filters, kernel_size, HYPERPARAMS, f"{name}.conv", strides=strides, padding=padding, use_bias=False
    )(x)
    x = batch_norm_from(BATCH_NORM, f"{name}.norm")(x)
    return keras.layers.ReLU(name=f"{name}.activation")(x) if use_activation else x
