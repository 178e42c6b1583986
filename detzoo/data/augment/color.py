"""Augmentations of pixel values: brightness, contrast, hue, saturation, gray, noise, JPEG artefacts, patches.

Boxes and masks stay as they are. Names, ranges and defaults are those of the Object Detection API.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import tensorflow as tf

from detzoo.contracts import Tensor
from detzoo.data.augment.apply import (
    another_seed,
    apply_if,
    between,
    integer_between,
    uniforms,
    with_float_image,
    with_values,
)
from detzoo.data.resize import to_gray
from detzoo.data.sample import Sample

# Principal components of ImageNet's RGB values, one per column, and their eigenvalues for values in 0..255, as
# implementations of AlexNet (Krizhevsky et al., NIPS 2012, section 4.1) publish them; the paper lists none.
_COMPONENTS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))
_EIGENVALUES = (55.46, 4.794, 1.148)
# Strengths of random_distort_color, fixed in the Object Detection API.
_DISTORT_BRIGHTNESS = 32.0 / 255.0
_DISTORT_FACTORS = (0.5, 1.5)
_DISTORT_HUE = 0.2


def random_adjust_brightness(sample: Sample, seed: Tensor, *, max_delta: float = 0.2) -> Sample:
    """Adds one number within +-``max_delta`` (fraction of the range) to all pixels."""
    delta = between(uniforms(seed, 1)[0], -max_delta, max_delta)
    return with_values(sample, tf.cast(sample.image, tf.float32) + 255.0 * delta)


def random_adjust_contrast(sample: Sample, seed: Tensor, *, min_delta: float = 0.8, max_delta: float = 1.25) -> Sample:
    """Multiplies the distance of each channel from its mean by one factor."""
    factor = between(uniforms(seed, 1)[0], min_delta, max_delta)
    return with_values(sample, tf.image.adjust_contrast(tf.cast(sample.image, tf.float32), factor))


# Hue and saturation do not depend on the unit of the values, so the operations of TensorFlow take 0..255 as well.
def random_adjust_hue(sample: Sample, seed: Tensor, *, max_delta: float = 0.02) -> Sample:
    """Turns the hue by up to ``max_delta`` of a full circle, either way."""
    delta = between(uniforms(seed, 1)[0], -max_delta, max_delta)
    return sample._replace(image=tf.image.adjust_hue(tf.cast(sample.image, tf.float32), delta))


def random_adjust_saturation(
    sample: Sample, seed: Tensor, *, min_delta: float = 0.8, max_delta: float = 1.25
) -> Sample:
    """Multiplies the saturation by one factor."""
    factor = between(uniforms(seed, 1)[0], min_delta, max_delta)
    return sample._replace(image=tf.image.adjust_saturation(tf.cast(sample.image, tf.float32), factor))


def random_distort_color(sample: Sample, seed: Tensor, *, color_ordering: int = 0) -> Sample:
    """Changes brightness, saturation, hue and contrast strongly; with ordering 1 contrast is second instead of last."""
    low, high = _DISTORT_FACTORS
    steps: list[Callable[[Sample, Tensor], Sample]] = [
        functools.partial(random_adjust_brightness, max_delta=_DISTORT_BRIGHTNESS),
        functools.partial(random_adjust_saturation, min_delta=low, max_delta=high),
        functools.partial(random_adjust_hue, max_delta=_DISTORT_HUE),
    ]
    contrast = functools.partial(random_adjust_contrast, min_delta=low, max_delta=high)
    steps.insert(1 if color_ordering == 1 else len(steps), contrast)
    for number, step in enumerate(steps):
        sample = step(sample, another_seed(seed, number))
    return sample


def random_pca_color(sample: Sample, seed: Tensor, *, stddev: float = 0.1) -> Sample:
    """Adds one color: each principal component times its eigenvalue and a normal number of this deviation."""
    factors = tf.random.stateless_normal([3], seed, stddev=stddev) * tf.constant(_EIGENVALUES)
    shift = tf.linalg.matvec(tf.constant(_COMPONENTS), factors)
    return with_values(sample, tf.cast(sample.image, tf.float32) + shift)


def random_pixel_value_scale(sample: Sample, seed: Tensor, *, minval: float = 0.9, maxval: float = 1.1) -> Sample:
    """Multiplies every value of every pixel by its own factor."""
    factors = tf.random.stateless_uniform(tf.shape(sample.image), seed, minval, maxval)
    return with_values(sample, tf.cast(sample.image, tf.float32) * factors)


def random_rgb_to_gray(sample: Sample, seed: Tensor, *, probability: float = 0.1) -> Sample:
    """Makes the image gray (three equal channels) with the given probability."""
    gray = uniforms(seed, 1)[0] <= probability
    return apply_if(gray & (probability > 0.0), lambda s: rgb_to_gray(s, seed), with_float_image(sample))


def rgb_to_gray(sample: Sample, seed: Tensor) -> Sample:
    """Makes the image gray (three equal channels)."""
    return sample._replace(image=to_gray(sample.image))


def adjust_gamma(sample: Sample, seed: Tensor, *, gamma: float = 1.0, gain: float = 1.0) -> Sample:
    """Computes ``gain * value ** gamma`` on values in [0, 1]."""
    return with_values(sample, 255.0 * gain * _unit_range(sample) ** gamma)


def normalize_image(
    sample: Sample,
    seed: Tensor,
    *,
    original_minval: float,
    original_maxval: float,
    target_minval: float,
    target_maxval: float,
) -> Sample:
    """Maps one range of values linearly to another. The result is not clipped: it may leave 0..255 on purpose."""
    scale = (target_maxval - target_minval) / (original_maxval - original_minval)
    return sample._replace(image=(tf.cast(sample.image, tf.float32) - original_minval) * scale + target_minval)


def subtract_channel_mean(sample: Sample, seed: Tensor, *, means: Sequence[float]) -> Sample:
    """Subtracts one number from each channel. The result is not clipped."""
    return sample._replace(image=tf.cast(sample.image, tf.float32) - tf.constant(list(means), tf.float32))


def random_jpeg_quality(
    sample: Sample, seed: Tensor, *, random_coef: float = 0.0, min_jpeg_quality: int = 0, max_jpeg_quality: int = 100
) -> Sample:
    """Encodes and decodes the image as JPEG of a random quality; leaves it alone with probability ``random_coef``."""
    chance, level = uniforms(seed, 2)
    quality = integer_between(level, min_jpeg_quality, max_jpeg_quality + 1)

    def compress(sample: Sample) -> Sample:
        pixels = tf.cast(tf.round(sample.image), tf.uint8)
        encoded = tf.image.adjust_jpeg_quality(pixels, quality)
        return sample._replace(image=tf.ensure_shape(tf.cast(encoded, tf.float32), [None, None, 3]))

    return apply_if(chance >= random_coef, compress, with_float_image(sample))


def random_patch_gaussian(
    sample: Sample,
    seed: Tensor,
    *,
    random_coef: float = 0.0,
    min_patch_size: int = 1,
    max_patch_size: int = 250,
    min_gaussian_stddev: float = 0.0,
    max_gaussian_stddev: float = 1.0,
) -> Sample:
    """Adds Gaussian noise within a random square; leaves the image alone with probability ``random_coef``.

    The size of the square is in pixels, its centre anywhere in the image; the standard deviation is a fraction of the
    range of values.
    """
    chance, size, deviation, row, column = uniforms(seed, 5)
    side = integer_between(size, min_patch_size, max_patch_size + 1)

    def add_noise(sample: Sample) -> Sample:
        shape = tf.shape(sample.image)
        center = tf.stack([integer_between(row, 0, shape[0]), integer_between(column, 0, shape[1])])
        inside = _inside_squares(shape, (center - side // 2)[tf.newaxis], side)
        noise = tf.random.stateless_normal(shape, another_seed(seed, 0))
        noise *= 255.0 * between(deviation, min_gaussian_stddev, max_gaussian_stddev)
        return with_values(sample, tf.where(inside[..., tf.newaxis], sample.image + noise, sample.image))

    return apply_if(chance >= random_coef, add_noise, with_float_image(sample))


def random_black_patches(
    sample: Sample,
    seed: Tensor,
    *,
    max_black_patches: int = 10,
    probability: float = 0.5,
    size_to_image_ratio: float = 0.1,
) -> Sample:
    """Blackens up to ``max_black_patches`` squares, each with the given probability.

    Their side is ``size_to_image_ratio`` of the shorter side of the image.
    """
    shape = tf.shape(sample.image)
    side = tf.cast(tf.cast(tf.reduce_min(shape[:2]), tf.float32) * size_to_image_ratio, tf.int32)
    numbers = tf.random.stateless_uniform([max_black_patches, 3], seed)
    corners = tf.cast(numbers[:, 1:] * (1.0 - size_to_image_ratio) * tf.cast(shape[:2], tf.float32), tf.int32)
    chosen = tf.boolean_mask(corners, numbers[:, 0] <= probability)
    black = _inside_squares(shape, chosen, side)
    return sample._replace(image=tf.where(black[..., tf.newaxis], tf.zeros_like(sample.image), sample.image))


def _inside_squares(shape: Tensor, corners: Tensor, side: Tensor) -> Tensor:
    """Returns bool [H, W], True inside the squares with these top left corners, int32 [P, 2]."""
    rows, columns = tf.range(shape[0]), tf.range(shape[1])
    top, left = corners[:, :1], corners[:, 1:]
    in_rows = (rows >= top) & (rows < top + side)
    in_columns = (columns >= left) & (columns < left + side)
    return tf.reduce_any(in_rows[:, :, tf.newaxis] & in_columns[:, tf.newaxis], axis=0)


def _unit_range(sample: Sample) -> Tensor:
    """Returns the image in [0, 1], float32."""
    return tf.cast(sample.image, tf.float32) / 255.0


# Augmentations of each pixel by itself, apart from the mean colour of the image: they give nearly the same before and
# after resizing.
RECOLORINGS = frozenset(
    [
        *(adjust_gamma, normalize_image, subtract_channel_mean, rgb_to_gray, random_rgb_to_gray, random_pca_color),
        *(random_adjust_brightness, random_adjust_contrast, random_adjust_hue, random_adjust_saturation),
        random_distort_color,
    ]
)
