"""Tests of the regions that train a second stage: sizes, true boxes, padding, crowds, images without objects."""

import numpy as np
import pytest
import tensorflow as tf

from detzoo.contracts import Groundtruth, Proposals
from detzoo.losses.classification import class_targets
from detzoo.ops.box_coder import FasterRcnnBoxCoder
from detzoo.ops.matching import ArgmaxMatcher, iou_similarity
from detzoo.targets.anchor_targets import AnchorTargets
from detzoo.targets.region_targets import RegionSampler

ASSIGN = AnchorTargets(ArgmaxMatcher(0.5, 0.5), iou_similarity, FasterRcnnBoxCoder())
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


def _proposals(boxes, num_valid=None):
    """One image; the scores fall from row to row."""
    scores = np.linspace(0.9, 0.1, len(boxes), dtype=np.float32)
    num_valid = len(boxes) if num_valid is None else num_valid
    return Proposals(tf.constant([boxes], tf.float32), tf.constant([scores]), tf.constant([num_valid]))


def _counts(num_on_object, num_elsewhere, **options):
    """(positives, negatives, rows) of a sample of proposals that equal the object, and others that do not touch it."""
    proposals = _proposals([OBJECT] * num_on_object + [ELSEWHERE] * num_elsewhere)
    sampler = RegionSampler(ASSIGN, add_groundtruth=False, **options)
    regions, targets = sampler(proposals, _groundtruth([OBJECT], classes=[3]))
    count = int(regions.num_valid[0])
    positive = targets.classes[0].numpy() == 3
    np.testing.assert_array_equal(targets.class_weights[0], np.arange(len(positive)) < count)
    np.testing.assert_array_equal(targets.box_weights[0], positive.astype(np.float32))
    return positive.sum(), count - positive.sum(), len(positive)


@pytest.mark.parametrize(
    ("num_on_object", "num_elsewhere", "options", "expected"),
    [
        (40, 300, {}, (16, 48, 64)),  # a quarter of 64
        (10, 300, {}, (10, 54, 64)),  # negatives fill what positives lack
        (40, 20, {}, (16, 20, 64)),  # too few negatives: the sample is smaller, the rest padding
        (300, 1700, {"sample_size": 512}, (128, 384, 512)),  # the pyramid's paper
        (40, 300, {"positive_fraction": 0.5}, (32, 32, 64)),
        (3, 4, {"sample_size": None}, (3, 4, 7)),  # all, for hard example mining
    ],
)
def test_64_regions_a_quarter_positive(num_on_object, num_elsewhere, options, expected):
    assert _counts(num_on_object, num_elsewhere, **options) == expected


def test_true_boxes_are_regions_unless_switched_off():
    proposals, groundtruth = _proposals([ELSEWHERE] * 3), _groundtruth([OBJECT], classes=[5])
    regions, targets = RegionSampler(ASSIGN, sample_size=8)(proposals, groundtruth)
    assert int(regions.num_valid[0]) == 4
    assert targets.classes[0].numpy().tolist() == [-1, -1, -1, 5, -1, -1, -1, -1]
    np.testing.assert_array_equal(regions.boxes_norm[0, 3], OBJECT)
    np.testing.assert_array_equal(targets.box_deltas[0, 3], np.zeros(4))
    np.testing.assert_allclose(regions.scores[0], [0.9, 0.5, 0.1, 0, 0, 0, 0, 0], atol=1e-6)
    regions, targets = RegionSampler(ASSIGN, sample_size=8, add_groundtruth=False)(proposals, groundtruth)
    assert int(regions.num_valid[0]) == 3
    assert targets.classes[0].numpy().tolist() == [-1] * 8


def test_only_true_boxes_of_objects_are_added():
    # Padding, a crowd and a box without area are no objects.
    boxes = [PADDING, OBJECT, ELSEWHERE, [0.2, 0.2, 0.2, 0.4]]
    groundtruth = _groundtruth(boxes, classes=[-1, 1, 2, 3], is_crowd=[False, False, True, False])
    regions, targets = RegionSampler(ASSIGN, sample_size=6)(_proposals([[0.0, 0.6, 0.3, 0.9]]), groundtruth)
    assert int(regions.num_valid[0]) == 2
    assert targets.classes[0].numpy().tolist() == [-1, 1, -1, -1, -1, -1]


