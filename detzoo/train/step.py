"""One training step of a replica: losses of its images, gradients summed over replicas, the update.

``detzoo.detectors.training_losses`` defines the loss of a global batch.
"""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from detzoo.contracts import Batch, Groundtruth, Tensor
from detzoo.detectors.training_losses import (
    all_reduce_sum,
    loss_shares,
    num_replicas,
    penalty_share,
    training_predictions,
)
from detzoo.train.loss_scale import LossScale
from detzoo.train.settings import TrainSettings
from detzoo.train.variables import has_weight_decay, is_bias

# Kinds of objects of a batch: those that count in the loss, and reasons to ignore the others.
OBJECT_KINDS = ("counted", "crowd", "weight 0", "no mask")

logger = logging.getLogger(__name__)


class StepOutputs(NamedTuple):
    """Values of a step, equal on every replica."""

    losses: Tensor  # float32 [P], in the order of TrainStep.part_names
    total_loss: Tensor  # float32 scalar
    gradient_norm: Tensor  # float32 scalar, before clipping
    learning_rate: Tensor  # float32 scalar, of this step
    next_record: Tensor  # int64 scalar, one more than the highest record_index of the global batch
    objects: Tensor  # float32 [len(OBJECT_KINDS)], objects of the global batch of each kind


class TrainStep:
    """Training step, called in replica context and traced once.

    The optimizer is built for ``variables``, which train; its ``weight_decay`` is applied to kernels only.
    """

    def __init__(
        self,
        detector: Any,
        optimizer: keras.optimizers.Optimizer,
        variables: list[Any],
        settings: TrainSettings,
        loss_scale: LossScale | None = None,
    ) -> None:
        self._detector = detector
        self._optimizer = optimizer
        self._variables = variables
        self._settings = settings
        self._loss_scale = loss_scale
        self.part_names: tuple[str, ...] = ()  # known once the step has been traced

    def __call__(self, batch: Batch) -> StepOutputs:
        """Trains on this replica's part of a global batch."""
        scale = 1.0 if self._loss_scale is None else tf.convert_to_tensor(self._loss_scale.scale)
        compute = self._gradients if self._settings.gradient_accumulation_steps == 1 else self._accumulated_gradients
        parts, gradients = compute(batch, scale)
        self.part_names = tuple(parts)
        gradients = self._global_gradients(gradients, scale)
        needs_masks = self._detector.proposes_masks
        objects = count_objects(batch.groundtruth, needs_masks)
        losses, objects = tf.split(
            all_reduce_sum(tf.concat([tf.stack(list(parts.values())), objects], axis=0)), [len(parts), -1]
        )
        norm = tf.linalg.global_norm(gradients)
        if self._settings.gradient_clipping_norm > 0:
            gradients, _ = tf.clip_by_global_norm(gradients, self._settings.gradient_clipping_norm, use_norm=norm)
        rate = tf.cast(self._optimizer.learning_rate, tf.float32)
        tf.distribute.get_replica_context().merge_call(self._update, args=(gradients, rate, tf.math.is_finite(norm)))
        last = tf.reduce_max(batch.record_index)
        return StepOutputs(losses, tf.reduce_sum(losses), norm, rate, all_reduce_max(last) + 1, objects)

    def _gradients(self, batch: Batch, scale: Tensor | float) -> tuple[dict[str, Tensor], list[Tensor | None]]:
        """Returns the parts of the loss, and the gradients of their sum times ``scale``; None for unused variables."""
        with tf.GradientTape() as tape:
            parts = loss_shares(self._detector, batch, add_regularization=self._settings.add_regularization_loss)
            scaled_loss = tf.add_n(list(parts.values())) * scale
        return parts, tape.gradient(scaled_loss, [variable.value for variable in self._variables])

    def _accumulated_gradients(
        self, batch: Batch, scale: Tensor | float
    ) -> tuple[dict[str, Tensor], list[Tensor | None]]:
        """Returns what ``_gradients`` does, from parts of the batch one after another.

        A first pass sums the normalizers, which mostly depend on the ground truth alone; then TensorFlow removes its
        forward passes.
        """
        count = self._settings.gradient_accumulation_steps
        divided = tf.nest.map_structure(lambda x: tf.reshape(x, tf.concat([[count, -1], tf.shape(x)[1:]], 0)), batch)
        values = [variable.value for variable in self._variables]
        names: list[str] = []
        is_used = [False] * len(values)

        def terms_of(number: Tensor, training: bool) -> tuple[Tensor, Tensor]:
            """Returns the totals and the normalizers of a part of the batch."""
            part = tf.nest.map_structure(lambda x: x[number], divided)
            terms = self._detector.loss_terms(training_predictions(self._detector, part, training), part.groundtruth)
            names[:] = terms
            columns = zip(*((term.total, term.normalizer) for term in terms.values()))
            return tuple(tf.stack([tf.cast(value, tf.float32) for value in column]) for column in columns)

        numbers = tf.range(count)
        own = tf.map_fn(lambda number: terms_of(number, False)[1], numbers, fn_output_signature=tf.float32)
        normalizers = tf.maximum(all_reduce_sum(tf.reduce_sum(own, axis=0)), 1.0)

        def add(number: Tensor, losses: Tensor, *sums: Tensor) -> tuple[Tensor, ...]:
            with tf.GradientTape() as tape:
                parts = terms_of(number, True)[0] / normalizers
                loss = tf.reduce_sum(parts) * scale
            gradients = tape.gradient(loss, values)
            is_used[:] = [gradient is not None for gradient in gradients]
            added = [s if g is None else s + tf.cast(g, s.dtype) for s, g in zip(sums, gradients)]
            return number + 1, losses + parts, *added

        first = (0, tf.zeros([len(names)]), *map(tf.zeros_like, values))
        _, losses, *sums = tf.while_loop(lambda number, *_: number < count, add, first, parallel_iterations=1)
        found = [s if used else None for s, used in zip(sums, is_used)]
        parts = dict(zip(names, tf.unstack(losses, len(names))))
        if not self._settings.add_regularization_loss:
            return parts, found
        with tf.GradientTape() as tape:
            parts |= penalty_share(self._detector)
            penalty = scale * tf.add_n([tf.zeros([]), *(parts[name] for name in parts if name not in names)])
        extra = tape.gradient(penalty, values)
        return parts, [e if g is None else g if e is None else g + e for g, e in zip(found, extra)]

    def _global_gradients(self, found: list[Tensor | None], scale: Tensor | float) -> list[Tensor]:
        """Returns gradients of the global batch's loss, in the order of the variables that the loss depends on."""
        unused = [variable.path for variable, gradient in zip(self._variables, found) if gradient is None]
        if unused:
            logger.warning("the loss does not depend on %d variables, such as %s", len(unused), unused[0])
            self._variables = [v for v, gradient in zip(self._variables, found) if gradient is not None]
            found = [gradient for gradient in found if gradient is not None]
        gradients = [tf.convert_to_tensor(gradient) for gradient in found]
        gradients = all_reduce_sum(gradients)
        if self._loss_scale is not None:
            gradients = [gradient / scale for gradient in gradients]
        multiplier = self._settings.bias_gradient_multiplier
        if multiplier not in (0.0, 1.0):
            gradients = [g * multiplier if is_bias(v) else g for v, g in zip(self._variables, gradients)]
        return gradients

    def _update(self, strategy: tf.distribute.Strategy, gradients: list[Any], rate: Any, finite: Any) -> None:
        """Applies summed gradients in cross-replica context, in which Keras's ``apply`` does not sum again."""
        if self._loss_scale is None:
            self._apply(strategy, gradients, rate)
            return
        finite = strategy.experimental_local_results(finite)[0]
        tf.cond(finite, lambda: self._apply(strategy, gradients, rate), lambda: tf.constant(False))
        self._loss_scale.update(finite)

    def _apply(self, strategy: tf.distribute.Strategy, gradients: list[Any], rate: Any) -> Tensor:
        decay = self._optimizer.weight_decay or 0.0

        def descend(variable: tf.Variable, gradient: Tensor, rate: Tensor) -> None:
            self._optimizer.update_step(gradient, variable, rate)

        def shrink(variable: tf.Variable, rate: Tensor) -> None:
            variable.assign_sub(variable * (decay * rate))

        for variable, gradient in zip(self._variables, gradients):
            if decay and has_weight_decay(variable):
                strategy.extended.update(variable.value, shrink, args=(rate,), group=False)
            strategy.extended.update(variable.value, descend, args=(gradient, rate), group=False)
        self._optimizer.iterations.assign_add(1)
        return tf.constant(True)


