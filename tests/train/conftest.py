"""The toy that the tests of training train."""

from __future__ import annotations

import importlib.util

import pytest


class _NeedsTraining(pytest.Module):
    """A file of tests that is not imported, because it would import orbit."""

    def collect(self):
        pytest.skip("needs detzoo[train]: tf-models-official is not installed", allow_module_level=True)


def pytest_pycollect_makemodule(module_path, parent):
    """Skips all files of this folder where detzoo was installed without training."""
    if importlib.util.find_spec("orbit") is None:
        return _NeedsTraining.from_parent(parent, path=module_path)
    return None


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
def two_replicas(two_cpus, monkeypatch):
    """A strategy of two CPUs, whose iterators end at once.

    ``tf.distribute`` gives each device a buffer, with a tuning thread for a single stage. Its end waits for that
    thread, which may sleep for up to a minute.
    """
    import tensorflow as tf
    from tensorflow.python.data.ops import multi_device_iterator_ops

    from detzoo.train.strategy import create_strategy

    options, create = tf.data.Options(), multi_device_iterator_ops._create_device_dataset
    options.autotune.enabled = False
    monkeypatch.setattr(
        multi_device_iterator_ops, "_create_device_dataset", lambda *given: create(*given).with_options(options)
    )
    return create_strategy("mirrored", device_type="CPU")
