"""CenterNet's loss, worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from detzoo.contracts import CenterPredictions, CenterTargets
from detzoo.losses.center_loss import CenterLoss
from detzoo.losses.classification import PenaltyReducedFocal
from detzoo.losses.localization import l1


def test_equation_one():
    # p = 0.8 at logit log 4. Positive: -(0.2)^2 log 0.8. Target 0.5: -(0.5)^4 0.8^2 log 0.2. Target 0: -0.8^2 log 0.2.
    found = PenaltyReducedFocal().values(tf.fill([3], math.log(4.0)), tf.constant([1.0, 0.5, 0.0]))
    expected = [-0.04 * math.log(0.8), -0.0625 * 0.64 * math.log(0.2), -0.64 * math.log(0.2)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_confident_errors_have_the_clipped_loss_and_a_gradient():
    logits = tf.constant([-1000.0, 1000.0, -20.0])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        losses = PenaltyReducedFocal().values(logits, tf.constant([1.0, 0.0, 1.0]))
    np.testing.assert_allclose(losses, [-math.log(1e-4) * 0.9999**2] * 3, rtol=1e-4)
    gradients = tape.gradient(losses, logits).numpy()
    np.testing.assert_array_less(gradients * [1, -1, 1], -0.9)


def small_example(num_stacks=1):
    """Two objects (and a row of padding) on maps of 2 x 2 with one class."""
    heatmap = tf.constant([[[[1.0], [0.0]], [[0.0], [1.0]]]])
    targets = CenterTargets(
        heatmap=heatmap,
        heatmap_weights=tf.constant([[[[1.0], [1.0]], [[0.0], [1.0]]]]),
        cells=tf.constant([[0, 3, 0]]),
        sizes=tf.constant([[[2.0, 4.0], [1.0, 1.0], [9.0, 9.0]]]),
        offsets=tf.constant([[[0.5, 0.5], [0.0, 0.0], [9.0, 9.0]]]),
        weights=tf.constant([[1.0, 1.0, 0.0]]),
    )
    maps = {
        "object_center": [tf.zeros([1, 2, 2, 1])] * num_stacks,  # p = 0.5
        "box/scale": [tf.ones([1, 2, 2, 2])] * num_stacks,
        "box/offset": [tf.zeros([1, 2, 2, 2])] * num_stacks,
    }
    return CenterPredictions(maps, tf.constant([[8, 8]]), (8, 8)), targets


@pytest.mark.parametrize("num_stacks", [1, 2])
def test_terms_are_sums_over_the_objects(num_stacks):
    loss = CenterLoss(PenaltyReducedFocal(), l1, center_weight=2.0, size_weight=0.1, offset_weight=3.0)
    terms = loss(*small_example(num_stacks))
    # Heatmap: three counted cells of (0.5)^2 log 2. Sizes: |1 - 2| + |1 - 4| and 0. Offsets: 0.5 + 0.5 and 0.
    assert float(terms["object_center"].total) == pytest.approx(2.0 * 3 * 0.25 * math.log(2.0))
    assert float(terms["box/scale"].total) == pytest.approx(0.1 * 4.0)
    assert float(terms["box/offset"].total) == pytest.approx(3.0 * 1.0)
    assert [float(term.normalizer) for term in terms.values()] == [2.0, 2.0, 2.0]
