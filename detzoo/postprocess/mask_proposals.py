"""Final masks of a mask proposal network, each with the box around it (floor 2).

A mask is predicted in a window that is larger than its object and may extend beyond the image. A detection's mask is
stretched over its box, so the box is reduced to the foreground of the mask, and the mask to the box.
"""

from __future__ import annotations

import tensorflow as tf

from detzoo.contracts import Detections, MaskProposalPredictions, Tensor
from detzoo.ops import boxes
from detzoo.ops.bilinear import map_size, sample_grid
from detzoo.postprocess.dense_detections import image_windows

THRESHOLD = 0.5  # between background and foreground of a mask


def best_locations(
    score_logits: tf.Tensor, centers_px: tf.Tensor, true_shapes: tf.Tensor, count: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the locations with the highest scores, without suppression. Centres in the padding are excluded.

    ``true_shapes`` int32 [B, 2] are the pixels of the padded input that each image covers.

    Returns:
        int32 [B, R] rows, best first, and their scores float32 [B, R] in [0, 1]; padded with row 0 and score -1.
    """
    inside = tf.reduce_all(centers_px < tf.cast(true_shapes, tf.float32)[:, tf.newaxis], axis=-1)
    scores = tf.where(inside, tf.sigmoid(score_logits), -1.0)
    best, rows = tf.math.top_k(tf.pad(scores, [[0, 0], [0, count]], constant_values=-1.0), count)
    return tf.where(best >= 0.0, rows, 0), best


def mask_detections(
    predictions: MaskProposalPredictions, true_shapes: tf.Tensor, padded_shape: tuple[Tensor | int, Tensor | int]
) -> Detections:
    """Returns detections of class 0, with masks in tight boxes.

    ``true_shapes`` int32 [B, 2] are the pixels of the padded input that each image covers. Predictions have rows of
    padding last.

    Returns:
        Detections. ``anchor_indices`` are locations. ``raw_boxes_norm`` are the windows of all A locations as fractions
        of the padded input, and ``raw_scores`` their scores of background and object. The box of a mask without
        foreground is the part of its window in the image.
    """
    is_filled = predictions.scores >= 0.0
    masks = tf.sigmoid(predictions.mask_logits)
    windows = tf.gather(predictions.windows_norm, predictions.chosen)
    boxes_norm, inner = _tight_boxes(masks, windows, image_windows(true_shapes, padded_shape)[:, tf.newaxis])
    cut = _cut(masks, inner)
    scores = tf.maximum(predictions.scores, 0.0)
    none = tf.zeros_like(predictions.chosen)
    raw_scores = tf.sigmoid(predictions.score_logits)
    num_images = tf.shape(raw_scores)[0]
    return Detections(
        boxes_norm=tf.where(is_filled[..., tf.newaxis], boxes_norm, 0.0),
        scores=scores,
        classes=none,
        num_valid=tf.reduce_sum(tf.cast(is_filled, tf.int32), axis=1),
        multiclass_scores=tf.where(is_filled[..., tf.newaxis], tf.stack([1.0 - scores, scores], axis=-1), 0.0),
        anchor_indices=tf.where(is_filled, predictions.chosen, none),
        raw_boxes_norm=tf.tile(predictions.windows_norm[tf.newaxis], [num_images, 1, 1]),
        raw_scores=tf.stack([1.0 - raw_scores, raw_scores], axis=-1),
        masks=tf.where(is_filled[..., tf.newaxis, tf.newaxis], cut, 0.0),
    )


def mask_extents(masks: tf.Tensor) -> tf.Tensor:
    """Returns the smallest box around the foreground of masks [..., h, w] in [0, 1], as fractions of their windows.

    A mask is bilinear between its cells, and its first and last rows and columns are on the sides of its window, as for
    cropping and pasting. A mask without foreground gives [1, 1, 0, 0].
    """
    low_y, high_y = _extent_along_rows(masks)
    low_x, high_x = _extent_along_rows(tf.linalg.matrix_transpose(masks))
    return tf.stack([low_y, low_x, high_y, high_x], axis=-1)


def _extent_along_rows(masks: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the start of the first and the end of the last foreground row, [...] in fractions; 1 and 0 for none.

    A column is linear between two rows, so its crossing of the threshold follows from the two cells.
    """
    above = masks > THRESHOLD
    count = masks.shape[-2]
    rows = tf.range(count, dtype=tf.float32)[:, tf.newaxis]
    before, after = masks[..., :-1, :], masks[..., 1:, :]
    share = tf.math.divide_no_nan(THRESHOLD - before, after - before)
    crossing = rows[:-1] + share
    rises, falls = above[..., 1:, :] & ~above[..., :-1, :], above[..., :-1, :] & ~above[..., 1:, :]
    starts = tf.concat([tf.where(above[..., :1, :], 0.0, count), tf.where(rises, crossing, count)], axis=-2)
    ends = tf.concat([tf.where(falls, crossing, -1.0), tf.where(above[..., -1:, :], count - 1.0, -1.0)], axis=-2)
    first, last = tf.reduce_min(starts, axis=[-2, -1]), tf.reduce_max(ends, axis=[-2, -1])
    found = last >= 0.0
    return tf.where(found, first / (count - 1), 1.0), tf.where(found, last / (count - 1), 0.0)


def _tight_boxes(masks: tf.Tensor, windows: tf.Tensor, image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns boxes around masks [B, R, h, w], clipped to the image: [B, R, 4] as fractions of image and of windows.

    ``windows`` [B, R, 4] and ``image`` [B, 1, 4] are areas as fractions of the padded input.
    """
    sides = tf.tile(windows[..., 2:] - windows[..., :2], [1, 1, 2])
    origins = tf.tile(windows[..., :2], [1, 1, 2])
    tight = boxes.clip(origins + mask_extents(masks) * sides, image)
    found = boxes.is_valid(tight)[..., tf.newaxis]
    tight = tf.where(found, tight, boxes.clip(windows, image))
    return boxes.change_coordinate_frame(tight, image), (tight - origins) / sides


def _cut(masks: tf.Tensor, inner: tf.Tensor) -> tf.Tensor:
    """Resamples masks [B, R, h, w] in parts of their windows, float32 [B, R, 4] in fractions."""
    shape = tf.shape(masks)
    size = tuple(masks.shape[2:])
    flat = tf.reshape(masks, [-1, *size, 1])
    # Rounding may put a side of a box that fills its window outside of it, where samples are 0.
    sides = tf.reshape(tf.clip_by_value(inner, 0.0, 1.0), [-1, 2, 2]) * (map_size(flat) - 1.0)
    crops = sample_grid(flat, sides[:, 0], sides[:, 1], tf.range(tf.shape(flat)[0]), size)
    return tf.reshape(crops, shape)
