"""Segmentation proposals small enough to train in a test, and two images with an object and its mask each."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from google.protobuf import text_format

from detzoo.builders.detector import build_detector
from detzoo.config import pb
from detzoo.contracts import Groundtruth

HEIGHT, WIDTH = 64, 96
NUM_LOCATIONS = 2 * (8 * 12 + 4 * 6 + 2 * 3)  # two heads on the levels 3 to 5: 252
PLAIN = """
segmentation_proposals {
  image_resizer { fixed_shape_resizer { height: 64 width: 96 } }
  feature_extractor {
    type: 'faster_rcnn_mobilenet_v1_fpn' depth_multiplier: 0.25
    min_depth: 8 batch_norm_trainable: true
    fpn {
      min_level: 3 max_level: 5
      additional_layer_depth: 16
    }
    conv_hyperparams { initializer { variance_scaling_initializer { } } }
  }
  head_depth: 32
  mask_size: 7
  min_object_size: 8
  examples_per_image: 32
  max_proposals: 20
  conv_hyperparams { initializer { variance_scaling_initializer { factor: 2.0 } } }
}
"""


def message_of(*more):
    """The model block, with pieces of text merged into it."""
    message = text_format.Parse(PLAIN, pb.DetectionModel())
    for text in more:
        text_format.Merge(text, message)
    return message


def build(*more, **options):
    """The detector."""
    return build_detector(message_of(*more), **options)


def images_and_groundtruth(num_objects=1):
    """Two images with one bright box each, and its mask; or without an object."""
    boxes = np.array([[[0.125, 0.125, 0.625, 0.5], [0, 0, 0, 0]], [[0.375, 0.5, 0.875, 0.875], [0, 0, 0, 0]]])
    images = np.random.default_rng(1).uniform(0, 60, (2, HEIGHT, WIDTH, 3)).astype(np.float32)
    images[0, 8:40, 12:48], images[1, 24:56, 48:84] = (250, 40, 40), (40, 40, 250)
    masks = np.zeros((2, 2, HEIGHT, WIDTH), np.uint8)
    masks[0, 0, 8:40, 12:48], masks[1, 0, 24:56, 48:84] = 1, 1
    classes = tf.constant([[0, -1], [2, -1]]) if num_objects else tf.fill([2, 2], -1)
    groundtruth = Groundtruth(
        boxes_norm=tf.constant(boxes * num_objects, tf.float32),
        classes=classes,
        weights=tf.cast(classes >= 0, tf.float32),
        is_crowd=tf.zeros([2, 2], tf.bool),
        is_difficult=tf.zeros([2, 2], tf.bool),
        area_px=tf.zeros([2, 2]),
        masks=tf.constant(masks * num_objects),
    )
    return tf.constant(images), groundtruth


def values_of(terms):
    """Name to value of each loss term."""
    return {name: term.total / tf.maximum(term.normalizer, 1.0) for name, term in terms.items()}
