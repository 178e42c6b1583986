"""Computes the moving statistics of batch normalization from training batches.

Moving averages follow the batches of training slowly, so after a short training they may differ much from the batch
statistics. The statistics here are those of the inputs themselves ("precise batch norm"): mean and variance over all
positions of ``num_batches`` training batches, each of which is normalized as in training.

References:
    Wu and Johnson, Rethinking "Batch" in BatchNorm, arXiv:2105.07576, section 3 (population statistics).
"""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from detzoo.contracts import Batch, Tensor
from detzoo.detectors.training_losses import training_predictions
from detzoo.errors import DataError, DetzooError
from detzoo.layers.normalization import BatchNorm


def layers_with_moving_statistics(detector: Any) -> list[BatchNorm]:
    """Returns the batch normalization layers of a detector whose statistics training moves."""
    layers = detector._flatten_layers(include_self=False)
    return [layer for layer in layers if isinstance(layer, BatchNorm) and layer.moves_statistics]


@dataclasses.dataclass(frozen=True)
class Recomputed:
    """The batches that statistics were computed from, and the layers that got them."""

    num_batches: int
    num_images: int
    num_layers: int


class BatchNormStatistics:
    """Computes the moving statistics of a detector's batch normalization from training batches.

    Weights, random states and layers whose statistics are frozen stay as they are. Sums are taken in float64 over all
    replicas, and a layer that is called several times per batch gets the statistics of all its inputs.

    Args:
        detector: Detector built in the scope of the current strategy.
        dataset: Training batches, distributed as the strategy distributes them; read from its start each time.
    """

    def __init__(self, detector: Any, dataset: Iterable[Any]) -> None:
        self._detector, self._dataset = detector, dataset
        self._layers = layers_with_moving_statistics(detector)
        self._seen = threading.local()  # MirroredStrategy traces each replica in a separate thread
        self._sum_of_batch = tf.function(self._run_replicas, autograph=False)

    def recompute(self, num_batches: int) -> Recomputed:
        """Sets the moving statistics to the mean and variance of the inputs over ``num_batches`` training batches.

        If the data end earlier, these batches count. Every worker must call it.

        Raises:
            DataError: There is no batch.
            DetzooError: There are no statistics that training moves, or they are not finite.
        """
        if not self._layers:
            raise DetzooError(
                "the model has no batch normalization whose statistics training moves (none at all, or all of it is "
                "frozen): there is nothing to recompute; leave recompute_batch_norm out"
            )
        states = [v for v in self._detector.non_trainable_variables if not tf.as_dtype(v.dtype).is_floating]
        kept = [(state, state.numpy()) for state in states]  # of random numbers
        total, used, images = np.zeros(()), 0, 0
        iterator = iter(self._dataset)
        try:
            for layer in self._layers:
                layer.observe = functools.partial(self._observe, layer)
            while used < num_batches:
                rows, count = self._sum_of_batch(iterator)
                total, used, images = total + rows.numpy(), used + 1, images + int(count)
        except tf.errors.OutOfRangeError:
            pass
        finally:
            for layer in self._layers:
                layer.observe = None
            for variable, value in kept:
                variable.assign(value)
        if not used:
            raise DataError("train_input_reader has no full batch, so batch normalization gets no statistics from it")
        return Recomputed(used, images, self._assign(total))

    def _observe(self, layer: BatchNorm, inputs: Tensor) -> None:
        """Adds positions, sum and sum of squares of one input of a layer, by channel; in replica context."""
        axes = list(range(len(inputs.shape) - 1))
        mean, variance = tf.nn.moments(tf.cast(inputs, tf.float32), axes)
        mean, variance = tf.cast(mean, tf.float64), tf.cast(variance, tf.float64)
        count = tf.cast(tf.size(inputs) // inputs.shape[-1], tf.float64)
        row = tf.stack([tf.fill(tf.shape(mean), count), count * mean, count * (variance + tf.square(mean))])
        sums = self._seen.sums
        sums[id(layer)] = sums[id(layer)] + row if id(layer) in sums else row

    def _replica(self, batch: Batch) -> tuple[Tensor, Tensor]:
        self._seen.sums = {}
        training_predictions(self._detector, batch)
        nothing = [tf.zeros([3, layer.moving_mean.shape[0]], tf.float64) for layer in self._layers]
        rows = [self._seen.sums.get(id(layer), zero) for layer, zero in zip(self._layers, nothing)]
        sums = [tf.concat(rows, axis=1), tf.cast(tf.shape(batch.images)[0], tf.float64)]
        context = tf.distribute.get_replica_context()
        if context.num_replicas_in_sync > 1:
            sums = context.all_reduce(tf.distribute.ReduceOp.SUM, sums)
        return sums[0], sums[1]

    def _run_replicas(self, iterator: Any) -> tuple[Tensor, Tensor]:
        """Returns the sums of one global batch: float64 [3, channels of all layers] and the number of images."""
        strategy = tf.distribute.get_strategy()
        results = strategy.run(self._replica, args=(next(iterator),))
        first = [strategy.experimental_local_results(result)[0] for result in results]
        return first[0], first[1]

    def _assign(self, total: np.ndarray) -> int:
        """Sets the layers that had an input, or none if a statistic is not finite. Returns their number."""
        ends = np.cumsum([layer.moving_mean.shape[0] for layer in self._layers])[:-1]
        values = []
        for layer, (count, first, second) in zip(self._layers, np.split(total, ends, axis=1)):
            if not count[0]:
                continue
            mean = first / count
            variance = np.maximum(second / count - np.square(mean), 0.0)
            if not (np.isfinite(mean).all() and np.isfinite(variance).all()):
                raise DetzooError(f"the inputs of {layer.path} are not finite on training batches; nothing is changed")
            values.append((layer, mean, variance))
        for layer, mean, variance in values:
            layer.moving_mean.assign(mean.astype(np.float32))
            layer.moving_variance.assign(variance.astype(np.float32))
        return len(values)
