"""Learned policies: values against Pillow, boxes and masks on their objects, every sub-policy of every table."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from detzoo.data.augment import policy
from detzoo.data.augment.policy_pixels import STEPS
from detzoo.data.sample import Sample, keep_objects

HEIGHT, WIDTH = 48, 70
NOISE = np.random.default_rng(3).integers(20, 230, (HEIGHT, WIDTH, 3), np.uint8)


def make_sample(masks: bool = True) -> Sample:
    """A green rectangle, rows 12 to 36 and columns 20 to 52, on gray."""
    image = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    image[12:36, 20:52] = (0, 250, 0)
    mask = np.zeros((1, HEIGHT, WIDTH), np.uint8)
    mask[0, 12:36, 20:52] = 1
    box = tf.constant([[12 / HEIGHT, 20 / WIDTH, 36 / HEIGHT, 52 / WIDTH]], tf.float32)
    flag = tf.constant([False])
    return Sample(
        tf.constant(image), box, tf.constant([0]), tf.ones([1]), flag, flag, tf.ones([1]),
        tf.constant(mask) if masks else None,
    )  # fmt: skip


def seed(number: int) -> tf.Tensor:
    return tf.constant([5, number], tf.int64)


def green(image: tf.Tensor) -> np.ndarray:
    return np.asarray(image)[..., 1] == 250


@pytest.mark.parametrize(
    ("name", "level", "expected"),
    [
        ("Equalize", 0, ImageOps.equalize),
        ("AutoContrast", 0, ImageOps.autocontrast),
        ("Posterize", 5, lambda image: ImageOps.posterize(image, 2)),
        ("Solarize", 5, lambda image: ImageOps.solarize(image, 128)),
        ("Brightness", 10, lambda image: ImageEnhance.Brightness(image).enhance(1.9)),
        ("Color", 2, lambda image: ImageEnhance.Color(image).enhance(0.46)),
        ("Contrast", 8, lambda image: ImageEnhance.Contrast(image).enhance(1.54)),
        ("Sharpness", 10, lambda image: ImageEnhance.Sharpness(image).enhance(1.9)),
    ],
)
def test_values_are_pillows(name, level, expected):
    received = np.asarray(STEPS[name](tf.constant(NOISE), seed(0), level / 10), np.int32)
    difference = np.abs(received - np.asarray(expected(Image.fromarray(NOISE)), np.int32))
    assert difference.max() <= (2 if name != "Equalize" else 1)


def test_solarize_add_and_cutout():
    added = np.asarray(STEPS["SolarizeAdd"](tf.constant(NOISE), seed(0), 0.5))
    np.testing.assert_array_equal(added, np.where(NOISE < 128, NOISE + 55, NOISE))
    image = tf.zeros([60, 80, 3], tf.uint8)
    cut = np.asarray(STEPS["Cutout"](image, seed(1), 0.1))[..., 0] == 128
    assert 100 <= cut.sum() <= 400  # a square of 20 x 20, a part of which may lie outside
    assert cut[np.ix_(cut.any(axis=1), cut.any(axis=0))].all()


@pytest.mark.parametrize("name", ["Rotate_BBox", "ShearX_BBox", "ShearY_BBox", "TranslateX_BBox", "TranslateY_BBox"])
@pytest.mark.parametrize("number", range(3))
def test_boxes_and_masks_move_with_the_object(name, number):
    level = 1 if name.startswith("Translate") else 8
    moved = policy.apply_step(make_sample(), seed(number), name, 1.0, level / 10)
    pixels = np.argwhere(green(moved.image))
    assert not np.array_equal(green(moved.image), green(make_sample().image))
    box = np.asarray(moved.boxes_norm[0]) * [HEIGHT, WIDTH, HEIGHT, WIDTH]
    np.testing.assert_allclose(box, [*pixels.min(axis=0), *(pixels.max(axis=0) + 1)], atol=1.0)
    np.testing.assert_array_equal(np.asarray(moved.masks[0]) > 0, green(moved.image))


def test_translation_fills_with_gray_and_drops_what_leaves():
    # 100 pixels to either side: nothing of the image is left, and no box.
    moved = policy.apply_step(make_sample(), seed(0), "TranslateX_BBox", 1.0, 0.4)
    assert (np.asarray(moved.image) == 128).all()
    assert moved.boxes_norm.shape == (0, 4)
    assert moved.masks.shape == (0, HEIGHT, WIDTH)


@pytest.mark.parametrize("name", ["TranslateY", "ShearX", "Cutout", "Equalize"])
def test_steps_inside_boxes_leave_the_rest(name):
    sample = make_sample()._replace(image=tf.constant(NOISE))
    changed = policy.apply_step(sample, seed(1), f"{name}_Only_BBoxes", 3.0, 0.1)
    difference = (np.asarray(changed.image) != NOISE).any(axis=-1)
    inside = np.asarray(sample.masks[0]) > 0
    assert difference[inside].mean() > 0.1
    assert not difference[~inside].any()
    np.testing.assert_array_equal(changed.boxes_norm, sample.boxes_norm)


def test_a_flip_inside_a_box():
    image = NOISE.copy()
    sample = make_sample()._replace(image=tf.constant(image))
    flipped = policy.apply_step(sample, seed(1), "Flip_Only_BBoxes", 3.0, 1.0)
    image[12:36, 20:52] = NOISE[12:36, 20:52][:, ::-1]
    np.testing.assert_array_equal(flipped.image, image)


def test_a_policy_runs_and_is_deterministic():
    sample = make_sample(masks=False)._replace(image=tf.constant(NOISE))
    apply = tf.function(lambda sample, key: policy.autoaugment_image(sample, key, policy_name="v1"), autograph=False)
    results = [apply(sample, seed(number)) for number in range(30)]
    for result in results:
        assert result.image.shape == (HEIGHT, WIDTH, 3)
        assert np.isfinite(result.boxes_norm).all()
        assert result.masks is None
    assert len({int(np.asarray(result.image, np.int64).sum()) for result in results}) > 9
    np.testing.assert_array_equal(apply(sample, seed(4)).image, results[4].image)


def test_images_without_objects():
    sample = make_sample()
    none = keep_objects(sample, tf.constant([False]))
    for name in ("BBox_Cutout", "ShearX_Only_BBoxes", "Rotate_BBox", "Cutout_Only_BBoxes"):
        changed = policy.apply_step(none, seed(2), name, 3.0, 0.5)
        assert changed.boxes_norm.shape == (0, 4)
        assert changed.masks.shape == (0, HEIGHT, WIDTH)


def test_proposals_move_with_the_image_and_are_cut_to_it():
    # A quarter turn (level 3 x 30 degrees) about the centre (24, 35): the corners of the green rectangle, 12 above and
    # below it and 15 left and 17 right of it, go to columns 35 -+ 12 and to rows 24 - 17 .. 24 + 15, or the other way.
    sample = make_sample()
    outside = tf.constant([[0.0, 0.9, 0.2, 1.0]])  # 28 px right of the centre: more than the 24 px above or below it
    sample = sample._replace(
        proposals_norm=tf.concat([sample.boxes_norm, outside], axis=0), proposal_scores=tf.constant([0.5, 0.25])
    )
    turned = policy.apply_step(sample, seed(1), "Rotate_BBox", 1.0, 3.0)
    top, left, bottom, right = np.asarray(turned.proposals_norm)[0] * (HEIGHT, WIDTH, HEIGHT, WIDTH)
    assert (left, right) == (pytest.approx(23, abs=1e-3), pytest.approx(47, abs=1e-3))
    assert (top, bottom) in ((pytest.approx(7, abs=1e-3), pytest.approx(39, abs=1e-3)),
                             (pytest.approx(9, abs=1e-3), pytest.approx(41, abs=1e-3)))  # fmt: skip
    gone = np.asarray(turned.proposals_norm)[1]
    assert gone[0] == gone[2]  # no height is left
    np.testing.assert_array_equal(turned.proposal_scores, [0.5, 0.25])
    loop = tf.function(lambda sample, key: policy.autoaugment_image(sample, key), autograph=False)
    assert loop(sample, seed(3)).proposals_norm.shape == (2, 4)


def test_every_step_of_every_policy_is_known():
    for steps in (steps for steps_of in policy.POLICIES.values() for steps in steps_of):
        for name, probability, level in steps:
            changed = policy.apply_step(make_sample(), seed(0), name, 1.0, level / 10)
            assert changed.image.shape == (HEIGHT, WIDTH, 3)
            assert 0.0 <= probability <= 1.0
