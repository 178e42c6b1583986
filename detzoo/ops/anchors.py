"""Anchors: the fixed boxes that a dense head refines (floor 1).

A generator has scales and shapes; the call receives the sizes of the feature maps and of the image. The order of the
anchors is: feature map, row, column, box of the location, which is the order of a head's reshaped output.

For sizes in Python ints the result is a numpy array, so that anchors of a static model are one constant; for scalar
tensors it is a tensor with the same numbers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

Size = Any  # int or int32 scalar tensor
SizePair = tuple[Size, Size]

# First of the three boxes of a reduced lowest SSD layer, a small square (value of the Object Detection API).
_LOWEST_LAYER_SMALL_SCALE = 0.1


class AnchorGenerator(Protocol):
    """The interface of every generator."""

    @property
    def num_anchors_per_location(self) -> tuple[int, ...]:
        """Number of boxes per location, for each feature map."""

    def __call__(self, feature_shapes: Sequence[SizePair], image_shape_px: SizePair) -> Any:
        """Returns anchors float32 [A, 4] as fractions of the (padded) image; they may extend beyond it.

        Takes the (height, width) of each feature map, finest first, and of the padded input.

        Raises:
            ValueError: The generator is for another number of feature maps.
        """


def sizes_of(scales: Sequence[float], aspect_ratios: Sequence[float]) -> np.ndarray:
    """Returns the sizes of boxes of given scales (square roots of areas) and aspect ratios (width / height).

    Returns:
        (height, width) float32 [boxes, 2]; height * width = scale**2 and width / height = aspect ratio.
    """
    scale = np.asarray(scales, np.float32)
    root = np.sqrt(np.asarray(aspect_ratios, np.float32))
    return np.stack([scale / root, scale * root], axis=-1)


def _is_static(*values: Size) -> bool:
    return all(isinstance(value, (int, float, np.integer, np.floating)) for value in values)


def _float(value: Size) -> Any:
    return np.float32(value) if _is_static(value) else tf.cast(value, tf.float32)


def _centers(count: Size, stride: Any, offset: Any) -> Any:
    steps = np.arange(count, dtype=np.float32) if _is_static(count) else tf.cast(tf.range(count), tf.float32)
    return steps * stride + offset


def _tile(feature_shape: SizePair, sizes: Any, stride: tuple[Any, Any], offset: tuple[Any, Any]) -> Any:
    """Returns boxes [h * w * k, 4] of the given (height, width) sizes [k, 2], centred on every point of a grid."""
    y = _centers(feature_shape[0], stride[0], offset[0])
    x = _centers(feature_shape[1], stride[1], offset[1])
    numbers = np if all(isinstance(part, np.ndarray) for part in (y, x, sizes)) else tf
    height, width, boxes = feature_shape[0], feature_shape[1], sizes.shape[0]
    shape = (height, width, boxes)
    half = 0.5 * sizes
    y_grid = numbers.broadcast_to(numbers.reshape(y, (-1, 1, 1)), shape)
    x_grid = numbers.broadcast_to(numbers.reshape(x, (1, -1, 1)), shape)
    corners = [y_grid - half[:, 0], x_grid - half[:, 1], y_grid + half[:, 0], x_grid + half[:, 1]]
    return numbers.reshape(numbers.stack(corners, axis=-1), (-1, 4))


def _concatenate(layers: list[Any]) -> Any:
    if all(isinstance(layer, np.ndarray) for layer in layers):
        return np.concatenate(layers, axis=0)
    return tf.concat(layers, axis=0)


def _fractions(boxes_px: Any, image_shape_px: SizePair) -> Any:
    height, width = _float(image_shape_px[0]), _float(image_shape_px[1])
    if isinstance(boxes_px, np.ndarray) and _is_static(*image_shape_px):
        return boxes_px / np.asarray([height, width, height, width], np.float32)
    return boxes_px / tf.stack([height, width, height, width])


def _check_layers(expected: int, feature_shapes: Sequence[SizePair], what: str) -> None:
    if len(feature_shapes) != expected:
        raise ValueError(
            f"{what} has boxes for {expected} feature maps but received {len(feature_shapes)}: "
            f"{list(feature_shapes)}. Set the generator's number of layers (levels) to that of the feature extractor."
        )


@dataclasses.dataclass(frozen=True)
class SsdAnchors:
    """Default boxes of SSD (Liu et al., arXiv:1512.02325, section 2.2), with the Object Detection API's rules.

    Scales are fractions of the shorter image side, so that a box of aspect ratio 1 is square on any image.
    """

    # float32 [k, 2] per feature map, (height, width) as fractions of the shorter side.
    layer_sizes: tuple[np.ndarray, ...]
    base_anchor_size: tuple[float, float] = (1.0, 1.0)  # factors (height, width) of all sizes
    # (y, x) distance of neighbouring centres per feature map; None spreads them evenly over the image.
    strides_px: tuple[tuple[int, int], ...] | None = None
    # (y, x) of the first centre per feature map; None for half a stride.
    offsets_px: tuple[tuple[int, int], ...] | None = None

    @property
    def num_anchors_per_location(self) -> tuple[int, ...]:
        """Number of boxes per location, for each feature map."""
        return tuple(len(sizes) for sizes in self.layer_sizes)

    def __call__(self, feature_shapes: Sequence[SizePair], image_shape_px: SizePair) -> Any:
        """See ``AnchorGenerator.__call__``."""
        _check_layers(len(self.layer_sizes), feature_shapes, "the SSD anchor generator")
        height, width = _float(image_shape_px[0]), _float(image_shape_px[1])
        static = _is_static(*image_shape_px)
        shorter = min(height, width) if static else tf.minimum(height, width)
        factors = [shorter / height * self.base_anchor_size[0], shorter / width * self.base_anchor_size[1]]
        factor = np.asarray(factors, np.float32) if static else tf.stack(factors)
        layers = []
        for index, (shape, sizes) in enumerate(zip(feature_shapes, self.layer_sizes, strict=True)):
            if self.strides_px:
                stride = (self.strides_px[index][0] / height, self.strides_px[index][1] / width)
            else:
                stride = (1.0 / _float(shape[0]), 1.0 / _float(shape[1]))
            if self.offsets_px:
                offset = (self.offsets_px[index][0] / height, self.offsets_px[index][1] / width)
            else:
                offset = (0.5 * stride[0], 0.5 * stride[1])
            layers.append(_tile(shape, sizes * factor, stride, offset))
        return _concatenate(layers)


def ssd_layer_sizes(
    num_layers: int,
    min_scale: float,
    max_scale: float,
    scales: Sequence[float],
    aspect_ratios: Sequence[float],
    interpolated_scale_aspect_ratio: float,
    reduce_boxes_in_lowest_layer: bool,
) -> tuple[np.ndarray, ...]:
    """Returns the (height, width) of SSD's boxes, float32 [k, 2] per feature map.

    Args:
        num_layers: Number of feature maps.
        min_scale: Scale of the finest map, a fraction of the shorter image side.
        max_scale: Scale of the coarsest map; the scales in between are spaced evenly.
        scales: Scales of all maps, which replace ``min_scale`` and ``max_scale``; empty for none.
        aspect_ratios: width / height of the boxes of every map.
        interpolated_scale_aspect_ratio: Aspect ratio of one more box, whose scale is the geometric mean of this map's
            and the next one's (1.0 after the last); 0 for no such box.
        reduce_boxes_in_lowest_layer: Reduces the finest map to three boxes (scale 0.1 square; 2:1 and 1:2).
    """
    if not scales:
        steps = max(num_layers - 1, 1)
        scales = [min_scale + (max_scale - min_scale) * layer / steps for layer in range(num_layers)]
    following = [*scales[1:], 1.0]
    layers = []
    for layer, (scale, next_scale) in enumerate(zip(scales, following, strict=True)):
        if layer == 0 and reduce_boxes_in_lowest_layer:
            boxes = [(_LOWEST_LAYER_SMALL_SCALE, 1.0), (scale, 2.0), (scale, 0.5)]
        else:
            boxes = [(scale, ratio) for ratio in aspect_ratios]
            if interpolated_scale_aspect_ratio > 0:
                boxes.append((float(np.sqrt(scale * next_scale)), interpolated_scale_aspect_ratio))
        layers.append(sizes_of(*zip(*boxes, strict=True)))
    return tuple(layers)


@dataclasses.dataclass(frozen=True)
class MultiscaleAnchors:
    """RetinaNet's anchors (Focal loss, section 4): the same shapes on every level, scaled by the level's stride.

    The order at a location is aspect ratio by aspect ratio, and from the smallest scale of the octave up. The first
    centre is half a stride inside the image if the level's stride divides the image's side, else on its border.
    """

    min_level: int = 3  # level of the first feature map
    max_level: int = 7  # level of the last feature map
    anchor_scale: float = 4.0  # side of a level's smallest square anchor, in strides
    aspect_ratios: tuple[float, ...] = (1.0, 2.0, 0.5)  # width / height
    scales_per_octave: int = 2  # number n of sizes between two levels: 2**(0/n), 2**(1/n), ...

    @property
    def num_anchors_per_location(self) -> tuple[int, ...]:
        """Number of boxes per location, for each feature map."""
        return (len(self.aspect_ratios) * self.scales_per_octave,) * (self.max_level - self.min_level + 1)

    def __call__(self, feature_shapes: Sequence[SizePair], image_shape_px: SizePair) -> Any:
        """See ``AnchorGenerator.__call__``."""
        levels = range(self.min_level, self.max_level + 1)
        _check_layers(len(levels), feature_shapes, "the multiscale anchor generator")
        octave = [2.0 ** (step / self.scales_per_octave) for step in range(self.scales_per_octave)]
        scales = octave * len(self.aspect_ratios)
        ratios = [ratio for ratio in self.aspect_ratios for _ in octave]
        unit_sizes = sizes_of(scales, ratios)
        layers = []
        for level, shape in zip(levels, feature_shapes, strict=True):
            stride = 2**level
            sizes = unit_sizes * np.float32(stride * self.anchor_scale)
            offset = tuple(_half_stride_where_divisible(side, stride) for side in image_shape_px)
            layers.append(_tile(shape, sizes, (np.float32(stride),) * 2, offset))
        return _fractions(_concatenate(layers), image_shape_px)


def _half_stride_where_divisible(side_px: Size, stride: int) -> Any:
    if _is_static(side_px):
        return np.float32(stride / 2.0 if side_px % stride == 0 else 0.0)
    return tf.where(side_px % stride == 0, stride / 2.0, 0.0)


@dataclasses.dataclass(frozen=True)
class GridAnchors:
    """Anchors with sizes, strides and offsets in pixels, per feature map."""

    layer_sizes_px: tuple[np.ndarray, ...]  # float32 [k, 2] per feature map, (height, width)
    strides_px: tuple[tuple[int, int], ...]  # (y, x) distance of neighbouring centres per feature map
    offsets_px: tuple[tuple[int, int], ...]  # (y, x) of the first centre per feature map

    @property
    def num_anchors_per_location(self) -> tuple[int, ...]:
        """Number of boxes per location, for each feature map."""
        return tuple(len(sizes) for sizes in self.layer_sizes_px)

    def __call__(self, feature_shapes: Sequence[SizePair], image_shape_px: SizePair) -> Any:
        """See ``AnchorGenerator.__call__``."""
        _check_layers(len(self.layer_sizes_px), feature_shapes, "the grid anchor generator")
        layers = []
        for shape, sizes, stride, offset in zip(
            feature_shapes, self.layer_sizes_px, self.strides_px, self.offsets_px, strict=True
        ):
            layers.append(
                _tile(shape, sizes, (_float(stride[0]), _float(stride[1])), (_float(offset[0]), _float(offset[1])))
            )
        return _fractions(_concatenate(layers), image_shape_px)
