"""Crops regions of fixed size from feature maps (floor 1), between the first stage and the head of the second.

A ``Crop`` is a function of maps, boxes and the image of each box. ``single_level_crop`` applies it to one map,
``multilevel_crop`` to a pyramid, where each box is cropped once, from the map of its level:

    crop = functools.partial(crop_and_resize_boxes, crop_size=(7, 7))
    crops = multilevel_crop(maps, proposals_norm, levels, crop)

=========================== ==========================================================
crop                        paper
=========================== ==========================================================
``crop_and_resize_boxes``   "Speed/accuracy trade-offs", arXiv:1611.10012, section 3.1
``crop_and_max_pool_boxes`` the same, with the pooling behind it
``roi_align_boxes``         Mask R-CNN, arXiv:1703.06870, section 3
``max_roi_pool_boxes``      Fast R-CNN, arXiv:1504.08083, section 2.1
=========================== ==========================================================

Boxes are [ymin, xmin, ymax, xmax] as fractions of the map. They may leave the map and may have no area, but must be
finite (else TensorFlow raises InvalidArgumentError). Gradients flow to the maps only, not to the boxes. B images,
R boxes per image, N = B x R boxes, C channels.

Arguments of every crop:
    features: number [B, H, W, C].
    boxes_norm: float32 [N, 4], fractions of the map.
    image_indices: int32 [N], image of each box.
    crop_size: (h, w).

A crop returns [N, h, w, C] in the features' type, and raises ValueError for a size below 1.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping

import tensorflow as tf

from detzoo.ops.bilinear import bilinear_crop, map_size, sample_grid
from detzoo.ops.bin_maxima import Runs, bin_edges, bin_maxima, cover
from detzoo.ops.graph_form import GraphForm, graph_form

# (features [B, H, W, C], boxes_norm float32 [N, 4], image_indices int32 [N]) -> [N, h, w, C] in the features' type.
Crop = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]

# Relative error of an area from rounded coordinates: 224 px next to coordinates of several thousand px.
_AREA_ROUNDING = 1e-5


def single_level_crop(features: tf.Tensor, boxes_norm: tf.Tensor, crop: Crop) -> tf.Tensor:
    """Crops all boxes [B, R, 4] from one map [B, H, W, C]. Returns [B, R, h, w, C] in the features' type."""
    boxes, image_indices = _flatten(boxes_norm)
    return _unflatten(crop(features, boxes, image_indices), boxes_norm)


def multilevel_crop(maps: Mapping[int, tf.Tensor], boxes_norm: tf.Tensor, levels: tf.Tensor, crop: Crop) -> tf.Tensor:
    """Crops each box from the map of its level (FPN, arXiv:1612.03144, section 4.2).

    Args:
        maps: Level -> number [B, H_l, W_l, C], of equal C and type.
        boxes_norm: float32 [B, R, 4], fractions of the image, and so of each map.
        levels: int32 [B, R]. A level without a map is replaced by the nearest lower level that has one, or by the
            lowest level.
        crop: The crop.

    Returns:
        [B, R, h, w, C] in the maps' type.
    """
    if not maps:
        raise ValueError("multilevel_crop received no map; it needs at least one, as {level: [B, H, W, C]}")
    available = sorted(maps)
    if len(available) == 1:
        return single_level_crop(maps[available[0]], boxes_norm, crop)
    boxes, image_indices = _flatten(boxes_norm)
    flat_levels = tf.reshape(levels, [-1])
    partition = sum(tf.cast(flat_levels >= level, tf.int32) for level in available[1:])
    places, crops = [], []
    for group, level in enumerate(available):
        place = tf.where(partition == group)[:, 0]
        places.append(tf.cast(place, tf.int32))
        crops.append(crop(maps[level], tf.gather(boxes, place), tf.gather(image_indices, place)))
    stitched = tf.ensure_shape(_in_order(places, crops), [None, *crops[0].shape[1:]])
    return _unflatten(stitched, boxes_norm)


def _in_order(places: list[tf.Tensor], crops: list[tf.Tensor]) -> tf.Tensor:
    """Returns the crops of all groups by their places."""
    if graph_form() is not GraphForm.TENSORFLOW:
        return tf.gather(tf.concat(crops, axis=0), tf.argsort(tf.concat(places, axis=0)))
    # The parallel stitch is faster on CPUs, and has no kernel for GPUs.
    stitch = tf.raw_ops.DynamicStitch if tf.config.list_logical_devices("GPU") else tf.raw_ops.ParallelDynamicStitch
    return stitch(indices=places, data=crops)


