"""The minibatch of anchors of a proposal network: thresholds, sampling, borders, crowds, images without objects."""

import numpy as np
import pytest
import tensorflow as tf

from detzoo.contracts import AnchorState, Groundtruth
from detzoo.ops.box_coder import FasterRcnnBoxCoder
from detzoo.ops.matching import ArgmaxMatcher, iou_similarity
from detzoo.targets.anchor_targets import AnchorTargets
from detzoo.targets.proposal_targets import ProposalTargets

IGNORE, NEGATIVE, POSITIVE = (int(state) for state in AnchorState)
MATCHER = ArgmaxMatcher(0.7, 0.3, force_match_for_each_row=True)
ASSIGN = AnchorTargets(MATCHER, iou_similarity, FasterRcnnBoxCoder())
WHOLE = tf.constant([[0.0, 0.0, 1.0, 1.0]])
OBJECT, ELSEWHERE, PADDING = [0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]


def _groundtruth(boxes, classes=None, is_crowd=None, weights=None):
    """One image."""
    boxes = np.reshape(np.float32(boxes), (1, -1, 4))
    classes = np.array([range(boxes.shape[1])] if classes is None else [classes], np.int32)
    weights = classes >= 0 if weights is None else [weights]
    return Groundtruth(
        boxes_norm=tf.constant(boxes),
        classes=tf.constant(classes),
        weights=tf.constant(weights, tf.float32),
        is_crowd=tf.constant(np.zeros(classes.shape, bool) if is_crowd is None else [is_crowd]),
        is_difficult=tf.zeros(classes.shape, tf.bool),
        area_px=tf.zeros(classes.shape),
        masks=tf.zeros([*classes.shape, 0, 0], tf.uint8),
    )


def _counts(num_on_object, num_elsewhere, boxes=(OBJECT,), **options):
    """(positives, negatives) in the sample of anchors that equal the object, and of others that do not touch it."""
    anchors = tf.constant([OBJECT] * num_on_object + [ELSEWHERE] * num_elsewhere)
    targets = ProposalTargets(ASSIGN, **options)(anchors, _groundtruth(list(boxes)), WHOLE)
    state = targets.state.numpy()
    np.testing.assert_array_equal(targets.class_weights, (state != IGNORE).astype(np.float32))
    np.testing.assert_array_equal(targets.box_weights, (state == POSITIVE).astype(np.float32))
    return (state == POSITIVE).sum(), (state == NEGATIVE).sum()


@pytest.mark.parametrize(
    ("num_on_object", "num_elsewhere", "expected"),
    [
        (200, 1000, (128, 128)),  # at most half of 256 are positive
        (30, 1000, (30, 226)),  # negatives fill what positives lack
        (200, 50, (128, 50)),  # positives never fill what negatives lack: the sample is smaller
        (10, 20, (10, 20)),
    ],
)
def test_256_anchors_up_to_half_positive(num_on_object, num_elsewhere, expected):
    assert _counts(num_on_object, num_elsewhere) == expected


def test_size_and_fraction_arrive():
    assert _counts(200, 1000, sample_size=40, positive_fraction=0.25) == (10, 30)


def test_an_image_without_objects_has_256_negatives():
    assert _counts(30, 1000, boxes=()) == (0, 256)


def test_the_sample_is_random_and_follows_a_seed():
    anchors = tf.constant([OBJECT] * 50 + [ELSEWHERE] * 50)
    part = ProposalTargets(ASSIGN, sample_size=20)

    def chosen(seed):
        return part(anchors, _groundtruth([OBJECT]), WHOLE, tf.constant(seed)).state.numpy().tolist()

    assert chosen([1, 2]) == chosen([1, 2])
    assert chosen([1, 2]) != chosen([1, 7])


def test_thresholds_and_the_forced_best_match():
    # Boxes of one height that share a side: the IoU is the quotient of the widths.
    anchors = tf.constant(
        [
            [0.0, 0.0, 0.5, 0.36],  # .72 with object 0: positive
            [0.0, 0.0, 0.5, 0.34],  # .68: neither
            [0.0, 0.0, 0.5, 0.25],  # .5: neither
            [0.0, 0.0, 0.5, 0.16],  # .32: neither
            [0.0, 0.0, 0.5, 0.14],  # .28: negative
            [0.5, 0.5, 1.0, 0.7],  # .4 with object 1, whose best it is: positive by force
            [0.5, 0.5, 1.0, 0.69],  # .38, not its best: neither
        ]
    )
    targets = ProposalTargets(ASSIGN)(anchors, _groundtruth([OBJECT, ELSEWHERE], classes=[7, 3]), WHOLE)
    assert targets.state[0].numpy().tolist() == [POSITIVE, IGNORE, IGNORE, IGNORE, NEGATIVE, POSITIVE, IGNORE]
    assert targets.classes[0].numpy().tolist() == [7, -1, -1, -1, -1, 3, -1]
    assert targets.gt_index[0].numpy().tolist() == [0, 0, 0, 0, 0, 1, 0]
    # Anchor 5 is 0.2 wide with its centre at 0.6, the object 0.5 wide with its centre at 0.75:
    # ty = th = 0, tx = 10 * 0.15 / 0.2 = 7.5, tw = 5 ln(0.5 / 0.2) = 4.58145.
    np.testing.assert_allclose(targets.box_deltas[0, 5], [0.0, 7.5, 0.0, 4.58145], atol=1e-4)


