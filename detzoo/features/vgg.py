"""VGG-16 with its first two fully connected layers as convolutions, for SSD.

References:
    Simonyan and Zisserman, arXiv:1409.1556, configuration D. Liu et al., arXiv:1512.02325, section 3: fc6
    and fc7 subsampled to 3 x 3 and 1 x 1 convolutions of 1024 channels, fc6 dilated, pool5 3 x 3 with stride 1.
"""

from __future__ import annotations

import dataclasses
import functools

import keras
import numpy as np

from detzoo.contracts import ConvHyperparams
from detzoo.features.network import Application, Network, symbolic

HYPERPARAMS = ConvHyperparams(
    kernel_initializer=keras.initializers.GlorotUniform,
    l2_weight=0.00025,
    activation="relu",
)
PYRAMID_ENDPOINTS = {2: "block3_conv3", 3: "block4_conv3", 4: "block5_conv3", 5: "fc7"}
SSD_ENDPOINTS = {3: "block4_conv3", 4: "fc7"}
SSD_OUTPUT_STRIDE = 16

FC_DROPOUT_RATE = 0.5  # configuration D, section 3.1
# The network with its classifier, for a two-stage detector's fully connected layers (``fc1`` and ``fc2``).
CLASSIFIER = Application(keras.applications.VGG16, expects_bgr=True)

FC_DEPTH, POOL5_SIDE = 4096, 7  # of configuration D, on 224 x 224 pixels
FC_FILTERS = 1024
# Every third tap of fc6's 7 x 7 is kept. With pool5 at stride 1 (output stride 16) this becomes SSD's 6.
FC6_DILATION = 3


def vgg16(for_pyramid: bool = False) -> Network:
    """Describes VGG-16. Without the configuration's hyperparameters it has no batch norm, as published.

    Args:
        for_pyramid: Selects endpoints 2 to 5, the last of stride 32, rather than SSD's conv4_3 and fc7. For SSD,
            endpoint 4 is fc7, whose stride is 16 if the model is built with ``SSD_OUTPUT_STRIDE``.
    """
    build = functools.partial(keras.applications.VGG16, include_top=False)
    with_classifier = dataclasses.replace(CLASSIFIER, convert=subsample_classifier)
    return Network(
        graph=symbolic(lambda: _with_convolutional_fc(build(weights=None))),
        endpoints=PYRAMID_ENDPOINTS if for_pyramid else SSD_ENDPOINTS,
        hyperparams=HYPERPARAMS,
        application=Application(build, expects_bgr=True, with_classifier=with_classifier),
    )


def _with_convolutional_fc(vgg: keras.Model) -> keras.Model:
    x = keras.layers.Conv2D(FC_FILTERS, 3, padding="same", dilation_rate=FC6_DILATION, activation="relu", name="fc6")(
        vgg.output
    )
    return keras.Model(vgg.input, keras.layers.Conv2D(FC_FILTERS, 1, activation="relu", name="fc7")(x))


def subsample_classifier(weights: dict[str, dict[str, np.ndarray]]) -> None:
    """Adds fc6 and fc7, subsampled from the classifier's fc1 and fc2 ("a trous", the SSD paper's section 3).

    Every third of 7 x 7 taps and every fourth of 4096 channels is kept, as in the authors' ``fc_reduced`` model.
    """
    step = FC_DEPTH // FC_FILTERS
    fc6, fc7 = weights["fc1"], weights["fc2"]
    taps = fc6["kernel"].reshape(POOL5_SIDE, POOL5_SIDE, -1, FC_DEPTH)[::FC6_DILATION, ::FC6_DILATION, :, ::step]
    weights["fc6"] = {"kernel": taps, "bias": fc6["bias"][::step]}
    weights["fc7"] = {"kernel": fc7["kernel"][np.newaxis, np.newaxis, ::step, ::step], "bias": fc7["bias"][::step]}
