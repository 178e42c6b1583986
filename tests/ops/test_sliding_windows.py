"""Windows at every location of a pyramid: the paper's sizes, the order, and cells picked from several maps."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from detzoo.ops.sliding_windows import SlidingWindows, gather_locations, nearest_scale

PAPER = SlidingWindows((2, 3, 4, 5, 6), (1.0, math.sqrt(2.0)))


def test_sizes_of_the_paper():
    # arXiv:1612.03144, appendix A: objects of {32, 64, 128, 256, 512}, windows of {40, 80, 160, 320, 640}, and sqrt(2)
    # times both for the second head (e.g. a mask of scale 128 sqrt(2) on P4).
    sides = PAPER.object_sides_px
    assert sides[:5] == (32, 64, 128, 256, 512)
    assert sides[7] == pytest.approx(128 * math.sqrt(2))
    locations = PAPER([(1, 1)] * 5)
    low, high = np.split(locations.windows_px.numpy(), 2, axis=1)
    np.testing.assert_allclose((high - low)[:5], np.repeat([[40], [80], [160], [320], [640]], 2, axis=1))
    np.testing.assert_allclose((high - low)[5:], math.sqrt(2) * np.repeat([[40], [80], [160], [320], [640]], 2, axis=1))
    assert locations.cells_px.numpy().tolist() == [4, 8, 16, 32, 64] * 2


def test_order_and_centres_of_two_heads_on_two_maps_that_are_not_square():
    windows = SlidingWindows((3, 4), (1.0, 2.0), min_object_size_px=10.0, window_scale=1.5)
    locations = windows([(2, 3), (1, 2)])
    # Head, level, row, column. Centres half a cell from the corner: 4, 12, 20 at stride 8, then 8, 24 at stride 16.
    one_head = [[4, 4], [4, 12], [4, 20], [12, 4], [12, 12], [12, 20], [8, 8], [8, 24]]
    np.testing.assert_array_equal(locations.centers_px, one_head * 2)
    assert locations.scales.numpy().tolist() == [0] * 6 + [1] * 2 + [2] * 6 + [3] * 2
    # Level 3 has objects of 2 * 10 pixels, so the first window is 30 wide, and the last, of 80 pixels, 120.
    np.testing.assert_allclose(locations.windows_px[0], [4 - 15, 4 - 15, 4 + 15, 4 + 15])
    np.testing.assert_allclose(locations.windows_px[-1], [8 - 60, 24 - 60, 8 + 60, 24 + 60])


def test_sizes_may_be_known_in_the_graph_only():
    windows = SlidingWindows((3, 4), (1.0, 2.0))

    @tf.function(input_signature=[tf.TensorSpec([2, 2], tf.int32)], autograph=False)
    def in_graph(shapes):
        return windows([(shapes[0, 0], shapes[0, 1]), (shapes[1, 0], shapes[1, 1])])

    for found, expected in zip(in_graph(tf.constant([[2, 3], [1, 2]])), windows([(2, 3), (1, 2)]), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_another_number_of_maps_is_refused():
    with pytest.raises(ValueError, match=r"1 feature maps for the levels \[2, 3, 4, 5, 6\]"):
        PAPER([(1, 1)])


@pytest.mark.parametrize(
    ("side", "scale"),
    [
        # Between 32 and 32 sqrt(2) = 45.25 the border is their geometric mean, 38.05.
        (38.0, 32.0),
        (38.1, 32 * math.sqrt(2)),
        (64.0, 64.0),
        (10.0, 32.0),  # smaller than all
        (0.0, 32.0),
        (5000.0, 512 * math.sqrt(2)),
    ],
)
def test_an_object_belongs_to_the_scale_nearest_in_log_space(side, scale):
    row = int(nearest_scale(tf.constant(side), PAPER.object_sides_px))
    assert PAPER.object_sides_px[row] == pytest.approx(scale)


def test_cells_are_those_of_the_joined_maps():
    random = np.random.default_rng(0)
    maps = [random.normal(size=(2, *size, 3)).astype(np.float32) for size in ((2, 3), (1, 2), (3, 1))]
    joined = np.concatenate([x.reshape(2, -1, 3) for x in maps], axis=1)  # 6 + 2 + 3 = 11 cells
    rows = np.array([[0, 5, 6, 7, 8, 10], [10, 10, 3, 2, 7, 0]])
    found = gather_locations([tf.constant(x) for x in maps], tf.constant(rows, tf.int32))
    np.testing.assert_array_equal(found, np.stack([joined[image, rows[image]] for image in range(2)]))


def test_gradients_reach_the_chosen_cells_only():
    maps = [tf.ones([1, 1, 2, 1]), tf.ones([1, 1, 1, 1])]
    with tf.GradientTape() as tape:
        tape.watch(maps)
        total = tf.reduce_sum(gather_locations(maps, tf.constant([[1, 2, 2]])))
    first, second = tape.gradient(total, maps)
    np.testing.assert_array_equal(tf.convert_to_tensor(first)[0, 0, :, 0], [0, 1])
    np.testing.assert_array_equal(tf.convert_to_tensor(second)[0, 0, :, 0], [2])
