"""Localisation losses: known values."""

import numpy as np
import pytest
import tensorflow as tf

from detzoo.losses import localization
from detzoo.ops.box_coder import FasterRcnnBoxCoder

CODER = FasterRcnnBoxCoder()
ANCHORS = tf.constant([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.5, 1.0]])


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        # Differences .5, -2, 0, 3.
        (localization.SmoothL1(1.0), 0.125 + 1.5 + 0 + 2.5),
        (localization.SmoothL1(2.0), 0.125 + 2.0 + 0 + 2 * (3 - 1)),
        (localization.weighted_l2, (0.25 + 4 + 9) / 2),
        (localization.l1, 5.5),
    ],
)
def test_values_in_code_space(loss, expected):
    predicted = tf.constant([[[0.5, -2.0, 1.0, 4.0], [0.0, 0.0, 0.0, 0.0]]])
    target = tf.constant([[[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]])
    np.testing.assert_allclose(loss(predicted, target, ANCHORS), [[expected, 0.0]], rtol=1e-6)


def test_iou_is_that_of_the_decoded_boxes():
    predicted = CODER.encode(tf.constant([[[0.0, 0.0, 2.0, 2.0], [3.0, 0.0, 4.0, 1.0]]]), ANCHORS)
    target = CODER.encode(tf.constant([[[1.0, 1.0, 3.0, 4.0], [0.0, 0.0, 1.0, 1.0]]]), ANCHORS)
    # Overlap 1 of a union of 9; apart, 2 of an enclosing box of 4 uncovered.
    iou = localization.OneMinusIou(CODER)(predicted, target, ANCHORS)
    np.testing.assert_allclose(iou, [[8 / 9, 1.0]], rtol=1e-4)
    # Enclosing box of the first pair: 3 x 4 = 12, of which 3 are uncovered.
    giou = localization.OneMinusIou(CODER, is_generalized=True)(predicted, target, ANCHORS)
    np.testing.assert_allclose(giou, [[1 - 1 / 9 + 3 / 12, 1.5]], rtol=1e-4)


def test_a_sum_weighs_its_terms():
    # Deltas are 0 at the anchor, and the target is its lower half: (ty, th) = (.25 / 1, ln .5), scaled by 10 and 5.
    # Absolute differences 2.5 and 5 ln 2, and an IoU of 1/2.
    half = CODER.encode(tf.constant([[[0.5, 0.0, 1.0, 1.0]]]), ANCHORS[:1])
    loss = localization.SumOfLosses(((3.0, localization.l1), (4.0, localization.OneMinusIou(CODER))))
    expected = 3.0 * (2.5 + 5.0 * np.log(2.0)) + 4.0 * 0.5
    np.testing.assert_allclose(loss(tf.zeros([1, 1, 4]), half, ANCHORS[:1]), [[expected]], rtol=1e-5)


def test_generalised_iou_has_a_gradient_where_the_boxes_are_apart():
    predicted = CODER.encode(tf.constant([[[3.0, 0.0, 4.0, 1.0]]]), ANCHORS[:1])
    with tf.GradientTape() as tape:
        tape.watch(predicted)
        loss = localization.OneMinusIou(CODER, is_generalized=True)(predicted, tf.zeros_like(predicted), ANCHORS[:1])
    gradient = tape.gradient(loss, predicted).numpy()
    assert gradient[0, 0, 0] > 0  # moving down is worse
    assert np.isfinite(gradient).all()
