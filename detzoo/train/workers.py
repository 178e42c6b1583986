"""Comparison of config, step and weights among the workers of a cluster, before the first step.

Without it, workers that differ would silently compute gradients at different weights.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import pathlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import text_format

from detzoo.config.diff import diff_configs
from detzoo.errors import DetzooError, TrainingError
from detzoo.train.strategy import num_workers, worker_index
from detzoo.train.trainer import Trainer

# Errors of tf.distribute when another process has ended, or does not take part in an exchange.
_LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.DeadlineExceededError)
_MAX_DIFFERENCES = 10  # in a message
_LOOK_SECONDS = 2.0  # after which a process counts as absent
SERVICE_SECONDS = 60  # within which a worker of a tf.data service must answer

logger = logging.getLogger(__name__)


@contextmanager
def report_lost_workers(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Raises a TrainingError in its context if another worker ends."""
    try:
        yield
    except _LOST as problem:
        if num_workers(strategy) == 1 and not isinstance(strategy, tf.distribute.ParameterServerStrategy):
            raise
        raise TrainingError(
            f"lost another worker ({type(problem).__name__}): see its log. Start all workers again: they "
            "resume from the last checkpoint"
        ) from None


def check_same_config(
    strategy: tf.distribute.Strategy, pipeline: Any, folder: pathlib.Path, refused: DetzooError | None
) -> None:
    """Compares the configs of all workers before anything is built. Every worker must call it.

    Paths may differ between machines, and only the chief computes metrics. ``refused`` is an error that prevents the
    start of this worker.

    Raises:
        TrainingError: Configs differ, or another worker cannot start.
        DetzooError: ``refused``.
    """
    if num_workers(strategy) > 1:
        shared = copy.deepcopy(pipeline)
        readers = [shared.train_input_reader, *shared.eval_input_reader]
        for message, field in (
            (shared, "eval_config"),
            *((reader, "label_map_path") for reader in readers),
            *((reader, "proposals_path") for reader in readers),
            *((reader.tf_record_input_reader, "input_path") for reader in readers),
            (shared.train_config, "fine_tune_checkpoint"),
        ):
            message.ClearField(field)
        _compare_configs(
            _exchange(strategy, folder, {"config": text_format.MessageToString(shared)}, refused), type(pipeline)
        )
    if refused is not None:
        raise refused


def check_same_start(
    trainer: Trainer, folder: pathlib.Path, resumed_step: int | None, refused: DetzooError | None = None
) -> None:
    """Compares step and weights of all workers after restoring. Every worker must call it.

    ``resumed_step`` is None without a checkpoint; ``refused`` is an error of this worker that prevents the start.

    Raises:
        TrainingError: They differ, or another worker cannot start.
        DetzooError: ``refused``.
    """
    if num_workers(trainer.strategy) == 1:
        if refused is not None:
            raise refused
        return
    rows = _exchange(trainer.strategy, folder, {"step": resumed_step, "weights": _checksum(trainer)}, refused)
    if len({row["step"] for row in rows}) > 1:
        starts = [
            f"{row['name']} " + ("has no checkpoint" if row["step"] is None else f"resumes from step {row['step']}")
            for row in rows
        ]
        raise TrainingError(
            f"the workers would start from different steps: {'; '.join(starts)}. --model_dir must be one folder that "
            "all workers share, such as a network file system, because the chief alone writes checkpoints. Share it, "
            "or copy the chief's checkpoints to the others, then start all workers again"
        )
    if len({row["weights"] for row in rows}) > 1:
        sums = "; ".join(f"{row['name']} has the checksum {row['weights']}" for row in rows)
        raise TrainingError(
            f"the workers would start from different weights: {sums}. They read another checkpoint, "
            "fine_tune_checkpoint or file of pretrained weights: give all workers the same files"
        )