def count_objects(groundtruth: Groundtruth, needs_masks: bool = False) -> Tensor:
    """Counts the objects of a batch; with ``needs_masks`` an object without a mask does not count either.

    Returns:
        float32 [len(OBJECT_KINDS)]; each object that is no padding belongs to one kind.
    """
    left = groundtruth.classes >= 0
    kinds = [groundtruth.is_crowd, groundtruth.weights <= 0.0]
    if needs_masks:
        kinds.append(~tf.reduce_any(groundtruth.masks > 0, axis=[2, 3]))
    ignored = []
    for kind in kinds:
        ignored.append(left & kind)
        left &= ~kind
    counts = [tf.math.count_nonzero(objects, dtype=tf.float32) for objects in (left, *ignored)]
    return tf.stack(counts + [tf.zeros([])] * (len(OBJECT_KINDS) - len(counts)))


def all_reduce_max(value: Tensor) -> Tensor:
    """Returns the maximum over all replicas of an int64 scalar, in replica context."""
    if num_replicas() == 1:
        return value
    context = tf.distribute.get_replica_context()
    # tf.distribute has no maximum: each replica sets one element of a vector of zeros, and the vectors are summed.
    own = tf.one_hot(context.replica_id_in_sync_group, num_replicas(), dtype=tf.int64) * value
    return tf.reduce_max(context.all_reduce(tf.distribute.ReduceOp.SUM, own))
