"""Boxes with the same coordinates become one object of several classes."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from detzoo.data.sample import Sample, merge_labels

TALL, WIDE = [0.1, 0.2, 0.9, 0.4], [0.3, 0.1, 0.5, 0.9]


def sample(boxes, classes, weights=None):
    count = len(boxes)
    return Sample(
        tf.zeros([8, 9, 3]),
        tf.reshape(tf.constant(boxes, tf.float32), [count, 4]),
        tf.constant(classes, tf.int32),
        tf.constant([1.0] * count if weights is None else weights, tf.float32),
        tf.zeros([count], tf.bool),
        tf.zeros([count], tf.bool),
        tf.range(count, dtype=tf.float32),
        None,
    )


def test_the_first_of_equal_boxes_stays_with_all_labels():
    given = sample([TALL, WIDE, TALL, WIDE, TALL], [3, 1, 0, 1, 2], [0.5, 1.0, 0.25, 1.0, 1.0])
    merged, label_sets = merge_labels(given, 5)
    np.testing.assert_array_equal(merged.boxes_norm, np.float32([TALL, WIDE]))
    np.testing.assert_array_equal(label_sets, [[True, False, True, True, False], [False, True, False, False, False]])
    assert merged.classes.numpy().tolist() == [0, 1]  # the lowest label
    assert merged.weights.numpy().tolist() == [0.5, 1.0]
    assert merged.area_px.numpy().tolist() == [0.0, 1.0]


def test_boxes_are_the_same_up_to_a_ten_thousandth():
    near, far = [0.10004, *TALL[1:]], [0.1002, *TALL[1:]]  # bins 1000, 1000 and 1002
    merged, label_sets = merge_labels(sample([TALL, near, far], [0, 1, 2]), 3)
    np.testing.assert_array_equal(label_sets, [[True, True, False], [False, False, True]])
    assert merged.classes.numpy().tolist() == [0, 2]


def test_an_image_without_objects():
    merged, label_sets = tf.function(lambda s: merge_labels(s, 4), autograph=False)(sample([], []))
    assert label_sets.shape == (0, 4)
    assert merged.boxes_norm.shape == (0, 4)
