"""Pyramids of whole maps: the paper's windows, maps of any size, maps smaller than the bins."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from detzoo.ops.spatial_pyramid import num_bins, spatial_pyramid


def numbered(height, width, batch=1, channels=1):
    """A map whose cells count up, row by row: the maximum of a bin is its bottom right cell."""
    return tf.reshape(tf.range(float(batch * height * width * channels)), [batch, height, width, channels])


def test_figure_4_of_the_paper():
    # 13 x 13 cells: pool 3x3 has windows of 5 with stride 4 (last cells 4, 8, 12), 2x2 of 7 with stride 6 (6, 12),
    # 1x1 of 13. The value of cell (y, x) is 13 y + x.
    pooled = spatial_pyramid(numbered(13, 13), (3, 2, 1))
    three = [13 * y + x for y in (4, 8, 12) for x in (4, 8, 12)]
    two = [13 * y + x for y in (6, 12) for x in (6, 12)]
    np.testing.assert_array_equal(pooled, [[*three, *two, 168.0]])


@pytest.mark.parametrize(("cells", "count"), [(13, 6), (13, 4), (13, 3), (13, 2), (18, 6), (10, 3), (12, 4), (7, 6)])
def test_equals_the_papers_sliding_window_where_that_fits(cells, count):
    # Section 2.3: window ceil(a / n), stride floor(a / n).
    features = np.random.default_rng(0).normal(size=(2, cells, cells, 3)).astype(np.float32)
    window = keras.ops.max_pool(features, -(-cells // count), cells // count, "valid")
    np.testing.assert_array_equal(spatial_pyramid(features, (count,)), np.reshape(window, (2, -1)))


@pytest.mark.parametrize(("cells", "count"), [(10, 4), (10, 6), (11, 3), (14, 6), (17, 6)])
def test_covers_the_map_where_the_sliding_window_does_not(cells, count):
    line = spatial_pyramid(numbered(1, cells), (count,))[0].numpy().reshape(count, count)
    np.testing.assert_array_equal(line, np.tile(line[0], (count, 1)))  # one row is shared by all rows of bins
    # Bin i ends before ceil((i + 1) a / n): the last cell of each, and so its maximum, in exact arithmetic.
    np.testing.assert_array_equal(line[0], [((i + 1) * cells + count - 1) // count - 1 for i in range(count)])
    reversed_line = spatial_pyramid(-numbered(1, cells), (count,))[0].numpy()[:count]
    np.testing.assert_array_equal(-reversed_line, [i * cells // count for i in range(count)])


def test_bins_of_a_small_map_share_cells():
    # Two rows and three columns in 6 x 6 bins: each row serves three rows of bins, each column two columns.
    pooled = spatial_pyramid(tf.constant([[[[1.0], [2.0], [3.0]], [[4.0], [5.0], [6.0]]]]), (6,))
    upper, lower = [1, 1, 2, 2, 3, 3], [4, 4, 5, 5, 6, 6]
    np.testing.assert_array_equal(tf.reshape(pooled, (6, 6)), [upper] * 3 + [lower] * 3)
    np.testing.assert_array_equal(spatial_pyramid(tf.fill([1, 1, 1, 2], 7.0), (4, 3, 2, 1)), np.full((1, 60), 7.0))


def test_order_is_level_row_column_channel():
    # Cells 0..3 of a 2 x 2 map with a second channel of tens; both levels in the order that is asked for.
    features = tf.stack([numbered(2, 2)[..., 0], 10 * numbered(2, 2)[..., 0]], axis=-1)
    np.testing.assert_array_equal(spatial_pyramid(features, (1, 2)), [[3, 30, 0, 0, 1, 10, 2, 20, 3, 30]])
    assert num_bins((6, 3, 2, 1)) == 50  # section 3.1.2
    assert num_bins((4, 3, 2, 1)) == 30


def test_unknown_sizes_images_of_a_batch_and_types():
    features = np.random.default_rng(1).normal(size=(3, 7, 11, 2)).astype(np.float32)
    expected = spatial_pyramid(features, (4, 1))
    traced = tf.function(
        lambda x: spatial_pyramid(x, (4, 1)), input_signature=[tf.TensorSpec([None, None, None, 2])], autograph=False
    )
    np.testing.assert_array_equal(traced(features), expected)
    for image in range(3):
        np.testing.assert_array_equal(spatial_pyramid(features[image : image + 1], (4, 1))[0], expected[image])
    assert spatial_pyramid(tf.cast(features, tf.bfloat16), (2,)).dtype == tf.bfloat16


def test_gradient_goes_to_the_maxima():
    features = tf.Variable(numbered(3, 3))
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(spatial_pyramid(features, (2, 1)))
    # 2 x 2 bins of two cells end at the cells (1, 1), (1, 2), (2, 1), (2, 2); the whole map ends at (2, 2), too.
    np.testing.assert_array_equal(tape.gradient(total, features)[0, ..., 0], [[0, 0, 0], [0, 1, 1], [0, 1, 2]])


@pytest.mark.parametrize("bins", [(), (3, 0)])
def test_refuses_levels_without_bins(bins):
    with pytest.raises(ValueError, match="each 1 or more"):
        spatial_pyramid(numbered(4, 4), bins)


def test_refuses_a_map_without_cells():
    with pytest.raises(ValueError, match="map without cells"):
        spatial_pyramid(tf.zeros([1, 0, 3, 2]), (1,))
