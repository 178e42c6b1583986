"""ResNet-50, -101, -152 (v1), -50 and -101 (v2), ResNeXt-101 32x8d, and CenterNet's ResNet-18 and -34.

References:
    He et al., arXiv:1512.03385, table 1; arXiv:1603.05027 (v2). Xie et al., arXiv:1611.05431, table 1 and section 5 (32
    groups of width 8 in the first stage, doubled with every stage). Endpoint l is the last block of stage l, C_l of
    arXiv:1612.03144.
"""

from __future__ import annotations

import functools

import keras

from detzoo.contracts import BatchNormHyperparams, ConvHyperparams, Tensor
from detzoo.features.network import Application, Network, symbolic

# From the Object Detection API. Its weight decay of 1e-4 is Keras's factor of sum(w**2) here, not half of it.
HYPERPARAMS = ConvHyperparams(
    kernel_initializer=keras.initializers.VarianceScaling,
    l2_weight=0.0001,
    activation="relu",
    batch_norm=BatchNormHyperparams(momentum=0.997, epsilon=0.00001, scale=True),
)

RESNET_BLOCKS = {"50": (3, 4, 6, 3), "101": (3, 4, 23, 3), "152": (3, 8, 36, 3)}
BASIC_BLOCKS = {"18": (2, 2, 2, 2), "34": (3, 4, 6, 3)}
# Blocks, and channels as multiples of the first layer's, of each stage of DeepMAC's mask networks.
MASK_STAGES = {"4": ((2, 2),), "8": ((4, 2),), "12": ((6, 2),), "16": ((8, 2),), "20": ((8, 2), (2, 3))}
RESNEXT_BLOCKS = {"101_32x8d": (3, 4, 23, 3)}

GROUPS = 32
GROUP_WIDTH = 8
_STEM_FILTERS = 64
_EXPANSION = 4
_FIRST_STAGE = 2


def resnet(variant: str) -> Network:
    """Describes ResNet v1 of the given depth ("50", "101" or "152"), endpoints 2 to 5.

    As in ``keras.applications`` and the Object Detection API, the stride of a stage is in the first 1 x 1.
    """
    build = functools.partial(getattr(keras.applications, f"ResNet{variant}"), include_top=False)
    return Network(
        graph=symbolic(functools.partial(build, weights=None)),
        endpoints=_endpoints(RESNET_BLOCKS[variant]),
        hyperparams=HYPERPARAMS,
        application=Application(build, expects_bgr=True),
        explicit_padding=True,
    )


# The Keras layers' own: CenterNet has no hyperparameters for its backbones. Biases precede batch normalisation.
KERAS_HYPERPARAMS = ConvHyperparams(
    kernel_initializer=keras.initializers.GlorotUniform,
    activation="relu",
    batch_norm=BatchNormHyperparams(momentum=0.99, epsilon=1.001e-5, scale=True),
    force_use_bias=True,
)


def resnet_v1_caffe(variant: str) -> Network:
    """Describes ResNet v1 ("50" or "101") exactly as in ``keras.applications``: its biases, paddings and BGR input.

    "18" and "34" are the Object Detection API's own: blocks of two 3 x 3 convolutions, activated before them as in v2.
    """
    if variant in BASIC_BLOCKS:
        blocks = BASIC_BLOCKS[variant]
        graph = symbolic(lambda: _basic_graph(blocks))
        return Network(graph, _endpoints(blocks), KERAS_HYPERPARAMS, keeps_padding=True)
    return _keras_resnet(f"ResNet{variant}", RESNET_BLOCKS[variant])


def resnet_v2(variant: str) -> Network:
    """Describes ResNet v2 ("50" or "101") exactly as in ``keras.applications``, endpoint 5 before the last norm.

    A stage of v2 ends with a stride, so that its other endpoints would be one level coarser than those of v1.
    """
    return _keras_resnet(f"ResNet{variant}V2", {5: RESNET_BLOCKS[variant][-1]})


def _keras_resnet(name: str, blocks: tuple[int, ...] | dict[int, int]) -> Network:
    build = functools.partial(getattr(keras.applications, name), include_top=False)
    numbered = blocks.items() if isinstance(blocks, dict) else enumerate(blocks, start=_FIRST_STAGE)
    return Network(
        graph=symbolic(functools.partial(build, weights=None)),
        endpoints={level: f"conv{level}_block{number}_out" for level, number in numbered},
        hyperparams=KERAS_HYPERPARAMS,
        application=Application(build),
        keeps_padding=True,
    )


def resnext(variant: str) -> Network:
    """Describes ResNeXt v1 ("101_32x8d"), endpoints 2 to 5, with the names of ResNet's layers.

    The stride of a stage is in its grouped 3 x 3, as in the authors' code.
    """
    blocks = RESNEXT_BLOCKS[variant]
    return Network(
        graph=symbolic(lambda: _resnext_graph(blocks)),
        endpoints=_endpoints(blocks),
        hyperparams=HYPERPARAMS,
        explicit_padding=True,
    )


