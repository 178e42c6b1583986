"""Tests of positive, negative and ignored locations: hand-worked cases on one level and on several."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from detzoo.contracts import AnchorState, Groundtruth
from detzoo.ops.sliding_windows import SlidingWindows
from detzoo.targets.mask_proposal_targets import MaskProposalTargets

IGNORE, NEGATIVE, POSITIVE = AnchorState.IGNORE, AnchorState.NEGATIVE, AnchorState.POSITIVE
HEIGHT, WIDTH = 64, 96
# Objects of 32 pixels on level 3 (8 x 12 cells of 8 pixels), of 64 on level 4 (4 x 6 cells of 16).
WINDOWS = SlidingWindows((3, 4), (1.0,), min_object_size_px=16.0)
SHAPES = [(8, 12), (4, 6)]
ALL = 8 * 12 + 4 * 6  # a sample of this size is everything


def groundtruth(boxes_px, crowd=(), without_mask=(), weights=None, padding=2):
    """Of one image; rows of padding follow the objects."""
    count = len(boxes_px) + padding
    boxes = np.zeros((1, count, 4), np.float32)
    masks = np.zeros((1, count, HEIGHT, WIDTH), np.uint8)
    for row, (ymin, xmin, ymax, xmax) in enumerate(boxes_px):
        boxes[0, row] = np.array([ymin, xmin, ymax, xmax]) / [HEIGHT, WIDTH, HEIGHT, WIDTH]
        if row not in without_mask:
            masks[0, row, int(ymin) : int(ymax), int(xmin) : int(xmax)] = 1
    is_object = np.arange(count) < len(boxes_px)
    return Groundtruth(
        boxes_norm=tf.constant(boxes),
        classes=tf.constant(np.where(is_object, 4, -1)[np.newaxis], tf.int32),
        weights=tf.constant(np.array([[*(weights or [1.0] * len(boxes_px)), *[0.0] * padding]], np.float32)),
        is_crowd=tf.constant(np.isin(np.arange(count), crowd)[np.newaxis]),
        is_difficult=tf.zeros([1, count], tf.bool),
        area_px=tf.zeros([1, count]),
        masks=tf.constant(masks),
    )


def assign(truth, true_shape=(HEIGHT, WIDTH), sample_size=4 * ALL, positive_fraction=0.25):
    """Targets of one image as numpy: state, row of the object and weight of each location."""
    targets = MaskProposalTargets(WINDOWS.object_sides_px, sample_size, positive_fraction)
    found = targets(
        WINDOWS(SHAPES), truth, tf.constant([true_shape]), tf.constant([HEIGHT, WIDTH]), tf.constant([1, 2])
    )
    return found.state.numpy()[0], found.gt_index.numpy()[0], found.weights.numpy()[0]


def positives(state):
    """Level, row and column of the positive locations."""
    rows = np.flatnonzero(state == POSITIVE)
    return [(3, *divmod(int(row), 12)) if row < 96 else (4, *divmod(int(row) - 96, 6)) for row in rows]


def test_the_four_cells_around_a_centre_on_the_level_of_the_objects_size():
    # 32 pixels: level 3. Its centre (26, 50) lies between the centres 20, 28 of rows 2, 3 and 44, 52 of columns 5, 6;
    # those of rows 1 and 4 (12, 36) and columns 4, 7 (36, 60) are more than 8 pixels away.
    state, gt_index, weights = assign(groundtruth([[10, 38, 42, 62]]))
    assert positives(state) == [(3, 2, 5), (3, 2, 6), (3, 3, 5), (3, 3, 6)]
    assert (gt_index == 0).all()
    assert (state != POSITIVE).sum() == (state == NEGATIVE).sum() == ALL - 4
    assert (weights == 1.0).all()


def test_a_centre_on_a_cells_centre_has_nine():
    # Centre (28, 44) is that of row 3, column 5: its neighbours are exactly one cell away.
    state, _, _ = assign(groundtruth([[12, 28, 44, 60]]))
    assert positives(state) == [(3, row, column) for row in (2, 3, 4) for column in (4, 5, 6)]


def test_the_longer_side_says_which_level():
    # 10 x 60: 60 is nearer to 64 than to 32. Centre (25, 50): on level 4 centres are 8, 24, 40 and 40, 56.
    state, _, _ = assign(groundtruth([[20, 20, 30, 80]]))
    assert positives(state) == [(4, 1, 2), (4, 1, 3), (4, 2, 2), (4, 2, 3)]


def test_of_two_objects_near_a_location_the_nearest_counts():
    # Centres (28, 40) and (28, 50): column 4 (36) sees the first, 6 (52) the second; column 5 (44) is 4 from the first
    # and 6 from the second.
    state, gt_index, _ = assign(groundtruth([[12, 24, 44, 56], [12, 34, 44, 66]]))
    of_row_3 = {where[2]: int(gt_index[36 + where[2]]) for where in positives(state) if where[1] == 3}
    assert of_row_3 == {4: 0, 5: 0, 6: 1}


def test_padding_never_counts():
    # The image covers 40 x 72 pixels: on level 3 centres 36 and 68 are inside, 44 and 76 are not.
    state, _, weights = assign(groundtruth([[8, 40, 40, 72]]), true_shape=(40, 72))
    grid = state[:96].reshape(8, 12)
    assert (grid[5:] == IGNORE).all()
    assert (grid[:, 9:] == IGNORE).all()
    assert (grid[:5, :9] != IGNORE).all()
    assert not weights[state == IGNORE].any()


@pytest.mark.parametrize("unknown", [{"crowd": (1,)}, {"without_mask": (1,)}, {"weights": [1.0, 0.0]}])
def test_locations_in_an_object_that_teaches_nothing_are_ignored(unknown):
    # The second object covers rows 4 to 7 of level 3 in columns 0 to 3 (centres 36 to 60 and 4 to 28), and of level 4
    # rows 2, 3 (40, 56) in columns 0, 1.
    state, _, _ = assign(groundtruth([[0, 60, 32, 92], [32, 0, 64, 32]], **unknown))
    assert len(positives(state)) > 0
    assert all(column > 3 for _, _, column in positives(state))
    ignored = np.zeros((8, 12), bool)
    ignored[4:, :4] = True
    np.testing.assert_array_equal(state[:96].reshape(8, 12) == IGNORE, ignored)
    assert (state[96:].reshape(4, 6) == IGNORE).sum() == 4


def test_images_without_objects_are_all_negative():
    for truth in (groundtruth([]), groundtruth([], padding=0)):
        state, gt_index, weights = assign(truth)
        assert (state == NEGATIVE).all()
        assert not gt_index.any()
        assert (weights == 1.0).all()


def test_a_degenerate_box_is_no_object():
    state, _, _ = assign(groundtruth([[20, 30, 20, 60]]))
    assert (state == NEGATIVE).all()


def test_the_sample_has_at_most_a_quarter_of_positives():
    # 9 + 9 positives are there; of 16 examples 4 may be positive.
    truth = groundtruth([[12, 28, 44, 60], [4, 12, 36, 44]])
    state, _, weights = assign(truth, sample_size=16)
    assert (state == POSITIVE).sum() == 4
    assert (state == NEGATIVE).sum() == 12
    assert weights.sum() == 16


def test_sampled_positives_are_listed_first():
    targets = MaskProposalTargets(WINDOWS.object_sides_px, sample_size=24)
    truth = groundtruth([[10, 38, 42, 62]])
    found = targets(WINDOWS(SHAPES), truth, tf.constant([[HEIGHT, WIDTH]]), tf.constant([HEIGHT, WIDTH]))
    rows, is_filled = targets.positives(found)
    assert targets.max_positives == 6
    assert sorted(rows.numpy()[0, :4].tolist()) == [2 * 12 + 5, 2 * 12 + 6, 3 * 12 + 5, 3 * 12 + 6]
    assert rows.numpy()[0, 4:].tolist() == [0, 0]
    assert is_filled.numpy().tolist() == [[True] * 4 + [False] * 2]


def test_ground_truth_without_masks_is_refused():
    truth = groundtruth([[10, 38, 42, 62]])._replace(masks=tf.zeros([1, 3, 0, 0], tf.uint8))
    with pytest.raises(ValueError, match="set load_instance_masks: true in train_input_reader"):
        assign(truth)
