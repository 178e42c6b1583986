"""EfficientNet B0 to B7, with the endpoints of the Object Detection API's EfficientDet.

Differs from arXiv:1911.09070, section 4.1: the maps are those after the blocks that are the last of their stage in
B0, also in the deeper networks, because the Object Detection API reads them there and its checkpoints were trained so.
What follows block 7a in B1 to B7 is thus never computed.

References:
    Tan and Le, arXiv:1905.11946, table 1 and section 3.3 (compound scaling); the hyperparameters are those of its
    authors' code for TPUs. Drop connect: Huang et al., arXiv:1603.09382 (stochastic depth).
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
    l2_weight=0.000005,  # as Keras counts it: a weight decay of 1e-5
    activation=swish,
    batch_norm=BatchNormHyperparams(momentum=0.99, epsilon=0.001, scale=True),
)

ENDPOINTS = {2: "block2b_add", 3: "block3b_add", 4: "block5c_add", 5: "block7a_project_bn"}

_APPLICATIONS = {
    "b0": keras.applications.EfficientNetB0,
    "b1": keras.applications.EfficientNetB1,
    "b2": keras.applications.EfficientNetB2,
    "b3": keras.applications.EfficientNetB3,
    "b4": keras.applications.EfficientNetB4,
    "b5": keras.applications.EfficientNetB5,
    "b6": keras.applications.EfficientNetB6,
    "b7": keras.applications.EfficientNetB7,
}


def efficientnet(variant: str) -> Network:
    """EfficientNet of the given size ("b0" to "b7"), endpoints 2 to 5.

    Its ImageNet weights expect what ``detzoo.features.normalization.standardize_imagenet`` gives: the network's own
    layers for it in ``keras.applications`` are left out.
    """
    build = functools.partial(_APPLICATIONS[variant], include_top=False)
    return Network(
        graph=symbolic(functools.partial(build, weights=None)),
        endpoints=ENDPOINTS,
        hyperparams=HYPERPARAMS,
        application=Application(functools.partial(build, input_shape=(224, 224, 3))),
    )
