"""Targets of CenterNet, worked by hand on an input of 32 x 64 pixels: maps of 8 x 16 cells."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from detzoo.contracts import Groundtruth
from detzoo.ops.gaussians import gaussian_sigma
from detzoo.targets.center_targets import CenterAssigner

PADDED, MAPS = (32, 64), (8, 16)


def truth(boxes, classes, weights=None, is_crowd=None):
    rows = len(boxes)
    return Groundtruth(
        boxes_norm=tf.reshape(tf.constant(boxes, tf.float32), [1, rows, 4]),
        classes=tf.constant([classes], tf.int32) if rows else tf.zeros([1, 0], tf.int32),
        weights=tf.reshape(tf.constant(weights or [1.0] * rows, tf.float32), [1, rows]),
        is_crowd=tf.reshape(tf.constant(is_crowd or [False] * rows, tf.bool), [1, rows]),
        is_difficult=tf.zeros([1, rows], tf.bool),
        area_px=tf.zeros([1, rows]),
        masks=tf.zeros([1, rows, 0, 0], tf.uint8),
    )


def assign(groundtruth, true_shape=PADDED, num_classes=2):
    return CenterAssigner(num_classes)(groundtruth, MAPS, tf.constant([true_shape]), PADDED)


@pytest.mark.parametrize(
    ("size", "sigma"),
    [
        # r = sqrt((0.7 * 20)^2 + 4 * 0.7 * 0.3 * 100) - 0.7 * 20 = sqrt(280) - 14 = 2.73; floor 2: (2 * 2 + 1) / 6.
        ((10.0, 10.0), 5 / 6),
        # sqrt(78.4 + ...): 0.7 * 60 = 42; 42^2 + 0.84 * 500 = 2184; 46.73 - 42 = 4.73; floor 4: 9 / 6.
        ((10.0, 50.0), 9 / 6),
        ((1.0, 1.0), 1 / 6),
        ((0.0, 0.0), 1 / 6),
    ],
)
def test_width_of_the_gaussian(size, sigma):
    assert float(gaussian_sigma(tf.constant(size), 0.7)) == pytest.approx(sigma)


def test_center_size_and_offset():
    # In cells: y 1.6 to 4.8, x 4 to 10.4: centre (3.2, 7.2) in cell (3, 7), 3.2 x 6.4.
    targets = assign(truth([[0.2, 0.25, 0.6, 0.65]], [1]))
    np.testing.assert_array_equal(targets.cells, [[3 * 16 + 7]])
    np.testing.assert_allclose(targets.sizes, [[[3.2, 6.4]]], rtol=1e-6)
    np.testing.assert_allclose(targets.offsets, [[[0.2, 0.2]]], atol=1e-6)
    np.testing.assert_array_equal(targets.weights, [[1.0]])
    heatmap = targets.heatmap.numpy()[0]
    assert np.all(heatmap[..., 0] == 0.0)
    assert np.argwhere(heatmap[..., 1] == 1.0).tolist() == [[3, 7]]
    # 0.7 * 9.6 = 6.72; sqrt(45.16 + 0.84 * 20.48) - 6.72 = 1.17; floor 1: sigma 0.5. exp(-1 / 0.5) one cell away.
    assert heatmap[3, 8, 1] == pytest.approx(math.exp(-2.0), rel=1e-5)
    assert heatmap[2, 6, 1] == pytest.approx(math.exp(-4.0), rel=1e-5)


def test_of_two_gaussians_the_larger_value_counts():
    boxes = [[0.2, 0.25, 0.6, 0.65], [0.2, 0.35, 0.6, 0.75]]  # centres in x: 7.2 and 8.8
    one, other, both = (assign(truth(rows, [0] * len(rows))).heatmap for rows in (boxes[:1], boxes[1:], boxes))
    np.testing.assert_allclose(both, np.maximum(one, other))


def test_padding_degenerate_boxes_and_crowds_are_no_objects():
    boxes = [[0.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.5, 0.9], [0.25, 0.25, 0.75, 0.5]]
    targets = assign(truth(boxes, [-1, 0, 0], is_crowd=[False, False, True]))
    np.testing.assert_array_equal(targets.weights, [[0.0, 0.0, 0.0]])
    assert np.all(targets.heatmap.numpy() == 0.0)
    # The crowd covers rows 2 to 5 and columns 4 to 7, which are no negatives.
    expected = np.ones(MAPS, np.float32)
    expected[2:6, 4:8] = 0.0
    np.testing.assert_array_equal(targets.heatmap_weights[0, ..., 0], expected)


def test_cells_of_the_padding_do_not_count():
    targets = assign(truth([], []), true_shape=(18, 64))  # 4.5 cells: row 4 starts at pixel 16
    np.testing.assert_array_equal(targets.heatmap_weights[0, :, 0, 0], [1, 1, 1, 1, 1, 0, 0, 0])
    assert targets.heatmap.shape == (1, *MAPS, 2)
    assert np.all(targets.heatmap.numpy() == 0.0)


def test_a_center_on_the_lower_border_is_in_the_last_cell():
    targets = assign(truth([[0.8, 0.9, 1.2, 1.1]], [0]))  # centre (1, 1): cell (8, 16) does not exist
    np.testing.assert_array_equal(targets.cells, [[7 * 16 + 15]])
    np.testing.assert_allclose(targets.offsets, [[[1.0, 1.0]]], atol=1e-5)


def test_batch_is_loop_and_function_is_eager():
    one, other = truth([[0.2, 0.25, 0.6, 0.65]], [1]), truth([[0.1, 0.1, 0.9, 0.4]], [0])
    both = Groundtruth(*(tf.concat(pair, axis=0) for pair in list(zip(one, other))[:7]))
    assigner = CenterAssigner(2)
    shapes = tf.constant([PADDED, PADDED])
    batch = tf.function(assigner)(both, MAPS, shapes, PADDED)
    for row, single in enumerate((one, other)):
        for found, expected in zip(batch, assign(single)):
            np.testing.assert_allclose(found[row], expected[0], rtol=1e-6)
