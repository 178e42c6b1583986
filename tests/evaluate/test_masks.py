"""Masks on their boxes, encoded, and back from a resized input."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from pycocotools import mask as coco_mask

from detzoo.data.resize import resize_masks
from detzoo.evaluate.masks import PastedMasks, encode_mask, mask_area, paste_mask, restore_masks


def test_a_full_mask_covers_the_pixels_whose_centres_are_in_the_box():
    # Rows 2 to 5; columns from 3.4 to 7.6: the centres 3.5 to 7.5, that is the pixels 3 to 7.
    expected = np.zeros((8, 12), bool)
    expected[2:5, 3:8] = True
    np.testing.assert_array_equal(paste_mask(np.ones((4, 3)), np.array([2, 3.4, 5, 7.6]), (8, 12)), expected)
    np.testing.assert_array_equal(paste_mask(np.ones((1, 1)), np.array([2, 3.4, 5, 7.6]), (8, 12)), expected)


def test_values_rise_from_side_to_side_and_are_cut_at_one_half():
    # 0 on the left side and 1 on the right side of a box of 10 columns: (k + .5) / 10 > .5 from pixel 5 on.
    pasted = paste_mask(np.array([[0.0, 1.0], [0.0, 1.0]]), np.array([0, 0, 4, 10]), (4, 12))
    np.testing.assert_array_equal(pasted, np.tile(np.arange(12) // 5 == 1, [4, 1]))
    assert not paste_mask(np.full((3, 3), 0.5), np.array([0, 0, 4, 4]), (4, 4)).any()


def test_what_is_beyond_the_image_is_cut_off():
    # Rows -4 to 4, the mask is 1 in its lower half: of a 6 x 6 image the rows 0 to 3.
    pasted = paste_mask(np.array([[0.0], [1.0]]), np.array([-4, 4, 4, 9]), (6, 6))
    np.testing.assert_array_equal(np.argwhere(pasted), [[row, column] for row in range(4) for column in (4, 5)])
    for box in ([7, 7, 9, 9], [-3, 0, -1, 4], [1.6, 1.6, 2.4, 2.4], [3, 3, 3, 3]):
        assert not paste_mask(np.ones((2, 2)), np.array(box), (6, 6)).any()


def test_pasting_inverts_crop_and_resize():
    # Samples of crop_and_resize lie at fraction x (cells - 1): so do the centres of the pixels that are pasted.
    generator = np.random.default_rng(1)
    mask = generator.uniform(0, 1, (15, 11)).astype(np.float32)
    box = np.array([3.3, 5.2, 40.9, 28.1])
    pixels = np.array([[3, 5], [40, 27]])  # the first and the last with centres inside
    corners = (pixels + 0.5 - box[:2]) / (box[2:] - box[:2])
    sampled = tf.image.crop_and_resize(mask[np.newaxis, :, :, np.newaxis], [corners.ravel()], [0], (38, 23))[0, ..., 0]
    pasted = paste_mask(mask, box, (50, 30))
    unsure = np.abs(np.asarray(sampled) - 0.5) < 1e-4
    assert unsure.mean() < 0.01
    np.testing.assert_array_equal((pasted[3:41, 5:28] | unsure), (np.asarray(sampled) > 0.5) | unsure)
    assert pasted.sum() == pasted[3:41, 5:28].sum()


def test_encoding_is_cocos():
    mask = np.random.default_rng(0).uniform(size=(7, 9)) > 0.6
    rle = encode_mask(mask)
    assert (rle["size"], type(rle["counts"])) == ([7, 9], str)
    np.testing.assert_array_equal(coco_mask.decode(rle), mask)
    assert mask_area(rle) == mask.sum()
    # Column by column: 3 zeros and 3 ones, written as runs.
    corner = np.array([[0, 0, 1], [0, 1, 1]], np.uint8)
    assert (
        coco_mask.frPyObjects({"size": [2, 3], "counts": [3, 3]}, 2, 3)["counts"].decode()
        == encode_mask(corner)["counts"]
    )


def test_a_sequence_of_pasted_masks():
    masks = PastedMasks(np.ones((3, 2, 2)), np.array([[0, 0, 1, 1], [0, 0, 2, 2], [0, 0, 3, 3]]), (4, 5))
    assert [mask.sum() for mask in masks] == [1, 4, 9]
    assert [mask.shape for mask in masks[1:]] == [(4, 5), (4, 5)]


@pytest.mark.parametrize(("true", "padded"), [((7, 9), (7, 9)), ((11, 16), (16, 16)), ((28, 36), (30, 40))])
def test_masks_of_an_enlarged_input_come_back_exactly(true, padded):
    original = np.random.default_rng(2).integers(0, 2, (3, 7, 9)).astype(np.uint8)
    resized = resize_masks(tf.constant(original), tf.constant(true)).numpy()
    given = np.zeros((3, *padded), np.uint8)
    given[:, : true[0], : true[1]] = resized
    np.testing.assert_array_equal(restore_masks(given, true, (7, 9)), original)


def test_masks_of_a_smaller_input_come_back_from_the_nearest_pixel():
    # 3 columns were read from 0, 2 and 4 of 6; of two that are equally near the first one counts.
    given = np.array([[[0, 1, 0]]], np.uint8)
    np.testing.assert_array_equal(restore_masks(given, (1, 3), (1, 6)), [[[0, 0, 1, 1, 0, 0]]])
    assert restore_masks(np.zeros((0, 4, 4), np.uint8), (4, 4), (9, 9)) == []
