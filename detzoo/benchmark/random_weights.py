"""Random weights that make an untrained detector as fast, or as slow, as a trained one.

Fresh weights are special: biases of zero vanish from an optimised graph, and with them the kernels that add bias and
activation in the pass of the convolution; and each layer shrinks the signal, so that in the end all scores are equal.
The sums of a residual network do the opposite: behind a ResNet-50 with drawn filters, all scores are 0 or 1.
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
_LEAST_VARIANCE = (
    0.01  # of a batch normalisation: a channel that is constant on these images must not explode on others
)
_BLOBS = (3, 10, 30, 100)  # in each direction, of one scale
_IMAGE_SIZE = (320, 320)  # of a detector whose input follows the image
_NUM_REGIONS = 100  # of that image, for a detector that is given them


def randomize(detector: Any, seed: int = 0) -> None:
    """Gives a detector weights under which activations keep their size, and scores differ as trained ones do.

    Filters are drawn with variance 2 / fan-in (He et al., arXiv:1502.01852); what is added or multiplied with is moved
    a little from its first value, so that nothing is exactly 0 or 1; batch normalisation gets the statistics of
    an image.
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
        detector.predict(detector.preprocess(images), training=True, **options)
    for norm in norms:
        norm.moving_variance.assign(tf.maximum(norm.moving_variance, _LEAST_VARIANCE))


def _image(generator: np.random.Generator, height: int, width: int) -> tf.Tensor:
    """One image float32 [1, height, width, 3] in 0..255: coarse and fine blobs above, white noise below, then padding.

    Between blobs and noise lie photographs and what a benchmark sends. Coarse maps of noise alone hardly vary:
    normalised by that, an edge would be an outlier. One image, because 300 regions of each take their time and memory.
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
    """Batch normalisations in training take the statistics of what they see, frozen ones as well."""
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
