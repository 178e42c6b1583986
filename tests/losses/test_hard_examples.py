"""Hard example mining: OHEM and the 3:1 rule, hand-worked."""

import numpy as np
import pytest
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
    np.testing.assert_array_equal(tf.function(miner, autograph=False)(*arguments), eager)
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
    assert _chosen(miner, state=state) == [[0, 1, 4]]


def test_positives_that_are_not_among_the_hard_examples_do_not_count():
    miner = HardExampleMiner(4, max_negatives_per_positive=1)
    assert _chosen(miner, state=[NEGATIVE, POSITIVE, NEGATIVE, NEGATIVE, POSITIVE, POSITIVE]) == [[0, 1]]


def test_minimum_of_negatives_in_an_image_without_positives():
    assert _chosen(HardExampleMiner(None, max_negatives_per_positive=3)) == [[]]
    assert _chosen(HardExampleMiner(None, max_negatives_per_positive=3, min_negatives_per_image=2)) == [[0, 1]]


def test_places_are_kept_for_positives():
    # 1:2 of four: one place for positives, which goes to the harder of them, and two negatives. Without the places the
    # four hardest are three negatives and that positive.
    state = [NEGATIVE, NEGATIVE, NEGATIVE, POSITIVE, POSITIVE, NEGATIVE]
    miner = HardExampleMiner(4, max_negatives_per_positive=2, reserve_positives=True)
    assert _chosen(miner, state=state) == [[0, 1, 3]]
    # Four examples at 1:1 are both positives and two negatives. Without reserved places they are one of each.
    miner = HardExampleMiner(4, max_negatives_per_positive=1, reserve_positives=True)
    assert _chosen(miner, state=state) == [[0, 1, 3, 4]]
    assert _chosen(HardExampleMiner(4, max_negatives_per_positive=1), state=state) == [[0, 3]]


def test_places_of_positives_that_are_not_there_stay_empty():
    state = [NEGATIVE, NEGATIVE, NEGATIVE, NEGATIVE, NEGATIVE, POSITIVE]
    miner = HardExampleMiner(6, max_negatives_per_positive=2, reserve_positives=True)
    assert _chosen(miner, state=state) == [[0, 1, 5]]
    miner = HardExampleMiner(4, max_negatives_per_positive=1, min_negatives_per_image=9, reserve_positives=True)
    assert _chosen(miner, state=state) == [[0, 1, 2, 5]]


def test_images_are_mined_each_by_itself():
    losses, boxes = np.concatenate([LOSSES, LOSSES[:, ::-1]]), np.concatenate([APART, APART])
    state = tf.fill([2, 6], NEGATIVE)
    chosen = HardExampleMiner(1)(tf.zeros([2, 6]), tf.constant(losses), tf.constant(boxes), state)
    np.testing.assert_array_equal(chosen, [[1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1]])


def _all_at_once(miner, hardness, boxes, state):
    """The rule written down directly: suppression over every anchor, then the ratio."""
    limit = len(hardness) if miner.reserve_positives else miner.num_hard_examples or len(hardness)
    chosen = tf.image.non_max_suppression(boxes, hardness, limit, miner.iou_threshold).numpy().tolist()
    positives = [a for a in chosen if state[a] == POSITIVE]
    if miner.reserve_positives:
        positives = positives[: miner.num_hard_examples // (1 + miner.max_negatives_per_positive)]
    allowed = max(miner.max_negatives_per_positive * len(positives), miner.min_negatives_per_image)
    if miner.reserve_positives:
        allowed = min(allowed, miner.num_hard_examples - len(positives))
    return sorted(positives + [a for a in chosen if state[a] == NEGATIVE][:allowed])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("iou_threshold", [0.1, 0.7])
@pytest.mark.parametrize(("num_hard_examples", "reserve_positives"), [(None, False), (15, False), (15, True)])
def test_equals_suppression_over_every_anchor(seed, iou_threshold, num_hard_examples, reserve_positives):
    generator = np.random.default_rng(seed)
    corner = generator.uniform(0, 0.6, (60, 2))
    boxes = np.concatenate([corner, corner + 0.3], -1).astype(np.float32)
    hardness = np.round(generator.uniform(0, 1, 60), 1).astype(np.float32)  # with ties
    state = generator.choice([IGNORE, NEGATIVE, NEGATIVE, NEGATIVE, POSITIVE], 60)
    state[hardness > 0.2 * seed] = NEGATIVE  # positives of some seeds are the easiest, of others there are none
    miner = HardExampleMiner(num_hard_examples, iou_threshold, 1.0, 0.0, 3, 2, reserve_positives)
    arguments = hardness[np.newaxis] * 0, hardness[np.newaxis], boxes[np.newaxis]
    chosen = miner(*[tf.constant(x) for x in arguments], tf.constant(state[np.newaxis], tf.int32))
    assert np.flatnonzero(chosen[0]).tolist() == _all_at_once(miner, hardness, boxes, state)
