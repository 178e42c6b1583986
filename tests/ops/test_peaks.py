"""Peaks of heatmaps: borders, plateaus, several channels, and maps with fewer cells than requested."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from detzoo.ops.peaks import best_cells, corners_of, suppress_slopes, surroundings, values_at

# One channel of 3 x 4: peaks are 9 in a corner, 5 at the other border, and the two equal 3 next to each other.
VALUES = np.array([[9.0, 1.0, 0.0, 0.0], [8.0, 2.0, 0.0, 4.0], [3.0, 3.0, 1.0, 5.0]], np.float32)
EVERYWHERE = tf.ones([1, 3, 4], tf.bool)


def heatmap(*channels):
    return tf.constant(np.stack(channels, axis=-1)[np.newaxis])


def test_a_maximum_at_the_border_is_a_peak():
    peaks = suppress_slopes(heatmap(VALUES)).numpy()[0, ..., 0]
    # (2, 0) = 3 has the neighbour 8; (2, 1) = 3 too.
    assert np.argwhere(np.isfinite(peaks)).tolist() == [[0, 0], [2, 3]]
    negative = suppress_slopes(heatmap(VALUES - 100.0)).numpy()[0, ..., 0]  # zeros beyond the border would be higher
    np.testing.assert_array_equal(np.isfinite(negative), np.isfinite(peaks))


def test_equal_neighbours_are_both_peaks():
    flat = np.zeros((1, 2), np.float32)
    assert np.all(suppress_slopes(heatmap(flat)).numpy() == 0.0)


def test_a_neighbourhood_of_one_cell_keeps_everything():
    np.testing.assert_array_equal(suppress_slopes(heatmap(VALUES), 1)[0, ..., 0], VALUES)


def test_a_larger_neighbourhood_keeps_fewer_peaks():
    peaks = suppress_slopes(heatmap(VALUES), 7).numpy()[0, ..., 0]
    assert np.argwhere(np.isfinite(peaks)).tolist() == [[0, 0]]


def test_best_cells_compares_all_channels():
    other = np.zeros_like(VALUES)
    other[1, 2] = 6.0
    peaks = best_cells(suppress_slopes(heatmap(VALUES, other), 3), 3, EVERYWHERE)
    np.testing.assert_array_equal(peaks.scores, [[9.0, 6.0, 5.0]])
    np.testing.assert_array_equal(peaks.cells, [[0, 6, 11]])  # y * 4 + x
    np.testing.assert_array_equal(peaks.channels, [[0, 1, 0]])
    np.testing.assert_array_equal(corners_of(peaks.cells, 4), [[[0, 0], [1, 2], [2, 3]]])


def test_rows_past_the_last_peak_are_marked():
    peaks = best_cells(suppress_slopes(heatmap(VALUES)), 20, EVERYWHERE)  # 20 rows of 12 cells
    assert peaks.scores.shape == (1, 20)
    np.testing.assert_array_equal(peaks.scores[0, :2], [9.0, 5.0])
    assert np.all(np.isneginf(peaks.scores[0, 2:]))
    assert np.all(peaks.cells[0, 2:].numpy() == 0)


@pytest.mark.parametrize("traced", [False, True])
def test_values_at_reads_the_channels_of_a_cell(traced):
    maps = tf.reshape(tf.range(2 * 3 * 4 * 2, dtype=tf.float32), [2, 3, 4, 2])
    read = tf.function(values_at) if traced else values_at
    found = read(maps, tf.constant([[0, 11], [5, 5]]))
    # Image 1 starts at 24; cell 5 is 10 values later.
    np.testing.assert_array_equal(found, [[[0, 1], [22, 23]], [[34, 35], [34, 35]]])


@pytest.mark.parametrize("traced", [False, True])
def test_best_cells_rank_as_a_sort_of_the_whole_map(traced):
    random = np.random.default_rng(0)
    maps = random.integers(0, 4, (2, 5, 6, 7)).astype(np.float32)  # many are equal
    maps[random.uniform(size=maps.shape) < 0.5] = -np.inf
    is_valid = random.uniform(size=(2, 5, 6)) < 0.7
    find = tf.function(best_cells) if traced else best_cells
    for number in (1, 8, 40):
        peaks = find(tf.constant(maps), number, tf.constant(is_valid))
        flat = np.where(is_valid[..., np.newaxis], maps, -np.inf).reshape(2, -1)
        order = np.argsort(-flat, axis=1, kind="stable")[:, :number]
        expected = np.take_along_axis(flat, order, axis=1)
        np.testing.assert_array_equal(peaks.scores, expected)
        is_peak = np.isfinite(expected)
        assert number == 1 or is_peak[:, 1].all()
        np.testing.assert_array_equal(peaks.cells, np.where(is_peak, order // 7, 0))
        np.testing.assert_array_equal(peaks.channels.numpy()[is_peak], (order % 7)[is_peak])


def test_surroundings_have_zeros_outside_the_map():
    maps = tf.reshape(tf.range(1, 13, dtype=tf.float32), [1, 3, 4, 1])
    cut = surroundings(maps, tf.constant([[0, 7]]), (3, 2)).numpy()[..., 0]
    # Cell 0 is (0, 0) = 1; cell 7 is (1, 3) = 8 at the right border. An even width reaches to the right.
    np.testing.assert_array_equal(cut[0], [[0, 0], [1, 2], [5, 6]])
    np.testing.assert_array_equal(cut[1], [[4, 0], [8, 0], [12, 0]])