def _compare_configs(rows: list[dict[str, Any]], kind: type) -> None:
    first = text_format.Parse(rows[0]["config"], kind())
    found = [
        f"{each.path}: {each.first} on {rows[0]['name']}, {each.second} on {row['name']}"
        for row in rows[1:]
        for each in diff_configs(first, text_format.Parse(row["config"], kind()))
    ]
    if found:
        more = f"\nand {len(found) - _MAX_DIFFERENCES} more" if len(found) > _MAX_DIFFERENCES else ""
        raise TrainingError(
            "the workers have different configs; start all with the same one:\n"
            + "\n".join(found[:_MAX_DIFFERENCES])
            + more
        )


def _exchange(
    strategy: tf.distribute.Strategy, folder: pathlib.Path, facts: dict[str, Any], refused: DetzooError | None
) -> list[dict[str, Any]]:
    """Sends facts of this worker to all others. Returns the facts of every worker, in the order of TF_CONFIG.

    Raises a TrainingError if another worker cannot start, and ``refused`` itself.
    """
    name = f"worker {worker_index(strategy)} ({socket.gethostname()}, {folder.absolute()})"
    text = json.dumps({**facts, "name": name, "refused": str(refused or "")})
    rows = [json.loads(line) for line in gather_bytes(strategy, text.encode())]
    if refused is not None:
        raise refused
    for row in rows:
        if row["refused"]:
            raise TrainingError(f"{row['name']} cannot start: {row['refused']}")
    return rows


def answers(address: str) -> bool:
    """Returns True if a process listens at ``address``, "host:port"."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=_LOOK_SECONDS):
            return True
    except (OSError, ValueError):  # a port that is no number
        return False


def check_data_service(address: str) -> None:
    """Raises a TrainingError if a service has no dispatcher or no worker: a training would wait for it without end.

    Args:
        address: The address of the dispatcher; "" is no service.
    """
    if not address:
        return
    missing = "" if answers(address.removeprefix("grpc://")) else f"no dispatcher answers at {address}"
    if not missing and not _has_workers(address):
        missing = f"the dispatcher at {address} has no worker after {SERVICE_SECONDS} s"
    if missing:
        raise TrainingError(
            f"train_input_reader.data_service: {missing}; start it with its workers as docs/scale.md describes, or "
            "unset the field"
        )
    logger.info("training images come from the workers of the tf.data service at %s", address)


def _has_workers(address: str) -> bool:
    """Returns True when a worker of the service has computed a data set with one number."""
    service = tf.data.experimental.service
    numbers = tf.data.Dataset.range(1).apply(service.distribute(service.ShardingPolicy.OFF, address)).take(1)
    computed = threading.Event()

    def compute() -> None:  # TensorFlow returns to Python only with an element
        for _ in numbers:
            computed.set()

    threading.Thread(target=compute, daemon=True).start()
    if computed.wait(_LOOK_SECONDS):
        return True
    logger.info("waiting for a worker of the tf.data service at %s", address)
    return computed.wait(SERVICE_SECONDS)


def gather_bytes(strategy: tf.distribute.Strategy, own: bytes) -> list[bytes]:
    """Returns the bytes of every worker, in the order of TF_CONFIG. Every worker must call it."""
    words = np.frombuffer(own + bytes(-len(own) % 4), np.int32)  # devices exchange numbers
    message = tf.constant(np.concatenate([np.array([worker_index(strategy), len(own)], np.int32), words]))

    def gather() -> tf.Tensor:
        return tf.distribute.get_replica_context().all_gather(tf.identity(message), axis=0)

    rest = np.asarray(strategy.experimental_local_results(strategy.run(tf.function(gather)))[0])
    parts = {}
    while rest.size:  # one part per replica
        index, length = rest[:2].tolist()
        parts[index] = rest[2:].tobytes()[:length]
        rest = rest[2 + -(-length // 4) :]
    return [parts[index] for index in sorted(parts)]


def _checksum(trainer: Trainer) -> str:
    """Returns a digest of the state that a step changes or reads: weights, averages, optimizer, data position."""
    averages = trainer.average.averages if trainer.average else {}
    state = [*trainer.model_variables.values(), *averages.values(), *trainer.training_state().values()]
    digest = hashlib.sha256()
    for variable in [*state, *(variable.value for variable in trainer.optimizer.variables)]:
        digest.update(np.ascontiguousarray(variable.numpy()).tobytes())
    return digest.hexdigest()[:12]
