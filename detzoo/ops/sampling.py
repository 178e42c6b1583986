"""Random minibatches of positives and negatives (floor 1)."""

from __future__ import annotations

import tensorflow as tf


def _random_subset(candidates: tf.Tensor, count: tf.Tensor, seed: tf.Tensor | None) -> tf.Tensor:
    """Returns at most ``count`` [B] random true entries of ``candidates`` [B, A]."""
    shape = tf.shape(candidates)
    noise = tf.random.uniform(shape) if seed is None else tf.random.stateless_uniform(shape, seed)
    priority = tf.where(candidates, noise, -1.0)
    order = tf.argsort(priority, axis=-1, direction="DESCENDING", stable=True)
    rank = tf.argsort(order, axis=-1, stable=True)  # the inverse permutation
    return candidates & (rank < count[:, tf.newaxis])


def balanced_sample(
    is_positive: tf.Tensor,
    is_negative: tf.Tensor,
    sample_size: int | None,
    positive_fraction: float,
    seed: tf.Tensor | None = None,
) -> tf.Tensor:
    """Chooses a random sample of positives and negatives [B, A] per image; entries that are neither are never chosen.

    At most ``positive_fraction`` of the sample are positives. Negatives fill the rest; with too few negatives the
    sample is smaller. Without a size every positive is kept, and the number of negatives that the fraction implies. An
    int [2] as seed makes the choice reproducible.

    Returns:
        bool [B, A], true for chosen entries.
    """
    negative_seed = None if seed is None else seed + 1
    num_positives = tf.reduce_sum(tf.cast(is_positive, tf.int32), axis=-1)
    if sample_size is None:
        chosen_positives = is_positive
        ratio = (1.0 - positive_fraction) / positive_fraction
        num_wanted = tf.cast(ratio * tf.cast(num_positives, tf.float32), tf.int32)
    else:
        max_positives = tf.fill(tf.shape(num_positives), int(sample_size * positive_fraction))
        chosen_positives = _random_subset(is_positive, max_positives, seed)
        num_wanted = sample_size - tf.minimum(num_positives, max_positives)
    return chosen_positives | _random_subset(is_negative, num_wanted, negative_seed)
