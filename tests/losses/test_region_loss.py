"""Losses of both stages and of masks in closed form: weights, means over sample and images, hard examples."""

import math

import numpy as np
import pytest
import tensorflow as tf

from detzoo.contracts import AnchorState, Groundtruth, Predictions, Proposals, RegionTargets, Targets
from detzoo.losses.classification import SoftmaxCrossEntropy, sigmoid_cross_entropy
from detzoo.losses.hard_examples import HardExampleMiner
from detzoo.losses.localization import OneMinusIou, SmoothL1
from detzoo.losses.region_loss import MaskLoss, ProposalLoss, RegionLoss, mean_over_images, of_class, true_masks
from detzoo.ops.box_coder import FasterRcnnBoxCoder

IGNORE, NEGATIVE, POSITIVE = (int(state) for state in AnchorState)
LOG2, LOG3, LOG4 = math.log(2), math.log(3), math.log(4)
CODER = FasterRcnnBoxCoder()


def _value(term):
    return float(term.total / term.normalizer)


def test_a_region_on_a_box_of_several_labels_has_several_right_classes():
    # Three classes after the background. Region 0 has the labels 0 and 2 of object 1, and region 1 is background.
    # Sigmoid cross entropy of a logit x is softplus(-x) for target 1, else softplus(x). With softplus(0) = ln 2,
    # softplus(ln 3) = ln 4 and softplus(-ln 3) = ln 4/3:
    # Region 0, logits 0, ln 3, ln 3, -ln 3: ln 2 + ln 4/3 + ln 4 + ln 4. Region 1, the same logits: ln 2 + ln 4 + ln 4
    # + ln 4/3. Together 2 (ln 2 + ln 64/3), over two regions of one image.
    logits = tf.constant([[[0.0, LOG3, LOG3, -LOG3]] * 2])
    targets = _region_targets([[0, -1]], gt_index=[[1, 0]])
    sets = tf.constant([[[False, True], [True, False]]])  # columns that no label map names are added
    regions = _regions([[[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]]], [2])
    loss = RegionLoss(sigmoid_cross_entropy, SmoothL1(), CODER)
    deltas = tf.zeros([1, 2, 1, 4])
    full = tf.constant([[[False, True, True], [True, False, True]]])
    several = loss(deltas, logits, regions, targets._replace(label_sets=full))["classification"]
    assert _value(several) == pytest.approx(LOG2 + math.log(64 / 3), rel=1e-5)
    # With label 0 alone, of two columns or by its class, ln 4 of the last logit becomes ln 4/3.
    for one in (targets._replace(label_sets=sets), targets):
        single = loss(deltas, logits, regions, one)["classification"]
        assert _value(single) == pytest.approx(LOG2 + math.log(64 / 3) - LOG3 / 2, rel=1e-5)


def test_a_loss_of_boxes_reads_the_regions_and_no_gradient_of_padding():
    # Region 0 is its object's middle half, and region 1 is padding. Deltas of 0 leave the region: IoU 1/2, so that the
    # loss is (1 - 1/2) / 1 region.
    regions = _regions([[[0.25, 0.0, 0.75, 1.0], [0.0, 0.0, 0.0, 0.0]]], [1])
    whole = CODER.encode(tf.constant([[0.0, 0.0, 1.0, 1.0]]), regions.boxes_norm[0, :1])
    targets = _region_targets([[0, -1]])
    targets = targets._replace(
        box_deltas=tf.concat([whole, tf.zeros([1, 4])], axis=0)[tf.newaxis], box_weights=tf.constant([[1.0, 0.0]])
    )
    deltas = tf.Variable(tf.zeros([1, 2, 1, 4]))
    with tf.GradientTape() as tape:
        terms = RegionLoss(SoftmaxCrossEntropy(), OneMinusIou(CODER), CODER)(
            deltas, tf.zeros([1, 2, 2]), regions, targets
        )
        total = terms["localization"].total
    assert _value(terms["localization"]) == pytest.approx(0.5, rel=1e-5)
    gradient = tape.gradient(total, deltas).numpy()
    assert gradient[0, 0, 0, 2] < 0  # a taller box is better
    assert not gradient[0, 1].any()


def test_mean_over_images_divides_by_each_image_s_count():
    # Image 0 gives (1 + 2) / 2 = 1.5 and image 1 gives 5 / 1; image 2 has no row that counts. Times 2 and divided by
    # three images this is 13 / 3.
    term = mean_over_images(tf.constant([[1.0, 2.0], [5.0, 0.0], [0.0, 0.0]]), tf.constant([2, 1, 0]), weight=2.0)
    assert float(term.total) == 13.0
    assert float(term.normalizer) == 3.0