def _endpoints(blocks: tuple[int, ...]) -> dict[int, str]:
    return {level: f"conv{level}_block{number}_out" for level, number in enumerate(blocks, start=_FIRST_STAGE)}


def _resnext_graph(blocks: tuple[int, ...]) -> keras.Model:
    image = keras.Input((None, None, 3))
    x = _convolution(image, _STEM_FILTERS, 7, "conv1", strides=2)
    x = keras.layers.Activation("relu", name="conv1_relu")(x)
    x = keras.layers.MaxPooling2D(3, strides=2, padding="same", name="pool1_pool")(x)
    for stage, num_blocks in enumerate(blocks, start=_FIRST_STAGE):
        for block in range(1, num_blocks + 1):
            strides = 2 if block == 1 and stage > _FIRST_STAGE else 1
            x = _resnext_block(x, stage, strides, is_first=block == 1, name=f"conv{stage}_block{block}")
    return keras.Model(image, x)


def _basic_graph(blocks: tuple[int, ...]) -> keras.Model:
    image = keras.Input((None, None, 3))
    x = keras.layers.ZeroPadding2D(3, name="conv1_pad")(image)
    x = keras.layers.Conv2D(_STEM_FILTERS, 7, strides=2, name="conv1_conv")(x)
    x = keras.layers.ZeroPadding2D(1, name="pool1_pad")(x)
    x = keras.layers.MaxPooling2D(3, strides=2, name="pool1_pool")(x)
    for stage, num_blocks in enumerate(blocks, start=_FIRST_STAGE):
        strides = 1 if stage == _FIRST_STAGE else 2
        x = basic_stage(x, _STEM_FILTERS * 2 ** (stage - _FIRST_STAGE), num_blocks, f"conv{stage}", strides)
    return keras.Model(image, x)


def basic_stage(x: Tensor, filters: int, num_blocks: int, name: str, strides: int = 1) -> Tensor:
    """Adds residual blocks of two 3 x 3 convolutions; the last block has the stride, as in the Object Detection API."""
    for number in range(1, num_blocks + 1):
        is_first, step = number == 1, strides if number == num_blocks else 1
        x = _basic_block(x, filters, step, is_first, f"{name}_block{number}")
    return x


def mask_resnet(x: Tensor, variant: str, stem_filters: int) -> Tensor:
    """Adds DeepMAC's ResNet without strides (a key of ``MASK_STAGES``) to a map [B, H, W, C]."""
    x = keras.layers.Conv2D(stem_filters, 1, name="input_layer")(x)
    for number, (num_blocks, multiple) in enumerate(MASK_STAGES[variant]):
        x = basic_stage(x, multiple * stem_filters, num_blocks, f"resnet_mask_block_{number}")
    return x


def _basic_block(x: Tensor, filters: int, strides: int, is_first: bool, name: str) -> Tensor:
    shortcut, x = x, _norm_and_relu(x, f"{name}_preact")
    if is_first:
        shortcut = keras.layers.Conv2D(filters, 1, name=f"{name}_0_conv")(x)
    elif strides > 1:
        shortcut = keras.layers.MaxPooling2D(1, strides=strides, name=f"{name}_0_pool")(shortcut)
    for number, step in ((1, 1), (2, strides)):
        x = keras.layers.ZeroPadding2D(1, name=f"{name}_{number}_pad")(x)
        x = keras.layers.Conv2D(filters, 3, strides=step, use_bias=False, name=f"{name}_{number}_conv")(x)
        x = _norm_and_relu(x, f"{name}_{number}")
    return keras.layers.Add(name=f"{name}_out")([shortcut, x])


def _norm_and_relu(x: Tensor, name: str) -> Tensor:
    x = keras.layers.BatchNormalization(epsilon=1.001e-5, name=f"{name}_bn")(x)
    return keras.layers.Activation("relu", name=f"{name}_relu")(x)


def _resnext_block(x: Tensor, stage: int, strides: int, is_first: bool, name: str) -> Tensor:
    doublings = 2 ** (stage - _FIRST_STAGE)
    width, outputs = GROUPS * GROUP_WIDTH * doublings, _STEM_FILTERS * _EXPANSION * doublings
    shortcut = _convolution(x, outputs, 1, f"{name}_0", strides=strides) if is_first else x
    x = _convolution(x, width, 1, f"{name}_1")
    x = keras.layers.Activation("relu", name=f"{name}_1_relu")(x)
    x = _convolution(x, width, 3, f"{name}_2", strides=strides, groups=GROUPS)
    x = keras.layers.Activation("relu", name=f"{name}_2_relu")(x)
    x = _convolution(x, outputs, 1, f"{name}_3")
    x = keras.layers.Add(name=f"{name}_add")([shortcut, x])
    return keras.layers.Activation("relu", name=f"{name}_out")(x)


def _convolution(x: Tensor, filters: int, kernel_size: int, name: str, strides: int = 1, groups: int = 1) -> Tensor:
    x = keras.layers.Conv2D(
        filters, kernel_size, strides=strides, padding="same", use_bias=False, groups=groups, name=f"{name}_conv"
    )(x)
    return keras.layers.BatchNormalization(name=f"{name}_bn")(x)
