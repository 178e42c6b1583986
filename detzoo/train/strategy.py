"""Creates the tf.distribute strategy for ``--strategy``, before any other use of TensorFlow's devices."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import signal
import threading
from collections.abc import Iterator

import tensorflow as tf

from detzoo.errors import UsageError

SECONDS_BETWEEN_REPORTS = 30.0  # while the other workers have not started
SERVERS_EXAMPLE = (
    '{"cluster": {"chief": ["host1:2222"], "ps": ["host2:2222"], "worker": ["host3:2222", "host4:2222"]}, '
    '"task": {"type": "worker", "index": 0}}'
)
TF_CONFIG_EXAMPLE = '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'
_OTHER_ROLES = {
    "ps": "parameter servers train asynchronously, with --strategy parameter_server; otherwise every worker has all "
    'weights: list these machines as "worker"',
    "evaluator": "run `detzoo evaluate --continuous` on that machine instead, without TF_CONFIG",
    "master": 'that is TensorFlow 1\'s name of the "chief"',
}
_UNKNOWN_ROLE = 'the roles are "worker" and "chief"'
_ADDRESS = re.compile(r"[^\s/]+:\d{1,5}")
_MAX_SHOWN = 500  # characters of TF_CONFIG in a message

PARAMETER_SERVER = "parameter_server"
STRATEGIES = ("auto", "one_device", "mirrored", "multi_worker", PARAMETER_SERVER)

logger = logging.getLogger(__name__)


def create_strategy(name: str = "auto", device_type: str | None = None) -> tf.distribute.Strategy:
    """Creates the strategy of a name.

    Args:
        name: ``one_device``, ``mirrored`` (all devices of this machine), ``multi_worker`` (the cluster in the
            environment variable TF_CONFIG), ``parameter_server`` (asynchronous, on such a cluster), or ``auto``, which
            chooses one of the first three by TF_CONFIG and the number of GPUs.
        device_type: "GPU" or "CPU"; by default GPU if there is one.

    Raises:
        UsageError: The name is unknown, or TF_CONFIG is missing or cannot be read.
    """
    if name not in STRATEGIES:
        raise UsageError(f"--strategy '{name}' is not known; accepted: {', '.join(STRATEGIES)}")
    if name == PARAMETER_SERVER:
        role_among_servers()
        with _watched_start():
            return tf.distribute.ParameterServerStrategy(tf.distribute.cluster_resolver.TFConfigClusterResolver())
    num_workers = workers_of_environment()
    if name == "auto":
        name = "multi_worker" if num_workers > 1 else "mirrored" if len(_logical("GPU")) > 1 else "one_device"
    if name == "multi_worker":
        if not os.environ.get("TF_CONFIG"):
            raise UsageError(
                f"--strategy multi_worker needs the environment variable TF_CONFIG, for example '{TF_CONFIG_EXAMPLE}'"
            )
        with _watched_start():
            return tf.distribute.MultiWorkerMirroredStrategy()
    devices = _logical(device_type or "GPU") or _logical("CPU")
    if name == "mirrored":
        # On CPUs TensorFlow's collectives share keys with other strategies of the process, and would mix up values.
        reduction = tf.distribute.ReductionToOneDevice() if devices[0].device_type == "CPU" else None
        return tf.distribute.MirroredStrategy([device.name for device in devices], cross_device_ops=reduction)
    return tf.distribute.OneDeviceStrategy(devices[0].name)


def workers_of_environment() -> int:
    """Returns the number of workers in TF_CONFIG, chief included; 0 if it is not set.

    Raises:
        UsageError: TF_CONFIG describes no cluster of synchronous workers.
    """
    cluster, _, _ = _read_tf_config()
    return sum(map(len, cluster.values()))


def role_among_servers() -> str:
    """Returns the role of this process for ``parameter_server``: "chief", "ps" or "worker".

    Raises:
        UsageError: TF_CONFIG is missing, or its cluster lacks a role.
    """
    cluster, role, _ = _read_tf_config(("chief", "ps", "worker"), SERVERS_EXAMPLE)
    lacking = [name for name in ("chief", "ps", "worker") if not cluster.get(name)]
    if lacking:
        raise UsageError(
            f"--strategy {PARAMETER_SERVER} needs a chief, parameter servers and workers in the environment variable "
            f"TF_CONFIG, which has no {' and no '.join(map(repr, lacking))}; for example '{SERVERS_EXAMPLE}'"
        )
    return role


def _read_tf_config(
    roles: tuple[str, ...] = ("chief", "worker"), example: str = TF_CONFIG_EXAMPLE
) -> tuple[dict[str, list[str]], str, int]:
    """Returns (role -> addresses, own role, own index) of TF_CONFIG; ({}, "", 0) if it is not set."""
    text = os.environ.get("TF_CONFIG", "")
    if not text:
        return {}, "", 0

    def refuse(problem: str) -> UsageError:
        return UsageError(
            f"the environment variable TF_CONFIG {problem}; received: {text[:_MAX_SHOWN]}. Give every machine "
            f"'{example}' with its index, or unset it to train on this machine alone"
        )

    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise refuse(f"is not a JSON object: {problem}") from None
    if not isinstance(config, dict):
        raise refuse(f"is not a JSON object: it is a {type(config).__name__}")
    cluster, task = config.get("cluster"), config.get("task")
    if not isinstance(cluster, dict) or not cluster:
        raise refuse('names no "cluster": an object of roles and their addresses')
    if not isinstance(task, dict):
        raise refuse('names no "task": the role and index of this process')
    for role in (*cluster, task.get("type")):
        if role not in roles:
            raise refuse(f"has the role {json.dumps(role)}: {_OTHER_ROLES.get(str(role), _UNKNOWN_ROLE)}")
    for role, addresses in cluster.items():
        if not isinstance(addresses, list) or not all(_ADDRESS.fullmatch(str(address)) for address in addresses):
            raise refuse(f'has {json.dumps(addresses)} as the addresses of "{role}": it takes a list of "host:port"')
    everyone = [address for addresses in cluster.values() for address in addresses]
    if len(set(everyone)) < len(everyone):
        raise refuse("names an address twice: each process needs another port")
    if len(cluster.get("chief", ())) > 1:
        raise refuse('names more than one chief: name the others "worker"')
    if not everyone:
        raise refuse("names no address of any machine")
    role, index = task["type"], task.get("index", 0)
    if role not in cluster:
        raise refuse(f'says that this process is a "{role}", which its cluster does not have')
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(cluster[role]):
        last = len(cluster[role]) - 1
        raise refuse(f"has the task index {json.dumps(index)}: the {role}s of its cluster are 0 to {last}")
    return cluster, role, index


@contextlib.contextmanager
def _watched_start() -> Iterator[None]:
    """Within, this process waits for the others: it says so now and then, and signals end it at once."""
    cluster, role, index = _read_tf_config(("chief", "ps", "worker"))
    others = [
        address
        for kind, addresses in cluster.items()
        for number, address in enumerate(addresses)
        if (kind, number) != (role, index)
    ]
    started = threading.Event()

    def report() -> None:
        while not started.wait(SECONDS_BETWEEN_REPORTS):
            logger.warning(
                "still waiting for the other workers: %s. Did one of them refuse to start? Ctrl-C ends this",
                ", ".join(others),
            )

    logger.info("waiting for the other workers: %s", ", ".join(others))
    handlers = {}
    if threading.current_thread() is threading.main_thread():
        # TensorFlow waits without returning to Python, so no handler would run. Nothing is computed yet.
        handlers = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGTERM)}
    threading.Thread(target=report, daemon=True).start()
    try:
        yield
    finally:
        started.set()
        for number, handler in handlers.items():
            signal.signal(number, handler)


def num_workers(strategy: tf.distribute.Strategy) -> int:
    """Returns the number of processes that run the same program; the workers of parameter servers do not."""
    resolver = strategy.cluster_resolver
    spec = resolver.cluster_spec().as_dict() if resolver is not None else {}
    return max(1, sum(len(spec.get(kind, ())) for kind in ("chief", "worker")))


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether this process writes checkpoints and reports."""
    return worker_index(strategy) == 0


def worker_index(strategy: tf.distribute.Strategy) -> int:
    """Returns the index of this process among the workers, the chief first."""
    resolver = strategy.cluster_resolver
    if resolver is None or num_workers(strategy) == 1:
        return 0
    spec = resolver.cluster_spec().as_dict()
    return int(resolver.task_id) + (len(spec.get("chief", ())) if resolver.task_type == "worker" else 0)


def _logical(device_type: str) -> list[tf.config.LogicalDevice]:
    return tf.config.list_logical_devices(device_type)
