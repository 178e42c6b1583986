"""The inner loop: many training steps in one traced function, without returning to the host in between (orbit).

``Trainer`` owns the state of training: weights, their averages, the optimizer, the step counter and the position in the
data.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import orbit
import tensorflow as tf

from detzoo.checkpoints.layout import variables_by_path
from detzoo.config.names import counted
from detzoo.contracts import Tensor
from detzoo.data.issue_counter import IssueCounter
from detzoo.detectors.batch_norm_statistics import BatchNormStatistics
from detzoo.errors import UsageError
from detzoo.train.loss_scale import LossScale
from detzoo.train.moving_average import MovingAverage
from detzoo.train.settings import TrainSettings
from detzoo.train.step import OBJECT_KINDS, TrainStep
from detzoo.train.variables import is_frozen, select_trainable

# (start_record, input_context) -> endless dataset of Batch for one pipeline, of the size of one replica's share
DatasetFactory = Callable[[int, tf.distribute.InputContext], tf.data.Dataset]

TOTAL, GRADIENT_NORM, LEARNING_RATE = "total", "gradient_norm", "learning_rate"
_EXTRA_VALUES = (TOTAL, GRADIENT_NORM, LEARNING_RATE)
_MAX_VALUES = 24  # room for the loss parts; their number is known after tracing only


@dataclasses.dataclass(frozen=True)
class LoopResult:
    """Values of a call of ``run_steps``."""

    step: int  # finished steps of the run
    losses: dict[str, float]  # means over these steps of each part and of "total"
    gradient_norm: float  # mean over these steps, before clipping
    learning_rate: float  # learning rate of the last step
    failed_step: int | None = None  # first step (from 1) with a loss or gradients that are not finite; None for none
    # Loss parts, total, gradient norm and learning rate of that step.
    failed_values: dict[str, float] = dataclasses.field(default_factory=dict)
    # Image ids and positions in the stream of this worker's part of that step's batch.
    failed_records: tuple[tuple[str, int], ...] = ()


class Trainer(orbit.StandardTrainer):
    """Trainer of a detector that was built in the scope of ``strategy``, with an optimizer that is not built yet.

    Raises:
        UsageError: The batch cannot be divided among the replicas.
        ConfigError: There is nothing to train.
    """

    def __init__(
        self,
        detector: Any,
        make_dataset: DatasetFactory,
        optimizer: keras.optimizers.Optimizer,
        strategy: tf.distribute.Strategy,
        settings: TrainSettings,
    ) -> None:
        super().__init__(train_dataset=None)
        replicas, num_parts = strategy.num_replicas_in_sync, settings.gradient_accumulation_steps
        if settings.batch_size % (replicas * num_parts):
            parts = f" and {num_parts} gradient_accumulation_steps" if num_parts > 1 else ""
            remedy = ", or --strategy one_device" if replicas > 1 else ""
            raise UsageError(
                f"train_config.batch_size {settings.batch_size} cannot be divided among "
                f"{counted(replicas, 'replica')}{parts}; use a multiple of {replicas * num_parts}{remedy}"
            )
        self.detector, self.optimizer, self.strategy, self.settings = detector, optimizer, strategy, settings
        self._make_dataset = make_dataset
        trainable = select_trainable(detector, settings.update_variables, settings.freeze_variables)
        with strategy.scope():
            optimizer.build(trainable)
        self.num_trainable = sum(int(np.prod(variable.shape)) for variable in trainable)
        self.model_variables = variables_by_path(detector.variables)
        # Without frozen ones: the mean of equal values may differ from them in the last bit.
        self._statistics = {
            path: variable
            for path, variable in self.model_variables.items()
            if variable.dtype.is_floating
            and path not in {v.path for v in detector.trainable_variables}
            and not is_frozen(path, settings.freeze_variables)
        }
        self.average = self._make_average(trainable)
        self.loss_scale = LossScale() if settings.float16_loss_scaling else None
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
        self.next_record = tf.Variable(0, dtype=tf.int64, trainable=False, name="next_record")
        self._replica_step = TrainStep(detector, optimizer, trainable, settings, self.loss_scale)
        # Its Python control flow does not depend on tensors, and the conversion would take as long as tracing.
        self._traced_as_written = tf.autograph.experimental.do_not_convert(self._replica_step.__call__)
        self._sums = tf.Variable(tf.zeros([_MAX_VALUES]), trainable=False, name="sums")
        self._last = tf.Variable(tf.zeros([_MAX_VALUES]), trainable=False, name="last")
        self._count = tf.Variable(0.0, trainable=False, name="count")
        self._failed_step = tf.Variable(0, dtype=tf.int64, trainable=False, name="failed_step")
        self._failed_values = tf.Variable(tf.zeros([_MAX_VALUES]), trainable=False, name="failed_values")
        with tf.device("CPU:0"):  # strings live on the host
            self._failed_ids = tf.Variable([], dtype=tf.string, shape=[None], trainable=False, name="failed_ids")
            self._failed_indices = tf.Variable([], dtype=tf.int64, shape=[None], trainable=False, name="failed_indices")
        self._objects = tf.Variable(tf.zeros([len(OBJECT_KINDS)]), trainable=False, name="objects")
        self.issue = IssueCounter()  # data issues of the input
        self._synchronize = tf.function(self._mean_of_statistics, autograph=False)
        self._batch_statistics: BatchNormStatistics | None = None
        self._synchronized_step: int | None = None

    def training_state(self) -> dict[str, tf.Variable]:
        """Returns the variables of a checkpoint other than weights and optimizer."""
        state = {"next_record": self.next_record}
        if self.loss_scale is not None:
            state |= {"loss_scale": self.loss_scale.scale, "finite_steps": self.loss_scale.finite_steps}
        return state

    def objects(self) -> dict[str, int]:
        """Returns the numbers of objects in this session so far, over all replicas, by ``OBJECT_KINDS``."""
        return dict(zip(OBJECT_KINDS, map(int, self._objects.numpy())))

    def run_steps(self, num_steps: int) -> LoopResult:
        """Runs some steps. The first call builds the input from ``next_record`` on, and traces.

        Raises:
            tf.errors.OutOfRangeError: The input has ended (``num_epochs``); finished steps count.
        """
        if self._train_dataset is None:
            self.train_dataset = self._distributed_dataset(int(self.next_record))
        return self.train(tf.constant(num_steps, tf.int64))

    @contextlib.contextmanager
    def weights_for_evaluation(self) -> Iterator[Any]:
        """Yields the detector with averaged weights, if there is an average."""
        with self.average.in_place() if self.average else contextlib.nullcontext():
            yield self.detector

    def synchronize_statistics(self) -> None:
        """Replaces the statistics of each replica's batch normalisation by their mean. Every worker must call it.

        Does nothing after a first call at the same step. So a worker may call it again alone.
        """
        if self.strategy.num_replicas_in_sync > 1 and self._statistics and self._synchronized_step != int(self.step):
            self._synchronize()
            self._synchronized_step = int(self.step)

    def recompute_statistics(self) -> None:
        """Computes the statistics of batch normalization from training batches, according to the settings.

        The statistics for averaged weights are computed, too. Every worker must call it.

        Raises:
            DetzooError: There is no batch, or the inputs of a layer are not finite; nothing is changed then.
        """
        num_batches = self.settings.recompute_batch_norm_batches
        with self.strategy.scope():
            if self._batch_statistics is None:
                self._batch_statistics = BatchNormStatistics(self.detector, self._distributed_dataset(0))
            self._batch_statistics.recompute(num_batches)
            if self.average is not None:
                with self.average.in_place():
                    self._batch_statistics.recompute(num_batches)
                    self.average.adopt(self._statistics)

    def train_loop_begin(self) -> None:
        """Resets the values of the last loop."""
        for variable in (self._sums, self._count):
            variable.assign(tf.zeros_like(variable))

    def train_step(self, iterator: Any) -> None:
        """Runs one step of all replicas, in cross-replica context."""
        batch = next(iterator)
        outputs = self.strategy.run(self._traced_as_written, args=(batch,))
        outputs = type(outputs)(*(self.strategy.experimental_local_results(value)[0] for value in outputs))
        values = [outputs.losses, [outputs.total_loss, outputs.gradient_norm, outputs.learning_rate]]
        padded = tf.concat([*values, tf.zeros([_MAX_VALUES - len(self._value_names())])], axis=0)
        with tf.control_dependencies([outputs.total_loss]):  # no step is counted if the input has ended
            self.step.assign_add(1)
        self.next_record.assign(outputs.next_record)
        if self.average is not None:
            self.average.update(self.step)
        self._objects.assign_add(outputs.objects)
        self._note(batch, padded, tf.math.is_finite(outputs.total_loss), tf.math.is_finite(outputs.gradient_norm))

    def train_loop_end(self) -> LoopResult:
        """Fetches the values of the loop; only here the host waits."""
        names = self._value_names()
        mean = dict(zip(names, (self._sums / tf.maximum(self._count, 1.0)).numpy().tolist()))
        last = dict(zip(names, self._last.numpy().tolist()))
        norm = mean.pop(GRADIENT_NORM)
        mean.pop(LEARNING_RATE)
        failed = int(self._failed_step)
        failed_values = dict(zip(names, self._failed_values.numpy().tolist())) if failed else {}
        ids = [image_id.decode("utf-8", "replace") for image_id in self._failed_ids.numpy()]
        records = tuple(zip(ids, self._failed_indices.numpy().tolist()))
        return LoopResult(int(self.step), mean, norm, last[LEARNING_RATE], failed or None, failed_values, records)

    def _distributed_dataset(self, start_record: int) -> Any:
        """Returns the input of all replicas of this worker."""
        devices = self.strategy.extended.worker_devices
        if self.strategy.num_replicas_in_sync == 1 and tf.DeviceSpec.from_string(devices[0]).device_type == "CPU":
            # tf.distribute would add a useless buffer for the device, which is slow to destroy.
            return self._make_dataset(start_record, tf.distribute.InputContext())
        return self.strategy.distribute_datasets_from_function(
            lambda context: self._make_dataset(start_record, context)
        )

    def _value_names(self) -> tuple[str, ...]:
        return (*self._replica_step.part_names, *_EXTRA_VALUES)

    def _note(self, batch: Any, values: Tensor, finite_loss: Tensor, finite_gradients: Tensor) -> None:
        """Adds values to the means of the loop and stores the first failure."""
        # With loss scaling gradients overflow at times; such steps are skipped and do not count as failures.
        healthy = finite_loss if self.loss_scale is not None else finite_loss & finite_gradients
        self._sums.assign_add(tf.where(tf.math.is_finite(values), values, 0.0))
        self._last.assign(values)
        self._count.assign_add(1.0)
        first_failure = ~healthy & (self._failed_step == 0)
        tf.cond(first_failure, lambda: self._note_records(batch), lambda: tf.constant(False))
        self._failed_step.assign(tf.where(first_failure, self.step, self._failed_step))
        self._failed_values.assign(tf.where(first_failure, values, self._failed_values))

    def _note_records(self, batch: Any) -> Tensor:
        """Stores image ids and positions of this worker's part of a batch."""
        for variable, field in ((self._failed_ids, batch.image_ids), (self._failed_indices, batch.record_index)):
            variable.assign(tf.concat(self.strategy.experimental_local_results(field), axis=0))
        return tf.constant(True)

    def _make_average(self, trainable: list[Any]) -> MovingAverage | None:
        if self.settings.moving_average_decay is None:
            return None
        paths = {variable.path for variable in trainable}
        followed = {p: v for p, v in self.model_variables.items() if p in paths or p in self._statistics}
        return MovingAverage(followed, self.settings.moving_average_decay, self.strategy)

    def _mean_of_statistics(self) -> None:
        def replica() -> None:
            context = tf.distribute.get_replica_context()
            # The replica makes copies, because a variable's value has no device and a reduction needs one.
            own = [tf.identity(variable) for variable in self._statistics.values()]
            means = context.all_reduce(tf.distribute.ReduceOp.MEAN, own)
            for variable, mean in zip(self._statistics.values(), means):
                variable.assign(mean)

        self.strategy.run(replica)
