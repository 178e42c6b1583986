"""Tests of the windows of each training step, on boxes with hand-worked overlaps."""

from __future__ import annotations

import numpy as np
import pytest

from detzoo.recipes.spp.windows import (
    distinct_rows,
    fine_tuning_labels,
    label_windows,
    sample_labels,
)

# A true box of 0.4 x 0.4 (class 1) and windows of the same height, shifted by d to the right: shared width 0.4 - d,
# union width 0.4 + d, IoU (0.4 - d) / (0.4 + d).
TRUE = [0.2, 0.0, 0.6, 0.4]
SHIFTED = {0.1: 0.6, 0.2: 1 / 3, 0.3: 1 / 7, 0.35: 1 / 15}


def shifted(by):
    return [0.2, by, 0.6, 0.4 + by]


@pytest.fixture
def windows():
    proposals = np.array([shifted(by) for by in SHIFTED], np.float32)
    return label_windows(proposals, np.array([TRUE], np.float32), np.array([1]), np.array([False]), 3)


def test_true_boxes_come_first_with_their_overlaps(windows):
    assert windows.num_true == 1
    np.testing.assert_allclose(windows.boxes_norm[0], TRUE)
    np.testing.assert_allclose(windows.best_iou, [1.0, *SHIFTED.values()], atol=1e-6)
    np.testing.assert_allclose(windows.class_iou[:, 1], windows.best_iou)
    assert not windows.class_iou[:, [0, 2]].any()
    assert windows.best_classes.tolist() == [1] * 5


def test_labels_of_fine_tuning(windows):
    # 1.0 and 0.6 are positive (class 1, column 2), 1/3 and 1/7 background, 1/15 is below 0.1.
    assert fine_tuning_labels(windows, 0.5, 0.1).tolist() == [2, 2, 0, 0, -1]
    assert fine_tuning_labels(windows, 0.3, 0.05).tolist() == [2, 2, 2, 0, 0]


def test_an_image_without_objects_has_no_windows_of_use():
    proposals = np.array([[0, 0, 1, 1]], np.float32)
    none = label_windows(proposals, np.zeros([0, 4], np.float32), np.zeros(0, int), np.zeros(0, bool), 2)
    assert fine_tuning_labels(none, 0.5, 0.1).tolist() == [-1]
    assert none.best_classes.tolist() == [-1]
    assert none.class_iou.tolist() == [[0.0, 0.0]]


def test_crowds_are_neither_positive_nor_negative():
    true = np.array([TRUE, [0.5, 0.0, 1.0, 1.0]], np.float32)
    # Its own area: 0.4 x 0.4, the crowd covers the lower 0.3 of it: 3/4.
    inside = np.array([[0.4, 0.1, 0.8, 0.5]], np.float32)
    windows = label_windows(inside, true, np.array([0, 2]), np.array([False, True]), 3)
    assert windows.num_true == 1
    # With the true box: shared 0.2 x 0.3 = 0.06 of 0.32 - 0.06.
    np.testing.assert_allclose(windows.best_iou[1], 0.06 / 0.26, atol=1e-6)
    np.testing.assert_allclose(windows.class_iou[1], [0.06 / 0.26, 0.0, 0.75], atol=1e-6)
    assert windows.in_crowd.tolist() == [False, True]
    assert fine_tuning_labels(windows, 0.5, 0.1).tolist() == [1, -1]


def test_two_objects_that_share_a_class():
    true = np.array([[0.0, 0.0, 0.2, 0.2], TRUE], np.float32)
    windows = label_windows(np.array([shifted(0.1)], np.float32), true, np.array([1, 1]), np.zeros(2, bool), 2)
    np.testing.assert_allclose(windows.class_iou[:, 1], [1.0, 1.0, 0.6], atol=1e-6)
    assert windows.best_row.tolist() == [0, 1, 1]
    np.testing.assert_allclose(windows.best_true_boxes[2], TRUE)


def test_a_quarter_of_a_batch_is_positive():
    labels = np.array([0] * 90 + [3] * 20 + [-1] * 50)
    rows = sample_labels(labels, 32, 0.25, np.random.default_rng(1))
    assert np.sum(labels[rows] == 3) == 8
    assert np.sum(labels[rows] == 0) == 24
    assert len(set(rows.tolist())) == 32  # enough of both: nothing twice


@pytest.mark.parametrize(
    ("labels", "positives"), [([0, 0, 1], 8), ([1, 2], 32), ([0], 0)], ids=["few", "no negative", "no positive"]
)
def test_where_windows_are_few_they_come_again(labels, positives):
    labels = np.array(labels)
    rows = sample_labels(labels, 32, 0.25, np.random.default_rng(1))
    assert len(rows) == 32
    assert np.sum(labels[rows] > 0) == positives


def test_no_window_of_use_gives_no_batch():
    assert sample_labels(np.array([-1, -1]), 4, 0.25, np.random.default_rng(1)).shape == (0,)


def test_near_duplicates_are_left_out():
    # The IoU of shifts 0 and 0.05 is 0.35 / 0.45 = 0.78, as is that of 0.05 and 0.1. The IoU of 0 and 0.1 is 0.6.
    boxes = np.array([shifted(by) for by in (0.0, 0.05, 0.1)], np.float32)
    assert distinct_rows(boxes, np.array([0, 1, 2]), 0.7).tolist() == [0, 2]
    assert distinct_rows(boxes, np.array([1, 0, 2]), 0.7).tolist() == [1]
    assert distinct_rows(boxes, np.array([2, 1, 0]), 0.8).tolist() == [2, 1, 0]
    assert distinct_rows(boxes, np.zeros(0, int), 0.7).tolist() == []
