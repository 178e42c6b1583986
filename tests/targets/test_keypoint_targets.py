"""Targets of keypoints on maps of 8 x 16 cells, worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from detzoo.contracts import Groundtruth, KeypointTask
from detzoo.targets.keypoint_targets import KeypointAssigner

PADDED, MAPS = (32, 64), (8, 16)
# Of three keypoints in the records, the class 1 has the last two.
TASK = KeypointTask("pose", 1, (1, 2), (0.5, 1.0))


def assign(radius=0, classes=(1, 0)):
    """Boxes around the centres (3, 6) and (4, 8); the first has one labelled keypoint of the task, (2.5, 4.25)."""
    keypoints = np.zeros((1, 2, 3, 2), np.float32)
    keypoints[0, 0, 1] = 2.5 / 8, 4.25 / 16
    keypoints[0, 0, 2] = np.nan
    keypoints[0, 1, 1] = 0.5, 0.5
    truth = Groundtruth(
        boxes_norm=tf.constant([[[1 / 8, 2 / 16, 5 / 8, 10 / 16], [2 / 8, 6 / 16, 6 / 8, 10 / 16]]]),
        classes=tf.constant([classes]),
        weights=tf.ones([1, 2]),
        is_crowd=tf.zeros([1, 2], tf.bool),
        is_difficult=tf.zeros([1, 2], tf.bool),
        area_px=tf.zeros([1, 2]),
        masks=tf.zeros([1, 2, 0, 0], tf.uint8),
        keypoints_norm=tf.constant(keypoints),
        keypoint_visibility=tf.constant([[[2, 1, 2], [0, 2, 0]]]),
    )
    return KeypointAssigner(TASK, radius)(truth, MAPS, tf.constant([PADDED]), PADDED)


def test_heatmap_of_labelled_keypoints_of_the_class():
    targets = assign()
    assert np.argwhere(targets.heatmap[0] == 1.0).tolist() == [[2, 4, 0]]
    # Box 4 x 8: 0.7 * 12 = 8.4; sqrt(70.56 + 0.84 * 32) - 8.4 = 1.47; floor 1: sigma 0.5, halved: exp(-1 / 0.125).
    assert float(targets.heatmap[0, 2, 5, 0]) == pytest.approx(math.exp(-8.0), rel=1e-4)
    assert float(targets.num_keypoints) == 1.0


def test_boxes_without_a_label_do_not_count():
    weights = assign().heatmap_weights.numpy()[0]
    # The second object is of another class: neither of its keypoints is labelled. Rows 2 to 5, columns 6 to 9.
    expected = np.ones(MAPS, np.float32)
    expected[2:6, 6:10] = 0.0
    np.testing.assert_array_equal(weights[..., 0], expected)
    expected[1:5, 2:10] = 0.0  # the second keypoint of the first object is not labelled either
    np.testing.assert_array_equal(weights[..., 1], expected)


def test_vectors_start_in_cells():
    targets = assign()
    counted = targets.offsets.weights[0].numpy() > 0
    assert counted.sum() == 1
    np.testing.assert_array_equal(targets.offsets.cells[0][counted], [2 * 16 + 4])
    np.testing.assert_allclose(targets.offsets.values[0][counted], [[0.5, 0.25]])
    # The centre of the first box is (3, 6).
    np.testing.assert_array_equal(targets.regression.cells[0][counted], [3 * 16 + 6])
    np.testing.assert_allclose(targets.regression.values[0][counted], [[-0.5, -1.75]])
    np.testing.assert_array_equal(targets.regression.keypoints[0][counted], [0])


def test_cells_within_the_radius_learn_the_same_point():
    offsets = assign(radius=1).offsets
    counted = offsets.weights[0].numpy() > 0
    cells = offsets.cells[0].numpy()[counted]
    assert sorted(cells) == [1 * 16 + 4, 2 * 16 + 3, 2 * 16 + 4, 2 * 16 + 5, 3 * 16 + 4]
    ends = offsets.values[0].numpy()[counted] + np.stack([cells // 16, cells % 16], axis=1)
    np.testing.assert_allclose(ends, np.tile([2.5, 4.25], (5, 1)))
