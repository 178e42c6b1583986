"""Which strategy a name and the environment mean."""

from __future__ import annotations

import pytest
import tensorflow as tf

from detzoo.errors import UsageError
from detzoo.train.strategy import create_strategy, is_chief, num_workers


def test_auto_without_gpus_is_one_device(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    strategy = create_strategy("auto", device_type="CPU")
    assert isinstance(strategy, tf.distribute.OneDeviceStrategy)
    assert (num_workers(strategy), is_chief(strategy)) == (1, True)


def test_mirrored_takes_all_devices(two_cpus):
    strategy = create_strategy("mirrored", device_type="CPU")
    assert strategy.num_replicas_in_sync == len(two_cpus)
    assert is_chief(strategy)


def test_errors_say_what_is_accepted(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(UsageError, match="'tpu' is not known; accepted: auto, one_device, mirrored, multi_worker"):
        create_strategy("tpu")
    with pytest.raises(UsageError, match=r"needs the environment variable TF_CONFIG, for example '\{\"cluster\""):
        create_strategy("multi_worker")
    monkeypatch.setenv("TF_CONFIG", "worker 1")
    with pytest.raises(UsageError, match=r"TF_CONFIG is not a JSON object: .*received: worker 1"):
        create_strategy("auto")
