"""Bilinear samples and their gradient, which does not depend on the number of threads."""

import numpy as np
import tensorflow as tf

from detzoo.ops.bilinear import bilinear_crop, sample_grid


def _weights(low, high, num_samples, size):
    """Dense weights [num_samples, size] of one axis, by the definition of tf.image.crop_and_resize."""
    weights = np.zeros((num_samples, size))
    for i in range(num_samples):
        if num_samples > 1:
            position = low * (size - 1) + i * (high - low) * (size - 1) / (num_samples - 1)
        else:
            position = (low + high) / 2 * (size - 1)
        if 0 <= position <= size - 1:
            for cell in range(size):
                weights[i, cell] = max(0.0, 1 - abs(position - cell))
    return weights


def _case(seed, height, width, num_boxes=60, channels=3):
    generator = np.random.default_rng(seed)
    features = generator.standard_normal((2, height, width, channels)).astype(np.float32)
    corners = generator.uniform(-0.3, 0.9, (num_boxes, 2))
    boxes = np.concatenate([corners, corners + generator.uniform(0, 0.8, (num_boxes, 2))], -1).astype(np.float32)
    return features, boxes, generator.integers(0, 2, num_boxes).astype(np.int32)


def _value_and_gradient(features, boxes, images, size, upstream):
    features = tf.constant(features)
    with tf.GradientTape() as tape:
        tape.watch(features)
        crops = bilinear_crop(features, tf.constant(boxes), tf.constant(images), size)
        loss = tf.reduce_sum(crops * upstream)
    return crops.numpy(), tape.gradient(loss, features).numpy()


def test_value_and_gradient_equal_dense_weights():
    for seed, (height, width, size) in enumerate([(5, 7, (3, 4)), (1, 4, (2, 1)), (6, 1, (1, 5)), (9, 8, (14, 2))]):
        features, boxes, images = _case(seed, height, width)
        upstream = np.random.default_rng(seed).standard_normal((60, *size, 3)).astype(np.float32)
        value, gradient = _value_and_gradient(features, boxes, images, size, upstream)
        expected_value, expected_gradient = [], np.zeros(features.shape)
        for box, image, up in zip(boxes.astype(np.float64), images, upstream, strict=True):
            rows = _weights(box[0], box[2], size[0], height)
            columns = _weights(box[1], box[3], size[1], width)
            expected_value.append(np.einsum("ih,jw,hwc->ijc", rows, columns, features[image]))
            expected_gradient[image] += np.einsum("ih,jw,ijc->hwc", rows, columns, up)
        np.testing.assert_allclose(value, expected_value, atol=1e-5)
        np.testing.assert_allclose(gradient, expected_gradient, atol=1e-4)


def test_no_sum_of_the_gradient_is_lost_where_many_boxes_meet():
    # On 5 x 9 cells the samples are in rows and columns 0.5, 1.5, 2.5: all weights are quarters, and float32 adds them
    # exactly. Every sample adds 1 to the gradient's total.
    boxes = np.tile(np.float32([0.125, 0.0625, 0.625, 0.3125]), (2000, 1))
    features = np.zeros((1, 5, 9, 2), np.float32)
    upstream = np.ones((2000, 3, 3, 2), np.float32)
    gradients = [_value_and_gradient(features, boxes, np.zeros(2000, np.int32), (3, 3), upstream)[1] for _ in range(5)]
    axis_weights = np.array([0.5, 1.0, 1.0, 0.5, 0, 0, 0, 0, 0])
    expected = 2000 * axis_weights[:5, np.newaxis] * axis_weights
    for gradient in gradients:
        np.testing.assert_array_equal(gradient, np.stack([expected, expected], -1)[np.newaxis])


def test_the_gradient_has_the_type_of_the_features():
    for dtype in (tf.float16, tf.bfloat16):
        features = tf.cast(tf.reshape(tf.range(6), [1, 2, 3, 1]), dtype)
        with tf.GradientTape() as tape:
            tape.watch(features)
            crops = bilinear_crop(features, tf.constant([[0.0, 0.0, 1.0, 1.0]]), tf.constant([0]), (2, 3))
        gradient = tape.gradient(crops, features)
        assert crops.dtype == gradient.dtype == dtype
        assert tf.reshape(tf.cast(crops, tf.float32), [-1]).numpy().tolist() == [0, 1, 2, 3, 4, 5]
        assert tf.reduce_all(gradient == 1)


def test_grid_positions_are_cells():
    # Columns 0.5, 1.5, 2.5 of row 1 in a map whose value is 10 y + x; beyond the last column, at 3.5, there is nothing.
    features = tf.constant([[[[10.0 * y + x] for x in range(4)] for y in range(2)]])
    samples = sample_grid(features, tf.constant([[1.0, 0.5]]), tf.constant([[1.0, 3.5]]), tf.constant([0]), (1, 4))
    np.testing.assert_allclose(samples[0, 0, :, 0], [10.5, 11.5, 12.5, 0.0], atol=1e-5)


def test_a_grid_that_ends_on_the_last_row_is_inside_whatever_rounding_says():
    generator = np.random.default_rng(0)
    first = generator.uniform(0, 90, (500, 2)).astype(np.float32)
    last = np.tile(np.float32([96, 100]), (500, 1))
    samples = sample_grid(tf.ones([1, 97, 101, 1]), first, last, tf.zeros([500], tf.int32), (6, 7))
    np.testing.assert_allclose(samples, tf.ones([500, 6, 7, 1]), rtol=1e-6)


def test_no_boxes():
    features, _, _ = _case(0, 5, 7)
    value, gradient = _value_and_gradient(
        features, np.zeros((0, 4), np.float32), np.zeros(0, np.int32), (2, 3), np.zeros((0, 2, 3, 3), np.float32)
    )
    assert value.shape == (0, 2, 3, 3)
    assert not gradient.any()
