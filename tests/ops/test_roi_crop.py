"""Crops against hand-worked numbers, the long way round, and the papers' rules written in numpy."""

import functools
import itertools

import numpy as np
import pytest
import tensorflow as tf

from detzoo.ops import roi_crop
from detzoo.ops.roi_crop import assign_levels, multilevel_crop

WHOLE = [0.0, 0.0, 1.0, 1.0]


def _of_batch(crop):
    """Returns a crop of boxes [B, R, 4] that takes the crop's own arguments."""
    return lambda features, boxes, *sizes, **named: roi_crop.single_level_crop(
        features, boxes, lambda *inputs: crop(*inputs, *sizes, **named)
    )


crop_and_resize = _of_batch(roi_crop.crop_and_resize_boxes)
crop_and_max_pool = _of_batch(roi_crop.crop_and_max_pool_boxes)
roi_align = _of_batch(roi_crop.roi_align_boxes)
max_roi_pool = _of_batch(roi_crop.max_roi_pool_boxes)

BATCHED = {
    "crop_and_resize": functools.partial(crop_and_resize, crop_size=(3, 2)),
    "crop_and_max_pool": functools.partial(crop_and_max_pool, crop_size=(7, 5), pool_size=2, output_stride=2),
    "roi_align": functools.partial(roi_align, crop_size=(3, 2), sampling_ratio=2),
    "max_roi_pool": functools.partial(max_roi_pool, crop_size=(3, 2)),
}
CROPS = {
    "crop_and_resize": functools.partial(roi_crop.crop_and_resize_boxes, crop_size=(3, 2)),
    "crop_and_max_pool": functools.partial(roi_crop.crop_and_max_pool_boxes, crop_size=(7, 5), pool_size=2),
    "roi_align": functools.partial(roi_crop.roi_align_boxes, crop_size=(3, 2)),
    "max_roi_pool": functools.partial(roi_crop.max_roi_pool_boxes, crop_size=(3, 2)),
}


def _ramp(height, width):
    """A map of one channel whose cell (y, x) holds 10 y + x: bilinear samples at (y, x) are 10 y + x too."""
    y, x = np.meshgrid(range(height), range(width), indexing="ij")
    return tf.constant((10 * y + x)[np.newaxis, ..., np.newaxis], tf.float32)


def _random_features(seed, *shape):
    return tf.constant(np.random.default_rng(seed).standard_normal(shape), tf.float32)


def _random_boxes(seed, images, count, low=-0.3):
    generator = np.random.default_rng(seed)
    corners = generator.uniform(low, 0.9, (images, count, 2))
    boxes = np.concatenate([corners, corners + generator.uniform(0, 0.8, (images, count, 2))], -1)
    return tf.constant(boxes, tf.float32)


def _gradients(crop, features, boxes, upstream=None):
    with tf.GradientTape() as tape:
        tape.watch([features, boxes])
        crops = crop(features, boxes)
        loss = tf.reduce_sum(crops * (tf.ones_like(crops) if upstream is None else upstream))
    return tape.gradient(loss, [features, boxes])


# Tests that hold for all crops.


@pytest.mark.parametrize("crop", BATCHED.values(), ids=BATCHED)
def test_a_batch_is_its_images_and_a_graph_of_unknown_shapes_is_the_eager_run(crop):
    features, boxes = _random_features(0, 2, 6, 9, 3), _random_boxes(1, 2, 10)
    eager = crop(features, boxes)
    for image in range(2):
        np.testing.assert_array_equal(eager[image], crop(features[image : image + 1], boxes[image : image + 1])[0])
    specs = [tf.TensorSpec([None, 6, 9, 3]), tf.TensorSpec([None, None, 4])]
    graph = tf.function(crop, input_signature=specs, autograph=False)
    np.testing.assert_allclose(graph(features, boxes), eager, atol=1e-6)
    assert graph.get_concrete_function().output_shapes.as_list() == [None, None, *eager.shape[2:]]
    assert graph(features, boxes[:, :0]).shape == (2, 0, *eager.shape[2:])


@pytest.mark.parametrize("crop", BATCHED.values(), ids=BATCHED)
def test_gradient_flows_to_the_features_alone(crop):
    to_features, to_boxes = _gradients(crop, _random_features(2, 2, 6, 9, 3), _random_boxes(3, 2, 10, low=0.0))
    assert to_boxes is None
    assert np.abs(to_features).max() > 0.1
    assert np.isfinite(to_features).all()


