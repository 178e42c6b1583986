"""Asynchronous SGD on parameter servers: every worker applies the gradients of its batches when they are ready.

J. Dean et al., "Large Scale Distributed Deep Networks" (2012), section 4.1. The chief schedules steps
(``tf.distribute.coordinator.ClusterCoordinator``), saves and evaluates; the servers hold the variables. If a worker is
lost, another one runs its step. A worker that starts again joins.
"""

from __future__ import annotations

import json
import logging
import os
import time
from typing import Any

import numpy as np
import tensorflow as tf

from detzoo.errors import UsageError
from detzoo.train.stop import StopRequest
from detzoo.train.trainer import GRADIENT_NORM, LEARNING_RATE, TOTAL, LoopResult, Trainer
from detzoo.train.workers import answers

SECONDS_BETWEEN_LOOKS = 2.0
LOOKS_WITHOUT_CHIEF = 5  # after which a server or worker ends

logger = logging.getLogger(__name__)


def serve(stop: StopRequest) -> None:
    """Runs this process as parameter server or worker until the chief has ended, or a signal asks for the end."""
    cluster, task = tf.train.ClusterSpec(_cluster()), json.loads(os.environ["TF_CONFIG"])["task"]
    role, index = task["type"], int(task.get("index", 0))
    server = tf.distribute.Server(cluster, job_name=role, task_index=index, protocol="grpc", start=True)
    [chief] = cluster.job_tasks("chief")
    logger.info("%s %d serves %s", role, index, chief)
    has_started, misses = False, 0
    while misses < LOOKS_WITHOUT_CHIEF and not stop.requested:
        time.sleep(SECONDS_BETWEEN_LOOKS)
        is_there = answers(chief)
        has_started |= is_there
        misses = 0 if is_there or not has_started else misses + 1
    logger.info("ending %s", server.target)


def _cluster() -> dict[str, list[str]]:
    return json.loads(os.environ["TF_CONFIG"])["cluster"]


class AsynchronousTrainer(Trainer):
    """``Trainer`` whose steps run on the workers of a ParameterServerStrategy.

    ``settings.batch_size`` is the batch of one worker. A step is one batch of any worker.
    After a resume, batches that were in flight are not read again in this epoch.

    Args:
        coordinator: Coordinator of the strategy; the other arguments are those of ``Trainer``.

    Raises:
        UsageError: The settings need synchronous replicas.
    """

    def __init__(self, coordinator: tf.distribute.coordinator.ClusterCoordinator, *arguments: Any) -> None:
        super().__init__(*arguments)
        if self.loss_scale is not None:
            raise UsageError(
                "--strategy parameter_server has no loss scaling for float16; choose bfloat16 by"
                " train_config.mixed_precision"
            )
        self._coordinator = coordinator
        self._num_workers = len(_cluster()["worker"])
        self._batches: Any = None
        self._remote_step = tf.function(self._step_of_worker, autograph=False)

    def run_steps(self, num_steps: int) -> LoopResult:
        """Runs some steps on the workers and waits for all of them."""
        if self._batches is None:
            self._first_record = int(self.next_record)
            make = tf.autograph.experimental.do_not_convert(self._dataset_of_worker)
            self._batches = iter(self._coordinator.create_per_worker_dataset(make))
        remote = [self._coordinator.schedule(self._remote_step, args=(self._batches,)) for _ in range(num_steps)]
        self._coordinator.join()
        outputs = [self._coordinator.fetch(values) for values in remote]
        names = (*self._replica_step.part_names, TOTAL, GRADIENT_NORM, LEARNING_RATE)
        rows = np.array([[*each.losses, each.total_loss, each.gradient_norm, each.learning_rate] for each in outputs])
        wrong = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        first_step = int(self.step)
        self.step.assign_add(num_steps)
        self.next_record.assign(max(int(self.next_record), *(int(each.next_record) for each in outputs)))
        self._objects.assign_add(np.sum([each.objects for each in outputs], axis=0))
        mean = dict(zip(names, np.where(np.isfinite(rows), rows, 0.0).mean(axis=0).tolist()))
        rate = float(rows[-1, -1])
        norm = mean.pop(GRADIENT_NORM)
        mean.pop(LEARNING_RATE)
        failed_step = first_step + int(wrong[0]) + 1 if len(wrong) else None
        failed_values = dict(zip(names, rows[wrong[0]].tolist())) if len(wrong) else {}
        return LoopResult(int(self.step), mean, norm, rate, failed_step, failed_values)

    def _dataset_of_worker(self) -> tf.data.Dataset:
        """Returns the input of the worker that runs this function: its share of the records."""
        worker = tf.distribute.coordinator.experimental_get_current_worker_index()
        # The index is a tensor, which InputContext takes as it is.
        context = tf.distribute.InputContext(self._num_workers, tf.cast(worker, tf.int64))
        return self._make_dataset(self._first_record, context)

    def _step_of_worker(self, batches: Any) -> Any:
        batch = next(batches)
        outputs = self.strategy.run(self._traced_as_written, args=(batch,))
        if self.average is not None:
            self.average.update(tf.cast(self.optimizer.iterations.value, tf.int64))
        return outputs

    def _distributed_dataset(self, start_record: int) -> Any:
        """Returns the input of the chief, which recomputes statistics."""
        return self._make_dataset(start_record, tf.distribute.InputContext())
