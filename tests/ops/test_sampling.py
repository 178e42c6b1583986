"""Balanced random minibatches."""

import numpy as np
import pytest
import tensorflow as tf

from detzoo.ops.sampling import balanced_sample


def _counts(num_positives, num_negatives, sample_size, fraction):
    kinds = np.array([1] * num_positives + [0] * num_negatives + [-1] * 5)
    chosen = balanced_sample(
        tf.constant([kinds == 1]), tf.constant([kinds == 0]), sample_size, fraction, seed=tf.constant([3, 4])
    ).numpy()[0]
    assert not chosen[kinds == -1].any()
    return int(chosen[kinds == 1].sum()), int(chosen[kinds == 0].sum())


def test_positives_are_limited_and_negatives_fill_the_sample():
    assert _counts(10, 100, 16, 0.25) == (4, 12)
    assert _counts(2, 100, 16, 0.25) == (2, 14)
    assert _counts(10, 3, 16, 0.25) == (4, 3)
    assert _counts(0, 0, 16, 0.25) == (0, 0)


def test_without_a_size_all_positives_and_negatives_in_proportion():
    assert _counts(5, 100, None, 0.25) == (5, 15)


def test_images_are_sampled_each_by_itself_and_by_seed():
    positive = tf.constant([[True] * 4 + [False] * 60, [False] * 64])
    first = balanced_sample(positive, ~positive, 16, 0.5, seed=tf.constant([1, 2]))
    again = balanced_sample(positive, ~positive, 16, 0.5, seed=tf.constant([1, 2]))
    np.testing.assert_array_equal(tf.reduce_sum(tf.cast(first, tf.int32), 1), [16, 16])
    np.testing.assert_array_equal(first, again)
    assert (first.numpy() != balanced_sample(positive, ~positive, 16, 0.5, seed=tf.constant([5, 6])).numpy()).any()


@pytest.mark.parametrize("wrap", [lambda draw: draw, tf.function], ids=["eager", "traced once"])
def test_without_a_seed_every_call_draws_by_itself(wrap):
    # 8 of 16 positives and 8 of 16 negatives. An entry stays out of 40 draws with a probability of 2**-40. Each kind
    # has C(16, 8) = 12,870 choices, so that 40 draws of it are expected to have 780 / 12,870 = 0.06 equal pairs.
    positive = tf.constant([[True] * 16 + [False] * 16])
    draw = wrap(lambda: balanced_sample(positive, ~positive, 16, 0.5))
    draws = np.stack([draw().numpy()[0] for _ in range(40)])
    np.testing.assert_array_equal(draws[:, :16].sum(1), 8)
    np.testing.assert_array_equal(draws[:, 16:].sum(1), 8)
    assert len({row.tobytes() for row in draws[:, :16]}) > 30
    assert len({row.tobytes() for row in draws[:, 16:]}) > 30
    assert draws.any(0).all()
    assert not draws.all(0).any()
