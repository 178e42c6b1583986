"""Tests of the distribution of the loss over examples, with hand-worked numbers."""

import types

import numpy as np
import pytest
import tensorflow as tf

from detzoo.analyze.focal_report import format_distribution
from detzoo.analyze.loss_distribution import (
    CumulativeLoss,
    Examples,
    UniformSample,
    check_detector,
    distributions,
    signed_logits,
)
from detzoo.contracts import AnchorState, Predictions, Targets
from detzoo.errors import ConfigError

IGNORE, NEGATIVE, POSITIVE = (int(state) for state in AnchorState)


def logits_of_losses(losses):
    """x_t under which cross entropy is these: p_t = exp(-loss)."""
    p = np.exp(-np.float64(losses))
    return np.float32(np.log(p / (1.0 - p)))


def test_cross_entropy_of_the_easiest():
    # Losses 1, 3, 4 in some order: the share of the easiest third is 1/8, that of the easiest two thirds is half.
    loss = CumulativeLoss(logits_of_losses([4.0, 1.0, 3.0]), gamma=0.0)
    np.testing.assert_allclose(loss.of_easiest(np.array([0.0, 1 / 3, 2 / 3, 1.0])), [0.0, 1 / 8, 1 / 2, 1.0], rtol=1e-5)
    # Within an example the share grows evenly.
    np.testing.assert_allclose(loss.of_easiest(np.array([1 / 6])), [1 / 16], rtol=1e-5)
    assert loss.of_hardest(1 / 3) == pytest.approx(1 / 2, rel=1e-5)


def test_gamma_moves_the_loss_to_the_hard_ones():
    # p_t = 1/2 and 1/4: losses (1/2)^2 log 2 = log 2 / 4 and (3/4)^2 log 4 = 9 log 2 / 8, together 11 log 2 / 8.
    logits = np.float32([0.0, -np.log(3.0)])
    assert CumulativeLoss(logits, gamma=2.0).of_hardest(0.5) == pytest.approx(9 / 11, rel=1e-5)
    assert CumulativeLoss(logits, gamma=0.0).of_hardest(0.5) == pytest.approx(2 / 3, rel=1e-5)


def test_examples_without_any_loss_share_it_evenly():
    loss = CumulativeLoss(np.float32([200.0, 300.0, 400.0, 500.0]), gamma=2.0)
    assert loss.of_hardest(0.25) == pytest.approx(0.25)


def test_a_sample_that_is_all():
    sample = UniformSample(10, seed=0)
    sample.add(np.float32([1, 2]))
    sample.add(np.float32([]))
    sample.add(np.float32([3]))
    assert (sorted(sample.values()), sample.num_seen) == ([1.0, 2.0, 3.0], 3)


def test_a_sample_of_many_is_even():
    # Of 0..99999, fed in order: each tenth of them should have a tenth of 2000 kept, give or take 6 deviations of 13.4.
    values = np.arange(100_000, dtype=np.float32)
    sample = UniformSample(2000, seed=1)
    for part in np.split(values, 50):
        sample.add(part)
    kept = sample.values()
    assert len(kept) == len(set(kept.tolist())) == 2000
    counts = np.bincount((kept // 10_000).astype(int), minlength=10)
    assert np.all(np.abs(counts - 200) < 81), counts
    assert sample.num_seen == 100_000


def fake_detector(targets, has_background_column=False):
    loss = types.SimpleNamespace(has_background_column=has_background_column)
    return types.SimpleNamespace(anchor_targets=lambda predictions, groundtruth: targets, dense_loss=loss)


def fake_targets():
    """One image, four anchors: class 1, background, ignored, and an object of weight 0."""
    state = tf.constant([[POSITIVE, NEGATIVE, IGNORE, POSITIVE]])
    classes = tf.constant([[1, -1, -1, 0]])
    class_weights = tf.constant([[1.0, 1.0, 0.0, 0.0]])
    return Targets(tf.zeros([1, 4, 4]), classes, state, class_weights, tf.zeros([1, 4]), tf.zeros([1, 4], tf.int32), ())


@pytest.mark.parametrize("has_background_column", [False, True])
def test_signed_logits(has_background_column):
    logits = np.float32([[[1, 2], [3, -4], [5, 6], [7, 8]]])
    if has_background_column:
        logits = np.concatenate([np.full([1, 4, 1], 99, np.float32), logits], axis=-1)
    predictions = Predictions(tf.zeros([1, 4, 4]), tf.constant(logits), tf.zeros([4, 4]))
    detector = fake_detector(fake_targets(), has_background_column)
    positives, negatives = signed_logits(detector, predictions, ())
    # The class of the object; its other class and both of the background with the other sign.
    assert positives.numpy().tolist() == [2.0]
    assert negatives.numpy().tolist() == [-1.0, -3.0, 4.0]


def test_several_labels_of_an_object_are_all_positive():
    targets = fake_targets()._replace(label_sets=tf.constant([[[True, True]]]))
    predictions = Predictions(tf.zeros([1, 4, 4]), tf.constant([[[1.0, 2], [3, -4], [5, 6], [7, 8]]]), tf.zeros([4, 4]))
    positives, negatives = signed_logits(fake_detector(targets), predictions, ())
    assert positives.numpy().tolist() == [1.0, 2.0]
    assert negatives.numpy().tolist() == [-3.0, 4.0]


def test_the_table_says_what_the_hardest_bear():
    # 99 positives of loss 1 and one of 80: the share of the hardest 50 of 100 is (80 + 49) / 179.
    positives = np.append(logits_of_losses([1.0] * 99), np.float32(-80.0))
    examples = Examples(positives, logits_of_losses([1.0] * 1000), 1, 100, 1000)
    lines = format_distribution(distributions(examples, [0.0])).splitlines()
    assert lines[1].split("  ")[-6:] == [
        "50 % of positives",
        "20 % of positives",
        "5 % of positives",
        "20 % of negatives",
        "1 % of negatives",
        "0.1 % of negatives",
    ]
    # (80 + 49) / 179, (80 + 19) / 179, (80 + 4) / 179, then as many of the negatives as the head says.
    assert lines[2].replace("%", "").split() == ["0", "72.1", "55.3", "46.9", "20.0", "1.0", "0.1"]


def test_a_detector_of_another_kind(toy):
    with pytest.raises(ConfigError, match=r"classifies every anchor; accepted: model\.ssd"):
        check_detector(toy.toy_detector())
