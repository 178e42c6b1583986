"""Random weights that make an untrained detector as fast, or as slow, as a trained one.

Fresh weights are a special case. Biases of zero vanish from an optimised graph, and with them the kernels that fuse
bias and activation with the convolution. Each layer shrinks the signal until all scores are equal. The sums of a
residual network do the opposite: after a ResNet-50 with random filters, all scores are 0 or 1.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from detzoo.contracts import Proposals
from detzoo.serving.given_regions import random_regions

_SPREAD = 0.05  # of biases, scales and offsets
# Of a batch normalisation: a channel that is constant on this image must not explode on others.
_LEAST_VARIANCE = 0.01
_BLOBS = (3, 10, 30, 100)  # blobs per side, for each scale
_IMAGE_SIZE = (320, 320)  # for a detector without a fixed input size
_NUM_REGIONS = 100  # for a detector that classifies given regions


def randomize(detector: Any, seed: int = 0) -> None:
    """Sets weights that keep the scale of activations and spread scores as trained ones do.

    Filters are drawn with variance 2 / fan-in (He et al., arXiv:1502.01852). Biases, scales and offsets move a little
    from their initial values, so that none is exactly 0 or 1. Batch normalisations get the statistics of an image.
    """
    generator = np.random.default_rng(seed)
    for variable in detector.variables:
        shape, name = tuple(variable.shape), variable.path.rsplit("/", 1)[-1]
        if "kernel" in name and len(shape) == 4:
            fan_in = np.prod(shape[:2]) * (1 if "depthwise" in name else shape[2])
            variable.assign(generator.normal(0.0, np.sqrt(2.0 / fan_in), shape))
        elif name == "kernel" and len(shape) == 2 and not np.any(variable):  # linear classifiers start at 0
            variable.assign(generator.normal(0.0, _SPREAD / np.sqrt(shape[0]), shape))
        elif name in ("bias", "beta"):
            variable.assign(variable.numpy() + generator.normal(0.0, _SPREAD, shape))
        elif name == "gamma":
            variable.assign(variable.numpy() * generator.uniform(1.0 - _SPREAD, 1.0 + _SPREAD, shape))
    height, width = (size or usual for size, usual in zip(detector.input_shape_px, _IMAGE_SIZE))
    images = _image(generator, height, width)
    norms = [x for x in detector._flatten_layers() if isinstance(x, keras.layers.BatchNormalization)]
    options: dict[str, Any] = {}
    if detector.wants_proposals:
        regions = random_regions(1, _NUM_REGIONS)
        options["proposals"] = Proposals(tf.constant(regions), tf.zeros([1, _NUM_REGIONS]), tf.constant([_NUM_REGIONS]))
    with _measuring(norms):
        detector.forward(detector.preprocess(images), training=True, **options)
    for norm in norms:
        norm.moving_variance.assign(tf.maximum(norm.moving_variance, _LEAST_VARIANCE))


def _image(generator: np.random.Generator, height: int, width: int) -> tf.Tensor:
    """Returns one image float32 [1, height, width, 3] in 0..255, with blobs above, white noise below and padding.

    Photographs and benchmark images lie between blobs and noise. Coarse feature maps of noise alone hardly vary, so an
    edge would be an outlier after normalisation by them. More images would take time and memory for 300 regions each.
    """
    blobs = tf.zeros([height, width, 3])
    for cells in _BLOBS:
        blobs += tf.image.resize(generator.uniform(0.0, 255.0 / len(_BLOBS), (cells, cells, 3)), (height, width))
    noise = tf.constant(generator.uniform(0.0, 255.0, (height, width, 3)), tf.float32)
    rows = tf.range(height)[:, tf.newaxis, tf.newaxis]
    filled = tf.where(rows < height * 7 // 16, blobs, tf.where(rows < height * 7 // 8, noise, 0.0))
    return filled[tf.newaxis]


@contextlib.contextmanager
def _measuring(norms: list[Any]) -> Iterator[None]:
    """Makes batch normalisations, also frozen ones, take the statistics of a training batch."""
    names = ("momentum", "trainable", "train_statistics")
    before = [{name: getattr(norm, name) for name in names if hasattr(norm, name)} for norm in norms]
    try:
        for norm in norms:
            norm.momentum, norm.trainable, norm.train_statistics = 0.0, True, True
        yield
    finally:
        for norm, values in zip(norms, before):
            for name, value in values.items():
                setattr(norm, name, value)
