"""Images of a classifier: the shorter side is resized to a fixed length; training takes a crop (section 3.1).

He et al., arXiv:1406.4729: "images are resized so that the smaller dimension is 256, and a 224 x 224 crop is picked
from the center or the four corners". In multi-size training the crops of an epoch are resized to the epoch's side.
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from detzoo.contracts import Batch, Tensor
from detzoo.data.augment.apply import between, integer_between, record_seed, uniforms
from detzoo.data.resize import KeepAspectRatioResizer, Resizer, resize_image
from detzoo.ops.views import CENTER_AND_CORNERS, window_origins

NO_LIMIT_PX = 1 << 20  # of the longer side


@dataclasses.dataclass(frozen=True)
class ClassifierResizer(KeepAspectRatioResizer):
    """Resizes the shorter side to ``min_dimension``, without a limit for the longer one: images to test.

    In training the shorter side becomes ``shorter_side``, and crops have the side ``crop_size``. Crops are resized to
    ``train_sizes`` in turn by epoch, or with ``random_train_size`` to a side drawn between the smallest and the
    largest. Without ``train_sizes`` they keep their size.
    """

    max_dimension: int = NO_LIMIT_PX
    shorter_side: int = 256
    crop_size: int = 224
    train_sizes: tuple[int, ...] = ()
    random_train_size: bool = False

    def for_training(self) -> TrainingCrop:
        """Returns the resizer for training; its ``drawn`` takes one of the five places."""
        return TrainingCrop(self.method, min_dimension=self.shorter_side, crop_size=self.crop_size)


@dataclasses.dataclass(frozen=True)
class TrainingCrop(KeepAspectRatioResizer):
    """Cuts a square out of the resized image: at its centre (0) or one of its corners (1 to 4)."""

    max_dimension: int = NO_LIMIT_PX
    crop_size: int = 224
    place: int | Tensor = 0

    @property
    def static_shape(self) -> tuple[int | None, int | None]:
        """(height, width) of the crop."""
        return (self.crop_size, self.crop_size)

    def drawn(self, uniform: Tensor) -> Resizer:
        """Returns the resizer with one of the five places, each with the same probability."""
        return dataclasses.replace(self, place=integer_between(uniform, 0, len(CENTER_AND_CORNERS)))

    def __call__(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Resizes [H, W, 3] and returns the square, float32 [S, S, 3], and its shape."""
        size = self.new_size(tf.shape(image)[:2])
        resized = tf.cast(resize_image(image, size, self.method), tf.float32)
        row, column = tf.unstack(window_origins(size, self.crop_size, CENTER_AND_CORNERS)[self.place])
        cut = resized[row : row + self.crop_size, column : column + self.crop_size]
        side = self.crop_size
        return tf.ensure_shape(cut, [side, side, 3]), tf.constant([side, side])


@dataclasses.dataclass(frozen=True)
class EpochSizes:
    """The side of the crops of each epoch."""

    sizes: tuple[int, ...]  # sides in pixels
    is_random: bool  # each epoch draws a side between the smallest and the largest; otherwise they take turns
    num_records: int  # per epoch
    seed: int

    def of_epoch(self, epoch: Tensor) -> Tensor:
        """Returns the side in pixels, int32 scalar, by the number of the epoch, from 0."""
        if not self.is_random:
            return tf.constant(self.sizes, tf.int32)[epoch % len(self.sizes)]
        uniform = uniforms(record_seed(self.seed, "train_size", epoch), 1)[0]
        return tf.cast(between(uniform, min(self.sizes), max(self.sizes) + 1), tf.int32)

    def resized(self, batch: Batch) -> Batch:
        """Resizes a batch to the side of its first record's epoch; boxes stay fractions."""
        side = self.of_epoch(batch.record_index[0] // self.num_records)
        images = resize_image(batch.images, tf.stack([side, side]))
        shapes = tf.fill(tf.shape(batch.true_shapes), side)
        return batch._replace(images=images, true_shapes=shapes)
