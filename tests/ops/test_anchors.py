"""Anchors: tables worked by hand, and the golden anchors."""

import numpy as np
import pytest
import tensorflow as tf

from detzoo.ops import anchors


def _ssd(num_layers=2, scales=(), reduce_lowest=True, interpolated=1.0, ratios=(1.0, 2.0), **options):
    sizes = anchors.ssd_layer_sizes(num_layers, 0.2, 0.8, scales, ratios, interpolated, reduce_lowest)
    return anchors.SsdAnchors(sizes, **options)


def test_sizes_keep_area_and_aspect_ratio():
    sizes = anchors.sizes_of([0.5, 1.0], [4.0, 1.0])
    # scale .5, width / height 4: height .25, width 1.
    np.testing.assert_allclose(sizes, [[0.25, 1.0], [1.0, 1.0]])


def test_ssd_scales_and_reduced_lowest_layer():
    sizes = _ssd().layer_sizes
    root = np.sqrt(2.0)
    np.testing.assert_allclose(sizes[0], [[0.1, 0.1], [0.2 / root, 0.2 * root], [0.2 * root, 0.2 / root]], rtol=1e-6)
    # Second layer: scale .8 with both ratios, then the geometric mean of .8 and 1.
    np.testing.assert_allclose(sizes[1], [[0.8, 0.8], [0.8 / root, 0.8 * root], [np.sqrt(0.8)] * 2], rtol=1e-6)


def test_ssd_lowest_layer_not_reduced_and_no_interpolated_box():
    generator = _ssd(reduce_lowest=False, interpolated=0.0)
    assert generator.num_anchors_per_location == (2, 2)
    np.testing.assert_allclose(generator.layer_sizes[0][0], [0.2, 0.2], rtol=1e-6)


def test_ssd_explicit_scales_replace_min_and_max():
    sizes = _ssd(scales=(0.3, 0.5), reduce_lowest=False, ratios=(1.0,)).layer_sizes
    np.testing.assert_allclose(sizes[0], [[0.3, 0.3], [np.sqrt(0.15)] * 2], rtol=1e-6)
    np.testing.assert_allclose(sizes[1], [[0.5, 0.5], [np.sqrt(0.5)] * 2], rtol=1e-6)


def test_ssd_boxes_are_square_in_pixels_on_an_image_that_is_not():
    generator = _ssd(num_layers=1, scales=(0.5,), reduce_lowest=False, interpolated=0.0, ratios=(1.0,))
    boxes = generator([(1, 2)], (100, 200))
    # Shorter side 100: 50 x 50 pixels, .5 of the height and .25 of the width, centred at x = .25 and .75.
    np.testing.assert_allclose(boxes, [[0.25, 0.125, 0.75, 0.375], [0.25, 0.625, 0.75, 0.875]], rtol=1e-6)
    assert boxes.dtype == np.float32


def test_ssd_base_anchor_size_strides_and_offsets_take_effect():
    generator = _ssd(
        num_layers=1,
        scales=(0.5,),
        reduce_lowest=False,
        interpolated=0.0,
        ratios=(1.0,),
        base_anchor_size=(0.5, 1.0),
        strides_px=((10, 40),),
        offsets_px=((20, 30),),
    )
    boxes = generator([(1, 2)], (100, 200))
    # 25 x 50 pixels around (20, 30) and (20, 70).
    expected_px = np.array([[7.5, 5, 32.5, 55], [7.5, 45, 32.5, 95]])
    np.testing.assert_allclose(boxes, expected_px / [100, 200, 100, 200], rtol=1e-5)


def test_multiscale_order_sizes_and_offsets():
    generator = anchors.MultiscaleAnchors(3, 3, 4.0, (1.0, 4.0), 2)
    assert generator.num_anchors_per_location == (4,)
    boxes_px = generator([(2, 1)], (16, 8)) * [16, 8, 16, 8]
    # Side 4 * 8 = 32, then 32 * sqrt(2), then both as 1:4; first centre (4, 4), both sides being multiples of 8.
    np.testing.assert_allclose(boxes_px[0], [-12, -12, 20, 20], atol=1e-4)
    half = 16 * np.sqrt(2)
    np.testing.assert_allclose(boxes_px[1], [4 - half, 4 - half, 4 + half, 4 + half], atol=1e-4)
    np.testing.assert_allclose(boxes_px[2], [-4, -28, 12, 36], atol=1e-4)
    np.testing.assert_allclose(boxes_px[4], [-4, -12, 28, 20], atol=1e-4)  # next row: 8 pixels down


def test_multiscale_has_no_offset_where_the_stride_does_not_divide_the_side():
    boxes_px = anchors.MultiscaleAnchors(3, 3, 1.0, (1.0,), 1)([(2, 3)], (12, 24)) * [12, 24, 12, 24]
    np.testing.assert_allclose(boxes_px[0], [-4, 0, 4, 8], atol=1e-5)  # 8 divides 24 (x), but not 12 (y)


def test_grid_anchors_in_pixels():
    generator = anchors.GridAnchors((anchors.sizes_of([8.0], [1.0]),), ((4, 8),), ((0, 2),))
    boxes_px = generator([(2, 1)], (10, 20)) * [10, 20, 10, 20]
    np.testing.assert_allclose(boxes_px, [[-4, -2, 4, 6], [0, -2, 8, 6]], atol=1e-5)


@pytest.mark.parametrize(
    "generator",
    [
        _ssd(),
        _ssd(strides_px=((8, 8), (16, 16)), offsets_px=((4, 4), (8, 8))),
        anchors.MultiscaleAnchors(3, 4),
        anchors.GridAnchors((anchors.sizes_of([8.0], [1.0]),) * 2, ((4, 8),) * 2, ((0, 2),) * 2),
    ],
)
def test_tensor_shapes_give_the_numbers_of_static_shapes(generator):
    @tf.function(autograph=False)
    def dynamic(shapes, image_shape):
        return generator([tuple(tf.unstack(shape)) for shape in tf.unstack(shapes)], tuple(tf.unstack(image_shape)))

    expected = generator([(5, 7), (3, 4)], (40, 50))
    assert isinstance(expected, np.ndarray)
    actual = dynamic(tf.constant([[5, 7], [3, 4]]), tf.constant([40, 50]))
    np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_number_of_feature_maps_is_checked():
    with pytest.raises(ValueError, match="2 feature maps but received 1"):
        _ssd()([(1, 1)], (8, 8))


def test_golden_ssd_anchors(shared):
    golden = np.load(shared / "golden/ssd_mobilenet_v2_320/outputs.npz")["anchors"]
    sizes = anchors.ssd_layer_sizes(6, 0.2, 0.95, (), (1.0, 2.0, 0.5, 3.0, 0.3333), 1.0, True)
    boxes = anchors.SsdAnchors(sizes)([(19, 19), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1)], (300, 300))
    np.testing.assert_allclose(boxes, golden, atol=1e-6)


def test_golden_retinanet_anchors(shared):
    golden = np.load(shared / "golden/ssd_resnet50_v1_fpn_640/outputs.npz")["anchors"]
    boxes = anchors.MultiscaleAnchors()([(80, 80), (40, 40), (20, 20), (10, 10), (5, 5)], (640, 640))
    np.testing.assert_allclose(boxes, golden, atol=1e-6)
