"""Losses of scores and masks against numbers worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from detzoo.contracts import Groundtruth, MaskProposalPredictions, MaskTargets
from detzoo.losses.region_loss import MaskProposalLoss, true_masks

SOFTPLUS_1 = math.log(1 + math.exp(1))  # loss of a logit of 1 where 0 is right
SOFTPLUS_MINUS_1 = math.log(1 + math.exp(-1))  # where 1 is right


def groundtruth(masks):
    """Of images with masks [B, N, H, W]; the loss reads nothing else."""
    none = tf.zeros([len(masks), masks.shape[1]])
    return Groundtruth(none, none, none, none, none, none, tf.constant(masks, tf.uint8))


def predictions(score_logits, chosen, scores, mask_logits, windows_norm):
    return MaskProposalPredictions(
        tf.constant(score_logits, tf.float32),
        tf.constant(windows_norm, tf.float32),
        tf.constant(chosen),
        tf.constant(scores, tf.float32),
        tf.constant(mask_logits, tf.float32),
    )


def test_both_terms_by_hand():
    # Two images of three locations: the first has a positive, a negative and an ignored one, the second two negatives.
    given = predictions(
        [[1.0, 1.0, 9.0], [1.0, 9.0, 1.0]],
        chosen=[[0, 0], [0, 0]],
        scores=[[0.7, -1.0], [-1.0, -1.0]],
        mask_logits=np.stack([np.full([2, 2, 2], value) for value in (1.0, 5.0)]),
        windows_norm=[[0.0, 0.0, 1.0, 1.0]] * 3,
    )
    targets = MaskTargets(
        state=tf.constant([[1, 0, -1], [0, -1, 0]]),
        gt_index=tf.zeros([2, 3], tf.int32),
        weights=tf.constant([[1.0, 1.0, 0.0], [1.0, 0.0, 1.0]]),
    )
    # The first object covers the left half of 4 x 4 pixels: of the 2 x 2 cells at its corners two are 1 and two are 0.
    masks = np.zeros([2, 1, 4, 4])
    masks[0, 0, :, :2] = 1
    terms = MaskProposalLoss()(given, targets, groundtruth(masks))
    # Scores: the mean of the first image's two, and of the second's two; both divided by two images.
    first, second = (SOFTPLUS_MINUS_1 + SOFTPLUS_1) / 2, SOFTPLUS_1
    assert float(terms["score"].total / terms["score"].normalizer) == pytest.approx((first + second) / 2)
    # Masks: one positive in the first image, none in the second; ten times.
    expected = 10 * (SOFTPLUS_MINUS_1 + SOFTPLUS_1) / 2 / 2
    assert float(terms["mask"].total / terms["mask"].normalizer) == pytest.approx(expected)
    other = MaskProposalLoss(mask_weight=3.0, score_weight=0.5)(given, targets, groundtruth(masks))
    assert float(other["mask"].total) == pytest.approx(0.3 * float(terms["mask"].total))
    assert float(other["score"].total) == pytest.approx(0.5 * float(terms["score"].total))


def test_a_lighter_object_weighs_less():
    given = predictions([[0.0]], [[0]], [[0.5]], np.zeros([1, 1, 2, 2]), [[0.0, 0.0, 1.0, 1.0]])
    terms = MaskProposalLoss()(
        given,
        MaskTargets(tf.constant([[1]]), tf.constant([[0]]), tf.constant([[0.25]])),
        groundtruth(np.ones([1, 1, 4, 4])),
    )
    assert float(terms["mask"].total) == pytest.approx(10 * 0.25 * math.log(2))
    assert float(terms["score"].total) == pytest.approx(0.25 * math.log(2))


def test_true_masks_are_of_the_matched_object_and_zero_outside_of_the_input():
    # Object 1 covers rows 0 to 3 of 8 x 8. Cell i of 4 samples row ymin * 7 + i * (ymax - ymin) * 7 / 3.
    masks = np.zeros([1, 2, 8, 8])
    masks[0, 1, :4] = 1
    windows = tf.constant([[[0.0, 0.0, 1.0, 1.0], [-1.0, 0.0, 1.0, 1.0]]])
    found = true_masks(groundtruth(masks), tf.constant([[1, 1]]), windows, (4, 4)).numpy()[0]
    # Rows 0, 7/3, 14/3, 7: inside, inside, outside (14/3 is beyond row 4), outside.
    np.testing.assert_allclose(found[0], np.repeat([[1], [1], [0], [0]], 4, axis=1))
    # Rows -7, -7/3, 7/3, 7: the first two lie above the image.
    np.testing.assert_allclose(found[1], np.repeat([[0], [0], [1], [0]], 4, axis=1))


def test_images_without_objects_have_no_mask_loss():
    given = predictions([[0.0]], [[0]], [[-1.0]], np.full([1, 1, 2, 2], 9.0), [[0.0, 0.0, 1.0, 1.0]])
    targets = MaskTargets(tf.constant([[0]]), tf.constant([[0]]), tf.constant([[1.0]]))
    terms = MaskProposalLoss()(given, targets, groundtruth(np.zeros([1, 0, 4, 4])))
    assert float(terms["mask"].total) == 0.0
    assert float(terms["score"].total) == pytest.approx(math.log(2))