def _anchor_targets(state, box_deltas):
    state = tf.constant(state)
    positive = tf.cast(state == POSITIVE, tf.float32)
    return Targets(
        box_deltas=tf.constant(box_deltas, tf.float32),
        classes=tf.where(state == POSITIVE, 4, -1),  # any class is "object"
        state=state,
        class_weights=tf.cast(state != IGNORE, tf.float32),
        box_weights=positive,
    )


def test_proposal_loss():
    # p(object) = 3/4 where the logits are [0, ln 3].
    # Image 0 has a sample of 2, a positive with -ln 3/4 and a negative with -ln 1/4, together ln 16/3. The loss of its
    # boxes is |2| - .5 + .5**2 / 2 = 1.625.
    # Image 1 has a sample of 1, a negative with equal logits, which gives ln 2. No box counts.
    logits = [[[0, LOG3], [0, LOG3], [90, -90]], [[0, 0], [50, 50], [7, 7]]]
    deltas = np.zeros((2, 3, 4))
    deltas[0, 0], deltas[0, 1], deltas[1, 2] = [2.0, 0.5, 0.0, 0.0], [9.0] * 4, [9.0] * 4
    targets = _anchor_targets([[POSITIVE, NEGATIVE, IGNORE], [NEGATIVE, IGNORE, IGNORE]], np.zeros((2, 3, 4)))
    predictions = Predictions(tf.constant(deltas, tf.float32), tf.constant(logits, tf.float32), tf.zeros([3, 4]))
    terms = ProposalLoss(SoftmaxCrossEntropy(), SmoothL1(), objectness_weight=2.0, localization_weight=3.0)(
        predictions, targets
    )
    assert list(terms) == ["rpn_localization", "rpn_objectness"]
    assert _value(terms["rpn_objectness"]) == pytest.approx(2.0 * (math.log(16 / 3) / 2 + LOG2) / 2, rel=1e-5)
    assert _value(terms["rpn_localization"]) == pytest.approx(3.0 * (1.625 / 2) / 2, rel=1e-5)


def test_proposal_loss_of_an_empty_sample_is_zero():
    targets = _anchor_targets([[IGNORE, IGNORE]], np.zeros((1, 2, 4)))
    predictions = Predictions(tf.fill([1, 2, 4], 8.0), tf.fill([1, 2, 2], 8.0), tf.zeros([2, 4]))
    terms = ProposalLoss(SoftmaxCrossEntropy(), SmoothL1())(predictions, targets)
    assert [_value(term) for term in terms.values()] == [0.0, 0.0]


def _regions(boxes, num_valid):
    boxes = tf.constant(boxes, tf.float32)
    return Proposals(boxes, tf.zeros(boxes.shape[:2]), tf.constant(num_valid))


def _region_targets(classes, is_region=None, gt_index=None):
    classes = tf.constant(classes)
    is_region = tf.ones_like(classes, tf.bool) if is_region is None else tf.constant(is_region)
    positive = tf.cast(classes >= 0, tf.float32)
    return RegionTargets(
        box_deltas=tf.zeros([*classes.shape, 4]),
        classes=classes,
        class_weights=tf.cast(is_region, tf.float32),
        box_weights=positive,
        gt_index=tf.zeros_like(classes) if gt_index is None else tf.constant(gt_index),
    )


APART = [[0.0, 0.0, 0.2, 0.2], [0.4, 0.4, 0.6, 0.6], [0.8, 0.8, 1.0, 1.0]]


