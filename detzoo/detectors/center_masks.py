"""CenterNet's two ways to masks: a network that draws the object of each box, or a map of each class to cut from.

DeepMasks    Birodkar et al., "The surprising impact of mask-head architecture on novel class segmentation",
             arXiv:2104.00613, section 3: pixel embedding cropped to the box, coordinates, instance embedding at the
             centre -> mask network -> mask. Class-agnostic, so that it also draws classes without mask labels.
ClassMasks   The Object Detection API's ``mask_estimation_task``: one map per class, cropped to each box.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from detzoo.contracts import CENTER_STRIDE, CenterPredictions, Groundtruth, LossTerm, Tensor
from detzoo.layers.resample import spatial_shape
from detzoo.losses.center_loss import mean_over_stacks
from detzoo.losses.classification import ClassificationLoss
from detzoo.losses.region_loss import true_masks
from detzoo.ops import boxes
from detzoo.ops.roi_crop import crop_and_resize_boxes
from detzoo.targets.center_targets import class_mask_targets, mask_weights

INSTANCE, PIXEL = "INSTANCE_EMBEDDING", "PIXEL_EMBEDDING"  # heads, by their names in the original's checkpoints
CLASS_MAPS = "segmentation/heatmap"
Maps = Mapping[str, Sequence[Tensor]]


@dataclasses.dataclass(frozen=True)
class DeepMasks:
    """Masks that a network draws from each box (arXiv:2104.00613).

    Differs from the Object Detection API: only objects whose masks are learned pass through the network in training,
    not the padding, whose values would otherwise enter the batch normalisation.
    """

    network: keras.Model  # model of ``deep_mask_network``
    mask_size: int  # side of a mask in cells
    use_xy: bool  # the network reads the coordinates within the box
    use_instance_embedding: bool  # the network reads the embedding of the box's centre
    only_last_stack: bool  # the loss reads the last stack of the backbone only
    allowed_classes: tuple[int, ...]  # classes, from 0, whose masks are learned; all if empty
    loss: ClassificationLoss  # loss of a cell
    weight: float  # factor of the term

    def logits_of(self, maps: Maps, groundtruth: Groundtruth, padded_shape: Any, training: bool) -> list[Tensor]:
        """Returns logits float32 [B, N, s, s] per stack for the objects whose masks are learned, else zeros."""
        rows = tf.cast(tf.where(self._weights(groundtruth) > 0.0), tf.int32)
        # Batch normalisation needs at least one row. Without an object it is one of padding, of no weight in the loss.
        used = tf.cond(tf.shape(rows)[0] > 0, lambda: rows, lambda: tf.zeros([1, 2], tf.int32))
        regions = tf.gather_nd(of_map(groundtruth.boxes_norm, padded_shape, maps), used)
        shape = [*tf.unstack(tf.shape(groundtruth.classes)), self.mask_size, self.mask_size]
        first = len(maps[PIXEL]) - 1 if self.only_last_stack else 0
        return [
            tf.scatter_nd(used, self._draw(pixel, instance, regions, used[:, 0], training), shape)
            for pixel, instance in list(zip(maps[PIXEL], maps[INSTANCE]))[first:]
        ]

    def loss_terms(self, predictions: CenterPredictions, groundtruth: Groundtruth) -> dict[str, LossTerm]:
        """Returns the term, a mean over the cells of a mask and over the objects whose masks are learned.

        Predictions that were made without the ground truth have no masks of its boxes: these are drawn here.
        """
        given, weights = predictions, self._weights(groundtruth)
        logits = given.mask_logits or self.logits_of(given.maps, groundtruth, given.padded_shape, training=False)
        rows = tf.broadcast_to(tf.range(tf.shape(weights)[1]), tf.shape(weights))
        expected = true_masks(groundtruth, rows, groundtruth.boxes_norm, (self.mask_size, self.mask_size))
        losses = [self.loss(x[..., tf.newaxis], expected[..., tf.newaxis]) for x in logits]
        total = mean_over_stacks([tf.reduce_mean(x, axis=[2, 3]) * weights for x in losses])
        return {"deep_mask_estimation": LossTerm(self.weight * total, tf.reduce_sum(weights))}

    def predict(self, maps: Maps, regions: Tensor, classes: Tensor) -> Tensor:
        """Returns masks float32 [B, M, s, s] in [0, 1] of regions [B, M, 4], in fractions of the maps."""
        shape = tf.shape(classes)
        images = tf.repeat(tf.range(shape[0]), shape[1])
        logits = self._draw(maps[PIXEL][-1], maps[INSTANCE][-1], tf.reshape(regions, [-1, 4]), images, False)
        return tf.sigmoid(tf.reshape(logits, [shape[0], classes.shape[1], self.mask_size, self.mask_size]))

    def _weights(self, groundtruth: Groundtruth) -> Tensor:
        return mask_weights(groundtruth, self.allowed_classes)

    def _draw(self, pixel: Tensor, instance: Tensor, regions: Tensor, images: Tensor, training: bool) -> Tensor:
        """Returns logits [P, s, s] of regions [P, 4] of the images int32 [P]."""
        size = self.mask_size
        parts = [crop_and_resize_boxes(pixel, regions, images, (size, size))]
        every = tf.shape(regions)[0]
        if self.use_xy:
            axis = tf.linspace(-1.0, 1.0, size)
            grid = tf.stack(tf.meshgrid(axis, axis, indexing="ij"), axis=-1)
            parts.insert(0, tf.tile(grid[tf.newaxis], [every, 1, 1, 1]))
        if self.use_instance_embedding:
            sides = tf.stack(spatial_shape(instance))
            centers = tf.cast((regions[:, :2] + regions[:, 2:]) / 2.0 * tf.cast(sides, tf.float32), tf.int32)
            places = tf.concat([images[:, tf.newaxis], tf.clip_by_value(centers, 0, sides - 1)], axis=1)
            embedding = tf.gather_nd(instance, places)[:, tf.newaxis, tf.newaxis]
            parts.append(tf.tile(embedding, [1, size, size, 1]))
        return self.network(tf.concat(parts, axis=-1), training=training)[..., 0]


@dataclasses.dataclass(frozen=True)
class ClassMasks:
    """Masks cut from a map of each class."""

    size: tuple[int, int]  # (height, width) of a mask in cells
    threshold: float  # score from which a cell belongs to the mask
    loss: ClassificationLoss  # loss of a cell, over the classes
    weight: float  # factor of the term
    network: None = None  # the maps are a head of the detector

    def logits_of(self, maps: Maps, groundtruth: Groundtruth, padded_shape: Any, training: bool) -> tuple[()]:
        """Returns nothing: the loss reads the maps."""
        return ()

    def loss_terms(self, predictions: CenterPredictions, groundtruth: Groundtruth) -> dict[str, LossTerm]:
        """Returns the term, a mean over the cells of the images."""
        maps = predictions.maps[CLASS_MAPS]
        place = (spatial_shape(maps[-1]), predictions.true_shapes, predictions.padded_shape)
        expected, weights = class_mask_targets(groundtruth, maps[-1].shape[-1], *place)
        total = mean_over_stacks([self.loss(x, expected) * weights for x in maps])
        return {CLASS_MAPS: LossTerm(self.weight * total, tf.reduce_sum(weights))}

    def predict(self, maps: Maps, regions: Tensor, classes: Tensor) -> Tensor:
        """Returns masks float32 [B, M, h, w] of 0 and 1 of regions [B, M, 4], in fractions of the maps."""
        scores = tf.sigmoid(maps[CLASS_MAPS][-1])
        height, width, num_classes = *spatial_shape(scores), scores.shape[-1]
        by_class = tf.reshape(tf.transpose(scores, [0, 3, 1, 2]), [-1, height, width, 1])
        places = classes + num_classes * tf.range(tf.shape(classes)[0])[:, tf.newaxis]
        crops = crop_and_resize_boxes(by_class, tf.reshape(regions, [-1, 4]), tf.reshape(places, [-1]), self.size)
        masks = tf.reshape(crops, [-1, classes.shape[1], *self.size])
        return tf.cast(masks >= self.threshold, tf.float32)


def of_map(boxes_norm: Tensor, padded_shape: tuple[Any, Any], maps: Maps) -> Tensor:
    """Converts boxes from fractions of the padded input to fractions of the maps, which may reach farther."""
    height, width = spatial_shape(maps["object_center"][-1])
    return boxes.of_canvas(boxes_norm, padded_shape, (CENTER_STRIDE * height, CENTER_STRIDE * width))
