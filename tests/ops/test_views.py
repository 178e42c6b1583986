"""Tests of the positions of the windows of multi-view testing."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from detzoo.ops.views import CENTER_AND_CORNERS, WITH_SIDES, num_distinct, window_origins


def test_centre_corners_and_middles_of_the_sides():
    # 20 x 33 pixels and windows of 10: rows from 0 to 10, columns from 0 to 23; the middles 5 and 11 (of 11.5).
    origins = window_origins(tf.constant([20, 33]), 10, WITH_SIDES).numpy().tolist()
    assert origins[:5] == [[5, 11], [0, 0], [0, 23], [10, 0], [10, 23]]
    assert origins[5:] == [[0, 11], [5, 0], [5, 23], [10, 11]]
    five = window_origins(tf.constant([20, 33]), 10, CENTER_AND_CORNERS)
    np.testing.assert_array_equal(five, origins[:5])


@pytest.mark.parametrize(("shape", "nine"), [((300, 400), 9), ((224, 300), 3), ((300, 224), 3), ((224, 224), 1)])
def test_windows_that_coincide_count_once(shape, nine):
    origins = window_origins(tf.constant(shape), 224, WITH_SIDES).numpy()
    assert len({tuple(origin) for origin in origins.tolist()}) == nine
    assert int(num_distinct(tf.constant(shape), 224, WITH_SIDES)) == nine


def test_the_papers_96_views():
    # Section 3.1.5: six scales of a photograph of 3:4, 18 views each, and 6 where the shorter side is the window's.
    scales = [(side, round(side * 4 / 3)) for side in (224, 256, 300, 360, 448, 560)]
    assert 2 * sum(int(num_distinct(tf.constant(shape), 224, WITH_SIDES)) for shape in scales) == 96
