"""The position-sensitive crop of R-FCN (floor 1).

R-FCN (Dai et al., arXiv:1605.06409, section "Position-sensitive score maps & Position-sensitive RoI pooling") divides a
box into bins that read separate channels, so that no network runs per box. This is the bilinear form of
"Speed/accuracy trade-offs" (arXiv:1611.10012, section 3.1).
"""

from __future__ import annotations

import tensorflow as tf

from detzoo.ops.bilinear import bilinear_crop


def position_sensitive_crop(
    features: tf.Tensor, boxes_norm: tf.Tensor, crop_size: tuple[int, int], num_bins: tuple[int, int]
) -> tf.Tensor:
    """Averages bilinear samples over boxes, where each bin of a box reads the channels of this bin.

    Channel (bin_y * bins_x + bin_x) * D + d belongs to the bin (bin_y, bin_x). The samples of a bin are those of
    ``tf.image.crop_and_resize`` with the bin as box: from side to side, or one in the middle. A sample outside the map
    is 0 and counts in the mean.

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
    total_bins, shape = num_bins[0] * num_bins[1], tf.shape(boxes_norm)
    image_indices = tf.repeat(tf.range(shape[0]), shape[1])
    origin = boxes_norm[..., :2]
    step = (boxes_norm[..., 2:] - origin) / tf.constant(num_bins, tf.float32)
    bin_size = (crop_size[0] // num_bins[0], crop_size[1] // num_bins[1])
    means = []
    for index, own_features in enumerate(tf.split(tf.cast(features, tf.float32), total_bins, axis=-1)):
        bin_yx = tf.constant(divmod(index, num_bins[1]), tf.float32)
        corners = tf.concat([origin + bin_yx * step, origin + (bin_yx + 1.0) * step], axis=-1)
        crops = bilinear_crop(own_features, tf.reshape(corners, [-1, 4]), image_indices, bin_size)
        means.append(tf.reduce_mean(crops, axis=[1, 2]))
    depth = features.shape[-1] // total_bins
    mean = tf.cast(tf.add_n(means) / total_bins, features.dtype)
    mean = tf.reshape(mean, tf.stack([shape[0], shape[1], depth]))
    return tf.ensure_shape(mean, [features.shape[0], boxes_norm.shape[1], depth])


def _check_sizes(crop_size: tuple[int, int], num_bins: tuple[int, int], channels: int) -> None:
    if min(num_bins) < 1 or min(crop_size) < 1:
        raise ValueError(f"crop_size {tuple(crop_size)} and num_bins {tuple(num_bins)} must be at least 1")
    for axis, crop, bins in zip(("height", "width"), crop_size, num_bins, strict=True):
        if crop % bins:
            below = crop // bins * bins
            nearest = f"{below} or {below + bins}" if below else str(bins)
            raise ValueError(f"crop {axis} {crop} is no multiple of its {bins} bins; {nearest} would be")
    if channels % (num_bins[0] * num_bins[1]):
        raise ValueError(
            f"{channels} channels are no multiple of {num_bins[0]} x {num_bins[1]} bins; "
            "a map for D values per box needs bins_y * bins_x * D channels"
        )
