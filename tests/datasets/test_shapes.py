"""The embedded data set: deterministic, tight boxes, one object a pixel, all sizes and classes."""

from __future__ import annotations

import collections
import itertools

import numpy as np
import pytest

from detzoo.config.label_map import load_label_map
from detzoo.datasets import shapes
from detzoo.datasets.conversion import convert
from detzoo.errors import UsageError

SIZE = 96
NUM_IMAGES = 60


@pytest.fixture(scope="module")
def drawn():
    return shapes.draw_annotations(NUM_IMAGES, SIZE, seed=5)


def masks_of(image) -> np.ndarray:
    return np.stack([item.mask(SIZE, SIZE) for item in image.objects])


def described(image):
    return image.filename, image.content, [(item.box, item.class_name, item.area_px) for item in image.objects]


def test_the_same_seed_gives_the_same_bytes_and_a_longer_set_begins_with_the_shorter(drawn):
    again = shapes.draw_annotations(7, SIZE, seed=5)
    assert [described(image) for image in again.images] == [described(image) for image in drawn.images[:7]]
    for one, other in zip(again.images, drawn.images):
        np.testing.assert_array_equal(masks_of(one), masks_of(other))


def test_another_seed_or_index_gives_other_images(drawn):
    contents = {image.content for image in drawn.images}
    assert len(contents) == NUM_IMAGES
    assert shapes.draw_image(0, SIZE, seed=6).content not in contents
    assert drawn.class_names == {1: "circle", 2: "square", 3: "triangle", 4: "star", 5: "ring"}


def test_boxes_are_tight_around_masks_and_no_pixel_has_two_objects(drawn):
    for image in drawn.images:
        masks = masks_of(image)
        assert masks.sum(0).max() == 1
        for item, mask in zip(image.objects, masks):
            rows, columns = np.nonzero(mask)
            assert item.box == (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1)
            assert item.area_px == mask.sum()
            assert min(item.box[2] - item.box[0], item.box[3] - item.box[1]) >= shapes.MIN_SIDE_PX


def test_the_pixels_of_a_mask_are_those_that_were_painted(images, drawn):
    for index, image in enumerate(drawn.images[:12]):
        bare = shapes.background(np.random.default_rng([5, index, SIZE]), (SIZE, SIZE))
        change = np.abs(images.decode(image.content) - bare).max(-1)
        inside = masks_of(image).any(0)
        padded = np.pad(inside, 2)
        near = [padded[dy : dy + SIZE, dx : dx + SIZE] for dy, dx in itertools.product(range(5), repeat=2)]
        assert all(change[mask > 0].mean() > 30 for mask in masks_of(image))
        assert change[~np.any(near, 0)].mean() < 6, "JPEG blurs, but nothing else is painted"


def test_all_classes_and_many_sizes_occur_some_cut_off_and_some_overlapping(drawn):
    counts = collections.Counter(item.class_name for image in drawn.images for item in image.objects)
    assert set(counts) == set(shapes.CLASS_NAMES)
    assert min(counts.values()) > 0.1 * counts.total()
    sides, num_at_border, num_overlapping = [], 0, 0
    for image in drawn.images:
        assert 1 <= len(image.objects) <= shapes.MAX_OBJECTS
        for item in image.objects:
            sides.append(np.sqrt((item.box[2] - item.box[0]) * (item.box[3] - item.box[1])))
            num_at_border += item.is_truncated and (min(item.box) == 0 or max(item.box) == SIZE)
        for one, other in itertools.combinations(image.objects, 2):
            low, high = np.maximum(one.box[:2], other.box[:2]), np.minimum(one.box[2:], other.box[2:])
            num_overlapping += bool((high > low).all())
    assert np.percentile(sides, 98) > 4 * np.percentile(sides, 2)
    assert num_at_border >= 3
    assert num_overlapping > 0.05 * len(sides)


def test_at_least_half_of_every_object_is_seen(drawn):
    # A ring is its outline minus its hole, a square of corners (+-s, 0), (0, +-s) has 2 s^2, and so on: what is left of
    # an object's own area is bounded by its box from above, and by half of its share of a full box from below.
    share_of_box = {"circle": 0.785, "square": 0.5, "triangle": 0.45, "star": 0.25, "ring": 0.55}
    for image in drawn.images:
        for item in image.objects:
            box_area = (item.box[2] - item.box[0]) * (item.box[3] - item.box[1])
            assert item.area_px <= box_area
            assert item.area_px > 0.3 * share_of_box[item.class_name] * box_area


