"""An exported model in an evaluation: images go in as they are, detections come out padded to one length."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from detzoo.evaluate.runner import detect_batch
from detzoo.serving.image_detector import ImageDetections, ImageDetector
from detzoo.serving.one_by_one import OneByOne


def box_of_image(image, with_masks=False):
    """As many detections as the image is high in pixels, less 3; scores from the first pixel; class 2 (id)."""
    count = len(image) - 3
    boxes = np.tile(np.array([[0.0, 0.25, 0.5, 1.0]], np.float32), (count, 1))
    masks = np.full([count, 2, 3], 0.5, np.float32) if with_masks else None
    return ImageDetections(boxes, np.full(count, image[0, 0, 0] / 100), np.full(count, 2, np.int32), masks)


class FixedDetector(ImageDetector):
    """Calls a function."""

    def __init__(self, detect, has_masks=False):
        self.detect, self.has_masks = detect, has_masks

    def __call__(self, image):
        return self.detect(image)


# Two images of 4 x 5 and 6 x 3 in a batch padded to 6 x 5; their first pixels are 10 and 40.
IMAGES = np.zeros([2, 6, 5, 3], np.float32)
IMAGES[0, 0, 0, 0], IMAGES[1, 0, 0, 0] = 10.0, 40.0
TRUE_SHAPES = np.array([[4, 5], [6, 3]], np.int32)


@pytest.mark.parametrize("traced", [False, True])
def test_padding_is_cut_off_and_rows_are_filled_up(traced):
    shapes = []

    def detect(image):
        shapes.append((image.shape, image.dtype))
        return box_of_image(image)

    function = lambda images, true_shapes: detect_batch(OneByOne(FixedDetector(detect)), images, true_shapes)  # noqa: E731
    function = tf.function(function, autograph=False) if traced else function
    found = function(tf.constant(IMAGES), tf.constant(TRUE_SHAPES))
    assert shapes == [((4, 5, 3), np.uint8), ((6, 3, 3), np.uint8)]
    np.testing.assert_array_equal(found.num_valid, [1, 3])
    np.testing.assert_allclose(found.scores, [[0.1, 0.0, 0.0], [0.4, 0.4, 0.4]], rtol=1e-6)
    np.testing.assert_array_equal(found.classes[1], [1, 1, 1])  # from 0
    np.testing.assert_array_equal(found.boxes_norm[0], [[0.0, 0.25, 0.5, 1.0], [0] * 4, [0] * 4])
    assert found.masks == ()


def test_masks_come_along():
    detector = OneByOne(FixedDetector(lambda image: box_of_image(image, with_masks=True), has_masks=True))
    found = detect_batch(detector, tf.constant(IMAGES), tf.constant(TRUE_SHAPES))
    assert found.masks.shape == (2, 3, 2, 3)
    np.testing.assert_array_equal(found.masks[0, :, 0, 0], [0.5, 0.0, 0.0])
