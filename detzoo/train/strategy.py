"""``--strategy`` -> a tf.distribute strategy. Created before anything else touches TensorFlow's devices."""

from __future__ import annotations

import json
import logging
import os

import tensorflow as tf

from detzoo.errors import UsageError

STRATEGIES = ("auto", "one_device", "mirrored", "multi_worker")

logger = logging.getLogger(__name__)


def create_strategy(name: str = "auto", device_type: str | None = None) -> tf.distribute.Strategy:
    """The strategy of a name.

    Args:
        name: ``one_device``; ``mirrored``, all devices of this machine; ``multi_worker``, the cluster that the
            environment variable TF_CONFIG describes; ``auto`` chooses by TF_CONFIG and the number of GPUs.
        device_type: "GPU" or "CPU"; by default GPU where there is one.

    Raises:
        UsageError: an unknown name, or a TF_CONFIG that is missing or cannot be read.
    """
    if name not in STRATEGIES:
        raise UsageError(f"--strategy '{name}' is not known; accepted: {', '.join(STRATEGIES)}")
    num_workers = workers_of_environment()
    if name == "auto":
        name = "multi_worker" if num_workers > 1 else "mirrored" if len(_logical("GPU")) > 1 else "one_device"
    if name == "multi_worker":
        if not os.environ.get("TF_CONFIG"):
            raise UsageError(
                "--strategy multi_worker needs the environment variable TF_CONFIG, for example "
                '\'{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}\''
            )
        return tf.distribute.MultiWorkerMirroredStrategy()
    devices = _logical(device_type or "GPU") or _logical("CPU")
    if name == "mirrored":
        # On CPUs TensorFlow's collectives would share their keys with any other strategy of the process, and mix up.
        reduction = tf.distribute.ReductionToOneDevice() if devices[0].device_type == "CPU" else None
        return tf.distribute.MirroredStrategy([device.name for device in devices], cross_device_ops=reduction)
    return tf.distribute.OneDeviceStrategy(devices[0].name)


def workers_of_environment() -> int:
    """How many workers (the chief counts) TF_CONFIG names; 0 where it is not set.

    Raises:
        UsageError: TF_CONFIG is no JSON object.
    """
    text = os.environ.get("TF_CONFIG", "")
    if not text:
        return 0
    try:
        cluster = json.loads(text).get("cluster", {})
        return sum(len(cluster.get(kind, ())) for kind in ("chief", "worker"))
    except (ValueError, AttributeError) as problem:
        raise UsageError(
            f"the environment variable TF_CONFIG is not a JSON object: {problem}; received: {text}"
        ) from None


def num_workers(strategy: tf.distribute.Strategy) -> int:
    """How many processes a strategy spans."""
    resolver = strategy.cluster_resolver
    spec = resolver.cluster_spec().as_dict() if resolver is not None else {}
    return max(1, sum(len(spec.get(kind, ())) for kind in ("chief", "worker")))


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process is the one that writes checkpoints and reports."""
    resolver = strategy.cluster_resolver
    if resolver is None or num_workers(strategy) == 1:
        return True
    if "chief" in resolver.cluster_spec().as_dict():
        return resolver.task_type == "chief"
    return resolver.task_id == 0


def _logical(device_type: str) -> list[tf.config.LogicalDevice]:
    return tf.config.list_logical_devices(device_type)
