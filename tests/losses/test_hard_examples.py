"""Hard example mining: OHEM and the 3:1 rule, hand-worked."""

import numpy as np
import tensorflow as tf

from detzoo.contracts import AnchorState
from detzoo.losses.hard_examples import HardExampleMiner

IGNORE, NEGATIVE, POSITIVE = (int(state) for state in AnchorState)
APART = np.float32([[[i, 0.0, i + 0.5, 0.5] for i in range(6)]])
LOSSES = np.float32([[0.6, 0.5, 0.4, 0.3, 0.2, 0.1]])
ZEROS = np.zeros_like(LOSSES)


def _chosen(miner, localization=ZEROS, classification=LOSSES, boxes=APART, state=None):
    state = np.full(LOSSES.shape, NEGATIVE) if state is None else np.array([state])
    arguments = [tf.constant(x) for x in (localization, classification, boxes)] + [tf.constant(state, tf.int32)]
    eager = miner(*arguments).numpy()
    np.testing.assert_array_equal(tf.function(miner)(*arguments), eager)
    return [np.flatnonzero(row).tolist() for row in eager]


def test_number_of_hard_examples():
    assert _chosen(HardExampleMiner(2)) == [[0, 1]]
    assert _chosen(HardExampleMiner(2, iou_threshold=1.0)) == [[0, 1]]
    assert _chosen(HardExampleMiner(None)) == [[0, 1, 2, 3, 4, 5]]


def test_suppression_keeps_the_harder_of_two_that_overlap():
    boxes = APART.copy()
    boxes[0, 1] = boxes[0, 0]
    assert _chosen(HardExampleMiner(2, iou_threshold=0.7), boxes=boxes) == [[0, 2]]
    assert _chosen(HardExampleMiner(2, iou_threshold=1.0), boxes=boxes) == [[0, 1]]


def test_what_hard_means_is_weighted():
    localization = LOSSES[:, ::-1].copy()
    assert _chosen(HardExampleMiner(1, classification_weight=0.0), localization) == [[5]]
    assert _chosen(HardExampleMiner(1, localization_weight=0.5), localization) == [[0]]


def test_negatives_are_limited_by_the_number_of_positives():
    miner = HardExampleMiner(None, max_negatives_per_positive=2)
    state = [NEGATIVE, NEGATIVE, IGNORE, NEGATIVE, POSITIVE, NEGATIVE]
    assert _chosen(miner, state=state) == [[0, 1, 2, 4]]  # ignored anchors carry no loss; before the cut they stay


def test_positives_that_are_not_among_the_hard_examples_do_not_count():
    miner = HardExampleMiner(4, max_negatives_per_positive=1)
    assert _chosen(miner, state=[NEGATIVE, POSITIVE, NEGATIVE, NEGATIVE, POSITIVE, POSITIVE]) == [[0, 1]]


def test_minimum_of_negatives_in_an_image_without_positives():
    assert _chosen(HardExampleMiner(None, max_negatives_per_positive=3)) == [[]]
    assert _chosen(HardExampleMiner(None, max_negatives_per_positive=3, min_negatives_per_image=2)) == [[0, 1]]


def test_images_are_mined_each_by_itself():
    losses, boxes = np.concatenate([LOSSES, LOSSES[:, ::-1]]), np.concatenate([APART, APART])
    state = tf.fill([2, 6], NEGATIVE)
    chosen = HardExampleMiner(1)(tf.zeros([2, 6]), tf.constant(losses), tf.constant(boxes), state)
    np.testing.assert_array_equal(chosen, [[1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1]])
