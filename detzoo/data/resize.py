"""Image of any size -> the detector's input: resized, padded, with the shape of the true image.

Stands between augmentation and batching, and at the entrance of every exported model. Sizes, rounding and sampling grid
are those of the Object Detection API (``image_resizer`` in its configuration): bilinear sampling at the top left corner
of a pixel (``half_pixel_centers=False``), because published checkpoints were trained so.
"""

from __future__ import annotations

import abc
import dataclasses

import tensorflow as tf

from detzoo.contracts import Tensor
from detzoo.ops.graph_form import GraphForm, graph_form

# Luma weights of the Object Detection API's grayscale conversion.
GRAY_WEIGHTS = (0.2989, 0.5870, 0.1140)

_RESIZE_OPS = {
    "bilinear": tf.raw_ops.ResizeBilinear,
    "nearest": tf.raw_ops.ResizeNearestNeighbor,
    "bicubic": tf.raw_ops.ResizeBicubic,
}


def resize_image(image: Tensor, size: Tensor, method: str = "bilinear", align_corners: bool = False) -> Tensor:
    """Resizes images as TensorFlow 1 did, which is what checkpoints of the Object Detection API expect.

    Args:
        image: uint8 or float32 [H, W, C] or [N, H, W, C].
        size: int32 [2], (height, width) in pixels.
        method: "bilinear", "nearest", "bicubic" or "area".
        align_corners: True if the centres of the corner pixels of input and output coincide.

    Returns:
        float32 of the same rank; "nearest" keeps uint8.
    """
    batched = image if image.shape.rank == 4 else image[tf.newaxis]
    if graph_form() is not GraphForm.TENSORFLOW:  # other runtimes resize floating-point numbers only
        batched = tf.cast(batched, tf.float32)
    if method == "area":
        resized = tf.raw_ops.ResizeArea(images=batched, size=size, align_corners=align_corners)
    else:
        resized = _RESIZE_OPS[method](images=batched, size=size, align_corners=align_corners, half_pixel_centers=False)
    return resized if image.shape.rank == 4 else resized[0]


def resize_masks(masks: Tensor, size: Tensor, align_corners: bool = False) -> Tensor:
    """Resizes instance masks uint8 [N, H, W] to [N, *size] by the nearest neighbour; N may be 0."""
    return tf.cond(
        tf.shape(masks)[0] > 0,
        lambda: resize_image(masks[..., tf.newaxis], size, "nearest", align_corners)[..., 0],
        lambda: tf.zeros(tf.concat([[0], size], axis=0), masks.dtype),
    )


def to_gray(image: Tensor) -> Tensor:
    """Returns the luma of an RGB image [..., H, W, 3], repeated in three channels, float32.

    Differs from the Object Detection API: it returns one channel. Three equal ones keep every extractor usable.
    """
    luma = tf.tensordot(tf.cast(image, tf.float32), tf.constant(GRAY_WEIGHTS), axes=1)
    return tf.repeat(luma[..., tf.newaxis], 3, axis=-1)


