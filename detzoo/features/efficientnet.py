"""EfficientNet B0 to B7, with the endpoints of the Object Detection API's EfficientDet.

Differs from arXiv:1911.09070, section 4.1: every network is read after the blocks that are the last of their stage in
B0, because the Object Detection API reads the deeper networks there and its checkpoints were trained so. Blocks behind
block 7a in B1 to B7 are thus never computed.

References:
    Tan and Le, arXiv:1905.11946, table 1 and section 3.3 (compound scaling); hyperparameters of its authors'
    code for TPUs. Drop connect: Huang et al., arXiv:1603.09382 (stochastic depth).
"""

from __future__ import annotations

import functools

import keras

from detzoo.contracts import BatchNormHyperparams, ConvHyperparams
from detzoo.features.network import Application, Network, symbolic
from detzoo.layers.activation import swish

HYPERPARAMS = ConvHyperparams(
    kernel_initializer=functools.partial(
        keras.initializers.VarianceScaling, scale=2.0, mode="fan_out", distribution="truncated_normal"
    ),
    l2_weight=0.000005,  # Keras's factor for a weight decay of 1e-5
    activation=swish,
    batch_norm=BatchNormHyperparams(momentum=0.99, epsilon=0.001, scale=True),
)

ENDPOINTS = {2: "block2b_add", 3: "block3b_add", 4: "block5c_add", 5: "block7a_project_bn"}


def efficientnet(variant: str) -> Network:
    """Describes EfficientNet of the given size ("b0" to "b7"), endpoints 2 to 5.

    Its ImageNet weights expect the output of ``detzoo.features.normalization.standardize_imagenet``, which replaces the
    normalisation layers of the network in ``keras.applications``.
    """
    build = functools.partial(getattr(keras.applications, f"EfficientNet{variant.upper()}"), include_top=False)
    return Network(
        graph=symbolic(functools.partial(build, weights=None)),
        endpoints=ENDPOINTS,
        hyperparams=HYPERPARAMS,
        application=Application(functools.partial(build, input_shape=(224, 224, 3))),
    )
