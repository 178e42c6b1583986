"""Box coders: known codes, decode inverts encode, degenerate input stays finite."""

import numpy as np
import pytest
import tensorflow as tf

from detzoo.ops.box_coder import FasterRcnnBoxCoder, MeanStddevBoxCoder, SquareBoxCoder

ANCHOR = [[0.0, 0.0, 0.5, 0.25]]
BOX = [[0.25, 0.125, 0.5, 0.625]]  # centre (.375, .375), size (.25, .5)
CODERS = [FasterRcnnBoxCoder(), FasterRcnnBoxCoder((1.0, 2.0, 3.0, 4.0)), MeanStddevBoxCoder(0.1)]


def test_faster_rcnn_code_worked_by_hand():
    code = FasterRcnnBoxCoder((10.0, 20.0, 5.0, 4.0)).encode(tf.constant(BOX), tf.constant(ANCHOR))
    # Anchor centre (.25, .125), size (.5, .25).
    expected = [10 * 0.125 / 0.5, 20 * 0.25 / 0.25, 5 * np.log(0.5), 4 * np.log(2.0)]
    np.testing.assert_allclose(code, [expected], rtol=1e-5)


def test_mean_stddev_code_is_the_scaled_difference_of_corners():
    code = MeanStddevBoxCoder(0.5).encode(tf.constant(BOX), tf.constant(ANCHOR))
    np.testing.assert_allclose(code, [[0.5, 0.25, 0.0, 0.75]], atol=1e-6)


def test_square_code_worked_by_hand():
    # Anchor side sqrt(.5 * .125) = .25 (here .5 x .125), box side .5.
    anchor, box = tf.constant([[0.0, 0.0, 0.5, 0.125]]), tf.constant([[0.0, 0.0, 0.5, 0.5]])
    code = SquareBoxCoder((10.0, 10.0, 5.0)).encode(box, anchor)
    np.testing.assert_allclose(code, [[0.0, 10 * (0.25 - 0.0625) / 0.25, 5 * np.log(2.0)]], atol=1e-5)
    np.testing.assert_allclose(SquareBoxCoder().decode(SquareBoxCoder().encode(box, anchor), anchor), box, atol=1e-5)


@pytest.mark.parametrize("coder", CODERS)
def test_decode_inverts_encode_over_batches(coder):
    corners = tf.random.stateless_uniform([3, 7, 2, 2], [1, 2])
    boxes = tf.concat([tf.reduce_min(corners, 2), tf.reduce_max(corners, 2) + 0.01], -1)
    anchors = tf.reverse(boxes, [1])[0]
    np.testing.assert_allclose(coder.decode(coder.encode(boxes, anchors), anchors), boxes, atol=1e-5)


@pytest.mark.parametrize("coder", [*CODERS, SquareBoxCoder()])
def test_degenerate_boxes_and_huge_codes_stay_finite(coder):
    degenerate = tf.zeros([1, 4])
    code = coder.encode(degenerate, tf.constant(ANCHOR))
    assert np.isfinite(code).all()
    assert np.isfinite(coder.encode(tf.constant(BOX), degenerate)).all()
    assert np.isfinite(coder.decode(tf.fill([1, coder.code_size], 1e4), tf.constant(ANCHOR))).all()
