"""The smallest detector with the four verbs: three convolutions, one anchor a cell, no suppression."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from detzoo.contracts import Detections, Predictions, Proposals, RegionPredictions
from detzoo.detectors.base import Detector
from detzoo.layers.normalization import BatchNorm

STRIDE = 8


class ToyResizer:
    """Bilinear to one size, as the library's fixed-shape resizer."""

    def __init__(self, height=32, width=48):
        self.static_shape = (height, width)

    def __call__(self, image):
        size = tf.constant(self.static_shape, tf.int32)
        resized = tf.image.resize(image, size)
        return tf.ensure_shape(resized, [*image.shape[:-3], *self.static_shape, 3]), size


def toy_network(num_classes=3, shape=(32, 48)):
    """Convolution, depthwise and pointwise with batch norm, then box and class heads on a map of stride 8."""
    image = keras.Input((*shape, 3))
    x = keras.layers.Conv2D(8, 3, 2, padding="same", use_bias=False, name="stem")(image)
    x = BatchNorm(name="stem_bn", epsilon=1e-3)(x)
    x = keras.layers.ReLU(6.0, name="stem_relu")(x)
    x = keras.layers.DepthwiseConv2D(3, 2, padding="same", use_bias=False, name="depth")(x)
    x = BatchNorm(name="depth_bn", scale=False)(x)
    x = keras.layers.ReLU(6.0, name="depth_relu")(x)
    x = keras.layers.Conv2D(16, 1, 2, name="point")(x)
    x = BatchNorm(name="point_bn")(x)
    x = keras.layers.ReLU(name="point_relu")(x)
    boxes = keras.layers.Reshape((-1, 4), name="box_rows")(keras.layers.Conv2D(4, 1, name="box_head")(x))
    logits = keras.layers.Conv2D(num_classes + 1, 1, name="class_head")(x)
    classes = keras.layers.Reshape((-1, num_classes + 1), name="class_rows")(logits)
    return keras.Model(image, [boxes, classes], name="toy_network")


class ToyDetector(Detector):
    """Answers preprocess, predict and postprocess; detections are the M anchors of the best class scores."""

    def __init__(self, num_classes=3, shape=(32, 48), max_detections=5):
        super().__init__(num_classes, shape, name="toy")
        self.max_detections = max_detections
        self.network = toy_network(num_classes, shape)
        rows, columns = shape[0] // STRIDE, shape[1] // STRIDE
        y, x = np.meshgrid(np.arange(rows) / rows, np.arange(columns) / columns, indexing="ij")
        cell = np.stack([y, x, y + 1 / rows, x + 1 / columns], axis=-1)
        self.anchors = cell.reshape(-1, 4).astype(np.float32)

    def preprocess(self, images):
        return tf.cast(images, tf.float32) * (2.0 / 255.0) - 1.0

    def forward(self, inputs, training=False, **context):
        deltas, logits = self.network(inputs, training=training)
        return Predictions(deltas, logits, tf.constant(self.anchors))

    def postprocess(self, predictions, true_shapes, padded_shape):
        scores = tf.sigmoid(predictions.class_logits)
        boxes = predictions.anchors_norm + 0.1 * tf.tanh(predictions.box_deltas)
        padded = tf.cast(tf.stack(padded_shape), tf.float32)
        ratio = tf.tile(padded / tf.cast(true_shapes, tf.float32), [1, 2])[:, tf.newaxis]
        best, classes = tf.reduce_max(scores[..., 1:], -1), tf.argmax(scores[..., 1:], -1, output_type=tf.int32)
        top, indices = tf.math.top_k(best, self.max_detections)
        final = tf.clip_by_value(tf.gather(boxes * ratio, indices, batch_dims=1), 0.0, 1.0)
        return Detections(
            boxes_norm=final,
            scores=top,
            classes=tf.gather(classes, indices, batch_dims=1),
            num_valid=tf.fill([tf.shape(top)[0]], self.max_detections),
            multiclass_scores=tf.gather(scores, indices, batch_dims=1),
            anchor_indices=indices,
            raw_boxes_norm=boxes,
            raw_scores=scores,
        )


class ToyMaskDetector(ToyDetector):
    """The same with a mask on each detection: its left half, to be cut where a ramp from 1 to 0 passes one half."""

    def postprocess(self, predictions, true_shapes, padded_shape):
        detections = super().postprocess(predictions, true_shapes, padded_shape)
        ramp = tf.tile(
            tf.reshape(tf.constant([1.0, 0.5, 0.0]), [1, 1, 1, 3]),
            [tf.shape(detections.scores)[0], self.max_detections, 3, 1],
        )
        return detections._replace(masks=ramp)


class ToyProposer(ToyDetector):
    """The same as a first stage alone: its detections have one class, 0."""

    proposes_only = True

    def forward(self, inputs, training=False, **context):
        first = super().forward(inputs, training)
        windows = tf.constant([[0.0, 0.0, 1.0, 1.0]])
        scores = tf.reduce_max(first.class_logits, axis=-1)
        proposals = Proposals(tf.zeros_like(first.box_deltas), scores, tf.zeros_like(scores[:, 0], tf.int32))
        return RegionPredictions(first, proposals, box_deltas=(), class_logits=(), windows=windows)

    def postprocess(self, predictions, true_shapes, padded_shape):
        detections = super().postprocess(predictions.first_stage, true_shapes, padded_shape)
        return detections._replace(classes=tf.zeros_like(detections.classes))


class ToyRegionDetector(ToyDetector):
    """The same without a first stage: detects class 1 on every proposal that it is given."""

    wants_proposals = True

    def forward(self, inputs, training=False, proposals=None, **context):
        return proposals

    def postprocess(self, predictions, true_shapes, padded_shape):
        boxes, scores, num_valid = predictions
        classes = tf.ones_like(scores, tf.int32)
        return Detections(boxes, scores, classes, num_valid, scores[..., tf.newaxis], classes, boxes, scores)


def toy_detector(num_classes=3, shape=(32, 48), seed=3, kind=ToyDetector, **kwargs):
    """A detector with batch-norm statistics that do something."""
    detector = kind(num_classes, shape, **kwargs)
    generator = np.random.default_rng(seed)
    for weight in detector.network.weights:
        if "variance" in weight.path or "gamma" in weight.path:
            weight.assign(generator.uniform(0.5, 1.5, weight.shape))
        else:
            weight.assign(generator.normal(0.0, 0.3, weight.shape))
    return detector
