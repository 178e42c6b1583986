"""The position-sensitive crop of R-FCN (floor 1).

R-FCN (Dai et al., arXiv:1605.06409, section "Position-sensitive score maps & Position-sensitive RoI pooling") divides a
box into bins that read separate channels, so that no network runs per box. This is the bilinear form of
"Speed/accuracy trade-offs" (arXiv:1611.10012, section 3.1).

The mean of a bin's bilinear samples is a weighted sum over the cells of the map, and its weights are products of
weights of rows and of columns. So the gradient is a matrix product per bin, [H * W, R] times [R, D], which loses no
sums between threads, unlike TensorFlow's gradient (see ``bilinear.py``). In the forward pass such a product takes two
to five times as long as sampling, which reads a few cells per box only.
"""

from __future__ import annotations

import itertools

import tensorflow as tf

from detzoo.gradients import with_gradient


def position_sensitive_crop(
    features: tf.Tensor, boxes_norm: tf.Tensor, crop_size: tuple[int, int], num_bins: tuple[int, int]
) -> tf.Tensor:
    """Averages bilinear samples over boxes, where each bin of a box reads the channels of this bin.

    Channel (bin_y * bins_x + bin_x) * D + d belongs to the bin (bin_y, bin_x). The samples of a bin are those of
    ``tf.image.crop_and_resize`` with the bin as box: from side to side, or one in the middle. A sample outside the map
    is 0 and counts in the mean.

    Memory: the samples of a bin, and for the gradient its weights, float32 [B, R, H * W].

    Args:
        features: number [B, H, W, bins_y * bins_x * D].
        boxes_norm: float32 [B, R, 4], fractions of the map; gets no gradient.
        crop_size: (height, width) of all bins' samples together; multiples of the bins.
        num_bins: (bins_y, bins_x).

    Returns:
        [B, R, D] in the features' type: the mean over samples and bins.

    Raises:
        ValueError: The crop or the channels are no multiple of the bins.
    """
    _check_sizes(crop_size, num_bins, features.shape[-1])
    total_bins = num_bins[0] * num_bins[1]
    # The sampling kernel has no bfloat16.
    sampled = tf.cast(features, tf.float32) if features.dtype == tf.bfloat16 else features
    mean = tf.cast(_sample_bins(sampled, boxes_norm, crop_size, num_bins) / total_bins, features.dtype)
    crops = with_gradient(mean, [features, boxes_norm], _crop_gradient, crop_size, num_bins)
    return tf.ensure_shape(crops, [features.shape[0], boxes_norm.shape[1], features.shape[-1] // total_bins])


def _crop_gradient(
    upstream: tf.Tensor, features: tf.Tensor, boxes: tf.Tensor, crop_size: tuple[int, int], num_bins: tuple[int, int]
) -> tf.Tensor:
    """Returns the gradient of ``position_sensitive_crop`` for the features, in their type."""
    upstream = tf.cast(upstream, tf.float32) / (num_bins[0] * num_bins[1])
    spread = _spread(upstream, boxes, tf.shape(features), crop_size, num_bins)
    return tf.cast(tf.ensure_shape(spread, features.shape), features.dtype)


def _sample_bins(
    features: tf.Tensor, boxes: tf.Tensor, crop_size: tuple[int, int], num_bins: tuple[int, int]
) -> tf.Tensor:
    """Returns the sum over bins of the means of their samples, float32 [B, R, D]."""
    shape = tf.shape(boxes)
    image_indices = tf.repeat(tf.range(shape[0]), shape[1])
    origin, step = boxes[..., :2], (boxes[..., 2:] - boxes[..., :2]) / tf.constant(num_bins, tf.float32)
    bin_size = (crop_size[0] // num_bins[0], crop_size[1] // num_bins[1])
    means = []
    for index, bin_features in enumerate(tf.split(features, num_bins[0] * num_bins[1], axis=-1)):
        bin_yx = tf.constant(divmod(index, num_bins[1]), tf.float32)
        corners = tf.concat([origin + bin_yx * step, origin + (bin_yx + 1.0) * step], axis=-1)
        crops = tf.image.crop_and_resize(bin_features, tf.reshape(corners, [-1, 4]), image_indices, bin_size)
        means.append(tf.reduce_mean(crops, axis=[1, 2]))
    return tf.reshape(tf.add_n(means), tf.stack([shape[0], shape[1], means[0].shape[-1]]))


def _spread(
    upstream: tf.Tensor,
    boxes: tf.Tensor,
    features_shape: tf.Tensor,
    crop_size: tuple[int, int],
    num_bins: tuple[int, int],
) -> tf.Tensor:
    """Adds sums [B, R, D] to the map's cells, float32 [B, H, W, channels]: the transpose of ``_sample_bins``."""
    batch_size, height, width = features_shape[0], features_shape[1], features_shape[2]
    row_weights = _bin_weights(boxes[..., 0], boxes[..., 2], height, crop_size[0], num_bins[0])  # bins_y x [B, R, H]
    column_weights = _bin_weights(boxes[..., 1], boxes[..., 3], width, crop_size[1], num_bins[1])
    bins = []
    for rows, columns in itertools.product(row_weights, column_weights):
        weights = rows[..., :, tf.newaxis] * columns[..., tf.newaxis, :]
        weights = tf.reshape(weights, [batch_size, -1, height * width])
        bins.append(tf.matmul(weights, upstream, transpose_a=True))
    return tf.reshape(tf.concat(bins, axis=-1), features_shape)


def _bin_weights(low: tf.Tensor, high: tf.Tensor, size: tf.Tensor, num_samples: int, num_bins: int) -> list[tf.Tensor]:
    """Returns the weight of each row (or column) of the map in the mean over a bin's samples.

    Args:
        low: float32 [B, R], first side of the boxes as a fraction of the map.
        high: float32 [B, R], last side.
        size: int32 scalar, rows of the map.
        num_samples: Samples in all bins.
        num_bins: Bins along this axis.

    Returns:
        float32 [B, R, size] for each bin. The sum is 1 if all samples are on the map, else less.
    """
    extent = tf.cast(size - 1, tf.float32)
    cells = tf.range(tf.cast(size, tf.float32))
    bin_samples = num_samples // num_bins
    step = (high - low) / num_bins
    weights = []
    for bin_index in range(num_bins):
        bin_low, bin_high = low + bin_index * step, low + (bin_index + 1) * step
        total = []
        for sample in range(bin_samples):  # the order of operations of tf.image.crop_and_resize
            if bin_samples == 1:
                position = 0.5 * (bin_low + bin_high) * extent
            else:
                position = bin_low * extent + sample * ((bin_high - bin_low) * extent / (bin_samples - 1))
            is_inside = tf.cast((position >= 0.0) & (position <= extent), tf.float32)[..., tf.newaxis]
            total.append(is_inside * tf.maximum(1.0 - tf.abs(position[..., tf.newaxis] - cells), 0.0))
        weights.append(tf.add_n(total) / bin_samples)
    return weights


def _check_sizes(crop_size: tuple[int, int], num_bins: tuple[int, int], channels: int) -> None:
    if min(num_bins) < 1 or min(crop_size) < 1:
        raise ValueError(f"crop_size {tuple(crop_size)} and num_bins {tuple(num_bins)} must be at least 1")
    for axis, crop, bins in zip(("height", "width"), crop_size, num_bins, strict=True):
        if crop % bins:
            raise ValueError(
                f"crop {axis} {crop} is no multiple of its {bins} bins; {_nearest_multiples(crop, bins)} would be"
            )
    if channels % (num_bins[0] * num_bins[1]):
        raise ValueError(
            f"{channels} channels are no multiple of {num_bins[0]} x {num_bins[1]} bins; "
            "a map for D values per box needs bins_y * bins_x * D channels"
        )


def _nearest_multiples(crop: int, bins: int) -> str:
    below = crop // bins * bins
    return f"{below} or {below + bins}" if below else str(bins)
