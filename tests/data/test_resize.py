"""Resizers: sizes worked by hand, the sampling grid, padding, masks, and parity with the golden outputs."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from detzoo.data import resize


def ramp(height: int, width: int) -> tf.Tensor:
    """An image whose red channel is the row, whose green one is the column, and whose blue one is 7."""
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    return tf.constant(np.stack([rows, columns, np.full_like(rows, 7)], axis=-1))


@pytest.mark.parametrize(
    ("size", "bounds", "expected"),
    [
        ((480, 640), (600, 1024), (600, 800)),  # 600 / 480 = 1.25
        ((300, 1000), (600, 1024), (307, 1024)),  # the longer side binds: 1.024 * 300 = 307.2
        ((1000, 300), (600, 1024), (1024, 307)),
        ((500, 500), (320, 640), (320, 320)),
        ((427, 640), (640, 640), (427, 640)),
        ((375, 500), (512, 512), (384, 512)),  # 1.024 * 375 = 384
        ((5, 10), (5, 5), (2, 5)),  # 2.5 is rounded half to even
        ((7, 10), (5, 5), (4, 5)),  # 3.5 too
    ],
)
def test_keep_aspect_ratio_size(size, bounds, expected):
    resizer = resize.KeepAspectRatioResizer(min_dimension=bounds[0], max_dimension=bounds[1])
    assert tuple(resizer.new_size(tf.constant(size)).numpy()) == expected


def test_keep_aspect_ratio_pads_bottom_and_right():
    resizer = resize.KeepAspectRatioResizer(
        min_dimension=8, max_dimension=8, pad_to_max_dimension=True, pad_value=(1.0, 2.0, 3.0)
    )
    padded, true_shape = resizer(ramp(4, 8) + 100.0)
    assert padded.shape == (8, 8, 3)
    np.testing.assert_array_equal(true_shape, [4, 8])
    np.testing.assert_array_equal(padded[:4], ramp(4, 8) + 100.0)
    np.testing.assert_array_equal(padded[4:], np.broadcast_to([1.0, 2.0, 3.0], (4, 8, 3)))
    assert resizer.static_shape == (8, 8)
    masks = resizer.masks(tf.ones([2, 4, 8], tf.uint8))
    assert masks.shape == (2, 8, 8)
    assert masks.numpy()[:, :4].all()
    assert not masks.numpy()[:, 4:].any()


def test_a_training_image_goes_to_one_of_the_shorter_sides():
    resizer = resize.KeepAspectRatioResizer(
        min_dimension=12, max_dimension=16, pad_to_max_dimension=True, training_min_dimensions=(4, 6, 9)
    )
    # Thirds of [0, 1): 0.33 is in the first, 0.34 in the second, 0.67 in the third.
    sizes = {number: resizer.drawn(tf.constant(number)).new_size(tf.constant([30, 20])) for number in (0.33, 0.34)}
    np.testing.assert_array_equal(sizes[0.33], [6, 4])
    np.testing.assert_array_equal(sizes[0.34], [9, 6])
    drawn = resizer.drawn(tf.constant(0.67))
    padded, true_shape = drawn(ramp(20, 30))
    np.testing.assert_array_equal(true_shape, [9, 14])  # 30 * 9 / 20 = 13.5, rounded half to even
    assert padded.shape == (16, 16, 3)
    masks = drawn.masks(tf.ones([1, 20, 30], tf.uint8)).numpy()
    assert masks.sum() == masks[:, :9, :14].sum() == 9 * 14
    largest = np.nextafter(np.float32(1.0), np.float32(0.0))
    np.testing.assert_array_equal(resizer.drawn(tf.constant(largest)).new_size(tf.constant([20, 20])), [9, 9])
    np.testing.assert_array_equal(resizer.new_size(tf.constant([20, 20])), [12, 12])  # not drawn: evaluation
    plain = resize.KeepAspectRatioResizer(min_dimension=8, max_dimension=12)
    assert plain.drawn(tf.constant(0.5)) is plain


def test_bilinear_samples_the_top_left_corner():
    # 4 -> 2 columns: output column 1 is input column 2 exactly. With pixel centres it would be 2.5.
    image, true_shape = resize.FixedShapeResizer(height=3, width=2)(ramp(3, 4))
    np.testing.assert_allclose(image[0, :, 1], [0.0, 2.0])
    np.testing.assert_array_equal(true_shape, [3, 2])


@pytest.mark.parametrize(("method", "column_1"), [("bilinear", 1.5), ("nearest", 1.0), ("area", 2.0)])
def test_methods(method, column_1):
    # 6 -> 4 columns with step 1.5. Bilinear takes position 1.5, nearest takes its floor, and area averages [1.5, 3),
    # which is (0.5*1 + 1*2) / 1.5.
    image, _ = resize.FixedShapeResizer(method=method, height=2, width=4)(ramp(2, 6))
    expected = 2.5 / 1.5 if method == "area" else column_1
    np.testing.assert_allclose(image[0, 1, 1], expected, rtol=1e-6)


def test_bicubic_differs_from_bilinear_and_keeps_a_constant():
    image, _ = resize.FixedShapeResizer(method="bicubic", height=5, width=7)(ramp(3, 4))
    np.testing.assert_allclose(image[..., 2], np.full((5, 7), 7.0), rtol=1e-5)


def test_grayscale_has_three_equal_channels():
    image = tf.constant([[[100.0, 50.0, 10.0]]])
    gray, _ = resize.IdentityResizer(convert_to_grayscale=True)(image)
    # 0.2989 * 100 + 0.587 * 50 + 0.114 * 10 = 60.38
    np.testing.assert_allclose(gray[0, 0], [60.38] * 3, rtol=1e-5)


def test_identity_keeps_everything():
    image, true_shape = resize.IdentityResizer()(tf.cast(ramp(3, 5), tf.uint8))
    assert image.dtype == tf.float32
    np.testing.assert_array_equal(image, ramp(3, 5))
    np.testing.assert_array_equal(true_shape, [3, 5])


@pytest.mark.parametrize(
    ("shrink", "size", "expected"),
    [
        (True, (200, 400), (150, 300)),
        (True, (101, 400), (75, 300)),  # 75.75 is truncated
        (True, (200, 250), (200, 250)),
        (False, (200, 400), (300, 600)),
        (False, (301, 400), (301, 400)),
    ],
)
def test_conditional_shape(shrink, size, expected):
    resizer = resize.ConditionalShapeResizer(size_threshold=300, shrink=shrink)
    assert tuple(resizer.new_size(tf.constant(size)).numpy()) == expected


def test_conditional_shape_aligns_corners():
    image, true_shape = resize.ConditionalShapeResizer(size_threshold=5)(ramp(9, 9))
    np.testing.assert_array_equal(true_shape, [5, 5])
    np.testing.assert_allclose(image[:, 0, 0], [0, 2, 4, 6, 8])  # first and last row are kept


def test_pad_to_multiple():
    image, true_shape = resize.PadToMultipleResizer(multiple=4)(ramp(5, 9) + 1.0)
    assert image.shape == (8, 12, 3)
    np.testing.assert_array_equal(true_shape, [5, 9])
    assert not image.numpy()[5:].any()
    assert not image.numpy()[:, 9:].any()


def test_masks_follow_and_may_be_none():
    resizer = resize.FixedShapeResizer(height=4, width=6)
    mask = np.zeros((1, 2, 3), np.uint8)
    mask[0, 1, 2] = 1
    resized = resizer.masks(tf.constant(mask)).numpy()
    expected = np.zeros((1, 4, 6), np.uint8)
    expected[0, 2:, 4:] = 1
    np.testing.assert_array_equal(resized, expected)
    assert resizer.masks(tf.zeros([0, 2, 3], tf.uint8)).shape == (0, 4, 6)


def test_works_in_a_function_with_unknown_size():
    resizer = resize.KeepAspectRatioResizer(min_dimension=6, max_dimension=8, pad_to_max_dimension=True)
    traced = tf.function(resizer, input_signature=[tf.TensorSpec([None, None, 3], tf.uint8)])
    image = tf.cast(ramp(4, 5), tf.uint8)
    eager, graph = resizer(image), traced(image)
    np.testing.assert_allclose(eager[0], graph[0])
    np.testing.assert_array_equal(eager[1], graph[1])


@pytest.mark.parametrize(
    ("folder", "resizer", "normalise"),
    [
        ("ssd_mobilenet_v2_320", resize.FixedShapeResizer(height=300, width=300), lambda x: x * (2.0 / 255.0) - 1.0),
        (
            "ssd_resnet50_v1_fpn_640",
            resize.FixedShapeResizer(height=640, width=640),
            lambda x: x - tf.constant([123.68, 116.779, 103.939]),
        ),
        (
            "rfcn_resnet101_v1_640",
            resize.KeepAspectRatioResizer(min_dimension=640, max_dimension=640, pad_to_max_dimension=True),
            lambda x: x - tf.constant([123.68, 116.779, 103.939]),
        ),
    ],
)
def test_same_pixels_as_the_object_detection_api(shared, folder, resizer, normalise):
    golden = np.load(shared / "golden" / folder / "outputs.npz")
    image = tf.io.decode_png(tf.io.read_file(str(shared / "golden" / "image1.png")))
    padded, true_shape = resizer(image)
    pixels = normalise(padded).numpy().astype(np.float64)
    np.testing.assert_allclose([pixels.mean(), pixels.std()], golden["preprocessed_mean_std"], rtol=2e-6)
    np.testing.assert_array_equal(true_shape, golden["true_image_shapes"][0, :2])


@pytest.mark.parametrize(
    "resizer",
    [
        resize.FixedShapeResizer(height=5, width=9),
        resize.FixedShapeResizer(height=5, width=9, method="area", convert_to_grayscale=True),
        resize.KeepAspectRatioResizer(
            min_dimension=8, max_dimension=12, pad_to_max_dimension=True, pad_value=(1.0, 2.0, 3.0)
        ),
        resize.KeepAspectRatioResizer(min_dimension=8, max_dimension=12),
        resize.IdentityResizer(),
        resize.ConditionalShapeResizer(size_threshold=6),
        resize.PadToMultipleResizer(multiple=4),
    ],
    ids=lambda resizer: type(resizer).__name__,
)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_batch_is_its_images_one_by_one(resizer, batch_size):
    images = np.random.default_rng(0).integers(0, 256, (batch_size, 7, 10, 3), np.uint8)
    batch, true_shape = tf.function(resizer, input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8)])(images)
    for image, padded in zip(images, batch):
        expected, expected_shape = resizer(tf.constant(image))
        np.testing.assert_array_equal(padded, expected)
        np.testing.assert_array_equal(true_shape, expected_shape)


@pytest.mark.parametrize("size", [(97, 61), (60, 61), (480, 640), (33, 900)])
def test_a_shrunk_image_has_the_size_of_the_resized_one(size):
    resizers = [
        resize.KeepAspectRatioResizer(min_dimension=31, max_dimension=50),
        resize.ConditionalShapeResizer(size_threshold=59),
        resize.FixedShapeResizer(height=20, width=30),
    ]
    for resizer in resizers:
        shrunk = resizer.shrunk(tf.zeros([*size, 3], tf.uint8))
        assert tuple(shrunk.shape[:2]) == tuple(resizer.new_size(tf.constant(size))) < size
        np.testing.assert_array_equal(resizer.new_size(tf.shape(shrunk)[:2]), tf.shape(shrunk)[:2])
    assert resize.IdentityResizer().shrunk(tf.zeros([*size, 3], tf.uint8)).shape[:2] == size
