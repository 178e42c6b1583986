"""Augmentations of position: flips, rotation, scaling, padding, windows. Image, boxes and masks move together.

Names, ranges and defaults are those of the Object Detection API.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from detzoo.contracts import Tensor
from detzoo.data.augment.apply import apply_if, between, integer_between, uniforms, with_float_image
from detzoo.data.resize import resize_image, resize_masks
from detzoo.data.sample import Sample, keep_objects, move_boxes, permute_keypoints

_RANDOM_RESIZE_METHODS = ("bilinear", "nearest", "bicubic", "area")


def random_horizontal_flip(
    sample: Sample, seed: Tensor, *, probability: float = 0.5, keypoint_flip_permutation: Sequence[int] = ()
) -> Sample:
    """Exchanges left and right with the given probability, and keypoints by ``permute_keypoints``."""
    permutation = list(keypoint_flip_permutation)
    flip = lambda given: permute_keypoints(flip_horizontally(given), permutation)  # noqa: E731
    return apply_if(uniforms(seed, 1)[0] < probability, flip, sample)


def random_vertical_flip(
    sample: Sample, seed: Tensor, *, probability: float = 0.5, keypoint_flip_permutation: Sequence[int] = ()
) -> Sample:
    """Exchanges top and bottom with the given probability, and keypoints by ``permute_keypoints``."""
    permutation = list(keypoint_flip_permutation)
    flip = lambda given: permute_keypoints(flip_vertically(given), permutation)  # noqa: E731
    return apply_if(uniforms(seed, 1)[0] < probability, flip, sample)


def random_rotation90(
    sample: Sample, seed: Tensor, *, probability: float = 0.5, keypoint_rot_permutation: Sequence[int] = ()
) -> Sample:
    """Turns by 90 degrees counter-clockwise with the given probability, and keypoints by ``permute_keypoints``."""
    permutation = list(keypoint_rot_permutation)
    turn = lambda given: permute_keypoints(rotate_90(given), permutation)  # noqa: E731
    return apply_if(uniforms(seed, 1)[0] < probability, turn, sample)


def flip_horizontally(sample: Sample) -> Sample:
    """Exchanges left and right."""
    return _turned(sample, lambda pixels, rows: tf.reverse(pixels, [rows + 1]), (0, 3, 2, 1), (1, 3))


def flip_vertically(sample: Sample) -> Sample:
    """Exchanges top and bottom."""
    return _turned(sample, lambda pixels, rows: tf.reverse(pixels, [rows]), (2, 1, 0, 3), (0, 2))


def rotate_90(sample: Sample) -> Sample:
    """Turns by 90 degrees counter-clockwise: the right side becomes the top."""

    def turn(pixels: Tensor, rows: int) -> Tensor:
        axes = list(range(pixels.shape.rank))
        axes[rows], axes[rows + 1] = axes[rows + 1], axes[rows]
        return tf.reverse(tf.transpose(pixels, axes), [rows])

    return _turned(sample, turn, (3, 0, 1, 2), (0, 2))


def _turned(
    sample: Sample, turn: Callable[[Tensor, int], Tensor], sides: Sequence[int], mirrored: Sequence[int]
) -> Sample:
    """Turns image and masks by a function of pixels and the axis of their rows, which the axis of columns follows.

    A turned box has the former ``sides`` of [ymin, xmin, ymax, xmax]; its ``mirrored`` columns become 1 - side.
    """
    is_mirrored = tf.constant([column in mirrored for column in range(4)])

    def move(boxes: Tensor) -> Tensor:
        moved = tf.gather(boxes, sides, axis=1)
        return tf.where(is_mirrored, 1.0 - moved, moved)

    masks = None if sample.masks is None else turn(sample.masks, 1)
    return move_boxes(sample._replace(image=turn(sample.image, 0), masks=masks), move)


def resize_sample(sample: Sample, size: Tensor, method: str = "bilinear", align_corners: bool = False) -> Sample:
    """Resizes image and masks to ``size`` (int32 [2]); the image becomes float32."""
    image = tf.cast(resize_image(sample.image, size, method, align_corners), tf.float32)
    masks = None if sample.masks is None else resize_masks(sample.masks, size, align_corners)
    return sample._replace(image=image, masks=masks)


def resize_image_to(
    sample: Sample, seed: Tensor, *, new_height: int, new_width: int, method: str = "bilinear"
) -> Sample:
    """Resizes every image to one size."""
    return resize_sample(sample, tf.constant([new_height, new_width]), method)


def random_resize_method(sample: Sample, seed: Tensor, *, target_height: int, target_width: int) -> Sample:
    """Resizes every image to one size, by one of four methods."""
    size = tf.constant([target_height, target_width])
    chosen = integer_between(uniforms(seed, 1)[0], 0, len(_RANDOM_RESIZE_METHODS))
    branches = [lambda method=method: resize_sample(sample, size, method) for method in _RANDOM_RESIZE_METHODS]
    return tf.switch_case(chosen, branches)


def random_image_scale(
    sample: Sample, seed: Tensor, *, min_scale_ratio: float = 0.5, max_scale_ratio: float = 2.0
) -> Sample:
    """Multiplies both sides of the image by one factor."""
    scale = between(uniforms(seed, 1)[0], min_scale_ratio, max_scale_ratio)
    return resize_sample(sample, _scaled(tf.shape(sample.image)[:2], scale), align_corners=True)


def random_downscale_to_target_pixels(
    sample: Sample,
    seed: Tensor,
    *,
    random_coef: float = 0.0,
    min_target_pixels: int = 300_000,
    max_target_pixels: int = 500_000,
) -> Sample:
    """Shrinks larger images to a random number of pixels; leaves them alone with probability ``random_coef``."""
    chance, number = uniforms(seed, 2)
    target = tf.cast(integer_between(number, min_target_pixels, max_target_pixels + 1), tf.float32)
    shape = tf.shape(sample.image)[:2]
    pixels = tf.cast(tf.reduce_prod(shape), tf.float32)

    def shrink(sample: Sample) -> Sample:
        return resize_sample(sample, _scaled(shape, tf.sqrt(target / pixels)))

    return apply_if((chance >= random_coef) & (pixels > target), shrink, with_float_image(sample))


def view_window(sample: Sample, begin: Tensor, size: Tensor, fill: Tensor | None = None) -> Sample:
    """Cuts out a window of pixels, and pads the part of it that lies beyond the image by ``fill``, black for None.

    The window is given by its top left corner ``begin``, which may be negative, and its size, int32 [2] each. Boxes may
    lie outside the window; they are neither clipped nor dropped.
    """
    shape = tf.shape(sample.image)[:2]
    low = tf.clip_by_value(begin, 0, shape)
    high = tf.maximum(tf.minimum(begin + size, shape), low)
    before = tf.clip_by_value(low - begin, 0, size)
    paddings = tf.stack([before, size - before - (high - low)], axis=1)
    # Rows of W * C numbers: padding the three axes of an image takes 25 times as long.
    rows = tf.reshape(sample.image[low[0] : high[0], low[1] : high[1]], [high[0] - low[0], (high[1] - low[1]) * 3])
    row_paddings = paddings * tf.constant([[1], [3]])
    if fill is None:
        rows = tf.pad(rows, row_paddings)
    else:
        row = tf.tile(fill, size[1:])
        rows = tf.pad(tf.cast(rows, tf.float32) - row[: tf.shape(rows)[1]], row_paddings) + row
    image = tf.reshape(rows, [size[0], size[1], 3])
    corner, extent = tf.cast(tf.tile(begin, [2]), tf.float32), tf.cast(tf.tile(size, [2]), tf.float32)
    sides = tf.cast(tf.tile(shape, [2]), tf.float32)
    masks = sample.masks
    if masks is not None:
        masks = masks[:, low[0] : high[0], low[1] : high[1]]
        masks = tf.pad(masks, tf.concat([[[0, 0]], paddings], axis=0))
    viewed = sample._replace(image=image, masks=masks)
    return move_boxes(viewed, lambda boxes: (boxes * sides - corner) / extent)


def keep_visible(sample: Sample) -> Sample:
    """Drops the objects whose box lies outside the image, and clips the boxes of the others."""
    visible = tf.reduce_all((sample.boxes_norm[:, :2] < 1.0) & (sample.boxes_norm[:, 2:] > 0.0), axis=1)
    kept = keep_objects(sample, visible)
    return kept._replace(boxes_norm=tf.clip_by_value(kept.boxes_norm, 0.0, 1.0))


def random_pad_image(
    sample: Sample,
    seed: Tensor,
    *,
    min_size: Tensor | None = None,
    max_size: Tensor | None = None,
    pad_color: Sequence[float] | None = None,
) -> Sample:
    """Puts the image at a random place of a larger one, padded by RGB 0..255 or, for None, by the mean colour.

    The new size is at least ``min_size`` (None: that of the image) and below ``max_size`` (None: twice it), int32 [2].
    """
    shape = tf.shape(sample.image)[:2]
    high = tf.maximum(2 * shape if max_size is None else max_size, shape)
    low = tf.maximum(shape if min_size is None else min_size, shape)
    numbers = tf.random.stateless_uniform([2, 2], seed)
    target = tf.where(high > low, integer_between(numbers[0], low, high), high)
    offset = integer_between(numbers[1], 0, target - shape)
    values = tf.cast(sample.image, tf.float32)
    fill = tf.reduce_mean(values, axis=[0, 1]) if pad_color is None else tf.constant(list(pad_color), tf.float32)
    return view_window(sample, -offset, target, fill)


def random_absolute_pad_image(
    sample: Sample,
    seed: Tensor,
    *,
    max_height_padding: int,
    max_width_padding: int,
    pad_color: Sequence[float] | None = None,
) -> Sample:
    """Pads by fewer than these numbers of pixels in total, divided at random between the two sides."""
    max_size = tf.shape(sample.image)[:2] + tf.constant([max_height_padding, max_width_padding])
    return random_pad_image(sample, seed, max_size=max_size, pad_color=pad_color)


def random_pad_to_aspect_ratio(
    sample: Sample,
    seed: Tensor,
    *,
    aspect_ratio: float = 1.0,
    min_padded_size_ratio: Sequence[float] = (1.0, 1.0),
    max_padded_size_ratio: Sequence[float] = (2.0, 2.0),
) -> Sample:
    """Pads black at bottom and right to the aspect ratio (width / height), within bounds relative to the image."""
    shape = tf.cast(tf.shape(sample.image)[:2], tf.float32)
    wide = tf.stack([shape[1] / aspect_ratio, shape[1]])
    tall = tf.stack([shape[0], shape[0] * aspect_ratio])
    least = tf.where(shape[1] / shape[0] <= aspect_ratio, tall, wide)
    max_scale = tf.reduce_min(tf.maximum(tf.constant(list(max_padded_size_ratio)) * shape, least) / least)
    min_scale = tf.reduce_max(tf.maximum(tf.constant(list(min_padded_size_ratio)) * shape, least) / least)
    scale = between(uniforms(seed, 1)[0], tf.minimum(min_scale, max_scale), max_scale)
    size = tf.cast(tf.round(scale * least), tf.int32)
    return view_window(sample, tf.zeros([2], tf.int32), tf.maximum(size, tf.shape(sample.image)[:2]))


def random_scale_crop_and_pad_to_square(
    sample: Sample, seed: Tensor, *, output_size: int = 512, scale_min: float = 0.1, scale_max: float = 2.0
) -> Sample:
    """Scales the longer side to ``output_size`` times a random factor, then cuts or pads a square of ``output_size``.

    EfficientDet's scale jitter. A larger image is cut at a random place, a smaller one is padded black at bottom and
    right.
    """
    factor, *places = uniforms(seed, 3)
    shape = tf.shape(sample.image)[:2]
    longer = tf.cast(tf.reduce_max(shape), tf.float32)
    scaled = resize_sample(sample, _scaled(shape, between(factor, scale_min, scale_max) * output_size / longer))
    excess = tf.maximum(tf.shape(scaled.image)[:2] - output_size, 0)
    begin = tf.cast(tf.stack(places) * tf.cast(excess, tf.float32), tf.int32)
    square = keep_visible(view_window(scaled, begin, tf.constant([output_size, output_size])))
    return square._replace(image=tf.ensure_shape(square.image, [output_size, output_size, 3]))


def random_square_crop_by_scale(
    sample: Sample,
    seed: Tensor,
    *,
    max_border: int = 128,
    scale_min: float = 0.6,
    scale_max: float = 1.3,
    num_scales: int = 8,
) -> Sample:
    """Cuts a square around a random centre; its side is the longer side times one of ``num_scales`` factors.

    CenterNet's crop. The centre keeps away from the sides of the image by up to ``max_border`` pixels; beyond the image
    the square is black. Differs from the Object Detection API: the last row and column of the image are not lost.
    """
    chosen, row, column = uniforms(seed, 3)
    shape = tf.shape(sample.image)[:2]
    factor = tf.linspace(scale_min, scale_max, num_scales)[integer_between(chosen, 0, num_scales)]
    side = tf.cast(tf.cast(factor, tf.float32) * tf.cast(tf.reduce_max(shape), tf.float32), tf.int32)
    border = _crop_border(max_border, shape)
    center = integer_between(tf.stack([row, column]), border, shape - border + 1)
    return keep_visible(view_window(sample, center - side // 2, tf.stack([side, side])))


def random_self_concat_image(
    sample: Sample,
    seed: Tensor,
    *,
    concat_vertical_probability: float = 0.1,
    concat_horizontal_probability: float = 0.1,
) -> Sample:
    """Joins the image with a copy of itself below, then with a copy at the right, each with its probability."""
    vertical, horizontal = uniforms(seed, 2)
    sample = apply_if(vertical < concat_vertical_probability, lambda s: _concat_with_itself(s, 0), sample)
    return apply_if(horizontal < concat_horizontal_probability, lambda s: _concat_with_itself(s, 1), sample)


def _concat_with_itself(sample: Sample, axis: int) -> Sample:
    shape = tf.shape(sample.image)[:2]
    size = shape * tf.constant([2, 1] if axis == 0 else [1, 2])
    second = view_window(sample, -shape * tf.constant([1, 0] if axis == 0 else [0, 1]), size)
    first = view_window(sample, tf.zeros([2], tf.int32), size)
    pairs = zip(first, second)
    joined = Sample(*(None if one is None else tf.concat([one, other], axis=0) for one, other in pairs))
    return joined._replace(image=tf.concat([sample.image, sample.image], axis=axis))


def _scaled(shape: Tensor, scale: Tensor) -> Tensor:
    """Returns the sides times a factor, int32 [2], truncated, at least 1."""
    return tf.maximum(tf.cast(tf.cast(shape, tf.float32) * scale, tf.int32), 1)


def _crop_border(max_border: int, shape: Tensor) -> Tensor:
    """Returns the largest ``max_border / 2**k`` (k >= 0) that is at most half of each side, int32 [2]."""
    halvings = tf.math.ceil(tf.math.log(2.0 * max_border / tf.cast(shape, tf.float32)) / tf.math.log(2.0))
    divisor = tf.clip_by_value(tf.pow(2.0, halvings), 1.0, float(max(max_border, 1)))
    return max_border // tf.cast(divisor, tf.int32)
