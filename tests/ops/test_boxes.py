"""Box arithmetic: known answers, degenerate boxes, inverse laws."""

import numpy as np
import pytest
import tensorflow as tf

from detzoo.ops import boxes

UNIT = [0.0, 0.0, 1.0, 1.0]
LINE = [0.2, 0.2, 0.2, 0.8]


def test_iou_and_intersection_worked_by_hand():
    a = tf.constant([[0.0, 0.0, 2.0, 2.0], [5.0, 5.0, 6.0, 6.0]])
    b = tf.constant([[1.0, 1.0, 3.0, 4.0]])
    # Overlap 1 x 1; areas 4 and 6; union 9.
    np.testing.assert_allclose(boxes.pairwise_intersection(a, b), [[1.0], [0.0]])
    np.testing.assert_allclose(boxes.pairwise_iou(a, b), [[1 / 9], [0.0]], rtol=1e-6)
    np.testing.assert_allclose(boxes.aligned_iou(a, tf.concat([b, b], 0)), [1 / 9, 0.0], rtol=1e-6)


def test_generalised_iou_of_boxes_apart():
    # 1 x 1 boxes, one unit between them: union 2, enclosing 3.
    giou = boxes.aligned_giou(tf.constant([UNIT]), tf.constant([[0.0, 2.0, 1.0, 3.0]]))
    np.testing.assert_allclose(giou, [-1 / 3], rtol=1e-6)


def test_degenerate_boxes_overlap_nothing():
    degenerate = tf.constant([LINE, [0.0, 0.0, 0.0, 0.0]])
    np.testing.assert_array_equal(boxes.pairwise_iou(degenerate, degenerate), np.zeros((2, 2)))
    np.testing.assert_array_equal(boxes.aligned_giou(degenerate, degenerate), np.zeros(2))


def test_valid_boxes_are_finite_and_extend_both_ways():
    rows = tf.constant([UNIT, LINE, [0.5, 0.0, 0.1, 1.0], [0.0, 0.0, np.nan, 1.0], [0.0, 0.0, np.inf, 1.0]])
    np.testing.assert_array_equal(boxes.is_valid(rows), [True, False, False, False, False])


def test_clip_and_change_of_frame():
    window = tf.constant([0.0, 0.0, 0.5, 0.8])
    clipped = boxes.clip(tf.constant([[-1.0, 0.4, 0.25, 2.0], [0.6, 0.9, 0.7, 1.0]]), window)
    np.testing.assert_allclose(clipped, [[0.0, 0.4, 0.25, 0.8], [0.5, 0.8, 0.5, 0.8]])
    framed = boxes.change_coordinate_frame(clipped, window)
    np.testing.assert_allclose(framed[0], [0.0, 0.5, 0.5, 1.0])
    np.testing.assert_array_equal(boxes.change_coordinate_frame(clipped, tf.zeros(4)), np.zeros((2, 4)))


def test_fractions_become_pixels_of_their_image():
    norm = tf.constant([[[0.1, 0.1, 0.3, 0.2]], [[0.1, 0.1, 0.3, 0.2]]])
    px = boxes.to_px(norm, tf.constant([[[100, 200]], [[10, 20]]]))
    np.testing.assert_allclose(px, [[[10, 20, 30, 40]], [[1, 2, 3, 4]]], rtol=1e-6)


@pytest.mark.parametrize("count", [0, 3])
def test_empty_sets(count):
    assert boxes.pairwise_iou(tf.zeros([0, 4]), tf.zeros([count, 4])).shape == (0, count)