def test_rows_of_padding_are_never_sampled():
    # Padded proposals are boxes of zeros, which match nothing: without care they would be negatives.
    proposals = _proposals([OBJECT, ELSEWHERE, PADDING, PADDING, PADDING], num_valid=2)
    regions, targets = RegionSampler(ASSIGN, sample_size=4)(proposals, _groundtruth([PADDING], classes=[-1]))
    assert int(regions.num_valid[0]) == 2
    np.testing.assert_array_equal(regions.boxes_norm[0], [OBJECT, ELSEWHERE, PADDING, PADDING])
    np.testing.assert_array_equal(targets.class_weights[0], [1, 1, 0, 0])
    assert not regions.scores[0, 2:].numpy().any()


def test_an_image_without_objects_is_all_negatives():
    regions, targets = RegionSampler(ASSIGN, sample_size=4)(_proposals([OBJECT] * 9), _groundtruth([]))
    assert int(regions.num_valid[0]) == 4
    assert targets.classes[0].numpy().tolist() == [-1] * 4
    assert targets.class_weights[0].numpy().tolist() == [1.0] * 4
    assert not targets.box_weights.numpy().any()


def test_an_image_without_proposals_and_objects_has_no_region():
    regions, targets = RegionSampler(ASSIGN, sample_size=4)(_proposals([PADDING] * 3, num_valid=0), _groundtruth([]))
    assert int(regions.num_valid[0]) == 0
    assert not targets.class_weights.numpy().any()


def test_crowds_are_no_targets_and_their_inside_is_no_background():
    # Rows: the crowd itself, inside it, half inside (ignored), two fifths inside (negative), outside.
    crowd = [0.0, 0.0, 0.5, 1.0]
    boxes = [crowd, [0.1, 0.1, 0.3, 0.3], [0.25, 0.0, 0.75, 0.5], [0.3, 0.0, 0.8, 0.5], [0.6, 0.6, 0.9, 0.9]]
    groundtruth = _groundtruth([crowd], classes=[1], is_crowd=[True])
    regions, targets = RegionSampler(ASSIGN, sample_size=5)(_proposals(boxes), groundtruth)
    assert int(regions.num_valid[0]) == 2
    np.testing.assert_allclose(regions.boxes_norm[0, :2], boxes[3:], atol=1e-7)
    assert targets.classes[0].numpy().tolist() == [-1] * 5


def test_half_an_overlap_is_enough_and_targets_are_of_the_matched_object():
    # Widths .25 and .24 of .5: IoU .5 and .48. Row 2 has IoU .8 with object 1.
    proposals = _proposals([[0.0, 0.0, 0.5, 0.25], [0.0, 0.0, 0.5, 0.24], [0.5, 0.5, 1.0, 0.9]])
    groundtruth = _groundtruth([OBJECT, ELSEWHERE], classes=[6, 2])
    sampler = RegionSampler(ASSIGN, sample_size=4, positive_fraction=1.0, add_groundtruth=False)
    _, targets = sampler(proposals, groundtruth)
    assert targets.classes[0].numpy().tolist() == [6, -1, 2, -1]
    assert targets.gt_index[0].numpy().tolist() == [0, 0, 1, 0]
    # Row 2 is .4 wide around .7, the object .5 wide around .75: tx = 10 * .05 / .4 = 1.25, tw = 5 ln 1.25 = 1.11572.
    np.testing.assert_allclose(targets.box_deltas[0, 2], [0.0, 1.25, 0.0, 1.11572], atol=1e-4)
    np.testing.assert_array_equal(targets.box_deltas[0, 1], np.zeros(4))