@pytest.mark.parametrize("crop", BATCHED.values(), ids=BATCHED)
def test_boxes_outside_the_map_give_zeros_and_no_gradient(crop):
    boxes = tf.constant([[[1.5, 0.0, 1.9, 1.0], [0.0, -0.9, 1.0, -0.4], [3.0, 3.0, 9.0, 9.0]]])
    features = tf.ones([1, 8, 11, 2])
    assert not crop(features, boxes).numpy().any()
    assert not _gradients(crop, features, boxes)[0].numpy().any()


@pytest.mark.parametrize("crop", BATCHED.values(), ids=BATCHED)
def test_a_map_of_one_cell_and_boxes_without_area(crop):
    one_cell = tf.constant([[[[3.0, -2.0]]]])
    boxes = tf.constant([[WHOLE, [0.25, 0.25, 0.25, 0.25], [0.1, 0.3, 0.1, 0.4]]])
    crops = crop(one_cell, boxes)
    np.testing.assert_allclose(crops, tf.broadcast_to(tf.constant([3.0, -2.0]), crops.shape), rtol=1e-6)


@pytest.mark.parametrize("crop", BATCHED.values(), ids=BATCHED)
@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16], ids=["float16", "bfloat16"])
def test_crops_have_the_type_of_the_features(crop, dtype):
    features, boxes = tf.cast(_random_features(4, 1, 6, 9, 3), dtype), _random_boxes(5, 1, 10)
    crops = crop(features, boxes)
    assert crops.dtype == dtype
    full = crop(tf.cast(features, tf.float32), boxes)
    np.testing.assert_allclose(tf.cast(crops, tf.float32), full, atol=0.02)


@pytest.mark.parametrize("crop", [crop_and_resize, roi_align, max_roi_pool])
def test_a_size_below_one_is_an_error(crop):
    with pytest.raises(ValueError, match=r"crop_size is \(0, 3\); every size must be at least 1"):
        crop(_ramp(4, 5), tf.constant([[WHOLE]]), (0, 3))


# crop_and_resize


def test_bilinear_samples_lie_from_side_to_side():
    # Rows: 0.25 * 4 = 1 to 0.75 * 4 = 3, so 1, 2, 3. Columns: 0.5 * 5 = 2.5 to 5. Values 10 y + x.
    crops = crop_and_resize(_ramp(5, 6), tf.constant([[[0.25, 0.5, 0.75, 1.0]]]), (3, 2))
    np.testing.assert_allclose(crops[0, 0, ..., 0], [[12.5, 15.0], [22.5, 25.0], [32.5, 35.0]], rtol=1e-6)


def test_a_single_sample_lies_in_the_middle():
    # Row (0 + 0.5) / 2 * 4 = 1, columns 0, 2.5, 5.
    crops = crop_and_resize(_ramp(5, 6), tf.constant([[[0.0, 0.0, 0.5, 1.0]]]), (1, 3))
    np.testing.assert_allclose(crops[0, 0, ..., 0], [[10.0, 12.5, 15.0]], rtol=1e-6)


def test_samples_beyond_the_border_are_zero():
    # Rows 2, 4, 6 of 5: the last one is outside. Columns -5, 0, 5 of 6: the first one is.
    crops = crop_and_resize(_ramp(5, 6), tf.constant([[[0.5, -1.0, 1.5, 1.0]]]), (3, 3))
    np.testing.assert_allclose(crops[0, 0, ..., 0], [[0, 20, 25], [0, 40, 45], [0, 0, 0]], rtol=1e-6)


# crop_and_max_pool


def _crop_then_pool(features, boxes, crop_size, pool_size, output_stride):
    crops = crop_and_resize(features, boxes, crop_size)
    pooled = tf.nn.max_pool2d(tf.reshape(crops, [-1, *crop_size, features.shape[-1]]), pool_size, pool_size, "VALID")
    kept = pooled[:, ::output_stride, ::output_stride]
    return tf.reshape(kept, [*boxes.shape[:2], *kept.shape[1:]])


