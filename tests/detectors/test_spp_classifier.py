"""The classifier: its views against crops and windows cut by hand, its loss, its learning."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from detzoo.config.spp_table import map_size
from detzoo.contracts import Groundtruth
from detzoo.detectors.spp_classifier import SppClassifier, TestView, Views, spp_classifier_network
from detzoo.ops.spatial_pyramid import spatial_pyramid

CROP, BINS, NUM_CLASSES = 64, (2, 1), 3


def classifier(view, bins=BINS, crop=CROP, map_scales=(), size=(None, None), dropout_rate=0.0):
    keras.utils.set_random_seed(4)
    parts = spp_classifier_network(
        size, "zf_5", bins, NUM_CLASSES, fc_depth=12, dropout_rate=dropout_rate, depth_multiplier=0.1, weight_decay=0.1
    )
    model = SppClassifier(parts, normalized, "zf_5", bins, Views(view, crop, map_scales), NUM_CLASSES)
    model.network.get_layer("fully_connected").get_layer("fc8").kernel.assign(
        np.random.default_rng(0).normal(0, 0.3, (12, NUM_CLASSES))
    )
    return model


def images(height, width, count=2, seed=1):
    generator = np.random.default_rng(seed)
    coarse = generator.uniform(0, 255, (count, 6, 6, 3)).astype(np.float32)
    return tf.image.resize(coarse, (height, width))


def normalized(pixels):
    return (pixels - 100.0) / 50.0


def scores_of(model, inputs):
    return tf.nn.softmax(model.network(inputs)).numpy()


def truth(classes):
    column = tf.constant(classes)[:, tf.newaxis]
    weights = tf.cast(column >= 0, tf.float32)
    return Groundtruth(None, column, weights, None, None, None, None)


@pytest.fixture(scope="module")
def ten():
    return classifier(TestView.TEN_CROPS)


def test_paths_of_the_variables_and_their_penalty_counts_once(ten):
    paths = [weight.path for weight in ten.weights]
    assert len(paths) == len(set(paths)) == 16  # five convolutions and three layers, kernel and bias
    assert {path.split("/")[0] for path in paths} == {"backbone", "box_backbone", "head"}
    assert {"box_backbone/fc6/kernel", "box_backbone/fc7/bias", "head/fc8/kernel"} <= set(paths)
    kernels = [weight.numpy() for weight in ten.weights if weight.path.endswith("kernel")]
    np.testing.assert_allclose(sum(ten.losses), sum(0.1 * np.sum(kernel**2) / 2 for kernel in kernels), rtol=1e-5)


def test_ten_crops(ten):
    inputs = ten.preprocess(images(70, 81)).numpy()
    np.testing.assert_allclose(inputs, normalized(images(70, 81)))
    # 70 x 81 pixels leave 6 rows and 17 columns: corners at 0 or 6, 0 or 17, the centre at (3, 8).
    places = [(3, 8), (0, 0), (0, 17), (6, 0), (6, 17)]
    crops = [inputs[:, row : row + CROP, column : column + CROP] for row, column in places]
    crops += [crop[:, :, ::-1] for crop in crops]
    expected = np.mean([scores_of(ten, crop) for crop in crops], axis=0)
    np.testing.assert_allclose(ten.forward(inputs).scores, expected, atol=1e-6)
    assert ten.forward(inputs).logits == ()
    np.testing.assert_allclose(expected.sum(axis=1), [1, 1], rtol=1e-5)


def test_one_crop_and_the_full_image():
    inputs = normalized(images(70, 81)).numpy()
    one = classifier(TestView.ONE_CROP)
    np.testing.assert_allclose(one.forward(inputs).scores, scores_of(one, inputs[:, 3:67, 8:72]), atol=1e-6)
    full = classifier(TestView.FULL_IMAGE)
    np.testing.assert_allclose(full.forward(inputs).scores, scores_of(full, inputs), atol=1e-6)


@pytest.mark.parametrize("view", TestView)
def test_padding_of_a_batch_does_not_count(view):
    model = classifier(view)
    shapes = [(64, 91), (75, 64)]
    single = [normalized(images(*shape, count=1, seed=seed)) for seed, shape in enumerate(shapes)]
    padded = [np.pad(x[0], [[0, 75 - x.shape[1]], [0, 91 - x.shape[2]], [0, 0]], constant_values=55.0) for x in single]
    together = model.forward(tf.constant(np.stack(padded)), true_shapes=tf.constant(shapes)).scores
    for row, inputs in zip(together, single, strict=True):
        np.testing.assert_allclose(row, model.forward(inputs).scores[0], atol=1e-5)


def test_map_views_of_an_image_without_room_are_the_image_and_its_mirror_image():
    model = classifier(TestView.MAP_VIEWS)
    inputs = normalized(images(CROP, CROP)).numpy()
    expected = (scores_of(model, inputs) + scores_of(model, inputs[:, :, ::-1])) / 2
    np.testing.assert_allclose(model.forward(inputs).scores, expected, atol=1e-6)


def test_map_views_pool_the_cells_whose_centres_are_in_the_window():
    # 64 x 112 pixels: 3 x 6 cells that look at the places 16.5, 32.5, ... 96.5, the centres of the pixels 16, 32, ...
    # Windows of 64 begin in the columns 0, 24 and 48 and hold the places 16.5 to 48.5, 32.5 to 80.5 and 48.5 to 96.5:
    # cells 0 to 2, 1 to 4 and 2 to 5. Rows have no room: corners fall together, two of five windows at each side.
    model = classifier(TestView.MAP_VIEWS, bins=(2,))
    inputs = normalized(images(64, 112, count=1)).numpy()
    assert (map_size("zf_5", 64), map_size("zf_5", 112)) == (3, 6)
    convolutions = keras.Model(model.network.input, model.network.get_layer("pool5").input)
    connected = model.network.get_layer("fully_connected")
    total = 0.0
    for mirrored in (inputs, inputs[:, :, ::-1]):
        cells = convolutions(mirrored)
        for first, end, weight in ((1, 5, 1), (0, 3, 2), (2, 6, 2)):
            pooled = spatial_pyramid(cells[:, :, first:end], (2,))
            total += weight * tf.nn.softmax(connected(pooled)).numpy()
    np.testing.assert_allclose(model.forward(inputs).scores, total / 10, atol=1e-6)


def test_map_views_of_several_scales_count_distinct_windows():
    # A square image: at scale 64 one window (and its mirror image), at 80 nine of each.
    inputs = normalized(images(80, 80, count=1)).numpy()
    small = classifier(TestView.MAP_VIEWS, map_scales=(64,)).forward(inputs).scores.numpy()
    large = classifier(TestView.MAP_VIEWS, map_scales=(80,)).forward(inputs).scores.numpy()
    both = classifier(TestView.MAP_VIEWS, map_scales=(64, 80)).forward(inputs).scores.numpy()
    np.testing.assert_allclose(both, (small + 9 * large) / 10, atol=1e-6)


def test_without_a_pyramid_the_last_pooling_makes_6_by_6():
    # Section 3.1.1. Of 13 x 13 cells windows of 3 with stride 2 make 6 x 6: as Keras pools.
    keras.utils.set_random_seed(1)
    parts = spp_classifier_network((224, 224), "zf_5", (6,), 2, fc_depth=4, depth_multiplier=0.05)
    cells = np.random.default_rng(0).normal(size=(1, 13, 13, 13)).astype(np.float32)
    pooled = parts.whole.get_layer("pool5")(cells)
    np.testing.assert_array_equal(pooled[0], keras.ops.max_pool(cells, 3, 2)[0].numpy().reshape(-1))
    assert parts.whole.input_shape == (None, 224, 224, 3)


def test_loss_is_the_cross_entropy_of_images_with_a_class(ten):
    inputs = normalized(images(CROP, CROP))
    predictions = ten.forward(inputs, training=True)
    scores = scores_of(ten, inputs)  # without dropout training sees the same
    np.testing.assert_allclose(predictions.scores, scores, atol=1e-6)
    term = ten.loss_terms(predictions, truth([2, 0]))["classification"]
    np.testing.assert_allclose(term.total, -np.log(scores[0, 2]) - np.log(scores[1, 0]), rtol=1e-4)
    assert float(term.normalizer) == 2.0
    term = ten.loss_terms(predictions, truth([-1, 0]))["classification"]
    np.testing.assert_allclose(term.total, -np.log(scores[1, 0]), rtol=1e-4)
    assert float(term.normalizer) == 1.0
    np.testing.assert_array_equal(ten.postprocess(predictions, None, None), predictions.scores)


def test_dropout_drops_in_training_alone():
    model = classifier(TestView.FULL_IMAGE, dropout_rate=0.5)
    inputs = normalized(images(CROP, CROP))
    np.testing.assert_array_equal(model.forward(inputs).scores, model.forward(inputs).scores)
    runs = [model.forward(inputs, training=True).scores.numpy() for _ in range(2)]
    assert not np.allclose(runs[0], runs[1])


def test_loss_falls_within_twenty_steps_of_two_sizes():
    model = classifier(TestView.FULL_IMAGE)
    inputs, classes = normalized(images(CROP, CROP, count=4)), truth([0, 1, 2, 1])
    optimizer = keras.optimizers.SGD(0.006, momentum=0.9)

    def step(x):
        with tf.GradientTape() as tape:
            term = model.loss_terms(model.forward(x, training=True), classes)["classification"]
            loss = term.total / term.normalizer
        gradients = tape.gradient(loss, model.trainable_variables)
        assert all(gradient is not None for gradient in gradients)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return float(loss)

    losses = [step(x) for _ in range(10) for x in (inputs, tf.image.resize(inputs, (48, 48)))]
    assert np.mean(losses[-2:]) < 0.5 * np.mean(losses[:2])


def test_scores_and_logits_are_float32_in_mixed_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = classifier(TestView.FULL_IMAGE)
    finally:
        keras.config.set_dtype_policy(before)
    inputs = normalized(images(CROP, CROP))
    predictions = model.forward(inputs, training=True)
    assert (predictions.scores.dtype, predictions.logits.dtype) == (tf.float32, tf.float32)
    full = classifier(TestView.FULL_IMAGE)
    np.testing.assert_allclose(predictions.scores, full.forward(inputs).scores, atol=0.05)
    assert {weight.dtype for weight in model.weights} == {"float32"}
