"""Cells of windows against numbers worked by hand; pooled windows against loops over their bins."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from detzoo.ops.region_pyramid import choose_scales, pool_windows, window_cells
from detzoo.ops.spatial_pyramid import spatial_pyramid


@pytest.mark.parametrize(
    ("side_px", "expected"),
    [
        # A 480 x 640 image, factors 1, 1.2, 1.4333, 1.8, 2.5; 224^2 = 50176 pixels are wanted.
        (224, 0),  # 50176, exactly
        (187, 1),  # 34969, 50355, 71842, ...: 15207, 179, 21666 away
        (90, 4),  # 8100 ... 26244 (x 1.8^2), 50625 (x 2.5^2)
        (480, 0),  # 230400, all others farther
        (100, 4),  # 32400 (x 1.8^2), 62500 (x 2.5^2): 17776 and 12324 away
        (112, 3),  # 40642 (x 1.8^2), 78400 (x 2.5^2): 9534 and 28224 away
    ],
)
def test_a_window_takes_the_scale_where_it_is_nearest_to_the_square(side_px, expected):
    windows = tf.constant([[10.0, 20.0, 10.0 + side_px, 20.0 + side_px]])
    chosen = choose_scales(windows, tf.constant([480, 640]), (480, 576, 688, 864, 1200))
    assert chosen.numpy().tolist() == [expected]


def test_the_square_that_windows_are_brought_near_to_can_be_chosen():
    windows = tf.constant([[0.0, 0.0, 50.0, 50.0]])
    assert choose_scales(windows, tf.constant([100, 200]), (100, 200), 50).numpy().tolist() == [0]
    assert choose_scales(windows, tf.constant([100, 200]), (100, 200), 100).numpy().tolist() == [1]


def test_cells_of_windows_by_the_formula_of_the_appendix():
    # Stride 16, cell 0 looks at pixel 0, whose centre is 0.5. The whole 224 pixels: floor(-0.5 / 16) + 1 = 0 to
    # ceil(223.5 / 16) - 1 = 13: all 14 cells, which look at 0.5, 16.5, ..., 208.5.
    # Rows 10 to 50 hold the places 16.5, 32.5 and 48.5; columns 16.5 to 64 do not hold 16.5 itself, but 32.5 and 48.5.
    windows = tf.constant([[0.0, 0.0, 224.0, 224.0], [10.0, 16.5, 50.0, 64.0]])
    cells = window_cells(windows, tf.constant([14, 14]), 16.0, 0.5)
    assert cells.numpy().tolist() == [[0, 0, 14, 14], [1, 2, 4, 4]]


def test_a_padding_moves_the_cells():
    # Cell 0 looks at 8.5: the places are 8.5, 24.5, 40.5; a window from 10 to 41 holds the latter two.
    cells = window_cells(tf.constant([[10.0, 10.0, 41.0, 41.0]]), tf.constant([14, 14]), 16.0, 8.5)
    assert cells.numpy().tolist() == [[1, 1, 3, 3]]


def test_overfeats_stride_is_no_power_of_two():
    # Places 0.5, 12.5, 24.5, 36.5: from 12 to 37 the cells 1, 2 and 3.
    cells = window_cells(tf.constant([[12.0, 12.0, 37.0, 37.0]]), tf.constant([20, 20]), 12.0, 0.5)
    assert cells.numpy().tolist() == [[1, 1, 4, 4]]


def test_a_window_without_a_place_gets_the_nearest_cell_and_none_leaves_the_map():
    windows = tf.constant(
        [
            [1.0, 1.0, 5.0, 5.0],  # centre 3: 0.5 is nearer than 16.5
            [10.0, 10.0, 14.0, 14.0],  # centre 12: 16.5 is nearer
            [300.0, 300.0, 310.0, 310.0],  # beyond the map of 5 x 7 cells
            [0.0, 0.0, 0.0, 0.0],  # padding
            [0.0, 0.0, 1000.0, 1000.0],
        ]
    )
    cells = window_cells(windows, tf.constant([5, 7]), 16.0, 0.5)
    assert cells.numpy().tolist() == [[0, 0, 1, 1], [1, 1, 2, 2], [4, 6, 5, 7], [0, 0, 1, 1], [0, 0, 5, 7]]


def test_every_window_has_a_map_of_its_own():
    windows = tf.constant([[[0.0, 0.0, 100.0, 100.0], [0.0, 0.0, 100.0, 100.0]]])
    cells = window_cells(windows, tf.constant([[[3, 4], [9, 9]]]), 16.0, 0.5)
    assert cells.numpy().tolist() == [[[0, 0, 3, 4], [0, 0, 7, 7]]]


def _random_windows(count, height, width, num_images, seed=0):
    generator = np.random.default_rng(seed)
    rows = np.sort([generator.choice(height + 1, 2, replace=False) for _ in range(count)], axis=1)
    columns = np.sort([generator.choice(width + 1, 2, replace=False) for _ in range(count)], axis=1)
    cells = np.stack([rows[:, 0], columns[:, 0], rows[:, 1], columns[:, 1]], axis=1).astype(np.int32)
    return cells, generator.integers(0, num_images, count).astype(np.int32)


def _looped(features, cells, image_indices, pyramid_bins):
    """The definition: floor to ceil along each axis, one bin after the other."""
    results = []
    for (top, left, bottom, right), image in zip(cells, image_indices):
        window = features[image, top:bottom, left:right]
        height, width = window.shape[:2]
        results.append(
            [
                window[
                    row * height // bins : -(-(row + 1) * height // bins),
                    column * width // bins : -(-(column + 1) * width // bins),
                ].max(axis=(0, 1))
                for bins in pyramid_bins
                for row in range(bins)
                for column in range(bins)
            ]
        )
    return np.array(results)


@pytest.mark.parametrize("pyramid_bins", [(6, 3, 2, 1), (1, 2, 3, 6), (4, 3, 2, 1), (5,), (3, 2, 1), (2, 2)])
def test_pooled_windows_are_the_maxima_of_their_bins(pyramid_bins):
    features = np.random.default_rng(1).normal(size=(2, 11, 17, 3)).astype(np.float32)
    cells, image_indices = _random_windows(80, 11, 17, 2)
    pooled = pool_windows(tf.constant(features), tf.constant(cells), tf.constant(image_indices), pyramid_bins)
    np.testing.assert_array_equal(pooled.numpy(), _looped(features, cells, image_indices, pyramid_bins))


def test_a_window_of_the_whole_map_is_the_pyramid_of_the_classifier():
    features = tf.random.stateless_normal([2, 9, 14, 4], seed=(1, 2))
    cells = tf.constant([[0, 0, 9, 14]] * 2)
    pooled = pool_windows(features, cells, tf.constant([0, 1]), (6, 3, 2, 1))
    np.testing.assert_array_equal(tf.reshape(pooled, [2, -1]), spatial_pyramid(features, (6, 3, 2, 1)))


def test_a_traced_function_takes_maps_of_any_size_and_no_windows_at_all():
    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None, None, 2], tf.float32),
            tf.TensorSpec([None, 4], tf.int32),
            tf.TensorSpec([None], tf.int32),
        ],
        autograph=False,
    )
    def traced(features, cells, image_indices):
        return pool_windows(features, cells, image_indices, (3, 1))

    for height, width in ((1, 1), (2, 7), (40, 23)):
        features = np.random.default_rng(height).normal(size=(1, height, width, 2)).astype(np.float32)
        cells, image_indices = _random_windows(20, height, width, 1)
        found = traced(features, cells, image_indices)
        np.testing.assert_array_equal(found.numpy(), _looped(features, cells, image_indices, (3, 1)))
    assert traced(features, np.zeros([0, 4], np.int32), np.zeros([0], np.int32)).shape == (0, 10, 2)


def test_the_gradient_goes_to_the_largest_cell():
    features = tf.reshape(tf.range(12.0), [1, 3, 4, 1])
    with tf.GradientTape() as tape:
        tape.watch(features)
        pooled = pool_windows(features, tf.constant([[0, 1, 2, 3]]), tf.constant([0]), (1,))
        value = tf.reduce_sum(3.0 * pooled)
    expected = np.zeros([3, 4])
    expected[1, 2] = 3.0  # row 1, column 2 holds 6, the largest of 1, 2, 5 and 6
    np.testing.assert_allclose(tape.gradient(value, features)[0, :, :, 0], expected)


@pytest.mark.parametrize("pyramid_bins", [(), (3, 0)])
def test_a_pyramid_needs_levels(pyramid_bins):
    with pytest.raises(ValueError, match="pyramid_bins is"):
        pool_windows(tf.zeros([1, 3, 3, 1]), tf.zeros([1, 4], tf.int32), tf.zeros([1], tf.int32), pyramid_bins)
