"""The toy that the tests of training train."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def training_toy(load_module):
    """The module training_toy.py."""
    return load_module("train/training_toy.py")


@pytest.fixture
def one_device():
    """A strategy of one CPU."""
    import tensorflow as tf

    return tf.distribute.OneDeviceStrategy("CPU:0")


@pytest.fixture
def two_replicas(two_cpus):
    """A strategy of two CPUs."""
    from detzoo.train.strategy import create_strategy

    return create_strategy("mirrored", device_type="CPU")
