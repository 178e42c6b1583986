"""Random weights: activations keep their size through a residual network; frozen layers stay frozen."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from detzoo.benchmark.random_weights import randomize
from detzoo.detectors.base import Detector
from detzoo.layers.normalization import BatchNorm

NUM_BLOCKS = 24


class Residual(Detector):
    """Blocks x + norm(conv(norm(x))), as a detector; its batch normalisation is frozen."""

    def __init__(self):
        super().__init__(1, (None, 24), name="residual")
        image = keras.Input((None, None, 3))
        x = keras.layers.Conv2D(16, 1)(image)
        for _ in range(NUM_BLOCKS):
            x = x + BatchNorm(train_statistics=False)(keras.layers.Conv2D(16, 3, padding="same")(keras.ops.relu(x)))
        self.network = keras.Model(image, x)
        self.trainable = False
        self.built = True

    def preprocess(self, images):
        return images / 127.5 - 1.0

    def forward(self, inputs, training=False):
        return self.network(inputs, training=training)


@pytest.fixture(scope="module")
def detector():
    made = Residual()
    randomize(made)
    return made


def test_a_residual_network_does_not_explode(detector):
    image = np.random.default_rng(5).integers(0, 256, (1, 32, 24, 3)).astype(np.float32)
    outputs = detector.forward(detector.preprocess(tf.constant(image)))
    # Every block adds a normalised value, of variance about 1: 24 and a little. With the initial statistics (0 and 1)
    # each would double the variance instead: 2**24.
    assert 12 < np.var(outputs) < 48


def test_nothing_is_exactly_zero_or_one(detector):
    values = {variable.path: variable.numpy() for variable in detector.variables if "seed" not in variable.path}
    assert len(values) == 2 + NUM_BLOCKS * (2 + 4)
    for path, value in values.items():
        assert not np.any((value == 0.0) | (value == 1.0)), path


def test_frozen_layers_are_frozen_again(detector):
    norms = [layer for layer in detector.network.layers if isinstance(layer, BatchNorm)]
    assert len(norms) == NUM_BLOCKS
    assert {(norm.train_statistics, norm.trainable, norm.momentum) for norm in norms} == {(False, False, 0.99)}
    before = norms[0].moving_mean.numpy()
    detector.forward(tf.random.normal([1, 16, 16, 3]), training=True)
    np.testing.assert_array_equal(norms[0].moving_mean, before)


def test_the_same_seed_gives_the_same_weights(detector):
    twin = Residual()
    randomize(twin)
    for one, other in zip(detector.variables, twin.variables, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
