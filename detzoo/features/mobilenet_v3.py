"""MobileNet v3 and MobileNet EdgeTPU, as the Object Detection API builds them for SSD.

Differs from the paper, tables 1 and 2: the last blocks, from the one that reaches stride 32, have half of their
channels (section 6.3, "reduced by a factor of 2"). The classifier's layers behind them are left out.

References:
    Howard et al., arXiv:1905.02244, tables 1 and 2, section 6.3; "MobileNet EdgeTPU", ai.googleblog.com, November 2019.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import keras

from detzoo.contracts import ConvHyperparams, Tensor
from detzoo.features import mobilenet
from detzoo.features.inverted_bottleneck import Bottleneck, Squeeze, bottleneck, convolve, nearest_multiple
from detzoo.features.network import Application, Network, symbolic
from detzoo.layers.activation import hard_sigmoid, hard_swish

HYPERPARAMS: ConvHyperparams = mobilenet.HYPERPARAMS
EDGETPU = "edgetpu"

_SE = Squeeze(lambda channels: nearest_multiple(channels / 4), "relu", hard_sigmoid)


def _swish(
    filters: int, expansion: float, kernel_size: int, strides: int = 1, squeeze: Squeeze | None = _SE
) -> Bottleneck:
    return Bottleneck(filters, expansion, kernel_size, strides, hard_swish, squeeze)


def _fused(filters: int, expansion: float, strides: int = 1) -> Bottleneck:
    return Bottleneck(filters, expansion, strides=strides, is_fused=True)


_BLOCKS = {
    "large": (
        Bottleneck(16, 1),
        Bottleneck(24, 4, strides=2),
        Bottleneck(24, 3),
        Bottleneck(40, 3, 5, 2, squeeze=_SE),
        *[Bottleneck(40, 3, 5, squeeze=_SE)] * 2,
        _swish(80, 6, 3, 2, None),
        _swish(80, 2.5, 3, 1, None),
        *[_swish(80, 184 / 80, 3, 1, None)] * 2,
        *[_swish(112, 6, 3)] * 2,
        _swish(80, 6, 5, 2),
        *[_swish(80, 6, 5)] * 2,
    ),
    "small": (
        Bottleneck(16, 1, strides=2, squeeze=_SE),
        Bottleneck(24, 72 / 16, strides=2),
        Bottleneck(24, 88 / 24),
        _swish(40, 4, 5, 2),
        *[_swish(40, 6, 5)] * 2,
        *[_swish(48, 3, 5)] * 2,
        _swish(48, 6, 5, 2),
        *[_swish(48, 6, 5)] * 2,
    ),
    EDGETPU: (
        _fused(16, 1),
        _fused(32, 8, 2),
        *[_fused(32, 4)] * 3,
        _fused(48, 8, 2),
        *[_fused(48, 4)] * 3,
        Bottleneck(96, 8, strides=2),
        *[Bottleneck(96, 4)] * 3,
        Bottleneck(96, 8, has_shortcut=False),
        *[Bottleneck(96, 4)] * 3,
        Bottleneck(160, 8, 5, 2),
        *[Bottleneck(160, 4, 5)] * 3,
        Bottleneck(192, 8),
    ),
}
_FIRST_FILTERS = {"large": 16, "small": 16, EDGETPU: 32}
_LAST_FILTERS = {"large": 480, "small": 288}  # of the last 1 x 1 convolution, which EdgeTPU's maps do not reach
_PYRAMID_ENDPOINTS = {
    "large": {2: "expanded_conv_2_add", 3: "expanded_conv_5_add", 4: "expanded_conv_11_add", 5: "conv_1_activation"},
    "small": {
        2: "expanded_conv_project_bn",
        3: "expanded_conv_2_add",
        4: "expanded_conv_7_add",
        5: "conv_1_activation",
    },
    EDGETPU: {
        2: "expanded_conv_4_add",
        3: "expanded_conv_8_add",
        4: "expanded_conv_16_add",
        5: "expanded_conv_21_project_bn",
    },
}
# The wide map of a block: of the first one of stride 32, before its stride, and of EdgeTPU's last one of stride 16.
_SSD_LEVEL_4 = {
    "large": "expanded_conv_12_expand_activation",
    "small": "expanded_conv_8_expand_activation",
    EDGETPU: "expanded_conv_16_expand_activation",
}
_APPLICATIONS = {"large": keras.applications.MobileNetV3Large, "small": keras.applications.MobileNetV3Small}


def mobilenet_v3(
    variant: str, depth_multiplier: float = 1.0, min_depth: int = 1, for_pyramid: bool = False, is_lite: bool = False
) -> Network:
    """Describes MobileNet v3.

    Args:
        variant: "large", "small" or "edgetpu".
        depth_multiplier: Factor of every layer's channels, rounded to multiples of 8.
        min_depth: Smallest number of channels of any layer except inside blocks, after the multiplication.
        for_pyramid: Selects the last map of each stride rather than those for SSD.
        is_lite: Without meaning here.

    Returns:
        The network, endpoints 2 to 5. The last three blocks and the last convolution have no weights from ImageNet.
    """
    del is_lite

    def depth(filters: int) -> int:
        return nearest_multiple(filters * depth_multiplier, min_depth)

    endpoints = _PYRAMID_ENDPOINTS[variant] if for_pyramid else _PYRAMID_ENDPOINTS[variant] | {4: _SSD_LEVEL_4[variant]}
    return Network(
        graph=symbolic(lambda: _graph(variant, depth)),
        endpoints=endpoints,
        hyperparams=HYPERPARAMS,
        application=_published(variant, depth_multiplier),
        keeps_activations=True,
    )


def _graph(variant: str, depth: Callable[[int], int]) -> keras.Model:
    image = keras.Input((None, None, 3))
    activation = "relu" if variant == EDGETPU else hard_swish
    x: Tensor = convolve(image, depth(_FIRST_FILTERS[variant]), 3, "conv", activation, strides=2)
    for number, block in enumerate(_BLOCKS[variant]):
        name = f"expanded_conv_{number}" if number else "expanded_conv"
        x = bottleneck(x, block._replace(filters=depth(block.filters)), name)
    if variant in _LAST_FILTERS:
        x = convolve(x, depth(_LAST_FILTERS[variant]), 1, "conv_1", activation)
    return keras.Model(image, x)


def _published(variant: str, depth_multiplier: float) -> Application | None:
    if variant not in _APPLICATIONS:
        return None
    build = functools.partial(_APPLICATIONS[variant], input_shape=(224, 224, 3), alpha=round(depth_multiplier, 6))
    return Application(functools.partial(build, include_top=False))
