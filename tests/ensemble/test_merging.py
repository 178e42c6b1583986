"""Merging of one image's detections, worked by hand and against a plain greedy loop."""

from __future__ import annotations

import numpy as np
import pytest

from detzoo.ensemble.description import MergeOptions, check_merging
from detzoo.ensemble.merging import Candidates, Source, merge
from detzoo.errors import UsageError

# Boxes of height 1 and width 0.1, so that overlaps follow from the shift in x: s / 0.1 shared over 2 - s / 0.1.
BOX = [0.0, 0.2, 1.0, 0.3]
SHIFTED_20 = [0.0, 0.22, 1.0, 0.32]  # shares 0.08 of 0.12: IoU 2/3
SHIFTED_30 = [0.0, 0.23, 1.0, 0.33]  # shares 0.07 of 0.13: IoU 7/13 = 0.538
FAR = [0.0, 0.7, 1.0, 0.8]


def candidates(*rows):
    """Rows of (box, score, class, source)."""
    boxes, scores, classes, sources = zip(*rows) if rows else ([], [], [], [])
    return Candidates(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.array(classes, np.int32),
        np.array(sources, np.int64),
    )


TWO = [Source(), Source()]


def test_the_union_is_suppressed_in_every_class():
    found = candidates(
        (BOX, 0.5, 0, 0), (SHIFTED_20, 0.9, 0, 1), (SHIFTED_30, 0.8, 1, 0), (FAR, 0.3, 0, 0), (BOX, 0.4, 1, 1)
    )
    merged = merge(found, TWO, MergeOptions())
    # Class 0: 0.9 drops 0.5 (IoU 2/3 > 0.6). Class 1: 0.8 and 0.4 overlap by 0.538 only, both stay.
    np.testing.assert_array_equal(merged.rows, [1, 2, 4, 3])
    np.testing.assert_allclose(merged.scores, [0.9, 0.8, 0.4, 0.3], atol=1e-6)
    np.testing.assert_array_equal(merged.classes, [0, 1, 1, 0])
    np.testing.assert_allclose(merged.boxes_norm[0], SHIFTED_20, atol=1e-6)
    stricter = merge(found, TWO, MergeOptions(iou_threshold=0.5))
    np.testing.assert_array_equal(stricter.rows, [1, 2, 3])


def test_numbers_of_the_options_arrive():
    found = candidates((BOX, 0.5, 0, 0), (FAR, 0.9, 0, 1), (FAR, 0.4, 1, 1))
    np.testing.assert_array_equal(merge(found, TWO, MergeOptions(max_detections=2)).rows, [1, 0])
    np.testing.assert_array_equal(merge(found, TWO, MergeOptions(score_threshold=0.45)).rows, [1, 0])
    np.testing.assert_array_equal(merge(found, [Source(), Source(weight=0.5)], MergeOptions()).rows, [0, 1, 2])


@pytest.mark.parametrize("scores", ["best", "mean"])
def test_nothing_found_is_nothing_merged(scores):
    merged = merge(candidates(), TWO, MergeOptions(scores=scores, box_voting=True))
    assert merged.boxes_norm.shape == (0, 4)
    assert len(merged.scores) == len(merged.classes) == len(merged.rows) == 0


def test_voting_moves_a_box_to_the_mean_weighted_by_scores():
    # Around BOX (0.6) are SHIFTED_20 (0.3, same class) and SHIFTED_30 (IoU 0.538 >= 0.5, 0.1): the mean shift is
    # (0.6 * 0 + 0.3 * 0.02 + 0.1 * 0.03) / (0.6 + 0.3 + 0.1) = 0.009. Another class and what is far do not vote.
    found = candidates(
        (BOX, 0.6, 0, 0), (SHIFTED_20, 0.3, 0, 1), (SHIFTED_30, 0.1, 0, 1), (SHIFTED_20, 0.2, 1, 0), (FAR, 0.5, 0, 0)
    )
    merged = merge(found, TWO, MergeOptions(iou_threshold=0.5, box_voting=True))
    np.testing.assert_array_equal(merged.rows, [0, 4, 3])
    np.testing.assert_allclose(merged.boxes_norm[0], [0.0, 0.209, 1.0, 0.309], atol=1e-6)
    np.testing.assert_allclose(merged.boxes_norm[1:], [FAR, SHIFTED_20], atol=1e-6)
    np.testing.assert_allclose(merged.scores, [0.6, 0.5, 0.2], atol=1e-6)
    # With 0.6 as the least overlap the third has no vote: (0.3 * 0.02) / 0.9 = 1/150.
    fewer = merge(found, TWO, MergeOptions(iou_threshold=0.5, box_voting=True, vote_iou_threshold=0.6))
    np.testing.assert_allclose(fewer.boxes_norm[0], [0.0, 0.2 + 1 / 150, 1.0, 0.3 + 1 / 150], atol=1e-6)