IN_IMAGE, CROSSING, IN_PADDING, TOUCHING = (
    [0.0, 0.0, 1.0, 0.5],
    [0.0, 0.3, 1.0, 0.7],
    [0.0, 0.6, 1.0, 1.0],
    [0.0, 0.5, 1.0, 0.9],  # begins where the image ends
)
BEYOND_INPUT = [-0.2, 0.0, 0.8, 0.4]


@pytest.mark.parametrize(
    ("keep_crossing", "expected"),
    [(False, [True, False, False, False, False]), (True, [True, True, False, False, True])],
)
def test_anchors_at_the_border_and_in_the_padding(keep_crossing, expected):
    # The image covers the left half of the padded input, and no object is near: what is usable is negative.
    anchors = tf.constant([IN_IMAGE, CROSSING, IN_PADDING, TOUCHING, BEYOND_INPUT])
    windows = tf.constant([[0.0, 0.0, 1.0, 0.5]])
    part = ProposalTargets(ASSIGN, keep_crossing=keep_crossing)
    assert part.usable(anchors, windows)[0].numpy().tolist() == expected
    state = part(anchors, _groundtruth([]), windows).state[0].numpy()
    assert state.tolist() == [NEGATIVE if usable else IGNORE for usable in expected]


def test_every_image_has_its_own_window():
    windows = tf.constant([[0.0, 0.0, 1.0, 0.5], [0.0, 0.0, 1.0, 1.0]])
    usable = ProposalTargets(ASSIGN).usable(tf.constant([IN_IMAGE, CROSSING, IN_PADDING]), windows)
    assert usable.numpy().tolist() == [[True, False, False], [True, True, True]]


def test_rounded_borders_are_not_crossed():
    # 37 of 100 pixels in float32, and the anchor's end 37 / 100 by another way.
    windows = tf.constant([[0.0, 0.0, 0.37, 1.0]])
    anchors = tf.constant([[-1e-6, 0.0, 0.370001, 1.0], [0.0, 0.0, 0.3701, 1.0]])
    assert ProposalTargets(ASSIGN).usable(anchors, windows).numpy().tolist() == [[True, False]]


def test_the_best_anchor_of_an_object_is_the_best_usable_one():
    # The anchor that equals the object's box (it crosses the border) does not count; the other has IoU .4 / .6 = .67.
    anchors = tf.constant([[0.0, 0.0, 1.0, 0.6], [0.0, 0.0, 1.0, 0.4]])
    windows = tf.constant([[0.0, 0.0, 1.0, 0.5]])
    targets = ProposalTargets(ASSIGN)(anchors, _groundtruth([[0.0, 0.0, 1.0, 0.6]]), windows)
    assert targets.state[0].numpy().tolist() == [IGNORE, POSITIVE]


def test_crowds_train_nothing():
    # In the crowd: neither negative nor positive. Beside it, and half of it inside: IoA .5 is ignored, .4 not.
    crowd = [0.0, 0.0, 0.5, 1.0]
    anchors = tf.constant(
        [crowd, [0.1, 0.1, 0.3, 0.3], [0.5, 0.0, 1.0, 1.0], [0.25, 0.0, 0.75, 0.5], [0.3, 0.0, 0.8, 0.5]]
    )
    targets = ProposalTargets(ASSIGN)(anchors, _groundtruth([crowd], classes=[2], is_crowd=[True]), WHOLE)
    assert targets.state[0].numpy().tolist() == [IGNORE, IGNORE, NEGATIVE, IGNORE, NEGATIVE]
    assert targets.class_weights[0].numpy().tolist() == [0.0, 0.0, 1.0, 0.0, 1.0]
    assert not targets.box_weights.numpy().any()


def test_rows_of_padding_change_nothing():
    anchors = tf.constant([OBJECT, ELSEWHERE, PADDING])
    alone = ProposalTargets(ASSIGN)(anchors, _groundtruth([OBJECT], classes=[4]), WHOLE)
    padded = ProposalTargets(ASSIGN)(anchors, _groundtruth([OBJECT, PADDING, PADDING], classes=[4, -1, -1]), WHOLE)
    for actual, expected in zip(padded, alone, strict=True):
        np.testing.assert_array_equal(actual, expected)
    assert alone.state[0].numpy().tolist() == [POSITIVE, NEGATIVE, NEGATIVE]


def test_objects_of_weight_zero_take_no_place_in_the_sample():
    anchors = tf.constant([OBJECT, OBJECT, ELSEWHERE, ELSEWHERE])
    groundtruth = _groundtruth([OBJECT], weights=[0.0])
    targets = ProposalTargets(ASSIGN, sample_size=2)(anchors, groundtruth, WHOLE)
    assert targets.state[0].numpy().tolist() == [IGNORE, IGNORE, NEGATIVE, NEGATIVE]


def test_graph_of_unknown_shapes_gives_the_same():
    groundtruth = _groundtruth([OBJECT, PADDING], classes=[1, -1])
    shapes = {"boxes_norm": [None, None, 4], "masks": [None, None, None, None]}
    specs = Groundtruth(
        **{
            name: tf.TensorSpec(shapes.get(name, [None, None]), value.dtype)
            for name, value in groundtruth._asdict().items()
            if not isinstance(value, tuple)
        }
    )
    anchors = tf.constant([OBJECT, ELSEWHERE, [0.0, 0.0, 0.5, 0.25]])
    part = ProposalTargets(ASSIGN)
    graph = tf.function(
        part, input_signature=[tf.TensorSpec([None, 4]), specs, tf.TensorSpec([None, 4])], autograph=False
    )
    for actual, expected in zip(graph(anchors, groundtruth, WHOLE), part(anchors, groundtruth, WHOLE), strict=True):
        np.testing.assert_array_equal(actual, expected)
