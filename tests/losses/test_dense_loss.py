"""The dense loss: columns, weights, normalisers, miner and sampler."""

import numpy as np
import pytest
import tensorflow as tf

from detzoo.contracts import AnchorState, Predictions, Targets
from detzoo.losses.classification import SigmoidFocal, SoftmaxCrossEntropy, sigmoid_cross_entropy
from detzoo.losses.dense_loss import DenseLoss
from detzoo.losses.hard_examples import HardExampleMiner
from detzoo.losses.localization import SmoothL1
from detzoo.ops.box_coder import FasterRcnnBoxCoder

IGNORE, NEGATIVE, POSITIVE = (int(state) for state in AnchorState)
LN2 = np.log(2.0)


def _loss(classification=sigmoid_cross_entropy, **options):
    return DenseLoss(classification, SmoothL1(), FasterRcnnBoxCoder(), **options)


def _predictions(logits, deltas=None):
    logits = np.asarray(logits, np.float32)
    deltas = np.zeros((*logits.shape[:2], 4), np.float32) if deltas is None else np.asarray(deltas, np.float32)
    anchors = np.tile(np.float32([0.0, 0.0, 0.5, 0.5]), (logits.shape[1], 1))
    return Predictions(tf.constant(deltas), tf.constant(logits), tf.constant(anchors))


def _targets(state, classes, weights=None):
    state = np.array(state)
    positive = (state == POSITIVE).astype(np.float32) * (1.0 if weights is None else np.float32(weights))
    return Targets(
        box_deltas=tf.zeros([*state.shape, 4]),
        classes=tf.constant(classes, tf.int32),
        state=tf.constant(state, tf.int32),
        class_weights=tf.constant(positive + (state == NEGATIVE), tf.float32),
        box_weights=tf.constant(positive, tf.float32),
    )


def test_columns_of_classes_and_background():
    # One anchor of class 1 of 2, one negative; background column first. Softmax: -log of the target's share.
    logits = [[[0.0, 0.0, np.log(2.0)], [np.log(6.0), 0.0, 0.0]]]
    targets = _targets([[POSITIVE, NEGATIVE]], [[1, -1]])
    terms = _loss(SoftmaxCrossEntropy())(_predictions(logits), targets)
    np.testing.assert_allclose(terms["classification"].total, -np.log(2 / 4) - np.log(6 / 8), rtol=1e-5)
    np.testing.assert_allclose(terms["classification"].normalizer, 1.0)


def test_a_detector_without_anchors_can_use_the_loss():
    # One location of class 0, one of its four numbers off by 1: smooth L1 is 0.5; the sigmoid of logit 0 costs ln 2.
    predictions = Predictions(tf.constant([[[1.0, 0.0, 0.0, 0.0]]]), tf.zeros([1, 1, 1]))
    assert predictions.anchors_norm is None
    terms = _loss(has_background_column=False)(predictions, _targets([[POSITIVE]], [[0]]))
    np.testing.assert_allclose(terms["localization"].total, 0.5)
    np.testing.assert_allclose(terms["classification"].total, LN2, rtol=1e-6)


def test_background_as_zeros_leaves_its_column_without_a_target():
    logits = [[[100.0, -100.0, -100.0]]]
    targets = _targets([[NEGATIVE]], [[-1]])
    as_one = _loss()(_predictions(logits), targets)["classification"].total
    as_zeros = _loss(encode_background_as_zeros=True)(_predictions(logits), targets)["classification"].total
    np.testing.assert_allclose([as_one, as_zeros], [0.0, 100.0], atol=1e-4)


def test_without_a_background_column_class_0_is_column_0():
    logits = [[[100.0, -100.0], [-100.0, -100.0]]]
    targets = _targets([[POSITIVE, NEGATIVE]], [[0, -1]])
    terms = _loss(has_background_column=False)(_predictions(logits), targets)
    np.testing.assert_allclose(terms["classification"].total, 0.0, atol=1e-4)


def test_weights_and_normalisers():
    # Two images. Deltas of 2 in each number give a smooth L1 of 1.5 * 4 per anchor, and logits of 0 give 3 ln 2.
    state = [[POSITIVE, NEGATIVE, IGNORE], [POSITIVE, POSITIVE, NEGATIVE]]
    targets = _targets(state, [[0, -1, -1], [1, 1, -1]], weights=[[0.5, 1, 1], [1, 1, 1]])
    predictions = _predictions(np.zeros((2, 3, 3)), np.full((2, 3, 4), 2.0))
    terms = _loss(localization_weight=2.0, classification_weight=3.0)(predictions, targets)
    np.testing.assert_allclose(terms["localization"].total, 2.0 * 6.0 * 2.5, rtol=1e-5)
    np.testing.assert_allclose(terms["classification"].total, 3.0 * 3 * LN2 * (0.5 + 1 + 1 + 1 + 1), rtol=1e-5)
    assert [float(term.normalizer) for term in terms.values()] == [2.5, 2.5]

    by_size = _loss(normalize_localization_by_code_size=True)(predictions, targets)
    np.testing.assert_allclose(by_size["localization"].total, 6.0 * 2.5 / 4, rtol=1e-5)
    plain = _loss(normalize_by_num_matches=False)(predictions, targets)
    assert [float(term.normalizer) for term in plain.values()] == [0.0, 0.0]


