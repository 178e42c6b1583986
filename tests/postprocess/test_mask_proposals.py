"""The best locations, and boxes that are tight around masks: worked by hand, and against masks drawn on the image."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from detzoo.contracts import MaskProposalPredictions
from detzoo.evaluate.masks import paste_mask
from detzoo.postprocess.mask_proposals import _cut, best_locations, mask_detections, mask_extents


def logit(probability):
    return np.log(probability / (1.0 - probability)).astype(np.float32)


def detect(windows_px, probabilities, shape=(40, 60), true_shape=None, scores=None):
    """Detections of one image; each window's mask [h, w] of probabilities."""
    masks = np.stack(probabilities)[np.newaxis]
    sides = np.array([*shape, *shape], np.float32)
    count = len(windows_px)
    predictions = MaskProposalPredictions(
        score_logits=tf.zeros([1, count]),
        windows_norm=tf.constant(np.array(windows_px, np.float32) / sides),
        chosen=tf.range(count)[tf.newaxis],
        scores=tf.constant([scores or [0.5] * count]),
        mask_logits=tf.constant(logit(masks)),
    )
    return mask_detections(predictions, tf.constant([true_shape or shape]), shape)


def test_the_best_locations_in_the_order_of_their_scores():
    logits = tf.constant([[0.0, 3.0, -1.0, 2.0], [0.0, 3.0, -1.0, 2.0]])
    centers = tf.constant([[4.0, 4.0], [4.0, 12.0], [12.0, 4.0], [12.0, 12.0]])
    rows, scores = best_locations(logits, centers, tf.constant([[16, 16], [16, 12]]), 3)
    assert rows[0].numpy().tolist() == [1, 3, 0]
    np.testing.assert_allclose(scores[0], 1 / (1 + np.exp([-3.0, -2.0, 0.0])), rtol=1e-6)
    # An image of 12 columns ends where the cells of the second column have their centres.
    assert rows[1].numpy().tolist() == [0, 2, 0]
    assert scores[1].numpy()[2] == -1.0


def test_fewer_locations_than_asked_for_are_padded():
    rows, scores = best_locations(tf.zeros([1, 2]), tf.zeros([2, 2]), tf.constant([[8, 8]]), 5)
    assert rows.shape == scores.shape == (1, 5)
    assert (scores.numpy()[0] >= 0).sum() == 2


def test_extents_by_hand():
    mask = np.zeros([5, 5], np.float32)
    mask[1:4, 2] = 1.0
    # Rows 0.5 to 3.5 and columns 1.5 to 2.5 of 0 to 4: halfway between 0 and 1.
    np.testing.assert_allclose(mask_extents(tf.constant(mask)), np.array([0.5, 1.5, 3.5, 2.5]) / 4)
    mask[0, 0] = 0.75
    # The corner is above one half itself, so the box begins there.
    np.testing.assert_allclose(mask_extents(tf.constant(mask)), np.array([0.0, 0.0, 3.5, 2.5]) / 4)
    mask[4, 2] = 0.25
    # From 1 to 1/4 the line crosses 1/2 after two thirds.
    np.testing.assert_allclose(mask_extents(tf.constant(mask))[2], (3 + 2 / 3) / 4, rtol=1e-6)


def test_a_mask_that_is_nowhere_above_one_half_has_no_extent():
    np.testing.assert_array_equal(mask_extents(tf.constant(np.full([4, 4], 0.5, np.float32))), [1, 1, 0, 0])


def test_extents_hold_all_that_is_above_one_half_and_touch_it():
    random = np.random.default_rng(0)
    masks = random.uniform(0, 1, (20, 6, 7)) * (random.uniform(0, 1, (20, 6, 7)) > 0.7)
    fine = tf.image.resize(masks[..., np.newaxis].astype(np.float32), [6, 7]).numpy()[..., 0]
    extents = mask_extents(tf.constant(fine)).numpy()
    # The same bilinear surface, sampled at 500 x 600 points from side to side.
    boxes = tf.tile([[0.0, 0.0, 1.0, 1.0]], [20, 1])
    dense = tf.image.crop_and_resize(fine[..., np.newaxis], boxes, tf.range(20), [501, 601]).numpy()[..., 0] > 0.5
    for mask, (ymin, xmin, ymax, xmax) in zip(dense, extents, strict=True):
        rows, columns = np.flatnonzero(mask.any(1)) / 500, np.flatnonzero(mask.any(0)) / 600
        np.testing.assert_allclose([rows[0], columns[0], rows[-1], columns[-1]], [ymin, xmin, ymax, xmax], atol=0.003)


