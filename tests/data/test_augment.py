"""Tests that every augmentation keeps boxes and masks on their objects.

The object is a pure green rectangle on a background without green, so that the pixels show its position.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest
import tensorflow as tf

from detzoo.data.augment import color, crop, geometry
from detzoo.data.augment.apply import augment, integer_between, uniforms
from detzoo.data.augment.crop import CropLimits, PadLimits
from detzoo.data.sample import OBJECT_FIELDS, Sample, keep_objects

HEIGHT, WIDTH = 60, 90
OBJECT_PX = (15, 40, 45, 80)  # ymin, xmin, ymax, xmax
OTHER_PX = (5, 4, 50, 20)  # a second object, without green


def make_sample(masks: bool = True, dtype: type = np.uint8) -> Sample:
    """A 60 x 90 image with a green object (class 1) and a red one (class 4)."""
    image = np.zeros((HEIGHT, WIDTH, 3), dtype)
    image[..., 2] = np.arange(WIDTH)
    image[5:50, 4:20, 0] = 200
    image[15:45, 40:80] = (0, 250, 0)
    rows = np.array([OBJECT_PX, OTHER_PX], np.float32)
    planes = np.zeros((2, HEIGHT, WIDTH), np.uint8)
    planes[0, 15:45, 40:80] = 1
    planes[1, 5:50, 4:20] = 1
    return Sample(
        image=tf.constant(image),
        boxes_norm=tf.constant(rows / np.array([HEIGHT, WIDTH, HEIGHT, WIDTH], np.float32)),
        classes=tf.constant([1, 4]),
        weights=tf.constant([1.0, 0.5]),
        is_crowd=tf.constant([False, True]),
        is_difficult=tf.constant([False, False]),
        area_px=tf.constant([1200.0, 720.0]),
        masks=tf.constant(planes) if masks else None,
    )


def green(sample: Sample) -> np.ndarray:
    """bool [H, W]: the pixels of the green object; resizing blurs its border, so half of the green counts."""
    return np.asarray(sample.image)[..., 1].astype(np.float32) > 125


def assert_box_on_object(sample: Sample, tolerance_px: float = 1.0) -> bool:
    """The box of class 1 spans the green pixels, its mask covers them; false where the object is not in the image."""
    height, width = np.asarray(sample.image).shape[:2]
    index = np.flatnonzero(np.asarray(sample.classes) == 1)
    pixels = np.argwhere(green(sample))
    if not len(index) or not len(pixels):
        return False
    scale = np.array([height, width, height, width])
    box = np.clip(np.asarray(sample.boxes_norm)[index[0]], 0, 1) * scale
    seen = np.concatenate([pixels.min(axis=0), pixels.max(axis=0) + 1])
    np.testing.assert_allclose(box, seen, atol=tolerance_px)
    if sample.masks is not None:
        mask = np.asarray(sample.masks)[index[0]] > 0
        assert mask.shape == (height, width)
        # Nearest neighbour against bilinear: they may differ along the border of the object only.
        border = 2 * (seen[2] - seen[0] + seen[3] - seen[1]) + 4
        assert (mask != green(sample)).sum() <= tolerance_px * border
    return True


GEOMETRY = {
    "flip": geometry.random_horizontal_flip,
    "flip_up": geometry.random_vertical_flip,
    "rotate": geometry.random_rotation90,
    "scale": geometry.random_image_scale,
    "resize": functools.partial(geometry.resize_image_to, new_height=50, new_width=130),
    "resize_method": functools.partial(geometry.random_resize_method, target_height=80, target_width=70),
    "downscale": functools.partial(
        geometry.random_downscale_to_target_pixels, min_target_pixels=1500, max_target_pixels=4000
    ),
    "pad": geometry.random_pad_image,
    "absolute_pad": functools.partial(
        geometry.random_absolute_pad_image, max_height_padding=30, max_width_padding=7, pad_color=(9, 9, 9)
    ),
    "pad_ratio": functools.partial(geometry.random_pad_to_aspect_ratio, aspect_ratio=0.8),
    "scale_to_square": functools.partial(geometry.random_scale_crop_and_pad_to_square, output_size=64, scale_min=0.4),
    "square_crop": geometry.random_square_crop_by_scale,
    "crop": functools.partial(crop.random_crop_image, limits=CropLimits(0.5)),
    "crop_unclipped": functools.partial(crop.random_crop_image, limits=CropLimits(0.3, clip_boxes=False)),
    "crop_pad": functools.partial(crop.random_crop_pad_image, padding=PadLimits((1.0, 1.0), (1.5, 1.2), (7, 7, 7))),
    "crop_ratio": functools.partial(crop.random_crop_to_aspect_ratio, aspect_ratio=0.7),
    "ssd_crop": crop.ssd_random_crop,
    "ssd_crop_ranges": functools.partial(
        crop.ssd_random_crop, choices=[CropLimits(0.2, (0.8, 1.2)), CropLimits(0.9, (0.4, 0.6), (0.3, 0.8))]
    ),
    "ssd_crop_pad": functools.partial(crop.ssd_random_crop_pad, paddings=[PadLimits(color=(90, 0, 9))] * 6),
    "ssd_crop_pads": functools.partial(
        crop.ssd_random_crop_pad,
        choices=[CropLimits(), CropLimits(0.5)],
        paddings=[PadLimits(color=(1, 2, 3)), PadLimits(max_size_ratio=(1.2, 1.2), color=(0, 0, 0))],
    ),
    "ssd_crop_fixed": functools.partial(crop.ssd_random_crop_fixed_aspect_ratio, aspect_ratio=1.2),
    "ssd_crop_pad_fixed": crop.ssd_random_crop_pad_fixed_aspect_ratio,
}


@pytest.mark.parametrize("name", GEOMETRY)
def test_box_and_mask_stay_on_the_object(name):
    apply = tf.function(lambda sample, index: augment(sample, [GEOMETRY[name]], 5, index), autograph=False)
    sample = make_sample()
    seen, outcomes = 0, set()
    for index in range(12):
        changed = apply(sample, tf.constant(index, tf.int64))
        fields = [getattr(changed, name) for name in OBJECT_FIELDS]
        assert len({len(np.asarray(field)) for field in fields if field is not None}) == 1
        assert np.isfinite(np.asarray(changed.boxes_norm)).all()
        seen += assert_box_on_object(changed)
        outcomes.add((float(np.mean(changed.image)), *np.asarray(changed.boxes_norm).round(4).ravel()))
    assert seen >= 4
    assert len(outcomes) > (0 if name == "resize" else 1), "the seed has no effect"


def with_proposals(sample: Sample) -> Sample:
    """Proposals on both objects; the second one is not the image's best."""
    return sample._replace(proposals_norm=sample.boxes_norm, proposal_scores=tf.constant([0.9, 0.4]))