def test_a_mean_score_counts_sources_that_find_nothing_as_zero():
    # BOX: (0.6 + 0.4) / 2. FAR is found by one of two: 0.9 / 2, and falls behind.
    found = candidates((BOX, 0.6, 0, 0), (SHIFTED_20, 0.4, 0, 1), (FAR, 0.9, 0, 1))
    merged = merge(found, TWO, MergeOptions(scores="mean"))
    np.testing.assert_array_equal(merged.rows, [0, 2])
    np.testing.assert_allclose(merged.scores, [0.5, 0.45], atol=1e-6)
    # Weights 1 and 0.5: (0.6 + 0.2) / 1.5 and 0.45 / 1.5.
    weighted = merge(found, [Source(), Source(weight=0.5)], MergeOptions(scores="mean"))
    np.testing.assert_allclose(weighted.scores, [0.8 / 1.5, 0.3], atol=1e-6)


def test_a_mean_score_is_not_spread_to_a_second_box_on_the_object():
    # SHIFTED_30 (0.1) is no duplicate by the threshold of 0.6, but overlaps BOX (0.9) by more than a vote needs.
    found = candidates((BOX, 0.9, 0, 0), (BOX, 0.7, 0, 1), (SHIFTED_30, 0.1, 0, 0))
    merged = merge(found, TWO, MergeOptions(scores="mean"))
    np.testing.assert_array_equal(merged.rows, [0, 2])
    np.testing.assert_allclose(merged.scores, [0.8, 0.05], atol=1e-6)


def test_a_view_that_does_not_see_a_box_has_no_say_in_its_mean_score():
    # The second source sees x from 0 to 0.5: BOX is inside, FAR outside.
    half = [Source(), Source(window_norm=(0.0, 0.0, 1.0, 0.5))]
    merged = merge(candidates((BOX, 0.6, 0, 0), (FAR, 0.5, 0, 0)), half, MergeOptions(scores="mean"))
    np.testing.assert_array_equal(merged.rows, [1, 0])
    np.testing.assert_allclose(merged.scores, [0.5, 0.3], atol=1e-6)


def plain_suppression(found, iou_threshold):
    """Greedy suppression in every class, one box after the other."""
    kept = []
    for row in np.argsort(-found.scores, kind="stable"):
        ymin, xmin, ymax, xmax = found.boxes_norm[row].astype(np.float64)
        for other in kept:
            top, left, bottom, right = found.boxes_norm[other].astype(np.float64)
            shared = max(0, min(ymax, bottom) - max(ymin, top)) * max(0, min(xmax, right) - max(xmin, left))
            union = (ymax - ymin) * (xmax - xmin) + (bottom - top) * (right - left) - shared
            if found.classes[other] == found.classes[row] and shared / union > iou_threshold:
                break
        else:
            kept.append(row)
    return kept


def test_many_boxes_are_suppressed_as_by_a_plain_loop():
    generator = np.random.default_rng(3)
    corners = generator.uniform(0.0, 0.6, [300, 2])
    boxes = np.concatenate([corners, corners + generator.uniform(0.1, 0.4, [300, 2])], axis=1).astype(np.float32)
    scores = generator.permutation(300).astype(np.float32) / 300 + 0.001  # no ties
    found = Candidates(boxes, scores, generator.integers(0, 20, 300), generator.integers(0, 2, 300))
    expected = plain_suppression(found, 0.4)
    assert 100 < len(expected) < 300
    merged = merge(found, TWO, MergeOptions(iou_threshold=0.4, max_detections=300))
    np.testing.assert_array_equal(merged.rows, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"iou_threshold": 1.5}, "iou_threshold is 1.5; accepted: 0 to 1"),
        ({"vote_iou_threshold": float("nan")}, "vote_iou_threshold is nan"),
        ({"score_threshold": "0"}, "score_threshold is '0'"),
        ({"max_detections": 0}, "max_detections is 0; accepted: a whole number from 1"),
        ({"max_detections": 2.5}, "max_detections is 2.5"),
        ({"scores": "median"}, "scores is 'median'; accepted: best, mean"),
        ({"box_voting": 1}, "box_voting is 1; accepted: true, false"),
    ],
)
def test_options_out_of_range_are_refused(change, message):
    with pytest.raises(UsageError, match=message):
        check_merging(MergeOptions(**change))
