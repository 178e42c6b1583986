"""The toy that the tests of training train."""

from __future__ import annotations

import importlib.util
import pathlib
import sys

import pytest


@pytest.fixture(scope="session")
def training_toy():
    """The module training_toy.py."""
    path = pathlib.Path(__file__).resolve().parent / "training_toy.py"
    spec = importlib.util.spec_from_file_location("training_toy", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # AutoGraph looks functions up by their module
    spec.loader.exec_module(module)
    return module


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