@pytest.mark.parametrize(("num_boxes", "expected_box"), [(2, 1.5), (1, 4.5)])
def test_region_loss_takes_the_box_of_the_true_class(num_boxes, expected_box):
    # Two classes. Row 0 is class 1, row 1 background, row 2 padding. Logits [0, 0, ln 2]: p(class 1) = 1/2.
    # Row 0 gives -ln 1/2 = ln 2 and row 1 gives -ln 1/4 = ln 4, so the mean of two regions is (ln 2 + ln 4) / 2.
    # The box of class 0 misses by 5 (4.5), and that of class 1 by 2 (1.5). A shared box is the first. The mean over two
    # regions is half of it.
    logits = tf.constant([[[0.0, 0.0, LOG2]] * 3])
    deltas = np.zeros((1, 3, num_boxes, 4), np.float32)
    deltas[0, 0, 0, 0] = 5.0
    deltas[0, 0, -1, 0] = {1: 5.0, 2: 2.0}[num_boxes]
    deltas[0, 1:] = 9.0
    targets = _region_targets([[1, -1, -1]], is_region=[[True, True, False]])
    loss = RegionLoss(SoftmaxCrossEntropy(), SmoothL1(), CODER, classification_weight=3.0, localization_weight=2.0)
    terms = loss(tf.constant(deltas), logits, _regions([APART], [2]), targets)
    assert list(terms) == ["localization", "classification"]
    assert _value(terms["classification"]) == pytest.approx(3.0 * (LOG2 + LOG4) / 2, rel=1e-5)
    assert _value(terms["localization"]) == pytest.approx(2.0 * expected_box / 2, rel=1e-5)


def test_region_loss_is_a_mean_over_images_of_means_over_regions():
    # Uniform logits of one class and background: ln 2 each. The images have 3 regions, 1 and none: 2/3 ln 2.
    is_region = [[True] * 3, [True, False, False], [False] * 3]
    targets = _region_targets([[-1] * 3] * 3, is_region)
    loss = RegionLoss(SoftmaxCrossEntropy(), SmoothL1(), CODER)
    terms = loss(tf.zeros([3, 3, 1, 4]), tf.zeros([3, 3, 2]), _regions([APART] * 3, [3, 1, 0]), targets)
    assert _value(terms["classification"]) == pytest.approx(2 / 3 * LOG2, rel=1e-5)
    assert _value(terms["localization"]) == 0.0


def test_hard_examples_of_the_second_stage():
    # Losses of background rows with logits [0, x]: softplus(x) = ln 4 for x = ln 3, ln 3 for ln 2, ln 2 for 0.
    # Two hard ones count, and the divisor stays the number of regions: (ln 4 + ln 3) / 3.
    logits = tf.constant([[[0.0, LOG2], [0.0, LOG3], [0.0, 0.0]]])
    miner = HardExampleMiner(num_hard_examples=2, iou_threshold=0.7)
    loss = RegionLoss(SoftmaxCrossEntropy(), SmoothL1(), CODER, miner=miner)
    terms = loss(tf.zeros([1, 3, 1, 4]), logits, _regions([APART], [3]), _region_targets([[-1, -1, -1]]))
    assert _value(terms["classification"]) == pytest.approx((LOG4 + LOG3) / 3, rel=1e-5)
    # If the two hardest have the same box, suppression drops one and the third counts: (ln 4 + ln 2) / 3.
    terms = loss(
        tf.zeros([1, 3, 1, 4]), logits, _regions([[APART[0]] * 2 + APART[2:]], [3]), _region_targets([[-1, -1, -1]])
    )
    assert _value(terms["classification"]) == pytest.approx((LOG4 + LOG2) / 3, rel=1e-5)


def test_hard_examples_are_never_padding():
    # Rows 1 and 2 are padding with the worst logits; the only region is the one that is chosen.
    logits = tf.constant([[[0.0, 0.0], [0.0, 60.0], [0.0, 60.0]]])
    targets = _region_targets([[-1, -1, -1]], is_region=[[True, False, False]])
    loss = RegionLoss(SoftmaxCrossEntropy(), SmoothL1(), CODER, miner=HardExampleMiner(1))
    boxes = [[APART[0], [0.0] * 4, [0.0] * 4]]
    terms = loss(tf.zeros([1, 3, 1, 4]), logits, _regions(boxes, [1]), targets)
    assert _value(terms["classification"]) == pytest.approx(LOG2, rel=1e-5)


def test_what_is_hard_counts_boxes_too():
    # Row 0 is positive and its box misses by 9 (loss 8.5), row 1 has the worse class.
    deltas = np.zeros((1, 3, 1, 4), np.float32)
    deltas[0, 0, 0, 0] = 9.0
    logits = tf.constant([[[0.0, 0.0], [0.0, LOG3], [0.0, 0.0]]])
    loss = RegionLoss(SoftmaxCrossEntropy(), SmoothL1(), CODER, miner=HardExampleMiner(1))
    terms = loss(tf.constant(deltas), logits, _regions([APART], [3]), _region_targets([[0, -1, -1]]))
    assert _value(terms["localization"]) == pytest.approx(8.5 / 3, rel=1e-5)
    assert _value(terms["classification"]) == pytest.approx(LOG2 / 3, rel=1e-5)