@pytest.mark.parametrize("name", GEOMETRY)
def test_a_proposal_stays_on_what_it_was_on(name):
    apply = tf.function(lambda sample, index: augment(sample, [GEOMETRY[name]], 5, index), autograph=False)
    sample = with_proposals(make_sample(masks=False))
    seen = 0
    for index in range(12):
        changed = apply(sample, tf.constant(index, tf.int64))
        np.testing.assert_allclose(changed.proposal_scores, [0.9, 0.4])  # also of objects that were dropped
        proposals = np.asarray(changed.proposals_norm)
        assert proposals.min() >= 0.0
        assert proposals.max() <= 1.0
        pixels = np.argwhere(green(changed))
        if len(pixels):
            seen += 1
            expected = np.concatenate([pixels.min(axis=0), pixels.max(axis=0) + 1])
            np.testing.assert_allclose(proposals[0] * np.tile(changed.image.shape[:2], 2), expected, atol=1.5)
    assert seen >= 4


def test_proposals_of_an_image_beside_itself_come_twice():
    both = geometry.random_self_concat_image(
        with_proposals(make_sample()),
        tf.constant([1, 2], tf.int64),
        concat_vertical_probability=0.0,
        concat_horizontal_probability=1.0,
    )
    # Columns 40 to 80 of 90 become 40 to 80 and 130 to 170 of 180.
    np.testing.assert_allclose(
        np.asarray(both.proposals_norm)[[0, 2]] * (60, 180, 60, 180), [[15, 40, 45, 80], [15, 130, 45, 170]], rtol=1e-5
    )
    np.testing.assert_allclose(both.proposal_scores, [0.9, 0.4, 0.9, 0.4])