def test_objects_of_weight_zero_are_no_positives():
    groundtruth = _groundtruth([OBJECT], classes=[1], weights=[0.0])
    regions, targets = RegionSampler(ASSIGN, sample_size=4)(_proposals([OBJECT, ELSEWHERE]), groundtruth)
    assert int(regions.num_valid[0]) == 1
    np.testing.assert_array_equal(regions.boxes_norm[0, 0], ELSEWHERE)
    assert not targets.box_weights.numpy().any()


def test_without_a_limit_what_is_ignored_goes_to_the_end():
    groundtruth = _groundtruth([OBJECT], classes=[1], is_crowd=[True])
    proposals = _proposals([OBJECT, ELSEWHERE, [0.0, 0.0, 0.4, 0.4]])
    regions, targets = RegionSampler(ASSIGN, sample_size=None, add_groundtruth=False)(proposals, groundtruth)
    assert regions.num_valid.numpy().tolist() == [1]
    np.testing.assert_array_equal(regions.boxes_norm[0], [ELSEWHERE, PADDING, PADDING])
    assert targets.class_weights[0].numpy().tolist() == [1.0, 0.0, 0.0]


def test_images_of_a_batch_are_sampled_each_by_itself():
    first, second = _groundtruth([OBJECT], classes=[1]), _groundtruth([ELSEWHERE], classes=[2])
    groundtruth = Groundtruth(*(tf.concat(pair, axis=0) for pair in list(zip(first, second, strict=True))[:8]))
    proposals = _proposals([OBJECT, ELSEWHERE])
    proposals = Proposals(*(tf.concat([x, x], axis=0) for x in proposals))
    _, targets = RegionSampler(ASSIGN, sample_size=4, positive_fraction=0.5, add_groundtruth=False)(
        proposals, groundtruth
    )
    assert targets.classes.numpy().tolist() == [[1, -1, -1, -1], [-1, 2, -1, -1]]


def test_no_gradient_flows_to_the_proposals():
    boxes = tf.constant([[OBJECT, [0.0, 0.0, 0.5, 0.4]]])
    with tf.GradientTape() as tape:
        tape.watch(boxes)
        proposals = Proposals(boxes, tf.constant([[0.9, 0.8]]), tf.constant([2]))
        regions, targets = RegionSampler(ASSIGN, sample_size=4)(proposals, _groundtruth([OBJECT]))
        value = tf.reduce_sum(regions.boxes_norm) + tf.reduce_sum(targets.box_deltas)
    assert tape.gradient(value, boxes) is None


@pytest.mark.parametrize("sample_size", [3, None])
def test_graph_of_unknown_shapes_gives_the_same(sample_size):
    groundtruth, proposals = _groundtruth([OBJECT, PADDING], classes=[1, -1]), _proposals([OBJECT, PADDING], 1)
    shapes = {"boxes_norm": [None, None, 4], "masks": [None, None, None, None], "num_valid": [None]}

    def specs(values):
        fields = {name: x for name, x in values._asdict().items() if not isinstance(x, tuple)}
        return type(values)(
            **{name: tf.TensorSpec(shapes.get(name, [None, None]), x.dtype) for name, x in fields.items()}
        )

    sampler = RegionSampler(ASSIGN, sample_size=sample_size)
    graph = tf.function(sampler, input_signature=[specs(proposals), specs(groundtruth)], autograph=False)
    eager_regions, eager_targets = sampler(proposals, groundtruth)
    regions, targets = graph(proposals, groundtruth)
    for actual, expected in zip((*regions, *targets), (*eager_regions, *eager_targets), strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_a_region_finds_all_labels_of_its_object():
    sets = tf.constant([[[False, True, False], [True, False, True]]])
    groundtruth = _groundtruth([OBJECT, ELSEWHERE], classes=[1, 0])._replace(label_sets=sets)
    _, targets = RegionSampler(ASSIGN, sample_size=None, add_groundtruth=False)(
        _proposals([ELSEWHERE, [0.0, 0.6, 0.3, 0.9], OBJECT]), groundtruth
    )
    labels = class_targets(targets.classes, 3, targets.gt_index, targets.label_sets)
    np.testing.assert_array_equal(labels[0], [[1, 0, 1], [0, 0, 0], [0, 1, 0]])
