"""The crop of all bins, and its gradient, equal the crops of the bins one by one."""

import numpy as np
import pytest
import tensorflow as tf

from detzoo.ops.position_sensitive_crop import position_sensitive_crop


def _naive(features, boxes, crop_size, num_bins):
    """A crop for each bin from its own channels, then means: the construction of the Object Detection API."""
    ymin, xmin, ymax, xmax = tf.unstack(boxes, axis=-1)
    step_y, step_x = (ymax - ymin) / num_bins[0], (xmax - xmin) / num_bins[1]
    images = tf.repeat(tf.range(boxes.shape[0]), boxes.shape[1])
    bins = []
    for index, group in enumerate(tf.split(features, num_bins[0] * num_bins[1], axis=-1)):
        i, j = divmod(index, num_bins[1])
        corners = [ymin + i * step_y, xmin + j * step_x, ymin + (i + 1) * step_y, xmin + (j + 1) * step_x]
        bin_boxes = tf.reshape(tf.stack(corners, axis=-1), [-1, 4])
        size = (crop_size[0] // num_bins[0], crop_size[1] // num_bins[1])
        bins.append(tf.reduce_mean(tf.image.crop_and_resize(group, bin_boxes, images, size), axis=[1, 2]))
    return tf.reshape(tf.add_n(bins) / len(bins), [*boxes.shape[:2], -1])


def _case(seed, height, width, channels, num_boxes=20):
    generator = np.random.default_rng(seed)
    features = generator.standard_normal((2, height, width, channels)).astype(np.float32)
    corners = generator.uniform(-0.3, 0.9, (2, num_boxes, 2))
    boxes = np.concatenate([corners, corners + generator.uniform(0, 0.8, (2, num_boxes, 2))], -1)
    return tf.constant(features), tf.constant(boxes, tf.float32)


@pytest.mark.parametrize(
    ("map_size", "crop_size", "num_bins"),
    [((8, 11), (6, 12), (3, 3)), ((9, 7), (2, 3), (2, 3)), ((5, 6), (21, 21), (7, 7)), ((1, 1), (4, 4), (2, 1))],
    ids=str,
)
def test_equals_the_crops_of_all_bins(map_size, crop_size, num_bins):
    features, boxes = _case(0, *map_size, 4 * num_bins[0] * num_bins[1])
    actual = position_sensitive_crop(features, boxes, crop_size, num_bins)
    assert actual.shape == (2, 20, 4)
    np.testing.assert_allclose(actual, _naive(features, boxes, crop_size, num_bins), atol=1e-5)


def test_each_bin_looks_at_its_own_channels():
    # 2 x 2 bins, D = 2, one sample a bin. Channel c of the map is 100 c + 10 y + x at cell (y, x) of 5 x 5. The box is
    # the map, so the bins' middles are the cells (1, 1), (1, 3), (3, 1), (3, 3); bin k has channels 2 k and 2 k + 1.
    # For d = 0 the sum is (0 + 11) + (200 + 13) + (400 + 31) + (600 + 33) = 1288, a mean of 322. For d = 1 each is 100
    # more, a mean of 422.
    y, x, c = np.meshgrid(range(5), range(5), range(8), indexing="ij")
    features = tf.constant((100 * c + 10 * y + x)[np.newaxis], tf.float32)
    crops = position_sensitive_crop(features, tf.constant([[[0.0, 0.0, 1.0, 1.0]]]), (2, 2), (2, 2))
    np.testing.assert_allclose(crops, [[[322.0, 422.0]]], rtol=1e-6)


def test_samples_outside_the_map_count_as_zero():
    # One bin, 1 x 3 samples of a map of ones, at 0.5, 1.0 and 1.5 of its width: two of them are on the map, so the mean
    # is 2 / 3. A box outside has none.
    boxes = tf.constant([[[0.0, 0.5, 1.0, 1.5], [1.2, 0.0, 1.5, 1.0]]])
    crops = position_sensitive_crop(tf.ones([1, 4, 5, 1]), boxes, (1, 3), (1, 1))
    np.testing.assert_allclose(crops[0, :, 0], [2 / 3, 0.0], rtol=1e-6)


def test_a_box_without_area_samples_one_place():
    # All bins sample row 0.5 * 3 = 1.5 and column 0.25 * 4 = 1: the mean of cells (1, 1) = 11 and (2, 1) = 21.
    y, x = np.meshgrid(range(4), range(5), indexing="ij")
    features = tf.constant(np.repeat((10 * y + x)[np.newaxis, ..., np.newaxis], 4, -1), tf.float32)
    crops = position_sensitive_crop(features, tf.constant([[[0.5, 0.25, 0.5, 0.25]]]), (4, 6), (2, 2))
    np.testing.assert_allclose(crops, [[[16.0]]], rtol=1e-6)


def test_gradient_flows_to_the_features_alone_and_equals_that_of_the_crops():
    features, boxes = _case(1, 6, 9, 12)
    boxes = boxes[:, :1]  # TensorFlow's gradient of crops has no lost sums for one box an image
    upstream = tf.constant(np.random.default_rng(2).standard_normal((2, 1, 2)), tf.float32)
    gradients = []
    for function in (position_sensitive_crop, _naive):
        with tf.GradientTape() as tape:
            tape.watch([features, boxes])
            loss = tf.reduce_sum(function(features, boxes, (4, 6), (2, 3)) * upstream)
        gradients.append(tape.gradient(loss, [features, boxes]))
    assert gradients[0][1] is None
    assert np.abs(gradients[0][0]).max() > 0.01
    np.testing.assert_allclose(gradients[0][0], gradients[1][0], atol=1e-5)


def test_a_batch_is_its_images_and_a_graph_of_unknown_shapes_is_the_eager_run():
    features, boxes = _case(3, 6, 9, 12)
    eager = position_sensitive_crop(features, boxes, (4, 6), (2, 3))
    for image in range(2):
        alone = position_sensitive_crop(features[image : image + 1], boxes[image : image + 1], (4, 6), (2, 3))
        np.testing.assert_allclose(eager[image], alone[0], atol=1e-6)
    specs = [tf.TensorSpec([None, None, None, 12]), tf.TensorSpec([None, None, 4])]
    graph = tf.function(
        lambda *inputs: position_sensitive_crop(*inputs, (4, 6), (2, 3)), input_signature=specs, autograph=False
    )
    np.testing.assert_allclose(graph(features, boxes), eager, atol=1e-6)
    assert graph(features, boxes[:, :0]).shape == (2, 0, 2)


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16], ids=["float16", "bfloat16"])
def test_crop_and_gradient_have_the_type_of_the_features(dtype):
    features, boxes = _case(4, 6, 9, 12)
    low = tf.cast(features, dtype)
    with tf.GradientTape() as tape:
        tape.watch(low)
        crops = position_sensitive_crop(low, boxes, (4, 6), (2, 3))
    assert crops.dtype == tape.gradient(crops, low).dtype == dtype
    full = position_sensitive_crop(tf.cast(low, tf.float32), boxes, (4, 6), (2, 3))
    np.testing.assert_allclose(tf.cast(crops, tf.float32), full, atol=0.01)


def test_sizes_that_do_not_fit_are_errors():
    features, boxes = tf.ones([1, 4, 4, 9]), tf.zeros([1, 1, 4])
    with pytest.raises(ValueError, match="crop height 10 is no multiple of its 3 bins; 9 or 12 would be"):
        position_sensitive_crop(features, boxes, (10, 9), (3, 3))
    with pytest.raises(ValueError, match="crop width 2 is no multiple of its 3 bins; 3 would be"):
        position_sensitive_crop(features, boxes, (9, 2), (3, 3))
    with pytest.raises(ValueError, match="9 channels are no multiple of 2 x 2 bins"):
        position_sensitive_crop(features, boxes, (4, 4), (2, 2))
    with pytest.raises(ValueError, match="must be at least 1"):
        position_sensitive_crop(features, boxes, (4, 4), (0, 2))