@dataclasses.dataclass(frozen=True)
class Resizer(abc.ABC):
    """Base of all resizers; subclasses compute the size of the resized image and of the padded one.

    Called with an image uint8 or float32 [H, W, 3], or with images [B, H, W, 3] of one size, a resizer returns the
    padded images, float32, and the true shape, int32 [2]: the pixels of a padded image that the image covers, from the
    top left corner.
    """

    method: str = "bilinear"
    convert_to_grayscale: bool = False

    pad_value: tuple[float, ...] = dataclasses.field(default=(0.0, 0.0, 0.0), kw_only=True)  # RGB 0..255

    align_corners = False  # of a class, not of an instance

    @property
    def static_shape(self) -> tuple[int | None, int | None]:
        """(height, width) of every padded output; a side that depends on the image is None."""
        return (None, None)

    @abc.abstractmethod
    def new_size(self, size: Tensor) -> Tensor:
        """Returns the (height, width) after resizing of an image of ``size``, int32 [2]."""

    def padded_size(self, new_size: Tensor) -> Tensor:
        """Returns the (height, width) after padding of an image that was resized to ``new_size``."""
        return new_size

    def drawn(self, uniform: Tensor) -> Resizer:
        """Returns the resizer of one training image, from its random number, a float32 scalar in [0, 1)."""
        return self

    def __call__(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Resizes and pads; see the class."""
        size = self.new_size(tf.shape(image)[-3:-1])
        resized = tf.cast(self._resize(image, size), tf.float32)
        if self.convert_to_grayscale:
            resized = to_gray(resized)
        bottom, right = tf.unstack(self.padded_size(size) - size)
        padded = tf.pad(resized, [*([[0, 0]] * (resized.shape.rank - 3)), [0, bottom], [0, right], [0, 0]])
        padded = self.fill_padding(padded, size)
        padded = tf.ensure_shape(padded, [*image.shape[:-3], *self.static_shape, 3])
        return padded, tf.ensure_shape(size, [2])

    def shrunk(self, image: Tensor) -> Tensor:
        """Returns an image [H, W, 3] in float32. It is resized, but not padded, if that leaves fewer pixels.

        Law: the resizer returns the same size for a shrunk image as for the image.
        """
        shape = tf.shape(image)[:2]
        size = self.new_size(shape)
        is_smaller = tf.reduce_prod(size) < tf.reduce_prod(shape)
        resize = lambda: tf.cast(self._resize(image, size), tf.float32)  # noqa: E731
        return tf.cond(is_smaller, resize, lambda: tf.cast(image, tf.float32))

    def masks(self, masks: Tensor) -> Tensor:
        """Resizes masks uint8 [N, H, W] (nearest neighbour) as their image, and pads them with zeros."""
        size = self.new_size(tf.shape(masks)[1:])
        bottom, right = tf.unstack(self.padded_size(size) - size)
        resized = resize_masks(masks, size, self.align_corners)
        padded = tf.pad(resized, [[0, 0], [0, bottom], [0, right]])
        return tf.ensure_shape(padded, [None, *self.static_shape])

    def fill_padding(self, images: Tensor, true_shapes: Tensor) -> Tensor:
        """Replaces padded zeros, of this resizer or of a batch, by ``pad_value``.

        Args:
            images: float32 [H, W, 3] or [B, H, W, 3].
            true_shapes: int32 [2], or [B, 2] if sizes differ: pixels that an image covers, from the top left corner.
        """
        if not any(self.pad_value):
            return images
        rows = tf.range(tf.shape(images)[-3]) < true_shapes[..., :1]
        columns = tf.range(tf.shape(images)[-2]) < true_shapes[..., 1:]
        is_inside = tf.expand_dims(rows, -1) & tf.expand_dims(columns, -2)
        return tf.where(is_inside[..., tf.newaxis], images, tf.constant(self.pad_value))

    def _resize(self, image: Tensor, size: Tensor) -> Tensor:
        return resize_image(image, size, self.method, self.align_corners)


@dataclasses.dataclass(frozen=True)
class FixedShapeResizer(Resizer):
    """Resizes every image to the same height and width, without keeping its aspect."""

    height: int = 300
    width: int = 300

    @property
    def static_shape(self) -> tuple[int | None, int | None]:
        """The configured (height, width)."""
        return (self.height, self.width)

    def new_size(self, size: Tensor) -> Tensor:
        """Returns the configured (height, width), for any ``size``."""
        return tf.constant([self.height, self.width], tf.int32)


@dataclasses.dataclass(frozen=True)
class KeepAspectRatioResizer(Resizer):
    """Resizes the shorter side to ``min_dimension``, or the longer one to ``max_dimension`` if it would exceed that.

    With ``pad_to_max_dimension`` the result is padded at bottom and right to a square of ``max_dimension``. ``drawn``
    replaces ``min_dimension`` by one of ``training_min_dimensions``, each with the same probability.
    """

    min_dimension: int | Tensor = 600
    max_dimension: int = 1024
    pad_to_max_dimension: bool = False
    training_min_dimensions: tuple[int, ...] = ()

    @property
    def static_shape(self) -> tuple[int | None, int | None]:
        """A square of ``max_dimension`` when padding, otherwise unknown."""
        return (self.max_dimension, self.max_dimension) if self.pad_to_max_dimension else (None, None)

    def new_size(self, size: Tensor) -> Tensor:
        """Returns both sides times one float32 scale, rounded half to even."""
        sides = tf.cast(size, tf.float32)
        landscape = tf.cast(tf.stack([self.min_dimension, self.max_dimension]), tf.float32)
        bounds = tf.where(size[0] < size[1], landscape, landscape[::-1])
        scale = tf.reduce_min(bounds / sides)
        return tf.cast(tf.round(scale * sides), tf.int32)

    def padded_size(self, new_size: Tensor) -> Tensor:
        """Returns the square of ``max_dimension``, or the size itself."""
        if not self.pad_to_max_dimension:
            return new_size
        return tf.constant([self.max_dimension, self.max_dimension], tf.int32)

    def drawn(self, uniform: Tensor) -> Resizer:
        """Returns the resizer with one of ``training_min_dimensions``, if there are any."""
        count = len(self.training_min_dimensions)
        if not count:
            return self
        # Rounding may carry the largest number below 1 to the count itself.
        number = tf.minimum(tf.cast(uniform * count, tf.int32), count - 1)
        return dataclasses.replace(self, min_dimension=tf.constant(self.training_min_dimensions)[number])


@dataclasses.dataclass(frozen=True)
class IdentityResizer(Resizer):
    """Keeps images as they are; batches of several sizes are padded to the largest."""

    def new_size(self, size: Tensor) -> Tensor:
        """Returns the size itself."""
        return size

    def _resize(self, image: Tensor, size: Tensor) -> Tensor:
        return image


@dataclasses.dataclass(frozen=True)
class ConditionalShapeResizer(Resizer):
    """Shrinks images whose longer side exceeds a threshold, or enlarges those whose shorter side is below it.

    ``shrink`` is the configuration's condition GREATER. Other images keep their size.
    """

    size_threshold: int = 300
    shrink: bool = True

    align_corners = True  # as the Object Detection API does here, and here only

    def new_size(self, size: Tensor) -> Tensor:
        """Returns both sides times one scale, truncated."""
        side = tf.reduce_max(size) if self.shrink else tf.reduce_min(size)
        target = (tf.minimum if self.shrink else tf.maximum)(side, self.size_threshold)
        ratio = tf.cast(target, tf.float32) / tf.cast(side, tf.float32)
        return tf.maximum(tf.cast(tf.cast(size, tf.float32) * ratio, tf.int32), 1)


@dataclasses.dataclass(frozen=True)
class PadToMultipleResizer(IdentityResizer):
    """Pads at bottom and right until both sides are multiples of ``multiple``, without resizing."""

    multiple: int = 1

    def padded_size(self, new_size: Tensor) -> Tensor:
        """Returns both sides rounded up to the multiple."""
        return (new_size + self.multiple - 1) // self.multiple * self.multiple