@pytest.mark.parametrize("map_size", [(13, 9), (38, 57), (1, 5)], ids=str)
@pytest.mark.parametrize(
    ("crop_size", "pool_size", "output_stride"),
    [((14, 14), 2, 2), ((14, 14), 2, 1), ((5, 7), 3, 2), ((2, 3), 2, 1), ((17, 4), 1, 2), ((1, 4), 1, 3)],
    ids=str,
)
@pytest.mark.parametrize("is_clipped", [True, False], ids=["boxes end at the border", "boxes leave the map"])
def test_equals_crop_then_pool_then_skip(map_size, crop_size, pool_size, output_stride, is_clipped):
    features, boxes = _random_features(6, 2, *map_size, 2), _random_boxes(7, 2, 100)
    boxes = tf.clip_by_value(boxes, 0.0, 1.0) if is_clipped else boxes
    expected = _crop_then_pool(features, boxes, crop_size, pool_size, output_stride)
    actual = crop_and_max_pool(features, boxes, crop_size, pool_size, output_stride)
    assert actual.shape == expected.shape
    # Positions next to the border are moved by up to 5e-7 of the map, 3e-5 cells; neighbours differ by up to 8.
    np.testing.assert_allclose(actual, expected, atol=3e-4)


@pytest.mark.parametrize("output_stride", [1, 2])
def test_pooled_gradient_equals_that_of_crop_then_pool(output_stride):
    # Few boxes well inside a map of noise: all samples of a window differ, so exactly one of them gets the gradient.
    features, boxes = _random_features(8, 2, 9, 13, 3), tf.clip_by_value(_random_boxes(9, 2, 12, low=0.1), 0.0, 0.95)
    shape = _crop_then_pool(features, boxes, (6, 8), 2, output_stride).shape
    upstream = _random_features(10, *shape)
    arguments = ((6, 8), 2, output_stride)
    expected, _ = _gradients(lambda f, b: _crop_then_pool(f, b, *arguments), features, boxes, upstream)
    actual, _ = _gradients(lambda f, b: crop_and_max_pool(f, b, *arguments), features, boxes, upstream)
    assert np.abs(actual).max() > 0.1
    np.testing.assert_allclose(actual, expected, atol=1e-4)


def test_pooling_takes_the_largest_sample_of_each_window():
    # The crop of the whole 4 x 6 map is the map. The largest value 10 y + x of a 2 x 2 window is at its lower right; an
    # output stride of 2 leaves the windows of rows 0-1 and columns 0-1 and 4-5.
    boxes = tf.constant([[WHOLE]])
    pooled = crop_and_max_pool(_ramp(4, 6), boxes, (4, 6), 2)
    np.testing.assert_allclose(pooled[0, 0, ..., 0], [[11, 13, 15], [31, 33, 35]], rtol=1e-4)
    kept = crop_and_max_pool(_ramp(4, 6), boxes, (4, 6), 2, output_stride=2)
    np.testing.assert_allclose(kept[0, 0, ..., 0], [[11, 15]], rtol=1e-4)


def test_a_window_larger_than_the_crop_is_an_error():
    with pytest.raises(ValueError, match=r"pool_size 3 is larger than crop_size \(2, 5\)"):
        crop_and_max_pool(_ramp(4, 5), tf.constant([[WHOLE]]), (2, 5), 3)
    with pytest.raises(ValueError, match="output_stride is 0"):
        crop_and_max_pool(_ramp(4, 5), tf.constant([[WHOLE]]), (2, 5), 2, output_stride=0)


# multilevel_crop


@pytest.mark.parametrize("crop", CROPS.values(), ids=CROPS)
def test_each_box_is_cropped_from_the_map_of_its_level(crop):
    maps = {level: _random_features(level, 2, 48 >> level, 64 >> level, 3) for level in (2, 3, 5)}
    boxes = _random_boxes(11, 2, 15)
    levels = np.random.default_rng(12).choice([2, 3, 5], (2, 15)).astype(np.int32)
    crops = multilevel_crop(maps, boxes, tf.constant(levels), crop)
    for image, index in np.ndindex(2, 15):
        features = maps[levels[image, index]][image : image + 1]
        alone = roi_crop.single_level_crop(features, boxes[image : image + 1, index : index + 1], crop)
        np.testing.assert_array_equal(crops[image, index], alone[0, 0])


def test_levels_without_boxes_and_levels_without_maps():
    # Maps of constant value 2, 3 and 5. Level 4 has no map: the next lower one, 3, stands in; so do the ends.
    maps = {level: tf.fill([1, 64 >> level, 32 >> level, 1], float(level)) for level in (5, 2, 3)}
    boxes = tf.constant([[[0.2, 0.2, 0.6, 0.7]] * 5])
    for levels, expected in (([2, 2, 2, 2, 2], [2, 2, 2, 2, 2]), ([5, 4, 3, 0, 9], [5, 3, 3, 2, 5])):
        crops = multilevel_crop(maps, boxes, tf.constant([levels]), CROPS["crop_and_resize"])
        np.testing.assert_allclose(crops[0, :, 0, 0, 0], expected)