def test_what_a_crop_cut_off_does_not_come_back_with_a_pad():
    # A window on the left third, then the full size again: the proposal on columns 40 to 80 is gone for good.
    window = geometry.view_window(with_proposals(make_sample()), tf.constant([0, 0]), tf.constant([60, 30]))
    padded = geometry.view_window(window, tf.constant([0, 0]), tf.constant([60, 90]))
    proposals = np.asarray(padded.proposals_norm) * (60, 90, 60, 90)
    np.testing.assert_allclose(proposals, [[15, 30, 45, 30], [5, 4, 50, 20]], rtol=1e-5)


@pytest.mark.parametrize("name", ["flip", "rotate", "scale_to_square", "square_crop", "ssd_crop", "ssd_crop_pads"])
def test_without_masks_and_without_objects(name):
    apply = tf.function(lambda sample, index: augment(sample, [GEOMETRY[name]], 5, index), autograph=False)
    assert apply(make_sample(masks=False), tf.constant(3, tf.int64)).masks is None
    sample = make_sample()
    none = keep_objects(sample, tf.constant([False, False]))
    for index in range(3):
        changed = apply(none, tf.constant(index, tf.int64))
        assert changed.boxes_norm.shape == (0, 4)
        assert changed.masks.shape == (0, *changed.image.shape[:2])


def test_the_seed_and_the_record_decide():
    steps = [geometry.random_image_scale, crop.ssd_random_crop, color.random_distort_color]
    sample = make_sample()
    first = augment(sample, steps, 1, tf.constant(7, tf.int64))
    again = augment(sample, steps, 1, tf.constant(7, tf.int64))
    other_record = augment(sample, steps, 1, tf.constant(8, tf.int64))
    other_seed = augment(sample, steps, 2, tf.constant(7, tf.int64))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.boxes_norm, again.boxes_norm)
    for other in (other_record, other_seed):
        assert first.image.shape != other.image.shape or not np.array_equal(first.image, other.image)


def test_the_same_step_twice_draws_twice():
    # Two flips with one common draw would always cancel or both be skipped: the image would never be mirrored.
    sample = make_sample()
    steps = [geometry.random_horizontal_flip] * 2
    mirrored = [
        not np.array_equal(augment(sample, steps, 3, tf.constant(i, tf.int64)).image, sample.image) for i in range(20)
    ]
    assert 3 <= sum(mirrored) <= 17


def test_a_box_squeezed_to_nothing_is_dropped():
    sample = make_sample()._replace(boxes_norm=tf.constant([[0.1, 0.2, 0.1, 0.5], [0.1, 0.2, 0.3, 0.5]]))
    changed = augment(sample, [geometry.random_horizontal_flip], 0, tf.constant(0, tf.int64))
    np.testing.assert_array_equal(changed.classes, [4])


def test_integer_between_covers_its_range_evenly():
    draws = [int(integer_between(uniforms(tf.constant([0, i]), 1)[0], 3, 7)) for i in range(200)]
    assert set(draws) == {3, 4, 5, 6}
    assert int(integer_between(tf.constant(0.999), 5, 5)) == 5
