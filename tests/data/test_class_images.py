"""Crops of a classifier's training images, and the sizes that they have in each epoch."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from detzoo.contracts import Batch
from detzoo.data.class_images import ClassifierResizer, EpochSizes

RESIZER = ClassifierResizer(min_dimension=8, shorter_side=8, crop_size=6)


def ramp(height, width):
    """An image whose red says the row, green the column."""
    rows, columns = np.mgrid[:height, :width]
    return tf.constant(np.stack([rows, columns, 0 * rows], axis=-1).astype(np.float32))


def test_an_image_to_test_keeps_its_aspect():
    image, shape = RESIZER(tf.zeros([16, 40, 3], tf.uint8))
    assert tuple(image.shape) == (8, 20, 3)
    np.testing.assert_array_equal(shape, [8, 20])
    assert tuple(RESIZER(tf.zeros([2, 4000, 8, 3]))[0].shape) == (2, 4000, 8, 3)  # however long


def test_crops_are_from_the_centre_and_the_corners():
    # 8 x 12 pixels stay as they are; a crop of 6 leaves 2 rows and 6 columns: corners (0 or 2, 0 or 6), centre (1, 3).
    crops = RESIZER.for_training()
    assert crops.static_shape == (6, 6)
    places = set()
    for uniform in (0.05, 0.25, 0.45, 0.65, 0.85):
        image, shape = crops.drawn(tf.constant(uniform))(ramp(8, 12))
        np.testing.assert_array_equal(shape, [6, 6])
        first = image[0, 0].numpy()
        np.testing.assert_array_equal(image[5, 5] - first, [5, 5, 0])
        places.add((int(first[0]), int(first[1])))
    assert places == {(1, 3), (0, 0), (0, 6), (2, 0), (2, 6)}


def test_crops_are_of_the_resized_image():
    # 16 x 24 pixels become 8 x 12: every second pixel, of which the centre's crop begins at (1, 3).
    image, _ = RESIZER.for_training()(ramp(16, 24))
    np.testing.assert_allclose(image[0, 0], [2, 6, 0], atol=1e-5)


def test_training_has_its_own_shorter_side():
    # Views of the maps of larger images change what is tested, not what is trained.
    resizer = ClassifierResizer(min_dimension=16, shorter_side=8, crop_size=6)
    assert tuple(resizer(ramp(8, 12))[0].shape) == (16, 24, 3)
    np.testing.assert_allclose(resizer.for_training()(ramp(16, 24))[0][0, 0], [2, 6, 0], atol=1e-5)


def batch(first_record, side=8):
    """Two images of one grey."""
    return Batch(
        images=tf.fill([2, side, side, 3], 9.0),
        true_shapes=tf.fill([2, 2], side),
        original_shapes=tf.fill([2, 2], 50),
        image_ids=tf.constant(["a", "b"]),
        record_index=tf.constant([first_record, first_record + 1], tf.int64),
        groundtruth=(),
    )


def test_sizes_alternate_by_epoch():
    # Five records per epoch: 0 to 4 have the paper's size 224, 5 to 9 have 180, and so on.
    sizes = EpochSizes((8, 6), False, num_records=5, seed=0)
    found = [tuple(sizes.resized(batch(record)).images.shape[1:3]) for record in (0, 4, 5, 9, 10)]
    assert found == [(8, 8), (8, 8), (6, 6), (6, 6), (8, 8)]
    np.testing.assert_array_equal(sizes.resized(batch(5)).true_shapes, [[6, 6], [6, 6]])
    np.testing.assert_allclose(sizes.resized(batch(5)).images, np.full((2, 6, 6, 3), 9.0))


def test_random_sizes_cover_the_range_and_follow_the_seed():
    sizes = EpochSizes((180, 224), True, num_records=5, seed=3)
    drawn = [int(sizes.of_epoch(tf.constant(epoch, tf.int64))) for epoch in range(200)]
    assert min(drawn) >= 180
    assert max(drawn) <= 224
    assert len(set(drawn)) > 35  # of 45; 200 draws miss a given size with probability .011
    again = EpochSizes((180, 224), True, num_records=5, seed=3)
    assert [int(again.of_epoch(tf.constant(epoch, tf.int64))) for epoch in range(20)] == drawn[:20]