def test_each_level_receives_the_gradient_of_its_boxes_alone():
    maps = {level: tf.ones([1, 16 >> level, 8 >> level, 1]) for level in (0, 1)}
    with tf.GradientTape() as tape:
        tape.watch(maps)
        boxes = tf.constant([[[0.2, 0.2, 0.6, 0.7]] * 3])
        crops = multilevel_crop(maps, boxes, tf.constant([[1, 0, 1]]), CROPS["crop_and_resize"])
        loss = tf.reduce_sum(crops)
    gradients = tape.gradient(loss, maps)
    # Six samples per box; the weights of each sample add up to 1.
    np.testing.assert_allclose([tf.reduce_sum(gradients[level]) for level in (0, 1)], [6.0, 12.0], rtol=1e-5)


def test_one_map_is_cropped_whatever_the_levels_say():
    features, boxes = _random_features(13, 1, 6, 9, 3), _random_boxes(14, 1, 5)
    crops = multilevel_crop({4: features}, boxes, tf.constant([[2, 3, 4, 5, 6]]), CROPS["roi_align"])
    np.testing.assert_array_equal(crops, roi_align(features, boxes, (3, 2)))


def test_a_pyramid_in_a_graph_of_unknown_shapes_is_the_eager_run():
    maps = {level: _random_features(level, 2, 48 >> level, 64 >> level, 3) for level in (2, 3)}
    boxes, levels = _random_boxes(15, 2, 7), tf.constant([[2, 3, 3, 2, 2, 3, 2]] * 2)

    @tf.function(
        input_signature=[
            {level: tf.TensorSpec([None, None, None, 3]) for level in maps},
            tf.TensorSpec([None, None, 4]),
            tf.TensorSpec([None, None], tf.int32),
        ],
        autograph=False,
    )
    def graph(*inputs):
        return multilevel_crop(*inputs, CROPS["crop_and_max_pool"])

    eager = multilevel_crop(maps, boxes, levels, CROPS["crop_and_max_pool"])
    np.testing.assert_allclose(graph(maps, boxes, levels), eager, atol=1e-6)
    assert graph.get_concrete_function().output_shapes.as_list() == [None, None, 3, 2, 3]
    assert graph(maps, boxes[:, :0], levels[:, :0]).shape == (2, 0, 3, 2, 3)


def test_no_map_is_an_error():
    with pytest.raises(ValueError, match="received no map"):
        multilevel_crop({}, tf.zeros([1, 1, 4]), tf.zeros([1, 1], tf.int32), CROPS["roi_align"])


# assign_levels


def test_levels_double_in_size():
    # By 4 + log2(sqrt(w h) / 224), 224 x 224 has level 4, as has 448 x 112 with the same area. 448 x 448 has 5,
    # 447 x 447 4.997, 112 x 112 3, and 111 x 112 2.99. 20 x 20 has 0.51 and 2000 x 2000 7.2, which are clipped to 2
    # and 5.
    sizes = [(224, 224), (448, 112), (448, 448), (447, 447), (112, 112), (111, 112), (20, 20), (2000, 2000)]
    boxes = tf.constant([[[30.0, 7.0, 30.0 + height, 7.0 + width] for height, width in sizes]])
    levels = assign_levels(boxes, 2, 5)
    assert levels.dtype == tf.int32
    assert levels.numpy().tolist() == [[4, 4, 5, 4, 3, 2, 2, 5]]


def test_rounded_coordinates_do_not_lower_the_level():
    starts = np.random.default_rng(16).uniform(0, 3000, (1000, 2)).astype(np.float32)
    for side, level in ((56, 2), (112, 3), (224, 4), (448, 5)):
        boxes = np.concatenate([starts, (starts + np.float32(side)).astype(np.float32)], -1)
        assert set(assign_levels(tf.constant(boxes), 1, 6).numpy().tolist()) == {level}


def test_degenerate_boxes_go_to_the_lowest_level():
    boxes = tf.constant([[5.0, 5, 5, 900], [5, 5, 900, 5], [900, 900, 5, 5], [0, 0, 0, 0]])
    assert assign_levels(boxes, 3, 6).numpy().tolist() == [3, 3, 3, 3]