def test_no_image_is_empty_even_where_most_shapes_are_too_small():
    # At 32 pixels about a third of all shapes is thinner than 6 pixels.
    drawn = shapes.draw_annotations(150, shapes.MIN_IMAGE_SIZE_PX, seed=0)
    assert min(len(image.objects) for image in drawn.images) >= 1


def test_wide_sets_have_objects_of_five_octaves_on_images_of_many_sizes():
    dense = [shapes.draw_image(index, shapes.IMAGE_SIZE, 4, scales="dense") for index in range(12)]
    sparse = [shapes.draw_image(index, shapes.IMAGE_SIZE, 4, scales="sparse") for index in range(4)]
    sizes = {image.declared_size for image in (*dense, *sparse)}
    assert len(sizes) == 16
    assert all(256 <= side <= 640 for size in sizes for side in size)
    assert all(1 <= len(image.objects) <= 6 for image in sparse)
    assert 15 < np.mean([len(image.objects) for image in dense]) <= 40
    octaves = collections.Counter()
    for image in dense:
        masks = np.stack([item.mask(*image.declared_size) for item in image.objects])
        assert masks.sum(0).max() == 1
        for item, mask in zip(image.objects, masks):
            rows, columns = np.nonzero(mask)
            assert item.box == (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1)
            longest = max(item.box[2] - item.box[0], item.box[3] - item.box[1])
            assert shapes.MIN_SIDE_PX <= longest <= 400 * np.exp(0.25)
            octaves[max(0, int(np.log2(longest / 12)))] += 1
    assert all(octaves[octave] for octave in range(4))


def test_one_large_object_an_image_for_classifiers():
    drawn = shapes.draw_annotations(40, 64, seed=3, max_objects=1, min_object_side=0.5)
    assert [len(image.objects) for image in drawn.images] == [1] * 40
    assert {image.objects[0].class_name for image in drawn.images} == set(shapes.CLASS_NAMES)
    # Sides from .5 to .6 of 64 pixels, stretched by up to exp(.25), of which at least half of the area is seen: seen
    # areas are above half of a triangle's or a star's, which are the smallest.
    areas = [np.count_nonzero(image.objects[0].mask(64, 64)) for image in drawn.images]
    smaller = shapes.draw_annotations(40, 64, seed=3, max_objects=1)
    others = [np.count_nonzero(image.objects[0].mask(64, 64)) for image in smaller.images]
    assert min(areas) > 0.5 * 0.2 * (0.5 * 64) ** 2 > min(others)


def test_records_hold_the_boxes_and_masks(tmp_path, images, drawn):
    few = drawn._replace(images=drawn.images[:3])
    result = convert(few, str(tmp_path / "train"), num_shards=1, with_masks=True)
    for record, image in zip(images.read_records(tmp_path / "train"), few.images):
        expected = [np.divide(item.box, SIZE) for item in image.objects]
        np.testing.assert_allclose(record["boxes"], expected, atol=1e-6)
        np.testing.assert_array_equal([images.decode(mask) for mask in record["mask"]], masks_of(image))
        assert record["image/encoded"] == [image.content]
        assert record["image/source_id"] == [image.filename.removesuffix(".jpg").encode()]
    assert result.log.counts() == {}
    assert load_label_map(tmp_path / "label_map.pbtxt").names == drawn.class_names


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 96, 0), "--num_images is 0; it must be at least 1"),
        ((1, 31, 0), "--image_size is 31; it must be at least 32"),
        ((1, 96, -1), "--seed is -1; it must be at least 0"),
        ((1, 96, 0, 7), "--max_objects is 7; it must be 1 to 6"),
        ((1, 160, 0, 6, 0.12, "huge"), "--scales is 'huge'; it must be one of narrow, sparse, dense"),
        ((1, 96, 0, 6, 0.12, "dense"), "--scales=dense has its own sizes; leave --image_size, .* out"),
        ((1, 96, 0, 1, 0.7), "--min_object_side is 0.7; it must be 0.12 to 0.6"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        shapes.draw_annotations(*arguments)
