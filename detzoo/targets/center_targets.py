"""Targets of CenterNet: a Gaussian around the centre of each object, its size, and its offset (floor 2).

Zhou et al., arXiv:1904.07850, section 3 (heatmap and offset) and 4 (size); the Gaussian's width is that of CornerNet,
arXiv:1808.01244, section 3.2.
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from detzoo.contracts import CENTER_STRIDE, CenterTargets, Groundtruth, Tensor
from detzoo.ops import boxes
from detzoo.ops.gaussians import gaussian_sigma
from detzoo.targets.anchor_targets import count_to_last

Shape = tuple[Tensor | int, Tensor | int]


@dataclasses.dataclass(frozen=True)
class CenterAssigner:
    """Assigns objects to the cells of their centres.

    Differs from the Object Detection API: degenerate boxes have no targets, and cells in a crowd are no negatives.
    """

    num_classes: int
    min_overlap: float = 0.7  # overlap that a box keeps when its corners move within the Gaussian

    def __call__(
        self, groundtruth: Groundtruth, map_shape: Shape, true_shapes: Tensor, padded_shape: Shape
    ) -> CenterTargets:
        """Returns the targets of a batch. No gradient flows through them.

        Args:
            groundtruth: Objects with boxes in fractions of the padded input.
            map_shape: (h, w) of the maps.
            true_shapes: int32 [B, 2], pixels of the padded input that each image covers.
            padded_shape: (height, width) of the padded input in pixels.
        """
        boxes_in_cells = in_cells(groundtruth.boxes_norm, padded_shape)
        is_object = (groundtruth.classes >= 0) & boxes.is_valid(groundtruth.boxes_norm)
        weights = tf.where(is_object & ~groundtruth.is_crowd, groundtruth.weights, 0.0)
        centers, sizes = centers_and_sizes(boxes_in_cells)
        corners = cell_corners(centers, map_shape)
        heatmap = gaussians(
            corners, gaussian_sigma(sizes, self.min_overlap), groundtruth.classes, weights, map_shape, self.num_classes
        )
        crowds = cast(is_object & groundtruth.is_crowd)[..., tf.newaxis]
        is_counted = in_image(true_shapes, map_shape) & ~covered(boxes_in_cells, crowds, map_shape)[..., 0]
        return CenterTargets(
            heatmap=heatmap,
            heatmap_weights=cast(is_counted)[..., tf.newaxis],
            cells=cell_indices(corners, map_shape),
            sizes=sizes,
            offsets=centers - corners,
            weights=weights,
        )


def in_cells(points_or_boxes: Tensor, padded_shape: Shape) -> Tensor:
    """Converts points [..., 2] or boxes [..., 4] from fractions of the padded input to cells of the maps."""
    scale = tf.cast(tf.stack(padded_shape), tf.float32) / CENTER_STRIDE
    return points_or_boxes * tf.tile(scale, [points_or_boxes.shape[-1] // 2])


def centers_and_sizes(boxes_in_cells: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the centres (y, x) and the sizes (height, width) of boxes [..., 4], float32 [..., 2] each."""
    low, high = tf.split(boxes_in_cells, 2, axis=-1)
    return (low + high) / 2.0, high - low


def cell_corners(points: Tensor, map_shape: Shape) -> Tensor:
    """Returns the top left corner of the cell of each point [..., 2], in a cell of the map."""
    last = tf.cast(tf.stack(map_shape), tf.float32) - 1.0
    return tf.clip_by_value(tf.floor(points), 0.0, tf.maximum(last, 0.0))


def cell_indices(corners: Tensor, map_shape: Shape) -> Tensor:
    """Returns y * w + x of corners [..., 2], int32 [...]."""
    y, x = tf.unstack(tf.cast(corners, tf.int32), axis=-1)
    return y * map_shape[1] + x


def gaussians(
    corners: Tensor, sigma: Tensor, channels: Tensor, weights: Tensor, map_shape: Shape, num_channels: int
) -> Tensor:
    """Draws a Gaussian for each point into the channel of its kind; of several in one cell the largest value counts.

    Args:
        corners: float32 [B, P, 2], cells of the points.
        sigma: float32 [B, P], standard deviations in cells.
        channels: int32 [B, P].
        weights: float32 [B, P], heights of the Gaussians; 0 draws none.
        map_shape: (h, w).
        num_channels: Number C of channels.

    Returns:
        float32 [B, h, w, C] in [0, 1].
    """
    height, width = map_shape
    rows, columns = tf.range(height, dtype=tf.float32), tf.range(width, dtype=tf.float32)

    @tf.autograph.experimental.do_not_convert
    def draw(image: tuple[Tensor, ...]) -> Tensor:
        num_points = count_to_last(image[3] > 0.0)
        corners, sigma, channels, weights = (part[:num_points] for part in image)
        y, x = (
            tf.exp(-((places - corners[:, axis, tf.newaxis]) ** 2) / (2.0 * sigma[:, tf.newaxis] ** 2))
            for axis, places in enumerate((rows, columns))
        )
        drawn = (weights[:, tf.newaxis] * y)[:, :, tf.newaxis] * x[:, tf.newaxis, :]
        empty = tf.zeros([num_channels, height, width])
        found = tf.tensor_scatter_nd_max(empty, tf.maximum(channels, 0)[:, tf.newaxis], drawn)
        return tf.transpose(found, [1, 2, 0])

    maps = tf.map_fn(
        draw,
        (corners, sigma, channels, weights),
        fn_output_signature=tf.TensorSpec([None, None, num_channels]),
        parallel_iterations=2,
    )
    return tf.stop_gradient(maps)


