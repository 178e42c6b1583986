"""The loss of a training batch, for every training loop: detzoo's own and Keras's ``fit``.

The loss of a global batch does not depend on the number N of replicas:

    sum over terms of (sum over replicas of total) / max(sum over replicas of normalizer, 1)  +  regularisation

The normalizers are summed before the division, and gradients are summed, not averaged.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from detzoo.contracts import Batch, Tensor

REGULARIZATION = "regularization"


def training_predictions(detector: Any, batch: Batch, training: bool = True) -> Any:
    """Returns the detector's predictions on a batch, with the targets that its loss needs.

    Args:
        detector: Detector.
        batch: Training batch.
        training: Use the training mode of batch normalisation and dropout.
    """
    return detector.forward(
        detector.preprocess(batch.images),
        training=training,
        true_shapes=batch.true_shapes,
        groundtruth=batch.groundtruth,
        **batch.side_inputs(),
    )


def loss_shares(
    detector: Any, batch: Batch, training: bool = True, add_regularization: bool = True
) -> dict[str, Tensor]:
    """Returns this replica's share of each part of the loss, in replica context.

    Args:
        detector: Detector.
        batch: This replica's part of a global batch.
        training: Use the training mode of batch normalisation and dropout.
        add_regularization: Add the detector's weight regularisation as a part.

    Returns:
        Name to float32 scalar; the shares of all replicas add up to the global value.
    """
    terms = detector.loss_terms(training_predictions(detector, batch, training), batch.groundtruth)
    own = tf.stack([tf.cast(term.normalizer, tf.float32) for term in terms.values()])
    normalizers = tf.unstack(tf.maximum(tf.stop_gradient(all_reduce_sum(own)), 1.0))
    parts = {
        name: tf.cast(term.total, tf.float32) / normalizer
        for (name, term), normalizer in zip(terms.items(), normalizers)
    }
    return parts | penalty_share(detector) if add_regularization else parts


def penalty_share(detector: Any) -> dict[str, Tensor]:
    """Returns this replica's share of the weight regularisation by its name; {} for a detector without any."""
    penalties = [tf.cast(loss, tf.float32) for loss in detector.losses]
    return {REGULARIZATION: tf.add_n(penalties) / num_replicas()} if penalties else {}


def num_replicas() -> int:
    """Returns the number of replicas of the current strategy."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def all_reduce_sum(value: Any) -> Any:
    """Returns the sum over all replicas, in replica context. A list is reduced at once."""
    if num_replicas() == 1:
        return value
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, value)