def test_the_canonical_box_moves_the_levels():
    boxes = tf.constant([[0.0, 0, 100, 100], [0, 0, 200, 200]])
    assert assign_levels(boxes, 0, 9, canonical_level=6, canonical_size_px=100.0).numpy().tolist() == [6, 7]


def test_levels_in_the_wrong_order_are_an_error():
    with pytest.raises(ValueError, match="min_level 5 above max_level 2"):
        assign_levels(tf.zeros([1, 4]), 5, 2)


# roi_align


def _roi_align_rule(features, box, crop_size, ratio):
    """Every sample by itself, as He et al. describe it, with the borders of Detectron2."""
    height, width, _ = features.shape

    def sample(y, x):
        if not (-1 <= y <= height and -1 <= x <= width):
            return np.zeros(features.shape[-1])
        y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
        y0, x0 = int(y), int(x)
        y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
        upper = (1 - x + x0) * features[y0, x0] + (x - x0) * features[y0, x1]
        lower = (1 - x + x0) * features[y1, x0] + (x - x0) * features[y1, x1]
        return (1 - y + y0) * upper + (y - y0) * lower

    bin_height, bin_width = (box[2] - box[0]) * height / crop_size[0], (box[3] - box[1]) * width / crop_size[1]
    result = np.zeros((*crop_size, features.shape[-1]))
    for i, j, part_y, part_x in np.ndindex(*crop_size, ratio, ratio):
        y = box[0] * height - 0.5 + (i + (part_y + 0.5) / ratio) * bin_height
        x = box[1] * width - 0.5 + (j + (part_x + 0.5) / ratio) * bin_width
        result[i, j] += sample(y, x) / ratio**2
    return result


@pytest.mark.parametrize("map_size", [(13, 9), (1, 4), (30, 41)], ids=str)
@pytest.mark.parametrize(("crop_size", "ratio"), [((3, 2), 2), ((1, 7), 1), ((7, 7), 3)], ids=str)
def test_roi_align_equals_its_rule(map_size, crop_size, ratio):
    features, boxes = _random_features(17, 1, *map_size, 2), _random_boxes(18, 1, 40)
    expected = [_roi_align_rule(features[0].numpy(), box, crop_size, ratio) for box in boxes[0].numpy().astype(float)]
    np.testing.assert_allclose(roi_align(features, boxes, crop_size, ratio)[0], expected, atol=1e-4)


def test_roi_align_of_the_whole_map_at_its_own_size_is_the_map():
    # One bin a cell and one sample a bin: at the cell's centre.
    features = _random_features(19, 1, 4, 7, 3)
    aligned = roi_align(features, tf.constant([[WHOLE]]), (4, 7), sampling_ratio=1)
    np.testing.assert_allclose(aligned[0], features, atol=1e-5)


def test_roi_align_averages_samples_between_the_centres():
    # Map 4 x 8, box rows 1 to 3 (cells), columns 2 to 6; bins 1 x 2 of 2 x 2 cells. A bin's samples are symmetric about
    # its centre, (2, 3) and (2, 5), minus 0.5: (1.5, 2.5) and (1.5, 4.5). The value is linear: 10 * 1.5 + 2.5, + 4.5.
    aligned = roi_align(_ramp(4, 8), tf.constant([[[0.25, 0.25, 0.75, 0.75]]]), (1, 2), sampling_ratio=2)
    np.testing.assert_allclose(aligned[0, 0, :, :, 0], [[17.5, 19.5]], rtol=1e-6)


def test_roi_align_repeats_the_border_for_one_cell_and_no_farther():
    # Map 1 x 4 of values 0, 1, 2, 3; bins of one cell from 3 to 6, samples at 3 + 0.5 - 0.5 = 3, 4 and 5. The sample at
    # 4 is one cell beyond the centre of the last one and has its value; the sample at 5 is 0.
    aligned = roi_align(_ramp(1, 4), tf.constant([[[0.0, 0.75, 1.0, 1.5]]]), (1, 3), sampling_ratio=1)
    np.testing.assert_allclose(aligned[0, 0, 0, :, 0], [3.0, 3.0, 0.0], atol=1e-5)


def test_a_ratio_below_one_is_an_error():
    with pytest.raises(ValueError, match="sampling_ratio is 0; every size must be at least 1"):
        roi_align(_ramp(4, 5), tf.constant([[WHOLE]]), (2, 2), sampling_ratio=0)