def in_image(true_shapes: Tensor, map_shape: Shape) -> Tensor:
    """Returns bool [B, h, w], True for cells that start inside the image."""
    rows, columns = (
        tf.range(cells)[tf.newaxis] * CENTER_STRIDE < true_shapes[:, axis, tf.newaxis]
        for axis, cells in enumerate(map_shape)
    )
    return rows[:, :, tf.newaxis] & columns[:, tf.newaxis, :]


def covered(boxes_in_cells: Tensor, takes_part: Tensor, map_shape: Shape) -> Tensor:
    """Finds the cells of each channel whose corner lies in a box that takes part in the channel.

    Args:
        boxes_in_cells: float32 [B, N, 4].
        takes_part: float32 [B, N, C] of 0 and 1.
        map_shape: (h, w).

    Returns:
        bool [B, h, w, C].
    """
    ymin, xmin, ymax, xmax = tf.split(boxes_in_cells, 4, axis=-1)  # [B, N, 1]
    rows, columns = (tf.range(cells, dtype=tf.float32) for cells in map_shape)
    inside_y, inside_x = cast((rows >= ymin) & (rows < ymax)), cast((columns >= xmin) & (columns < xmax))
    return tf.einsum("bnyc,bnx->byxc", inside_y[..., tf.newaxis] * takes_part[:, :, tf.newaxis], inside_x) > 0.0


def mask_weights(groundtruth: Groundtruth, allowed_classes: tuple[int, ...] = ()) -> Tensor:
    """Returns the weights float32 [B, N] of the objects whose masks are learned, 0 for others.

    Objects without a mask are not learned, neither are crowds, nor other than the allowed classes (from 0; all if
    empty).
    """
    is_learned = (groundtruth.classes >= 0) & boxes.is_valid(groundtruth.boxes_norm) & ~groundtruth.is_crowd
    if allowed_classes:
        is_learned &= tf.reduce_any(groundtruth.classes[..., tf.newaxis] == list(allowed_classes), axis=-1)
    is_learned &= tf.reduce_any(groundtruth.masks > 0, axis=[2, 3])
    return tf.where(is_learned, groundtruth.weights, 0.0)


def class_mask_targets(
    groundtruth: Groundtruth, num_classes: int, map_shape: Shape, true_shapes: Tensor, padded_shape: Shape
) -> tuple[Tensor, Tensor]:
    """Joins the masks of the objects of each class.

    Args:
        groundtruth: Objects with masks uint8 [B, N, H, W] of the padded input.
        num_classes: Number K of classes.
        map_shape: (h, w) of the maps.
        true_shapes: int32 [B, 2], pixels of the padded input that each image covers.
        padded_shape: (height, width) of the padded input in pixels.

    Returns:
        Targets float32 [B, h, w, K] in [0, 1]. Weights float32 [B, h, w], 0 outside the image and in the boxes of
        crowds and of objects without a mask.
    """
    masks, learned = groundtruth.masks, mask_weights(groundtruth)
    batch_size, num_objects = tf.unstack(tf.shape(groundtruth.classes))
    rows, columns = (CENTER_STRIDE * side for side in map_shape)  # the maps may cover less or more than the masks
    masks = masks[..., :rows, :columns]
    missing = tf.stack([rows, columns]) - tf.shape(masks)[2:]
    masks = tf.pad(masks, [[0, 0], [0, 0], [0, missing[0]], [0, missing[1]]])
    masks = tf.reshape(masks, [batch_size * num_objects, rows, columns, 1])
    cells = tf.image.resize(masks, tf.stack(map_shape))[..., 0]
    channels = tf.where(learned > 0.0, groundtruth.classes + num_classes * tf.range(batch_size)[:, tf.newaxis], -1)
    joined = tf.math.unsorted_segment_max(cells, tf.reshape(channels, [-1]), batch_size * num_classes)
    joined = tf.reshape(tf.maximum(joined, 0.0), [batch_size, num_classes, *map_shape])
    is_unknown = (groundtruth.classes >= 0) & (learned <= 0.0)
    unknown = covered(in_cells(groundtruth.boxes_norm, padded_shape), cast(is_unknown)[..., tf.newaxis], map_shape)
    weights = cast(in_image(true_shapes, map_shape) & ~unknown[..., 0])
    return tf.stop_gradient(tf.transpose(joined, [0, 2, 3, 1])), weights


def cast(is_true: Tensor) -> Tensor:
    """Returns 1.0 for True and 0.0 for False."""
    return tf.cast(is_true, tf.float32)
