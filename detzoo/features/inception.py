"""Inception v3 and Inception-ResNet v2.

References:
    Szegedy et al., arXiv:1512.00567 (v3). Szegedy et al., arXiv:1602.07261 (Inception-ResNet v2). SSD reads the
    maps of Huang et al., arXiv:1611.10012, and of the Object Detection API (Inception v3).

``keras.applications`` names few layers of both. The others are ``conv_0``, ``conv_1``, ... in the order of the graph,
see ``detzoo.features.network.stable_names``. Batch norm has no gamma, as published.
"""

from __future__ import annotations

import functools

import keras

from detzoo.contracts import BatchNormHyperparams, ConvHyperparams
from detzoo.features.network import Application, Network, symbolic

BATCH_NORM = BatchNormHyperparams(momentum=0.9997, epsilon=0.001, scale=False)
INCEPTION_V3_HYPERPARAMS = ConvHyperparams(
    kernel_initializer=functools.partial(keras.initializers.VarianceScaling, scale=2.0),
    l2_weight=0.00002,
    activation="relu",
    batch_norm=BATCH_NORM,
)
INCEPTION_RESNET_V2_HYPERPARAMS = ConvHyperparams(
    kernel_initializer=keras.initializers.GlorotUniform,
    l2_weight=0.00002,
    activation="relu",
    batch_norm=BATCH_NORM,
)

# Of both: the activation of the fifth convolution, before the second max pooling (stride 4).
_STEM_END = "activation_4"
# Mixed_5d, Mixed_6e and Mixed_7c of the TensorFlow names.
INCEPTION_V3_ENDPOINTS = {2: _STEM_END, 3: "mixed2", 4: "mixed7", 5: "mixed10"}
# Ends of the ten residual blocks after Mixed_5b and of the twenty after Mixed_6a, and of Conv2d_7b.
INCEPTION_RESNET_V2_ENDPOINTS = {2: _STEM_END, 3: "block35_10_ac", 4: "block17_20_ac", 5: "conv_7b_ac"}


def inception_v3() -> Network:
    """Describes Inception v3, endpoints 2 to 5."""
    build = functools.partial(keras.applications.InceptionV3, include_top=False)
    return Network(
        graph=symbolic(functools.partial(build, weights=None)),
        endpoints=INCEPTION_V3_ENDPOINTS,
        hyperparams=INCEPTION_V3_HYPERPARAMS,
        application=Application(build),
    )


def inception_resnet_v2() -> Network:
    """Describes Inception-ResNet v2, endpoints 2 to 5."""
    build = functools.partial(keras.applications.InceptionResNetV2, include_top=False)
    return Network(
        graph=symbolic(functools.partial(build, weights=None)),
        endpoints=INCEPTION_RESNET_V2_ENDPOINTS,
        hyperparams=INCEPTION_RESNET_V2_HYPERPARAMS,
        application=Application(build),
    )