def assign_levels(
    boxes_px: tf.Tensor,
    min_level: int,
    max_level: int,
    canonical_level: int = 4,
    canonical_size_px: float = 224.0,
) -> tf.Tensor:
    """Returns the pyramid level to crop each box from (FPN, arXiv:1612.03144, equation 1).

    The level is floor(canonical_level + log2(sqrt(width x height) / canonical_size_px)), clipped to
    [min_level, max_level]. An area that only rounding keeps below the smallest area of a level belongs to that level.

    Args:
        boxes_px: float32 [..., 4], pixels of the padded input.
        min_level: Level of the smallest boxes, and of boxes without area.
        max_level: Level of the largest boxes.
        canonical_level: Level of a box of ``canonical_size_px`` squared.
        canonical_size_px: Side in pixels.
    """
    if min_level > max_level:
        raise ValueError(f"assign_levels received min_level {min_level} above max_level {max_level}")
    ymin, xmin, ymax, xmax = tf.unstack(tf.stop_gradient(boxes_px), axis=-1)
    area = tf.maximum(ymax - ymin, 0.0) * tf.maximum(xmax - xmin, 0.0)
    levels = tf.fill(tf.shape(area), min_level)
    for level in range(min_level + 1, max_level + 1):  # areas, unlike logarithms, keep powers of 2 exact
        smallest_area = (canonical_size_px * 2.0 ** (level - canonical_level)) ** 2
        levels += tf.cast(area >= smallest_area * (1.0 - _AREA_ROUNDING), tf.int32)
    return tf.ensure_shape(levels, area.shape)


def crop_and_resize_boxes(
    features: tf.Tensor, boxes_norm: tf.Tensor, image_indices: tf.Tensor, crop_size: tuple[int, int]
) -> tf.Tensor:
    """Samples boxes bilinearly, as ``tf.image.crop_and_resize``.

    Sample i of h lies in row ymin (H - 1) + i (ymax - ymin) (H - 1) / (h - 1) of the map, so the first and the last lie
    on the box's sides; a crop of one row samples the box's middle. A sample outside the map is 0.
    """
    _check_positive(crop_size=crop_size)
    return bilinear_crop(features, boxes_norm, image_indices, crop_size)