def _groundtruth_with(masks):
    masks = tf.constant(masks, tf.uint8)
    shape = masks.shape[:2]
    return Groundtruth(
        boxes_norm=tf.zeros([*shape, 4]),
        classes=tf.zeros(shape, tf.int32),
        weights=tf.ones(shape),
        is_crowd=tf.zeros(shape, tf.bool),
        is_difficult=tf.zeros(shape, tf.bool),
        area_px=tf.zeros(shape),
        masks=masks,
    )


def test_true_masks_are_the_part_of_the_matched_object_in_the_region():
    # Images of 5 x 9. In image 0 the mask of object 0 is the two upper rows, and that of object 1 is the four left
    # columns. In image 1 it is the whole image.
    masks = np.zeros((2, 2, 5, 9))
    masks[0, 0, :2], masks[0, 1, :, :4], masks[1, 0] = 1, 1, 1
    regions = _regions([[[0.0, 0.0, 0.75, 1.0], [0.0, 0.25, 1.0, 0.75]], [[0.0, 0.0, 1.0, 1.0], [0.0] * 4]], [2, 1])
    crops = true_masks(_groundtruth_with(masks), tf.constant([[0, 1], [0, 0]]), regions.boxes_norm, (3, 3))
    assert tuple(crops.shape) == (2, 2, 3, 3)
    # Region 0 samples the rows 0, 1.5 and 3 of 5: 1, half, 0. Region 1 the columns 2, 4 and 6 of 9: 1, 0, 0.
    np.testing.assert_allclose(crops[0, 0], [[1.0] * 3, [0.5] * 3, [0.0] * 3], atol=1e-6)
    np.testing.assert_allclose(crops[0, 1], [[1.0, 0.0, 0.0]] * 3, atol=1e-6)
    np.testing.assert_allclose(crops[1, 0], np.ones((3, 3)))


def test_true_masks_of_an_image_without_rows_are_empty():
    nothing = _groundtruth_with(np.zeros((1, 0, 5, 9)))
    crops = true_masks(nothing, tf.zeros([1, 3], tf.int32), _regions([APART], [3]).boxes_norm, (2, 2))
    np.testing.assert_array_equal(crops, np.zeros((1, 3, 2, 2)))


@pytest.mark.parametrize("num_masks", [1, 3])
def test_mask_loss(num_masks):
    # The mask is full. Row 0 (class 2): logits ln 3 in every cell of its class: -ln 3/4. Row 1 is background.
    # One positive region of image 0; none in image 1. Over two images, weight 5: 5 ln(4/3) / 2.
    logits = np.full((2, 3, 2, 2, num_masks), -30.0, np.float32)
    logits[0, 0, :, :, -1] = LOG3
    targets = _region_targets([[2, -1, -1], [-1, -1, -1]])
    groundtruth = _groundtruth_with(np.ones((2, 1, 6, 8)))
    terms = MaskLoss(weight=5.0)(tf.constant(logits), _regions([APART] * 2, [3, 3]), targets, groundtruth)
    assert _value(terms["mask"]) == pytest.approx(5.0 * math.log(4 / 3) / 2, rel=1e-5)


def test_mask_loss_is_a_mean_over_positive_regions():
    # Zero logits give ln 2 in every cell for any mask. Two of three regions are positive, and the mean is still ln 2.
    terms = MaskLoss()(
        tf.zeros([1, 3, 2, 2, 2]),
        _regions([APART], [3]),
        _region_targets([[1, 0, -1]]),
        _groundtruth_with(np.ones((1, 1, 6, 8))),
    )
    assert _value(terms["mask"]) == pytest.approx(LOG2, rel=1e-5)


def test_of_class_picks_each_row_s_column():
    values = tf.reshape(tf.range(2 * 2 * 3 * 2), [2, 2, 3, 2])
    # Row r of image b starts at 12 b + 6 r, column q adds 2 q; no class reads the first column.
    picked = of_class(values, tf.constant([[2, -1], [0, 1]]))
    assert picked.numpy().tolist() == [[[4, 5], [6, 7]], [[12, 13], [20, 21]]]
    assert of_class(values[:, :, :1], tf.constant([[2, 1], [0, -1]])).numpy().tolist() == [
        [[0, 1], [6, 7]],
        [[12, 13], [18, 19]],
    ]
