"""Bilinear samples of feature maps at regular positions, with an exact gradient on CPUs, too (floor 1).

``tf.image.crop_and_resize`` samples. Its gradient is computed here, because in TensorFlow's kernel for CPUs several
threads add to one cell without a lock and so lose sums. With 300 boxes on a map of 38 x 63 cells, two threads lose 1 to
2 % of the gradient's norm, and each run another part. Here the gradient is a sparse matrix of the samples' weights,
with a row per cell, times the samples' gradients. It is exact and reproducible, and takes 2 to 4 times as long.
"""

from __future__ import annotations

import itertools

import tensorflow as tf

from detzoo.gradients import with_gradient

# Upper bound of the rounding of sample positions in float32, as a share of the map's extent.
_POSITION_ROUNDING = 5e-7


def bilinear_crop(
    features: tf.Tensor, boxes_norm: tf.Tensor, image_indices: tf.Tensor, size: tuple[int, int]
) -> tf.Tensor:
    """Samples boxes as ``tf.image.crop_and_resize``; the gradient flows to the features only.

    Args:
        features: number [B, H, W, C].
        boxes_norm: float32 [N, 4], finite; 0 and 1 are the centres of the outermost cells.
        image_indices: int32 [N] in [0, B).
        size: (h, w) samples.

    Returns:
        [N, h, w, C] in the features' type; 0 for samples outside the map.
    """
    # The kernel has no bfloat16.
    sampled = tf.cast(features, tf.float32) if features.dtype == tf.bfloat16 else features
    crops = tf.cast(tf.image.crop_and_resize(sampled, boxes_norm, image_indices, size), features.dtype)
    return with_gradient(crops, [features, boxes_norm, image_indices], _crop_gradient)


def sample_grid(
    features: tf.Tensor, first: tf.Tensor, last: tf.Tensor, image_indices: tf.Tensor, size: tuple[int, int]
) -> tf.Tensor:
    """Samples bilinearly at regular positions; samples outside the map are 0.

    Args:
        features: number [B, H, W, C].
        first: float32 [N, 2], (y, x) of the first sample in cells: 0 is the centre of the first cell.
        last: float32 [N, 2], (y, x) of the last sample; equal to ``first`` along an axis of one sample.
        image_indices: int32 [N].
        size: (h, w) samples.

    Returns:
        [N, h, w, C] in the features' type.
    """
    extent = map_size(features) - 1.0
    corners = [tf.math.divide_no_nan(_off_border(position, extent), extent) for position in (first, last)]
    return bilinear_crop(features, tf.concat(corners, axis=-1), image_indices, size)


def map_size(features: tf.Tensor) -> tf.Tensor:
    """Returns (H, W) as float32 [2]."""
    return tf.cast(tf.shape(features)[1:3], tf.float32)


def _crop_gradient(upstream: tf.Tensor, features: tf.Tensor, boxes: tf.Tensor, image_indices: tf.Tensor) -> tf.Tensor:
    """Returns the gradient of ``bilinear_crop`` for the features, in their type."""
    upstream = tf.cast(upstream, tf.float32)
    if tf.config.list_logical_devices("GPU"):  # the kernel for GPUs adds atomically
        summed = tf.raw_ops.CropAndResizeGradImage(
            grads=upstream, boxes=boxes, box_ind=image_indices, image_size=tf.shape(features), T=tf.float32
        )
    else:
        summed = _spread(upstream, boxes, image_indices, tf.shape(features))
    return tf.cast(tf.ensure_shape(summed, features.shape), features.dtype)


def _spread(
    upstream: tf.Tensor, boxes_norm: tf.Tensor, image_indices: tf.Tensor, features_shape: tf.Tensor
) -> tf.Tensor:
    """Adds samples [N, h, w, C] to the cells of [B, H, W, C] that they derive from, the transpose of sampling."""
    batch_size, height, width, channels = tf.unstack(features_shape)
    size = tf.shape(upstream)[1:3]
    rows = _neighbours(boxes_norm[:, 0], boxes_norm[:, 2], size[0], height)
    columns = _neighbours(boxes_norm[:, 1], boxes_norm[:, 3], size[1], width)
    cells, weights = [], []
    for (row, row_weight), (column, column_weight) in itertools.product(rows, columns):
        cell = (image_indices[:, tf.newaxis] * height + row)[:, :, tf.newaxis] * width + column[:, tf.newaxis, :]
        cells.append(tf.reshape(cell, [-1]))
        weights.append(tf.reshape(row_weight[:, :, tf.newaxis] * column_weight[:, tf.newaxis, :], [-1]))
    num_samples, num_cells = tf.size(cells[0]), batch_size * height * width
    all_cells = tf.concat(cells, axis=0)
    order = tf.argsort(all_cells, stable=True)
    indices = tf.stack([tf.gather(all_cells, order), order % num_samples], axis=-1)
    matrix = tf.raw_ops.SparseTensorToCSRSparseMatrix(
        indices=tf.cast(indices, tf.int64),
        values=tf.gather(tf.concat(weights, axis=0), order),
        dense_shape=tf.cast(tf.stack([num_cells, num_samples]), tf.int64),
    )
    summed = tf.raw_ops.SparseMatrixMatMul(a=matrix, b=tf.reshape(upstream, [-1, channels]))
    return tf.reshape(summed, features_shape)


def _neighbours(
    low: tf.Tensor, high: tf.Tensor, num_samples: tf.Tensor, size: tf.Tensor
) -> tuple[tuple[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """Returns the two cells around each sample along one axis, int32 [N, num_samples], with float32 weights."""
    extent = tf.cast(size - 1, tf.float32)
    low, high = low[:, tf.newaxis], high[:, tf.newaxis]
    intervals = tf.cast(tf.maximum(num_samples - 1, 1), tf.float32)
    position = low * extent + tf.range(tf.cast(num_samples, tf.float32)) * ((high - low) * extent / intervals)
    position = tf.where(num_samples > 1, position, 0.5 * (low + high) * extent)
    is_inside = tf.cast((position >= 0.0) & (position <= extent), tf.float32)
    position = tf.clip_by_value(position, 0.0, extent)
    first = tf.floor(position)
    second_weight = (position - first) * is_inside
    first_cell = tf.cast(first, tf.int32)
    return (first_cell, is_inside - second_weight), (tf.minimum(first_cell + 1, size - 1), second_weight)


def _off_border(position: tf.Tensor, extent: tf.Tensor) -> tf.Tensor:
    """Moves positions away from the border, so that rounding cannot move them to its other side."""
    margin = extent * _POSITION_ROUNDING
    for border in (tf.zeros_like(extent), extent):
        is_inside = (position >= 0.0) & (position <= extent)
        inward = tf.where(border > 0.0, -margin, margin)
        position = tf.where(tf.abs(position - border) < margin, border + tf.where(is_inside, inward, -inward), position)
    return position