# max_roi_pool


def _max_roi_pool_rule(features, box, crop_size):
    """Every bin by itself, as Girshick's code does it, of boxes that end where their last cell ends."""
    bins = []
    for axis in (0, 1):
        size = features.shape[axis]
        first, last = (int(np.floor(np.float32(box[side]) * np.float32(size) + 0.5)) for side in (axis, axis + 2))
        extent = max(last - first, 1)
        starts = [first + int(np.floor(i * extent / crop_size[axis])) for i in range(crop_size[axis])]
        stops = [first + int(np.ceil((i + 1) * extent / crop_size[axis])) for i in range(crop_size[axis])]
        bins.append([(max(a, 0), min(b, size)) for a, b in zip(starts, stops, strict=True)])
    result = np.zeros((*crop_size, features.shape[-1]), np.float32)
    for (i, (top, bottom)), (j, (left, right)) in itertools.product(enumerate(bins[0]), enumerate(bins[1])):
        if bottom > top and right > left:
            result[i, j] = features[top:bottom, left:right].max(axis=(0, 1))
    return result


@pytest.mark.parametrize("map_size", [(13, 9), (1, 4), (38, 63)], ids=str)
@pytest.mark.parametrize("crop_size", [(3, 2), (1, 1), (7, 7)], ids=str)
def test_max_roi_pool_equals_its_rule(map_size, crop_size):
    features, boxes = _random_features(20, 1, *map_size, 2), _random_boxes(21, 1, 60)
    expected = [_max_roi_pool_rule(features[0].numpy(), box, crop_size) for box in boxes[0].numpy()]
    np.testing.assert_array_equal(max_roi_pool(features, boxes, crop_size)[0], expected)


def test_bins_of_cells_by_hand():
    # Map 6 x 8. Rows: 0.2 * 6 = 1.2 -> 1 to 0.6 * 6 = 3.6 -> 4, so rows 1, 2, 3, in 2 bins: the first takes
    # ceil(1.5) = 2 rows, 1-2, the second those from 1 + floor(1.5) = 2, 2-3. Columns: 0.3 * 8 = 2.4 -> 2 to
    # 0.8 * 8 = 6.4 -> 6, so 2-3 and 4-5. The largest values 10 y + x are 23, 25, 33, 35.
    pooled = max_roi_pool(_ramp(6, 8), tf.constant([[[0.2, 0.3, 0.6, 0.8]]]), (2, 2))
    assert pooled[0, 0, ..., 0].numpy().tolist() == [[23, 25], [33, 35]]


def test_negative_maxima_stay_and_empty_bins_are_zero():
    # Map 2 x 4 of -1. Columns 0.5 * 4 = 2 to 2 * 4 = 8: 6 columns in 3 bins, of which only 2-3 exist.
    pooled = max_roi_pool(-tf.ones([1, 2, 4, 1]), tf.constant([[[0.0, 0.5, 0.5, 2.0]]]), (1, 3))
    assert pooled[0, 0, 0, :, 0].numpy().tolist() == [-1, 0, 0]


def test_the_largest_cell_gets_the_whole_gradient():
    # One bin over the whole map: the last cell is the largest. A second box, of cell (0, 0) alone, gives it its 1.
    boxes = tf.constant([[WHOLE, [0.0, 0.0, 0.0, 0.0]]])
    gradient, _ = _gradients(functools.partial(max_roi_pool, crop_size=(1, 1)), _ramp(3, 5), boxes)
    expected = np.zeros((3, 5))
    expected[2, 4] = expected[0, 0] = 1
    np.testing.assert_array_equal(gradient[0, ..., 0], expected)


def test_max_roi_pool_takes_maps_whose_size_is_not_known_before():
    graph = tf.function(
        functools.partial(max_roi_pool, crop_size=(3, 2)),
        input_signature=[tf.TensorSpec([1, None, None, 2]), tf.TensorSpec([1, None, 4])],
        autograph=False,
    )
    for map_size in ((13, 9), (5, 38)):
        features, boxes = _random_features(22, 1, *map_size, 2), _random_boxes(23, 1, 20)
        expected = [_max_roi_pool_rule(features[0].numpy(), box, (3, 2)) for box in boxes[0].numpy()]
        np.testing.assert_array_equal(graph(features, boxes)[0], expected)