def crop_and_max_pool_boxes(
    features: tf.Tensor,
    boxes_norm: tf.Tensor,
    image_indices: tf.Tensor,
    crop_size: tuple[int, int],
    pool_size: int,
    output_stride: int = 1,
) -> tf.Tensor:
    """Crops and resizes, max-pools and subsamples, without computing the large crop in between.

    The long way is a crop of ``crop_size``, max pooling with kernel and stride ``pool_size`` ("valid": the rest at the
    end is dropped), then every ``output_stride``-th row and column. A pooled value needs pool_size**2 samples. The
    first samples of all pooled values lie as regularly as the samples of one small crop; so do the second samples, and
    so on. The result is the maximum of pool_size**2 small crops. Of equal samples the first one gets the gradient.

    Returns:
        [N, h', w', C]; h' = ceil(floor(crop height / pool_size) / output_stride), and w' by the same rule.

    Raises:
        ValueError: A size below 1, or a pooling window larger than the crop.
    """
    _check_positive(crop_size=crop_size, pool_size=pool_size, output_stride=output_stride)
    if pool_size > min(crop_size):
        raise ValueError(f"crop_and_max_pool: pool_size {pool_size} is larger than crop_size {tuple(crop_size)}")
    if pool_size == output_stride == 1:
        return crop_and_resize_boxes(features, boxes_norm, image_indices, crop_size)
    boxes = tf.stop_gradient(boxes_norm)
    extent = map_size(features) - 1.0
    is_single = tf.constant([size == 1 for size in crop_size])
    intervals = tf.constant([max(size - 1, 1) for size in crop_size], tf.float32)
    origin = tf.where(is_single, 0.5 * (boxes[:, :2] + boxes[:, 2:]), boxes[:, :2]) * extent
    step = (boxes[:, 2:] - boxes[:, :2]) * extent / intervals  # rounded as in tf.image.crop_and_resize
    height, width = (-(-(size // pool_size) // output_stride) for size in crop_size)
    last = [(size - 1) * output_stride * pool_size for size in (height, width)]
    crops = []
    for offset_y, offset_x in itertools.product(range(pool_size), repeat=2):
        first = origin + step * tf.constant([offset_y, offset_x], tf.float32)
        end = origin + step * tf.constant([offset_y + last[0], offset_x + last[1]], tf.float32)
        crops.append(sample_grid(features, first, end, image_indices, (height, width)))
    return functools.reduce(tf.maximum, crops)


def roi_align_boxes(
    features: tf.Tensor,
    boxes_norm: tf.Tensor,
    image_indices: tf.Tensor,
    crop_size: tuple[int, int],
    sampling_ratio: int = 2,
) -> tf.Tensor:
    """Averages bilinear samples in bins, without rounding of boxes (Mask R-CNN, arXiv:1703.06870, section 3).

    Cell i of the map covers [i, i + 1) of the continuous coordinate box x H, so its value belongs to i + 0.5. Each of
    the h x w bins averages the samples at the centres of its sampling_ratio x sampling_ratio parts. A sample up to one
    cell beyond the outermost cells' centres has their value, and 0 farther out (the convention of torchvision and of
    Detectron2's ``aligned=True``). ``sampling_ratio`` is 1 or more, independent of the box's size.
    """
    _check_positive(crop_size=crop_size, sampling_ratio=sampling_ratio)
    boxes = tf.stop_gradient(boxes_norm)
    size = map_size(features)
    bins = tf.constant(crop_size, tf.float32)
    origin = boxes[:, :2] * size + 0.5  # minus half a cell for the cells' centres, plus one for the border
    step = (boxes[:, 2:] - boxes[:, :2]) * size / bins
    # The border repeats the outermost cells, so that samples up to one cell beyond them have their value.
    bordered = tf.pad(features, [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC")
    crops = []
    for part in itertools.product(range(sampling_ratio), repeat=2):
        first = origin + step * ((tf.constant(part, tf.float32) + 0.5) / sampling_ratio)
        crops.append(sample_grid(bordered, first, first + step * (bins - 1.0), image_indices, crop_size))
    return tf.add_n(crops) / sampling_ratio**2


def max_roi_pool_boxes(
    features: tf.Tensor, boxes_norm: tf.Tensor, image_indices: tf.Tensor, crop_size: tuple[int, int]
) -> tf.Tensor:
    """Takes the maximum of the cells in each bin of a box (RoI pooling; Fast R-CNN, arXiv:1504.08083, section 2.1).

    The box covers the cells from round(ymin x H) to before round(ymax x H), at least one (halves are rounded up). Bin i
    of h takes, of the box's n rows, those from floor(i n / h) to before ceil((i + 1) n / h) that are on the map;
    neighbouring bins may share a row. A bin without cells is 0. Of equal cells one gets the gradient.

    Differs from the code of Fast R-CNN, which includes the cell round(ymax x H): its boxes name their last pixel, ours
    the place where it ends. So a box of the whole map covers its cells, and no row beyond them.
    """
    _check_positive(crop_size=crop_size)
    size = tf.shape(features)[1:3]
    cells = tf.cast(tf.floor(tf.stop_gradient(boxes_norm) * tf.tile(map_size(features), [2]) + 0.5), tf.int32)
    rows, has_rows = _bins_on_map(cells[:, 0], cells[:, 2], crop_size[0], size[0])
    columns, has_columns = _bins_on_map(cells[:, 1], cells[:, 3], crop_size[1], size[1])
    pooled = bin_maxima(features, rows, columns, image_indices)
    is_filled = has_rows[:, :, tf.newaxis] & has_columns[:, tf.newaxis, :]
    pooled = tf.where(is_filled[..., tf.newaxis], pooled, tf.zeros([], features.dtype))
    return tf.ensure_shape(pooled, [None, *crop_size, features.shape[-1]])


def _bins_on_map(first: tf.Tensor, end: tf.Tensor, num_bins: int, size: tf.Tensor) -> tuple[Runs, tf.Tensor]:
    """Returns the bins of boxes along one axis of ``size`` cells, and bool [N, num_bins], True for bins with cells."""
    start, stop = bin_edges(first, tf.maximum(end - first, 1), num_bins)
    start, stop = tf.clip_by_value(start, 0, size), tf.clip_by_value(stop, 0, size)
    has_cells = stop > start
    return cover(tf.where(has_cells, start, 0), tf.where(has_cells, stop, 1)), has_cells


def _flatten(boxes_norm: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns boxes [B * R, 4] and the image of each, int32 [B * R]."""
    shape = tf.shape(boxes_norm)
    return tf.reshape(boxes_norm, [-1, 4]), tf.repeat(tf.range(shape[0]), shape[1])


def _unflatten(crops: tf.Tensor, boxes_norm: tf.Tensor) -> tf.Tensor:
    """Reshapes [B * R, h, w, C] to [B, R, h, w, C]."""
    reshaped = tf.reshape(crops, tf.concat([tf.shape(boxes_norm)[:2], tf.shape(crops)[1:]], axis=0))
    return tf.ensure_shape(reshaped, [*boxes_norm.shape[:2], *crops.shape[1:]])


def _check_positive(**sizes: int | tuple[int, int]) -> None:
    for name, size in sizes.items():
        if min(size if isinstance(size, (tuple, list)) else (size,)) < 1:
            raise ValueError(f"{name} is {size}; every size must be at least 1")
