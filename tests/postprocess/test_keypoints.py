"""The search for keypoints near the regressed ones, on maps of 10 x 10 cells with one object in cell (5, 5)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from detzoo.contracts import KeypointTask
from detzoo.postprocess.keypoints import RANKINGS, KeypointSearch

TASK = KeypointTask("pose", 0, (0,), (1.0,))
BOX = [1.0, 1.0, 9.0, 9.0]


def search(peaks, regressed=(0.0, 0.0), offset=(0.25, 0.5), box=BOX, **options):
    """Keypoint (y, x) and score for peaks (y, x) -> score and a regressed vector from the centre."""
    heatmap = np.full((1, 10, 10, 1), -9.0, np.float32)
    for (y, x), score in peaks.items():
        heatmap[0, y, x, 0] = math.log(score / (1 - score))
    maps = {
        TASK.head("heatmap"): [tf.constant(heatmap)],
        TASK.head("offset"): [tf.broadcast_to(tf.constant(offset), [1, 10, 10, 2])],
        TASK.head("regression"): [tf.broadcast_to(tf.constant(regressed), [1, 10, 10, 2])],
    }
    points, scores = KeypointSearch(TASK, **options)(maps, tf.constant([[55]]), tf.constant([[box]]))
    return points[0, 0, 0].numpy().tolist(), float(scores[0, 0, 0])


def test_the_nearest_candidate_wins():
    point, score = search({(4, 5): 0.3, (7, 5): 0.9})
    assert point == [4.25, 5.5]
    assert score == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("ranking", "expected"),
    # Distances of (4.25, 5.5) and (7.25, 5.5) from (5, 5): 0.90 and 2.30.
    [
        ("min_distance", 0.3),
        ("score_distance_ratio", 0.9),  # 0.3 / 1.90 = 0.16 and 0.9 / 3.30 = 0.27
        ("score_scaled_distance_ratio", 0.9),  # offset 0.1 * 8: 0.3 / 1.70 = 0.18 and 0.9 / 3.10 = 0.29
        # Sigma of 8 x 8 cells: sqrt(11.2^2 + 0.84 * 64) - 11.2 = 2.19; (2 * 2 + 1) / 6. The score is the rank.
        ("gaussian_weighted", 0.3 * math.exp(-0.8125 / (2 * 25 / 36))),
    ],
)
def test_rankings(ranking, expected):
    assert ranking in RANKINGS
    assert search({(4, 5): 0.3, (7, 5): 0.9}, ranking=ranking)[1] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"score_threshold": 0.95},  # no candidate
        {"search_scale": 0.2},  # radius 0.2 * 1.2 * 8 = 1.92 cells
        {"box": [1.0, 1.0, 6.0, 9.0]},  # scaled to rows 0.5 to 6.5
    ],
)
def test_a_keypoint_without_a_candidate_stays_where_it_was_regressed(options):
    point, score = search({(7, 5): 0.9}, regressed=(0.1, -0.2), unmatched_score=0.05, **options)
    np.testing.assert_allclose(point, [5.1, 4.8], rtol=1e-6)
    assert score == pytest.approx(0.05)
    assert search({(7, 5): 0.9}, regressed=(0.1, -0.2))[0] == [7.25, 5.5]


def test_rescoring_counts_keypoints_above_the_threshold():
    rescored = KeypointSearch(TASK, rescores=True, rescoring_threshold=0.2).rescored
    scores = rescored(tf.constant([[0.8, 0.5]]), tf.constant([[[0.9, 0.5, 0.2], [0.1, 0.1, 0.1]]]))
    np.testing.assert_allclose(scores, [[0.8 * 0.7, 0.0]], rtol=1e-6)
