"""Similarities and matchers: hand-worked assignments, ties, padding, crowds."""

import numpy as np
import pytest
import tensorflow as tf

from detzoo.contracts import AnchorState, Assignment
from detzoo.ops import matching

IGNORE, NEGATIVE, POSITIVE = (int(state) for state in AnchorState)


def _match(matcher, similarity, valid=None, forced=None):
    similarity = tf.constant(similarity, tf.float32)
    valid = tf.ones(similarity.shape[0], tf.bool) if valid is None else tf.constant(valid)
    assignment = matcher(similarity, valid, None if forced is None else tf.constant(forced))
    graph = tf.function(matcher, autograph=False)(similarity, valid, None if forced is None else tf.constant(forced))
    np.testing.assert_array_equal(graph.state, assignment.state)
    np.testing.assert_array_equal(graph.gt_index, assignment.gt_index)
    return assignment.state.numpy().tolist(), assignment.gt_index.numpy().tolist()


def test_similarities_worked_by_hand():
    gt = tf.constant([[0.0, 0.0, 2.0, 2.0]])
    anchors = tf.constant([[1.0, 1.0, 3.0, 4.0], [0.0, 0.0, 2.0, 2.0]])
    np.testing.assert_allclose(matching.iou_similarity(gt, anchors), [[1 / 9, 1.0]], rtol=1e-6)
    np.testing.assert_allclose(matching.ioa_similarity(gt, anchors), [[1 / 6, 1.0]], rtol=1e-6)
    line = tf.constant([[0.2, 0.2, 0.2, 0.8]])  # an anchor without area
    np.testing.assert_array_equal(matching.ioa_similarity(gt, line), [[0.0]])
    np.testing.assert_allclose(matching.negative_squared_distance(gt, anchors), [[-(1 + 1 + 1 + 4.0), 0.0]])
    np.testing.assert_array_equal(matching.ThresholdedIou(0.5)(gt, anchors), [[0.0, 1.0]])
    np.testing.assert_array_equal(matching.ThresholdedIou(0.1)(gt, anchors), [[1.0, 1.0]])


def test_argmax_thresholds():
    matcher = matching.ArgmaxMatcher(0.5, 0.4)
    state, index = _match(matcher, [[0.5, 0.45, 0.1, 0.3], [0.2, 0.4, 0.3, 0.9]])
    assert state == [POSITIVE, IGNORE, NEGATIVE, POSITIVE]
    assert index == [0, 0, 0, 1]


def test_argmax_with_negatives_between_the_thresholds():
    matcher = matching.ArgmaxMatcher(0.5, 0.4, negatives_lower_than_unmatched=False)
    assert _match(matcher, [[0.5, 0.45, 0.1]])[0] == [POSITIVE, NEGATIVE, IGNORE]


def test_argmax_without_thresholds_matches_every_anchor():
    assert _match(matching.ArgmaxMatcher(None), [[0.0, 0.2], [0.1, 0.0]]) == ([POSITIVE] * 2, [1, 0])


def test_forced_match_takes_the_best_anchor_whatever_its_similarity():
    matcher = matching.ArgmaxMatcher(0.5, 0.5, force_match_for_each_row=True)
    # Row 1 takes anchor 1, which was row 0's by similarity.
    assert _match(matcher, [[0.9, 0.6, 0.0], [0.1, 0.2, 0.0]]) == ([POSITIVE, POSITIVE, NEGATIVE], [0, 1, 0])


def test_first_of_two_rows_that_force_the_same_anchor_has_it():
    matcher = matching.ArgmaxMatcher(0.5, 0.5, force_match_for_each_row=True)
    assert _match(matcher, [[0.2, 0.0], [0.3, 0.0]]) == ([POSITIVE, NEGATIVE], [0, 0])


def test_rows_of_weight_zero_do_not_force():
    matcher = matching.ArgmaxMatcher(0.5, 0.5, force_match_for_each_row=True)
    assert _match(matcher, [[0.2, 0.0], [0.1, 0.0]], forced=[False, True]) == ([POSITIVE, NEGATIVE], [1, 0])


@pytest.mark.parametrize(
    "matcher", [matching.ArgmaxMatcher(None), matching.ArgmaxMatcher(force_match_for_each_row=True)]
)
def test_invalid_rows_never_match(matcher):
    assert _match(matcher, [[0.9, 0.9]], valid=[False]) == ([NEGATIVE, NEGATIVE], [0, 0])


@pytest.mark.parametrize(
    "matcher",
    [
        matching.ArgmaxMatcher(0.5, 0.4, negatives_lower_than_unmatched=False, force_match_for_each_row=True),
        matching.BipartiteMatcher(),
    ],
)
def test_no_rows_leave_every_anchor_negative(matcher):
    assert _match(matcher, np.zeros((0, 3))) == ([NEGATIVE] * 3, [0] * 3)


def test_bipartite_is_greedy_over_all_pairs():
    # Best pair is (1, 0); row 0 then has anchor 1, though it preferred anchor 0.
    similarity = [[0.8, 0.3, 0.2], [0.9, 0.7, 0.1]]
    assert _match(matching.BipartiteMatcher(), similarity) == ([POSITIVE, POSITIVE, NEGATIVE], [1, 0, 0])


def test_bipartite_with_more_rows_than_anchors_and_invalid_rows():
    similarity = [[0.8, 0.3], [0.9, 0.7], [0.5, 0.6]]
    state, index = _match(matching.BipartiteMatcher(), similarity, valid=[True, False, True])
    assert (state, index) == ([POSITIVE, POSITIVE], [0, 2])
    assert _match(matching.BipartiteMatcher(), [[0.8], [0.9]]) == ([POSITIVE], [1])


def test_bipartite_matches_rows_of_similarity_zero_or_below():
    assert _match(matching.BipartiteMatcher(), [[-0.5, -0.2]]) == ([NEGATIVE, POSITIVE], [0, 0])


def test_crowds_turn_covered_negatives_into_ignored_anchors():
    anchors = tf.constant([[0.0, 0.0, 0.1, 0.1], [0.0, 0.0, 1.0, 0.3], [0.5, 0.5, 1.0, 1.0], [0.0, 0.0, 0.2, 0.2]])
    assignment = Assignment(tf.constant([NEGATIVE, NEGATIVE, NEGATIVE, POSITIVE]), tf.zeros(4, tf.int32))
    crowd = tf.constant([[0.0, 0.0, 0.4, 0.4], [0.5, 0.5, 1.0, 1.0]])
    # Covered: the first wholly, the second to .4; the third only by a row that is no crowd.
    result = matching.ignore_crowd(assignment, anchors, crowd, tf.constant([True, False]))
    assert result.state.numpy().tolist() == [IGNORE, NEGATIVE, NEGATIVE, POSITIVE]
