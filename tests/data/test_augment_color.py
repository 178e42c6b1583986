"""Augmentations of pixel values: known answers, ranges, and that positions stay."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import tensorflow as tf

from detzoo.data.augment import color, objects
from detzoo.data.sample import Sample

GRADIENT = np.stack(np.broadcast_arrays(np.arange(40)[:, None] * 6, np.arange(50) * 5, 80), axis=-1).astype(np.uint8)


def make_sample(image: np.ndarray = GRADIENT) -> Sample:
    flags = tf.constant([False, False, False])
    return Sample(
        image=tf.constant(image),
        boxes_norm=tf.constant([[0.1, 0.2, 0.5, 0.6], [0.4, 0.4, 0.6, 0.8], [0.0, 0.5, 1.0, 1.0]]),
        classes=tf.constant([0, 1, 2]),
        weights=tf.ones([3]),
        is_crowd=flags,
        is_difficult=flags,
        area_px=tf.zeros([3]),
        masks=None,
    )


def seed(number: int) -> tf.Tensor:
    return tf.constant([11, number], tf.int64)


def values(sample: Sample) -> np.ndarray:
    return np.asarray(sample.image, np.float32)


COLOR = {
    "brightness": color.random_adjust_brightness,
    "contrast": color.random_adjust_contrast,
    "hue": functools.partial(color.random_adjust_hue, max_delta=0.3),
    "saturation": color.random_adjust_saturation,
    "distort": color.random_distort_color,
    "distort_1": functools.partial(color.random_distort_color, color_ordering=1),
    "pca": color.random_pca_color,
    "pixels": color.random_pixel_value_scale,
    "gray": functools.partial(color.random_rgb_to_gray, probability=0.5),
    "jpeg": functools.partial(color.random_jpeg_quality, random_coef=0.3, min_jpeg_quality=5),
    "noise": functools.partial(color.random_patch_gaussian, random_coef=0.3, max_patch_size=20),
    "black": color.random_black_patches,
}


@pytest.mark.parametrize("name", COLOR)
def test_values_change_within_range_and_positions_stay(name):
    apply = tf.function(COLOR[name], autograph=False)
    sample = make_sample()
    results = [apply(sample, seed(number)) for number in range(8)]
    for result in results:
        assert result.image.shape == sample.image.shape
        assert 0.0 <= values(result).min() <= values(result).max() <= 255.0
        np.testing.assert_array_equal(result.boxes_norm, sample.boxes_norm)
    assert len({float(values(result).sum()) for result in results}) >= 2
    np.testing.assert_array_equal(values(apply(sample, seed(3))), values(results[3]))


def test_brightness_adds_one_number():
    difference = values(color.random_adjust_brightness(make_sample(), seed(1), max_delta=0.1)) - GRADIENT
    untouched = (GRADIENT > 26) & (GRADIENT < 229)  # without clipping: 0.1 * 255 = 25.5
    assert np.ptp(difference[untouched]) < 1e-3
    assert 0.0 < abs(difference[untouched][0]) <= 25.5


def test_principal_components_shift_by_their_eigenvalues():
    image = np.full((4, 5, 3), 128, np.float32)

    @tf.function
    def shift(number):
        return color.random_pca_color(make_sample(image), tf.stack([number, number])).image[0, 0] - 128.0

    shifts = np.array([shift(number) for number in tf.range(4000, dtype=tf.int64)])
    # Eigenvalues 55.46, 4.794 and 1.148 times a deviation of 0.1 are the deviations along the components, of which the
    # first is nearly gray: its part of each channel is 1 / sqrt(3) = 0.577.
    deviations, components = np.linalg.eigh(np.cov(shifts.T))
    np.testing.assert_allclose(np.sqrt(deviations[::-1]), [5.546, 0.4794, 0.1148], rtol=0.05)
    np.testing.assert_allclose(np.abs(components[:, 2]), [0.577] * 3, atol=0.02)


def test_contrast_keeps_the_mean_of_each_channel():
    # Values between 80 and 170 cannot be clipped by a factor of at most 1.25.
    image = (80 + GRADIENT.astype(np.float32) * 90 / 255).astype(np.float32)
    result = values(color.random_adjust_contrast(make_sample(image), seed(2)))
    np.testing.assert_allclose(result.mean(axis=(0, 1)), image.mean(axis=(0, 1)), rtol=1e-4)
    factor = result[..., 0].std() / image[..., 0].std()
    assert 0.8 <= factor <= 1.25
    assert abs(factor - 1.0) > 0.01


def test_hue_and_saturation_leave_gray_alone():
    gray = np.repeat(GRADIENT[..., :1], 3, axis=-1)
    for change in (color.random_adjust_hue, color.random_adjust_saturation):
        np.testing.assert_allclose(values(change(make_sample(gray), seed(3))), gray, atol=1e-3)


def test_probabilities_of_zero_and_one():
    sample = make_sample()
    for number in range(10):
        kept = color.random_rgb_to_gray(sample, seed(number), probability=0.0)
        np.testing.assert_array_equal(values(kept), GRADIENT)
        gray = values(color.random_rgb_to_gray(sample, seed(number), probability=1.0))
        assert np.ptp(gray, axis=-1).max() == 0.0
        for change in (color.random_jpeg_quality, color.random_patch_gaussian):
            np.testing.assert_array_equal(values(change(sample, seed(number), random_coef=1.0)), GRADIENT)


def test_noise_stays_within_its_square():
    changed = values(
        color.random_patch_gaussian(
            make_sample(np.full((60, 70, 3), 128, np.uint8)), seed(4), min_patch_size=9, max_patch_size=9
        )
    )
    rows, columns = np.nonzero((changed != 128.0).any(axis=-1))
    assert np.ptp(rows) < 9
    assert np.ptp(columns) < 9
    assert len(rows) > 20


def test_black_patches_have_their_size():
    white = make_sample(np.full((40, 60, 3), 255, np.uint8))
    one = color.random_black_patches(white, seed(0), max_black_patches=1, probability=1.0)
    assert one.image.dtype == tf.uint8
    assert (np.asarray(one.image) == 0).all(axis=-1).sum() == 16  # 0.1 * 40 = 4 pixels a side
    none = color.random_black_patches(white, seed(0), probability=0.0)
    assert np.asarray(none.image).min() == 255


def test_known_answers():
    sample = make_sample(np.array([[[0, 51, 255]]], np.uint8))
    normalized = color.normalize_image(
        sample, seed(0), original_minval=0, original_maxval=255, target_minval=-1, target_maxval=1
    )
    np.testing.assert_allclose(values(normalized)[0, 0], [-1.0, -0.6, 1.0], atol=1e-6)
    subtracted = color.subtract_channel_mean(sample, seed(0), means=(1.0, 2.0, 3.0))
    np.testing.assert_allclose(values(subtracted)[0, 0], [-1, 49, 252])
    gamma = color.adjust_gamma(sample, seed(0), gamma=2.0, gain=0.5)
    np.testing.assert_allclose(values(gamma)[0, 0], [0.0, 0.5 * 0.04 * 255, 127.5], rtol=1e-5)
    gray = values(color.rgb_to_gray(sample, seed(0)))
    np.testing.assert_allclose(gray[0, 0], [0.587 * 51 + 0.114 * 255] * 3, rtol=1e-5)


def test_jitter_moves_each_side_by_a_part_of_the_box():
    sample = make_sample()._replace(boxes_norm=tf.tile(tf.constant([[0.2, 0.3, 0.6, 0.5]]), [50, 1]))
    moves = np.asarray(objects.random_jitter_boxes(sample, seed(0), ratio=0.1).boxes_norm) - [
        0.2,
        0.3,
        0.6,
        0.5,
    ]
    assert (np.abs(moves) <= [0.04, 0.02, 0.04, 0.02]).all()  # a tenth of the height 0.4, of the width 0.2
    assert (moves.max(axis=0) > 0.01).all()
    assert (moves.min(axis=0) < -0.01).all()


@pytest.mark.parametrize(("mode", "outward"), [("EXPAND", 1), ("SHRINK", -1), ("EXPAND_SYMMETRIC", 1)])
def test_jitter_in_one_direction(mode, outward):
    sample = make_sample()
    moved = objects.random_jitter_boxes(sample, seed(1), ratio=0.2, mode=mode)
    moves = outward * (np.asarray(moved.boxes_norm) - np.asarray(sample.boxes_norm)) * [-1, -1, 1, 1]
    assert (moves >= -1e-6).all()
    assert moves.max() > 0.01


def test_symmetric_jitter_keeps_the_center():
    sample = make_sample()._replace(boxes_norm=tf.constant([[0.3, 0.3, 0.5, 0.7]] * 3))
    for mode, equal in (("SHRINK_SYMMETRIC", False), ("EXPAND_SYMMETRIC_XY", True)):
        boxes = np.asarray(objects.random_jitter_boxes(sample, seed(2), ratio=0.3, mode=mode).boxes_norm)
        np.testing.assert_allclose((boxes[:, :2] + boxes[:, 2:]) / 2, [[0.4, 0.5]] * 3, atol=1e-6)
        ratios = (boxes[:, 2:] - boxes[:, :2]) / [0.2, 0.4]
        assert np.allclose(ratios[:, 0], ratios[:, 1]) == equal


def test_labels_are_dropped_and_renamed():
    sample = make_sample()
    dropped = objects.drop_label_probabilistically(sample, seed(0), dropped_class=1)
    np.testing.assert_array_equal(dropped.classes, [0, 2])
    kept = objects.drop_label_probabilistically(sample, seed(0), dropped_class=1, drop_probability=0.0)
    np.testing.assert_array_equal(kept.classes, [0, 1, 2])
    renamed = objects.remap_labels(sample, seed(0), original_classes=(0, 2), new_class=7)
    np.testing.assert_array_equal(renamed.classes, [7, 1, 7])
