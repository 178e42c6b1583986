"""Crops of fixed size from feature maps, one for each box (floor 1).

Between the boxes of a first stage and the head of a second. Four crops share one seam, ``Crop``: a function of maps,
boxes and the image of each box. ``single_level_crop`` applies it to one map, ``multilevel_crop`` to a pyramid, where
each box is cropped once, from the map of its level:

    crop = functools.partial(crop_and_resize_boxes, crop_size=(7, 7))
    crops = multilevel_crop(maps, proposals_norm, levels, crop)

======================= ========================== ==========================================================
one map                 the seam                   paper
======================= ========================== ==========================================================
``crop_and_resize``     ``crop_and_resize_boxes``  "Speed/accuracy trade-offs", arXiv:1611.10012, section 3.1
``crop_and_max_pool``   ``crop_and_max_pool_boxes`` the same, with the pooling that follows it
``roi_align``           ``roi_align_boxes``        Mask R-CNN, arXiv:1703.06870, section 3
``max_roi_pool``        ``max_roi_pool_boxes``     Fast R-CNN, arXiv:1504.08083, section 2.1
======================= ========================== ==========================================================

Boxes are [ymin, xmin, ymax, xmax] as fractions of the map; they may leave it and may lack area, but must be finite
(TensorFlow raises InvalidArgumentError). No gradient flows to them; it flows to the maps only. B images, R boxes an
image, N = B x R boxes, C channels.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping

import tensorflow as tf

from detzoo.ops.bilinear import bilinear_crop, map_size, sample_grid
from detzoo.ops.bin_maxima import Runs, bin_edges, bin_maxima, cover

# (features [B, H, W, C], boxes_norm float32 [N, 4], image_indices int32 [N]) -> [N, h, w, C] in the features' type.
Crop = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]

# Share of an area by which rounded coordinates may miss it: 224 px next to coordinates of several thousand px.
_AREA_ROUNDING = 1e-5


def single_level_crop(features: tf.Tensor, boxes_norm: tf.Tensor, crop: Crop) -> tf.Tensor:
    """Crops of all boxes from one map.

    Args:
        features: number [B, H, W, C].
        boxes_norm: float32 [B, R, 4], fractions of the map.
        crop: what a box becomes.

    Returns:
        [B, R, h, w, C] in the features' type; h and w are the crop's.
    """
    boxes, image_indices = _flatten(boxes_norm)
    return _unflatten(crop(features, boxes, image_indices), boxes_norm)


def multilevel_crop(maps: Mapping[int, tf.Tensor], boxes_norm: tf.Tensor, levels: tf.Tensor, crop: Crop) -> tf.Tensor:
    """Crops of all boxes, each from the map of its level (FPN, arXiv:1612.03144, section 4.2).

    The boxes are partitioned by level and every box is cropped once; a single map is not partitioned at all.

    Args:
        maps: level -> number [B, H_l, W_l, C], of equal C and type.
        boxes_norm: float32 [B, R, 4], fractions of the image, and so of each map.
        levels: int32 [B, R]. A level without a map stands for the nearest lower level that has one, or for the lowest.
        crop: what a box becomes.

    Returns:
        [B, R, h, w, C] in the maps' type; h and w are the crop's.

    Raises:
        ValueError: there is no map.
    """
    if not maps:
        raise ValueError("multilevel_crop received no map; it needs at least one, as {level: [B, H, W, C]}")
    available = sorted(maps)
    if len(available) == 1:
        return single_level_crop(maps[available[0]], boxes_norm, crop)
    boxes, image_indices = _flatten(boxes_norm)
    flat_levels = tf.reshape(levels, [-1])
    partition = tf.add_n([tf.cast(flat_levels >= level, tf.int32) for level in available[1:]])
    places, crops = [], []
    for group, level in enumerate(available):
        place = tf.where(partition == group)[:, 0]
        places.append(tf.cast(place, tf.int32))
        crops.append(crop(maps[level], tf.gather(boxes, place), tf.gather(image_indices, place)))
    # The parallel stitch is the faster one on CPUs, and has no kernel for GPUs.
    stitch = tf.raw_ops.DynamicStitch if tf.config.list_logical_devices("GPU") else tf.raw_ops.ParallelDynamicStitch
    stitched = tf.ensure_shape(stitch(indices=places, data=crops), [None, *crops[0].shape[1:]])
    return _unflatten(stitched, boxes_norm)


def assign_levels(
    boxes_px: tf.Tensor,
    min_level: int,
    max_level: int,
    canonical_level: int = 4,
    canonical_size_px: float = 224.0,
) -> tf.Tensor:
    """The pyramid level that each box is cropped from (FPN, arXiv:1612.03144, equation 1).

    floor(canonical_level + log2(sqrt(width x height) / canonical_size_px)), clipped to the levels there are. A box
    whose area falls short of a level's smallest one by rounding alone belongs to that level.

    Args:
        boxes_px: float32 [..., 4], pixels of the padded input.
        min_level: level of the smallest boxes, and of those without area.
        max_level: level of the largest boxes.
        canonical_level: level of a box of ``canonical_size_px`` squared.
        canonical_size_px: side in pixels.

    Returns:
        int32 [...] in [min_level, max_level].

    Raises:
        ValueError: ``min_level`` is above ``max_level``.
    """
    if min_level > max_level:
        raise ValueError(f"assign_levels received min_level {min_level} above max_level {max_level}")
    ymin, xmin, ymax, xmax = tf.unstack(tf.stop_gradient(boxes_px), axis=-1)
    area = tf.maximum(ymax - ymin, 0.0) * tf.maximum(xmax - xmin, 0.0)
    levels = tf.fill(tf.shape(area), min_level)
    for level in range(min_level + 1, max_level + 1):  # comparing areas instead of logarithms keeps powers of 2 exact
        smallest_area = (canonical_size_px * 2.0 ** (level - canonical_level)) ** 2
        levels += tf.cast(area >= smallest_area * (1.0 - _AREA_ROUNDING), tf.int32)
    return tf.ensure_shape(levels, area.shape)


def crop_and_resize(features: tf.Tensor, boxes_norm: tf.Tensor, crop_size: tuple[int, int]) -> tf.Tensor:
    """Bilinear crops as of ``tf.image.crop_and_resize`` ("Speed/accuracy trade-offs", arXiv:1611.10012, section 3.1).

    Sample i of h lies in row ymin (H - 1) + i (ymax - ymin) (H - 1) / (h - 1) of the map, so the first and the last lie
    on the box's sides; a crop of one row samples the box's middle. A sample outside the map is 0.

    Args:
        features: number [B, H, W, C].
        boxes_norm: float32 [B, R, 4], fractions of the map; gets no gradient.
        crop_size: (h, w).

    Returns:
        [B, R, h, w, C] in the features' type.

    Raises:
        ValueError: a size below 1.
    """
    return single_level_crop(features, boxes_norm, functools.partial(crop_and_resize_boxes, crop_size=crop_size))


def crop_and_resize_boxes(
    features: tf.Tensor, boxes_norm: tf.Tensor, image_indices: tf.Tensor, crop_size: tuple[int, int]
) -> tf.Tensor:
    """``crop_and_resize`` of boxes [N, 4] of images [N]: a ``Crop``, once the size is given. Returns [N, h, w, C]."""
    _check_positive(crop_size=crop_size)
    return bilinear_crop(features, boxes_norm, image_indices, crop_size)


def crop_and_max_pool(
    features: tf.Tensor,
    boxes_norm: tf.Tensor,
    crop_size: tuple[int, int],
    pool_size: int,
    output_stride: int = 1,
) -> tf.Tensor:
    """What ``crop_and_resize``, max pooling and skipping give together, without the large crop between them.

    The long way is a crop of ``crop_size``, max pooling with kernel and stride ``pool_size`` ("valid": what remains at
    the end is dropped), then every ``output_stride``-th row and column. A pooled value needs pool_size**2 samples, and
    the first ones of all pooled values lie as regularly as the samples of one small crop; so do the second ones, and so
    on. The result is the maximum of pool_size**2 small crops. Of equal samples the first one gets the gradient.

    Args:
        features: number [B, H, W, C].
        boxes_norm: float32 [B, R, 4], fractions of the map; gets no gradient.
        crop_size: (height, width) of the crop that is pooled.
        pool_size: side of the pooling window in samples; 1 pools nothing.
        output_stride: 1 keeps every pooled row and column, 2 every other one from the first, and so on.

    Returns:
        [B, R, h', w', C] in the features' type; h' = ceil(floor(crop height / pool_size) / output_stride), w' alike.

    Raises:
        ValueError: a size below 1, or a pooling window larger than the crop.
    """
    crop = functools.partial(
        crop_and_max_pool_boxes, crop_size=crop_size, pool_size=pool_size, output_stride=output_stride
    )
    return single_level_crop(features, boxes_norm, crop)


def crop_and_max_pool_boxes(
    features: tf.Tensor,
    boxes_norm: tf.Tensor,
    image_indices: tf.Tensor,
    crop_size: tuple[int, int],
    pool_size: int,
    output_stride: int = 1,
) -> tf.Tensor:
    """``crop_and_max_pool`` of boxes [N, 4] of images [N]: a ``Crop``, once sizes are given. Returns [N, h', w', C]."""
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
    step = (boxes[:, 2:] - boxes[:, :2]) * extent / intervals  # rounds as tf.image.crop_and_resize does
    height, width = (-(-(size // pool_size) // output_stride) for size in crop_size)
    last = [(size - 1) * output_stride * pool_size for size in (height, width)]
    crops = []
    for offset_y, offset_x in itertools.product(range(pool_size), repeat=2):
        first = origin + step * tf.constant([offset_y, offset_x], tf.float32)
        end = origin + step * tf.constant([offset_y + last[0], offset_x + last[1]], tf.float32)
        crops.append(sample_grid(features, first, end, image_indices, (height, width)))
    return functools.reduce(tf.maximum, crops)


def roi_align(
    features: tf.Tensor, boxes_norm: tf.Tensor, crop_size: tuple[int, int], sampling_ratio: int = 2
) -> tf.Tensor:
    """Bin averages of bilinear samples without any rounding of boxes (Mask R-CNN, arXiv:1703.06870, section 3).

    Cell i of the map covers [i, i + 1) of the continuous coordinate box x H, so its value stands at i + 0.5. Each of
    the h x w bins averages the samples at the centres of its sampling_ratio x sampling_ratio parts. A sample up to one
    cell beyond the outermost cells' centres has their value, one farther out is 0 (the convention of torchvision and of
    Detectron2's ``aligned=True``).

    Args:
        features: number [B, H, W, C].
        boxes_norm: float32 [B, R, 4], fractions of the map; gets no gradient.
        crop_size: (h, w) bins.
        sampling_ratio: samples a bin in each direction.

    Returns:
        [B, R, h, w, C] in the features' type.

    Raises:
        ValueError: a size or a ratio below 1. (A ratio that follows the box's size is not there.)
    """
    crop = functools.partial(roi_align_boxes, crop_size=crop_size, sampling_ratio=sampling_ratio)
    return single_level_crop(features, boxes_norm, crop)


def roi_align_boxes(
    features: tf.Tensor,
    boxes_norm: tf.Tensor,
    image_indices: tf.Tensor,
    crop_size: tuple[int, int],
    sampling_ratio: int = 2,
) -> tf.Tensor:
    """``roi_align`` of boxes [N, 4] of images [N]: a ``Crop``, once the sizes are given. Returns [N, h, w, C]."""
    _check_positive(crop_size=crop_size, sampling_ratio=sampling_ratio)
    boxes = tf.stop_gradient(boxes_norm)
    size = map_size(features)
    bins = tf.constant(crop_size, tf.float32)
    origin = boxes[:, :2] * size + 0.5  # minus half a cell for the cells' centres, plus one for the border below
    step = (boxes[:, 2:] - boxes[:, :2]) * size / bins
    # A border that repeats the outermost cells gives their value up to one cell beyond them.
    bordered = tf.pad(features, [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC")
    crops = []
    for part in itertools.product(range(sampling_ratio), repeat=2):
        first = origin + step * ((tf.constant(part, tf.float32) + 0.5) / sampling_ratio)
        crops.append(sample_grid(bordered, first, first + step * (bins - 1.0), image_indices, crop_size))
    return tf.add_n(crops) / sampling_ratio**2


def max_roi_pool(features: tf.Tensor, boxes_norm: tf.Tensor, crop_size: tuple[int, int]) -> tf.Tensor:
    """The maximum of the cells in each bin of a box (RoI pooling; Fast R-CNN, arXiv:1504.08083, section 2.1).

    The box covers the cells from round(ymin x H) to before round(ymax x H), at least one (halves are rounded up). Of
    its n rows, bin i of h takes those from floor(i n / h) to before ceil((i + 1) n / h), as far as they are on the map;
    neighbouring bins may share a row. A bin without cells is 0. Of equal cells one gets the gradient.

    Differs from the code of Fast R-CNN, which counts the cell round(ymax x H) in: its boxes name their last pixel, ours
    the place where it ends. So a box of the whole map covers its cells, and no row beyond them.

    Args:
        features: number [B, H, W, C].
        boxes_norm: float32 [B, R, 4], fractions of the map; gets no gradient.
        crop_size: (h, w) bins.

    Returns:
        [B, R, h, w, C] in the features' type.

    Raises:
        ValueError: a size below 1.
    """
    return single_level_crop(features, boxes_norm, functools.partial(max_roi_pool_boxes, crop_size=crop_size))


def max_roi_pool_boxes(
    features: tf.Tensor, boxes_norm: tf.Tensor, image_indices: tf.Tensor, crop_size: tuple[int, int]
) -> tf.Tensor:
    """``max_roi_pool`` of boxes [N, 4] of images [N]: a ``Crop``, once the size is given. Returns [N, h, w, C]."""
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
    """The bins of boxes along one axis, cut to its ``size`` cells, and which of them have any: bool [N, num_bins]."""
    start, stop = bin_edges(first, tf.maximum(end - first, 1), num_bins)
    start, stop = tf.clip_by_value(start, 0, size), tf.clip_by_value(stop, 0, size)
    has_cells = stop > start
    return cover(tf.where(has_cells, start, 0), tf.where(has_cells, stop, 1)), has_cells


def _flatten(boxes_norm: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Boxes [B * R, 4] and the image of each, int32 [B * R]."""
    shape = tf.shape(boxes_norm)
    return tf.reshape(boxes_norm, [-1, 4]), tf.repeat(tf.range(shape[0]), shape[1])


def _unflatten(crops: tf.Tensor, boxes_norm: tf.Tensor) -> tf.Tensor:
    """[B * R, h, w, C] to [B, R, h, w, C]."""
    reshaped = tf.reshape(crops, tf.concat([tf.shape(boxes_norm)[:2], tf.shape(crops)[1:]], axis=0))
    return tf.ensure_shape(reshaped, [*boxes_norm.shape[:2], *crops.shape[1:]])


def _check_positive(**sizes: int | tuple[int, int]) -> None:
    for name, size in sizes.items():
        if min(size if isinstance(size, (tuple, list)) else (size,)) < 1:
            raise ValueError(f"{name} is {size}; every size must be at least 1")
