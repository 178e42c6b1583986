"""Targets of anchors: batches, padding, weights, crowds, degenerate boxes."""

import numpy as np
import tensorflow as tf

from detzoo.contracts import AnchorState, Groundtruth
from detzoo.ops.box_coder import FasterRcnnBoxCoder
from detzoo.ops.matching import ArgmaxMatcher, BipartiteMatcher, iou_similarity
from detzoo.targets.anchor_targets import AnchorTargets

IGNORE, NEGATIVE, POSITIVE = (int(state) for state in AnchorState)
ANCHORS = np.float32([[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0], [0.0, 0.5, 0.5, 1.0], [0.5, 0.0, 1.0, 0.5]])
CODER = FasterRcnnBoxCoder()
FORCING = AnchorTargets(ArgmaxMatcher(0.5, 0.5, force_match_for_each_row=True), iou_similarity, CODER)


def _groundtruth(boxes, classes, weights=None, is_crowd=None):
    classes = np.array(classes, np.int32).reshape(len(boxes), -1)
    weights = (classes >= 0) if weights is None else weights
    is_crowd = np.zeros(classes.shape, bool) if is_crowd is None else is_crowd
    return Groundtruth(
        boxes_norm=tf.reshape(tf.constant(boxes, tf.float32), [*classes.shape, 4]),
        classes=tf.constant(classes),
        weights=tf.constant(weights, tf.float32),
        is_crowd=tf.constant(is_crowd),
        is_difficult=tf.zeros(classes.shape, tf.bool),
        area_px=tf.zeros(classes.shape),
        masks=tf.zeros([*classes.shape, 0, 0], tf.uint8),
    )


PADDING = [0.0, 0.0, 0.0, 0.0]


def test_a_batch_of_different_images():
    groundtruth = _groundtruth(
        [
            [[0.0, 0.0, 0.5, 0.4], PADDING, PADDING],
            [[0.5, 0.5, 1.0, 1.0], [0.5, 0.1, 1.0, 0.5], [0.0, 0.5, 0.2, 0.6]],
            [PADDING, PADDING, PADDING],
        ],
        [[7, -1, -1], [1, 2, 3], [-1, -1, -1]],
        weights=[[1, 0, 0], [0.5, 1, 1], [0, 0, 0]],
    )
    targets = FORCING(ANCHORS, groundtruth)
    assert targets.state.numpy().tolist() == [
        [POSITIVE, NEGATIVE, NEGATIVE, NEGATIVE],
        [NEGATIVE, POSITIVE, POSITIVE, POSITIVE],
        [NEGATIVE] * 4,
    ]
    assert targets.classes.numpy().tolist() == [[7, -1, -1, -1], [-1, 1, 3, 2], [-1] * 4]
    np.testing.assert_allclose(targets.box_weights, [[1, 0, 0, 0], [0, 0.5, 1, 1], [0, 0, 0, 0]])
    np.testing.assert_allclose(targets.class_weights, [[1, 1, 1, 1], [1, 0.5, 1, 1], [1, 1, 1, 1]])
    np.testing.assert_allclose(CODER.decode(targets.box_deltas[0, 0], ANCHORS[0]), [0.0, 0.0, 0.5, 0.4], atol=1e-6)
    np.testing.assert_allclose(CODER.decode(targets.box_deltas[1, 3], ANCHORS[3]), [0.5, 0.1, 1.0, 0.5], atol=1e-6)
    assert not targets.box_deltas[2].numpy().any()


def test_graph_of_unknown_shapes_gives_the_same():
    groundtruth = _groundtruth([[[0.0, 0.0, 0.5, 0.4], PADDING]], [[7, -1]])
    shapes = {"boxes_norm": [None, None, 4], "masks": [None, None, None, None]}
    specs = Groundtruth(
        **{
            name: tf.TensorSpec(shapes.get(name, [None, None]), value.dtype)
            for name, value in groundtruth._asdict().items()
            if not isinstance(value, tuple)
        }
    )
    graph = tf.function(FORCING, input_signature=[tf.TensorSpec([None, 4]), specs], autograph=False)
    for actual, expected in zip(graph(ANCHORS, groundtruth), FORCING(ANCHORS, groundtruth), strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_no_rows_at_all():
    targets = FORCING(ANCHORS, _groundtruth(np.zeros((2, 0, 4)), np.zeros((2, 0))))
    assert (targets.state.numpy() == NEGATIVE).all()
    assert targets.box_deltas.shape == (2, 4, 4)


def test_degenerate_boxes_and_padding_in_front_match_nothing():
    boxes = [[PADDING, [0.2, 0.2, 0.2, 0.4], [0.5, 0.5, 1.0, 1.0], [np.nan, 0.0, 1.0, 1.0]]]
    targets = FORCING(ANCHORS, _groundtruth(boxes, [[-1, 0, 4, 5]]))
    assert targets.classes.numpy().tolist() == [[-1, 4, -1, -1]]
    assert np.isfinite(targets.box_deltas).all()


def test_rows_of_weight_zero_match_without_weight_and_claim_nothing():
    boxes = [[[0.0, 0.0, 0.5, 0.45], [0.5, 0.5, 0.6, 0.6]]]
    targets = FORCING(ANCHORS, _groundtruth(boxes, [[1, 2]], weights=[[0.0, 0.0]]))
    assert targets.state.numpy().tolist() == [[POSITIVE, NEGATIVE, NEGATIVE, NEGATIVE]]
    assert targets.class_weights.numpy().tolist() == [[0.0, 1.0, 1.0, 1.0]]
    assert not targets.box_weights.numpy().any()


def test_crowds_are_neither_positive_nor_negative():
    boxes = [[[0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 0.4]]]
    targets = FORCING(ANCHORS, _groundtruth(boxes, [[1, 2]], is_crowd=[[True, False]]))
    assert targets.state.numpy().tolist() == [[IGNORE, NEGATIVE, IGNORE, POSITIVE]]
    assert targets.class_weights.numpy().tolist() == [[0.0, 1.0, 0.0, 1.0]]


def test_negative_class_weight():
    part = AnchorTargets(ArgmaxMatcher(), iou_similarity, CODER, negative_class_weight=0.25)
    targets = part(ANCHORS, _groundtruth([[[0.0, 0.0, 0.5, 0.5]]], [[0]]))
    np.testing.assert_allclose(targets.class_weights, [[1.0, 0.25, 0.25, 0.25]])


def test_bipartite_matcher_gives_each_object_one_anchor():
    part = AnchorTargets(BipartiteMatcher(), iou_similarity, CODER)
    boxes = [[[0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.6, 0.6]]]
    targets = part(ANCHORS, _groundtruth(boxes, [[3, 4]]))
    assert targets.classes.numpy()[0].tolist()[0] == 3
    assert sorted(targets.classes.numpy()[0].tolist()) == [-1, -1, 3, 4]