def test_a_box_is_tight_around_its_mask_and_the_mask_stays_where_it_was():
    mask = np.full([14, 14], 0.01)
    mask[3:10, 4:8] = 0.99
    window = [2.0, 10.0, 30.0, 38.0]
    detections = detect([window], [mask])
    # One cell is 28 / 13 pixels: rows 2.5 to 9.5 and columns 3.5 to 7.5 of it.
    cell = 28 / 13
    expected = [2 + 2.5 * cell, 10 + 3.5 * cell, 2 + 9.5 * cell, 10 + 7.5 * cell]
    box = detections.boxes_norm.numpy()[0, 0] * [40, 60, 40, 60]
    np.testing.assert_allclose(box, expected, atol=0.05)
    before = paste_mask(mask.astype(np.float32), window, (40, 60))
    after = paste_mask(detections.masks.numpy()[0, 0], box, (40, 60))
    # Rows 7.38 to 22.46 and columns 17.54 to 26.15 hold the centres of 15 x 8 pixels; bilinear corners are round.
    assert 15 * 8 - 4 <= before.sum() <= 15 * 8
    assert (before ^ after).sum() <= 4


def test_boxes_and_masks_end_at_the_border_of_the_image():
    # The window reaches 10 pixels over the upper left corner; the image is 30 of 40 rows high.
    detections = detect([[-10.0, -10.0, 50.0, 50.0]], [np.full([14, 14], 0.9)], true_shape=(30, 60))
    np.testing.assert_allclose(detections.boxes_norm[0, 0], [0.0, 0.0, 1.0, 50 / 60], atol=1e-6)
    assert detections.masks.numpy().min() == pytest.approx(0.9, abs=1e-5)


def test_rounding_of_a_box_that_fills_its_window_cuts_nothing_off():
    # A graph that multiplies by the reciprocal of a side gets the float32 after 1.
    after_one, before_zero = np.nextafter(np.float32(1), np.float32(2)), np.float32(-6e-8)
    inner = tf.constant([[[before_zero, before_zero, after_one, after_one]]])
    np.testing.assert_allclose(_cut(tf.fill([1, 1, 7, 7], 0.75), inner), np.full([1, 1, 7, 7], 0.75), rtol=1e-6)


def test_an_empty_mask_has_the_window_for_a_box():
    detections = detect([[-10.0, 10.0, 20.0, 40.0]], [np.full([14, 14], 0.1)])
    np.testing.assert_allclose(detections.boxes_norm[0, 0], [0.0, 10 / 60, 0.5, 40 / 60], atol=1e-6)
    assert detections.masks.numpy().max() < 0.5


def test_a_mask_in_the_padding_has_the_windows_part_of_the_image():
    mask = np.full([14, 14], 0.1)
    mask[10:, :] = 0.9  # from row 9.5 of 13 on: pixel 5 + 9.5 / 13 * 26 = 24, below the image's 22 rows
    detections = detect([[5.0, 10.0, 31.0, 36.0]], [mask], true_shape=(22, 60))
    np.testing.assert_allclose(detections.boxes_norm[0, 0], [5 / 22, 10 / 60, 1.0, 36 / 60], atol=1e-6)
    assert detections.masks.numpy()[0, 0, :13].max() < 0.5


def test_rows_of_padding_are_zero_and_raw_outputs_are_of_all_locations():
    full = np.full([14, 14], 0.9)
    detections = detect([[0.0, 0.0, 20.0, 20.0]] * 3, [full] * 3, scores=[0.75, 0.25, -1.0])
    assert detections.num_valid.numpy().tolist() == [2]
    np.testing.assert_allclose(detections.scores, [[0.75, 0.25, 0.0]])
    np.testing.assert_allclose(detections.multiclass_scores, [[[0.25, 0.75], [0.75, 0.25], [0.0, 0.0]]])
    assert not detections.boxes_norm.numpy()[0, 2].any()
    assert not detections.masks.numpy()[0, 2].any()
    assert detections.classes.numpy().tolist() == [[0, 0, 0]]
    np.testing.assert_allclose(detections.raw_boxes_norm, [[[0.0, 0.0, 0.5, 1 / 3]] * 3], rtol=1e-6)
    np.testing.assert_allclose(detections.raw_scores, np.full([1, 3, 2], 0.5))
