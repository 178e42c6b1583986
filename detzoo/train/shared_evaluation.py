"""Evaluation while training whose records are divided among the workers of a cluster.

records of a shard -> detections on each worker -> the chief, which computes the metrics of all images
"""

from __future__ import annotations

import pickle
import time
from typing import Any

import tensorflow as tf

from detzoo.errors import DetzooError, TrainingError
from detzoo.train.stop import StopNow, StopRequest
from detzoo.train.strategy import is_chief, num_workers, worker_index
from detzoo.train.workers import gather_bytes


def own_share(strategy: tf.distribute.Strategy) -> tf.distribute.InputContext:
    """Returns the part of the evaluation records that this worker reads: record i of n workers goes to i modulo n."""
    return tf.distribute.InputContext(num_workers(strategy), worker_index(strategy))


class SharedEvaluation:
    """Evaluation of all workers; ``evaluator`` reads the records of ``own_share``."""

    def __init__(self, evaluator: Any, strategy: tf.distribute.Strategy, stop: StopRequest) -> None:
        self._evaluator, self._strategy, self._stop = evaluator, strategy, stop

    def evaluate(self, detector: Any) -> Any:
        """Returns the chief's result on the images of all workers, None elsewhere. Every worker must call it.

        Raises:
            DetzooError: The detection of any worker failed.
            StopNow: A signal came to any worker.
        """
        started = time.monotonic()
        shard, problem = [], None
        try:
            with self._stop.interruptible():  # not the exchange, in which the other workers wait
                shard = self._evaluator.detect_shard(detector)
        except (Exception, StopNow) as error:
            index = worker_index(self._strategy)
            is_plain = isinstance(error, (DetzooError, StopNow))
            problem = error if is_plain else TrainingError(f"worker {index}: {type(error).__name__}: {error}")
        parts = [pickle.loads(part) for part in gather_bytes(self._strategy, pickle.dumps((shard, problem)))]
        for found in filter(None, (problem, *(each for _, each in parts))):
            raise found
        if not is_chief(self._strategy):
            return None
        with self._stop.interruptible():
            numbered = sorted((pair for part, _ in parts for pair in part), key=lambda pair: pair[0])
            return self._evaluator.measured(detector, [image for _, image in numbered], started)
