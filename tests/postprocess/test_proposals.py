"""Proposals by hand: suppression, the best anchors of each level, windows, what may not propose."""

import math

import numpy as np
import pytest
import tensorflow as tf

from detzoo.contracts import Predictions
from detzoo.ops.box_coder import FasterRcnnBoxCoder
from detzoo.ops.nms import NmsLimits
from detzoo.postprocess.proposals import ProposalSelection

CODER = FasterRcnnBoxCoder()
WHOLE = tf.constant([[0.0, 0.0, 1.0, 1.0]])
# Rows 0 and 1 overlap by .4 / .5 = .8 in IoU, rows 2 and 3 by .2 / .3; row 4 is alone.
ANCHORS = tf.constant(
    [
        [0.0, 0.0, 0.5, 0.5],
        [0.0, 0.0, 0.5, 0.4],
        [0.5, 0.5, 1.0, 0.8],
        [0.5, 0.5, 1.0, 0.7],
        [0.6, 0.0, 0.9, 0.3],
    ]
)
SCORES = [0.7, 0.9, 0.4, 0.6, 0.2]


def _predictions(scores=(SCORES,), anchors=ANCHORS, deltas=None):
    """Logits [0, ln(p / (1 - p))] have the score p."""
    logits = [[[0.0, math.log(p / (1 - p))] for p in image] for image in scores]
    shape = [len(scores), anchors.shape[0], 4]
    return Predictions(
        tf.zeros(shape) if deltas is None else tf.constant(deltas, tf.float32), tf.constant(logits), anchors
    )


def _selection(count=4, pre_nms_top_k=0, training_count=None, threshold=0.0):
    def limits(count):
        return NmsLimits(threshold, 0.7, count, count)

    return ProposalSelection(CODER, limits(count), limits(training_count or count), pre_nms_top_k)


def _rows(proposals, anchors=ANCHORS):
    """The anchors that the valid proposals of the first image equal."""
    valid = proposals.boxes_norm[0, : int(proposals.num_valid[0])].numpy()
    return [int(np.flatnonzero(np.isclose(anchors, box, atol=1e-6).all(axis=-1))[0]) for box in valid]


def test_best_first_without_what_overlaps_by_more_than_the_threshold():
    proposals = _selection(count=6)(_predictions(), WHOLE, [5])
    assert _rows(proposals) == [1, 3, 2, 4]  # row 0 overlaps row 1 by .8; rows 2 and 3 (.67) both stay
    np.testing.assert_allclose(proposals.scores[0], [0.9, 0.6, 0.4, 0.2, 0, 0], atol=1e-6)
    np.testing.assert_array_equal(proposals.boxes_norm[0, 4:], np.zeros((2, 4)))
    assert proposals.num_valid.numpy().tolist() == [4]


def test_numbers_differ_between_training_and_inference():
    selection = _selection(count=1, training_count=3)
    assert _rows(selection(_predictions(), WHOLE, [5])) == [1]
    assert _rows(selection(_predictions(), WHOLE, [5], training=True)) == [1, 3, 2]


def test_score_threshold():
    assert _rows(_selection(threshold=0.5)(_predictions(), WHOLE, [5])) == [1, 3]


@pytest.mark.parametrize(
    ("top_k", "level_sizes", "expected"),
    [
        (1, [3, 2], [1, 3]),  # the best of rows 0 to 2, and of rows 3 and 4
        (1, [5], [1]),
        (2, [3, 2], [1, 3, 4]),  # rows 0 and 1 enter, and the latter suppresses the former; 3 and 4
        (2, [2, 3], [1, 3, 2]),
        (9, [3, 2], [1, 3, 2, 4]),  # levels smaller than the number
    ],
)
def test_best_anchors_of_each_level_enter_the_suppression(top_k, level_sizes, expected):
    selection = _selection(pre_nms_top_k=top_k)
    assert _rows(selection(_predictions(), WHOLE, level_sizes)) == expected
    dynamic = [tf.constant(size) for size in level_sizes]
    assert _rows(selection(_predictions(), WHOLE, dynamic)) == expected


def test_anchors_that_are_not_usable_neither_propose_nor_suppress():
    usable = tf.constant([[True, False, True, True, False]])
    assert _rows(_selection()(_predictions(), WHOLE, [5], usable=usable)) == [0, 3, 2]
    assert _rows(_selection(pre_nms_top_k=1)(_predictions(), WHOLE, [3, 2], usable=usable)) == [0, 3]


def test_boxes_are_decoded_and_cut_to_each_image_s_window():
    # tx = 10 moves by one width: row 4 from columns 0 .. .3 to .3 .. .6. The second image ends at .45.
    deltas = np.zeros((2, 5, 4))
    deltas[:, 4, 1] = 10.0
    windows = tf.constant([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.45]])
    proposals = _selection()(_predictions([SCORES, SCORES], deltas=deltas), windows, [5])
    assert proposals.num_valid.numpy().tolist() == [4, 2]
    np.testing.assert_allclose(proposals.boxes_norm[0, 3], [0.6, 0.3, 0.9, 0.6], atol=1e-6)
    # Nothing is left of rows 2 and 3.
    np.testing.assert_allclose(proposals.boxes_norm[1, :2], [[0, 0, 0.5, 0.4], [0.6, 0.3, 0.9, 0.45]], atol=1e-6)
    np.testing.assert_array_equal(proposals.boxes_norm[1, 2:], np.zeros((2, 4)))


def test_no_gradient_flows_through_proposals():
    deltas, logits = tf.zeros([1, 5, 4]), tf.ones([1, 5, 2])
    with tf.GradientTape() as tape:
        tape.watch([deltas, logits])
        proposals = _selection()(Predictions(deltas, logits, ANCHORS), WHOLE, [5])
        value = tf.reduce_sum(proposals.boxes_norm) + tf.reduce_sum(proposals.scores)
    assert tape.gradient(value, [deltas, logits]) == [None, None]


def test_graph_of_unknown_shapes_gives_the_same():
    selection = _selection(pre_nms_top_k=1)
    specs = Predictions(tf.TensorSpec([None, None, 4]), tf.TensorSpec([None, None, 2]), tf.TensorSpec([None, 4]))

    @tf.function(input_signature=[specs, tf.TensorSpec([None, 4]), tf.TensorSpec([2], tf.int32)], autograph=False)
    def graph(predictions, windows, level_sizes):
        return selection(predictions, windows, tf.unstack(level_sizes))

    for actual, expected in zip(
        graph(_predictions(), WHOLE, [3, 2]), selection(_predictions(), WHOLE, [3, 2]), strict=True
    ):
        np.testing.assert_array_equal(actual, expected)