def test_ignored_anchors_have_no_gradient():
    targets = _targets([[POSITIVE, NEGATIVE, IGNORE]], [[0, -1, -1]])
    predictions = _predictions(np.ones((1, 3, 2)), np.ones((1, 3, 4)))
    with tf.GradientTape() as tape:
        tape.watch([predictions.class_logits, predictions.box_deltas])
        terms = _loss(SigmoidFocal())(predictions, targets)
        total = terms["localization"].total + terms["classification"].total
    logits, deltas = tape.gradient(total, [predictions.class_logits, predictions.box_deltas])
    assert logits.numpy().any(axis=(0, 2)).tolist() == [True, True, False]
    assert deltas.numpy().any(axis=(0, 2)).tolist() == [True, False, False]


def test_an_image_without_objects():
    targets = _targets([[NEGATIVE, NEGATIVE]], [[-1, -1]])
    terms = _loss()(_predictions(np.zeros((1, 2, 2))), targets)
    assert float(terms["localization"].total) == 0.0
    np.testing.assert_allclose(terms["classification"].total, 4 * LN2, rtol=1e-5)
    assert float(terms["classification"].normalizer) == 0.0


def test_miner_drops_easy_negatives():
    logits = [[[0.0], [3.0], [-5.0], [-6.0]]]
    targets = _targets([[POSITIVE, NEGATIVE, NEGATIVE, NEGATIVE]], [[0, -1, -1, -1]])
    miner = HardExampleMiner(None, iou_threshold=1.0, max_negatives_per_positive=1)
    terms = _loss(has_background_column=False, miner=miner)(_predictions(logits), targets)
    np.testing.assert_allclose(terms["classification"].total, LN2 + np.log(1 + np.exp(3.0)), rtol=1e-5)


def test_random_sample_keeps_the_wanted_share_of_positives():
    state = [[POSITIVE] * 2 + [NEGATIVE] * 50 + [IGNORE] * 3]
    targets = _targets(state, [[0] * 2 + [-1] * 53])
    loss = _loss(has_background_column=False, positive_sample_fraction=0.25)
    terms = loss(_predictions(np.zeros((1, 55, 1))), targets)
    np.testing.assert_allclose(terms["classification"].total, (2 + 6) * LN2, rtol=1e-5)


@pytest.mark.parametrize("miner", [None, HardExampleMiner(2)])
def test_graph_gives_the_same_and_has_gradients(miner):
    loss = _loss(miner=miner)
    targets = _targets([[POSITIVE, NEGATIVE, IGNORE]], [[0, -1, -1]])
    predictions = _predictions(np.ones((1, 3, 2)), np.ones((1, 3, 4)))

    @tf.function(autograph=False)
    def graph(deltas, logits):
        with tf.GradientTape() as tape:
            tape.watch([deltas, logits])
            terms = loss(predictions._replace(box_deltas=deltas, class_logits=logits), targets)
            total = terms["localization"].total + terms["classification"].total
        return total, tape.gradient(total, [deltas, logits])

    total, gradients = graph(predictions.box_deltas, predictions.class_logits)
    terms = loss(predictions, targets)
    np.testing.assert_allclose(total, terms["localization"].total + terms["classification"].total, rtol=1e-6)
    assert all(np.abs(gradient).sum() > 0 for gradient in gradients)


@pytest.mark.parametrize(("options", "columns"), [({}, 1), ({"has_background_column": False}, 0)])
def test_an_anchor_on_a_box_of_several_labels_has_several_right_classes(options, columns):
    # All logits are 0, which gives ln 2 for every target. Logits of ln 3 in the columns of both labels give ln 4/3.
    sets = tf.constant([[[True, False, True]]])
    targets = _targets([[POSITIVE]], [[0]])._replace(gt_index=tf.constant([[0]]), label_sets=sets)
    logits = np.zeros((1, 1, 3 + columns), np.float32)
    total = _loss(**options)(_predictions(logits), targets)["classification"].total
    np.testing.assert_allclose(total, (3 + columns) * LN2, rtol=1e-5)
    logits[..., [columns, columns + 2]] = np.log(3)
    total = _loss(**options)(_predictions(logits), targets)["classification"].total
    np.testing.assert_allclose(total, (1 + columns) * LN2 + 2 * np.log(4 / 3), rtol=1e-5)
