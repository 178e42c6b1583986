"""MobileNet v1 and v2, with the width and minimum depth of the Object Detection API.

References:
    Howard et al., arXiv:1704.04861 (v1). Sandler et al., arXiv:1801.04381 (v2). The endpoints
    for SSD and for pyramids, and the hyperparameters, are the Object Detection API's.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import keras

from detzoo.contracts import BatchNormHyperparams, ConvHyperparams
from detzoo.features.inverted_bottleneck import Bottleneck, Names, bottleneck, convolve, nearest_multiple
from detzoo.features.network import Application, Network, symbolic

HYPERPARAMS = ConvHyperparams(
    kernel_initializer=functools.partial(keras.initializers.TruncatedNormal, stddev=0.09),
    l2_weight=0.00002,
    activation="relu6",
    batch_norm=BatchNormHyperparams(momentum=0.9997, epsilon=0.001, scale=True),
)

V1_PYRAMID_ENDPOINTS = {2: "conv_pw_3_relu", 3: "conv_pw_5_relu", 4: "conv_pw_11_relu", 5: "conv_pw_13_relu"}
V1_SSD_ENDPOINTS = V1_PYRAMID_ENDPOINTS
V2_PYRAMID_ENDPOINTS = {2: "block_2_add", 3: "block_5_add", 4: "block_12_add", 5: "out_relu"}
# MnasFPN's: all of stride 32 without the last 1 x 1 convolution.
V2_MNASFPN_ENDPOINTS = V2_PYRAMID_ENDPOINTS | {5: "block_16_project_BN"}
# CenterNet's: the last block of the narrower half of stride 16.
V2_CENTER_ENDPOINTS = V2_PYRAMID_ENDPOINTS | {4: "block_9_add"}
# "layer_15/expansion_output": wide, and already computed at the stride of the previous block.
V2_SSD_ENDPOINTS = V2_PYRAMID_ENDPOINTS | {4: "block_13_expand_relu"}

# The Object Detection API narrows the last layers for a pyramid of separable convolutions ("FPN-lite"): of v1, and of
# v2 in its TensorFlow 1 graphs.
V1_LITE_FILTERS = {"conv_pw_12": 512, "conv_pw_13": 256}
V2_LAST_FILTERS, V2_LITE_FILTERS = 1280, 256
# Sandler et al., table 2: expansion, channels, blocks, stride of the first.
V2_BLOCKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def mobilenet_v1(
    depth_multiplier: float = 1.0, min_depth: int = 1, for_pyramid: bool = False, is_lite: bool = False
) -> Network:
    """Describes MobileNet v1: the network, endpoints 2 to 5, which are the same for SSD and for a pyramid.

    The multiplied channels of a layer are rounded down and at least ``min_depth``. ``is_lite`` selects the narrower
    last two blocks of FPN-lite.
    """
    build = functools.partial(keras.applications.MobileNet, alpha=depth_multiplier, include_top=False)
    special = V1_LITE_FILTERS if is_lite else {}

    def filters(name: str, filters: int) -> int:
        return max(int(special[name] * depth_multiplier) if name in special else filters, min_depth)

    return Network(
        graph=symbolic(functools.partial(build, weights=None)),
        endpoints=V1_PYRAMID_ENDPOINTS if for_pyramid else V1_SSD_ENDPOINTS,
        hyperparams=HYPERPARAMS,
        application=_published(build, depth_multiplier),
        filters=filters,
    )


def mobilenet_v2(
    depth_multiplier: float = 1.0,
    min_depth: int = 1,
    for_pyramid: bool = False,
    is_lite: bool = False,
    is_first_generation: bool = False,
) -> Network:
    """Describes MobileNet v2.

    Args:
        depth_multiplier: Factor of every layer's channels, rounded to multiples of 8; the last convolution has at most
            its 1280 in the second generation.
        min_depth: Smallest number of channels of any layer except the expansions, after the multiplication.
        for_pyramid: Selects the endpoints for a feature pyramid rather than for SSD.
        is_lite: Selects the narrower last convolution of FPN-lite.
        is_first_generation: Adds shortcuts as the Object Detection API's TensorFlow 1 graphs do, between maps of as
            many channels. In its Keras models a block that ``min_depth`` widens has none.

    Returns:
        The network, endpoints 2 to 5.
    """
    build = functools.partial(keras.applications.MobileNetV2, alpha=depth_multiplier, include_top=False)

    def graph() -> keras.Model:
        image = keras.Input((None, None, 3))
        x = convolve(image, depth(32), 3, "Conv1", "relu6", 2, Names("bn_{}", "{}_relu"))
        number = 0
        for expansion, filters, count, strides in V2_BLOCKS:
            for position in range(count):
                block = Bottleneck(
                    depth(filters),
                    expansion,
                    strides=strides if position == 0 else 1,
                    activation="relu6",
                    has_shortcut=is_first_generation or x.shape[-1] == nominal(filters),
                    is_rounded=is_first_generation and number > 0,
                )
                name = f"block_{number}" if number else "expanded_conv"
                x = bottleneck(x, block, name, Names("{}_BN", "{}_relu"))
                number += 1
        last = V2_LITE_FILTERS if is_lite else V2_LAST_FILTERS
        last = depth(last) if is_first_generation else max(nearest_multiple(last * min(depth_multiplier, 1)), min_depth)
        return keras.Model(image, convolve(x, last, 1, "Conv_1", "relu6", names=Names("{}_bn", "out_relu")))

    def nominal(filters: int) -> int:
        return nearest_multiple(int(filters * depth_multiplier))

    def depth(filters: int) -> int:
        if is_first_generation:
            return nearest_multiple(filters * depth_multiplier, min_depth)
        return max(nominal(filters), min_depth)

    built = symbolic(graph)
    return Network(
        graph=built,
        endpoints=_ends_of_blocks(built, V2_PYRAMID_ENDPOINTS if for_pyramid else V2_SSD_ENDPOINTS),
        hyperparams=dataclasses.replace(HYPERPARAMS, regularize_depthwise=True),
        application=_published(build, depth_multiplier),
    )


def for_center_net(network: Network) -> Network:
    """Returns MobileNet v2 with CenterNet's endpoints, quickly moving statistics and no regularization.

    Differs from the Object Detection API: momentum 0.97. The variances after depthwise kernels are small, 0.02, so that
    what is left of the initial 1 decides: after 10,000 steps with its 0.9997, 1000 with 0.99. Until then evaluations
    find nothing, although the loss in training is low.
    """
    batch_norm = BatchNormHyperparams(momentum=0.97, epsilon=0.001, scale=True)
    hyperparams = dataclasses.replace(network.hyperparams, batch_norm=batch_norm, l2_weight=0.0)
    endpoints = _ends_of_blocks(network.graph, V2_CENTER_ENDPOINTS)
    return dataclasses.replace(network, endpoints=endpoints, hyperparams=hyperparams)


def for_mnasfpn(network: Network) -> Network:
    """Returns MobileNet v2 with the endpoints and the hyperparameters that the Object Detection API has for MnasFPN.

    Its epsilon is half of the variance behind many depthwise kernels, so that weights from ImageNet do not fit.
    """
    hyperparams = dataclasses.replace(
        network.hyperparams,
        kernel_initializer=keras.initializers.HeNormal,
        depthwise_initializer=functools.partial(keras.initializers.TruncatedNormal, stddev=0.536),
        batch_norm=BatchNormHyperparams(momentum=0.99, epsilon=0.01, scale=True),
    )
    return dataclasses.replace(network, endpoints=V2_MNASFPN_ENDPOINTS, hyperparams=hyperparams, application=None)


def _ends_of_blocks(graph: keras.Model, endpoints: dict[int, str]) -> dict[int, str]:
    """Returns ``endpoints`` with the projection of each block that has no shortcut."""
    names = {layer.name for layer in graph.layers}
    return {level: name if name in names else name.replace("_add", "_project_BN") for level, name in endpoints.items()}


def _published(build: Callable[..., keras.Model], depth_multiplier: float) -> Application:
    """Returns the application of a width, rounded because float32 of the configurations reads 0.35 as 0.34999999."""
    return Application(functools.partial(build, input_shape=(224, 224, 3), alpha=round(depth_multiplier, 6)))
