"""Two-stage detectors small enough to train in a test, one of each kind, and two images with an object each."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from google.protobuf import text_format

from detzoo.builders.detector import build_detector
from detzoo.config import pb
from detzoo.contracts import Groundtruth, Proposals

HEIGHT, WIDTH, NUM_CLASSES = 64, 96, 3
PLAIN = """
faster_rcnn {
  num_classes: 3
  image_resizer { fixed_shape_resizer { height: 64 width: 96 } }
  feature_extractor {
    type: 'faster_rcnn_mobilenet_v1' depth_multiplier: 0.25
    min_depth: 8 batch_norm_trainable: true
  }
  first_stage_anchor_generator {
    grid_anchor_generator {
      height_stride: 16 width_stride: 16
      scales: [0.0625, 0.125, 0.25] aspect_ratios: [1.0, 2.0]
    }
  }
  first_stage_box_predictor_depth: 16
  first_stage_box_predictor_conv_hyperparams {
    initializer { truncated_normal_initializer { stddev: 0.03 } }
  }
  first_stage_max_proposals: 12
  initial_crop_size: 4
  maxpool_kernel_size: 2
  maxpool_stride: 2
  second_stage_batch_size: 8
  second_stage_box_predictor {
    mask_rcnn_box_predictor { fc_hyperparams { initializer { variance_scaling_initializer { } } } }
  }
  second_stage_post_processing {
    batch_non_max_suppression {
      iou_threshold: 0.6 max_detections_per_class: 4
      max_total_detections: 5
    }
    score_converter: SOFTMAX
  }
}
"""
FIRST_STAGE = """faster_rcnn { number_of_stages: 1 }"""
FROM_READER = """faster_rcnn { proposals_from_reader: true }"""
MASKS = """
faster_rcnn {
  number_of_stages: 3
  second_stage_box_predictor {
    mask_rcnn_box_predictor {
      predict_instance_masks: true mask_height: 7
      mask_width: 7 mask_prediction_conv_depth: 8
      conv_hyperparams { initializer { variance_scaling_initializer { } } }
    }
  }
}
"""
PYRAMID = """
faster_rcnn {
  feature_extractor {
    type: 'faster_rcnn_mobilenet_v1_fpn'
    fpn {
      min_level: 3 max_level: 6
      additional_layer_depth: 16
    }
    conv_hyperparams { initializer { variance_scaling_initializer { } } }
  }
  first_stage_anchor_generator {
    multiscale_anchor_generator {
      min_level: 3 max_level: 6
      anchor_scale: 3.0 aspect_ratios: [1.0, 2.0]
      scales_per_octave: 1
      normalize_coordinates: false
    }
  }
  keep_anchors_outside_image: true
  fc_depth: 32
}
"""
POSITION_SENSITIVE = """
faster_rcnn {
  second_stage_box_predictor {
    rfcn_box_predictor {
      crop_height: 6 crop_width: 6
      depth: 16
      conv_hyperparams { initializer { variance_scaling_initializer { } } }
    }
  }
}
"""
KINDS = {
    "plain": (),
    "pyramid": (PYRAMID,),
    "masks": (MASKS,),
    "pyramid_masks": (PYRAMID, MASKS),
    "rfcn": (POSITION_SENSITIVE,),
    "first_stage": (FIRST_STAGE,),
    "from_reader": (FROM_READER,),
}


def message_of(kind="plain", *more):
    """The block of a kind, with pieces of text merged into it."""
    message = text_format.Parse(PLAIN, pb.DetectionModel())
    for text in (*KINDS[kind], *more):
        for field in ("first_stage_anchor_generator",):
            if field in text:
                message.faster_rcnn.ClearField(field)
        text_format.Merge(text, message)
    return message


def build(kind="plain", *more, **options):
    """A detector of a kind."""
    return build_detector(message_of(kind, *more), **options)


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


def given_proposals():
    """Returns two regions near the objects, a third elsewhere, and one padding row, for both images."""
    boxes = [[0.1, 0.1, 0.6, 0.5], [0.4, 0.5, 0.9, 0.9], [0.0, 0.7, 0.3, 1.0], [0, 0, 0, 0]]
    return Proposals(tf.constant([boxes] * 2), tf.zeros([2, 4]), tf.constant([3, 3]))


def forward(detector, images, groundtruth=None, **options):
    """Returns predictions, with given proposals if the detector needs them, and in training with ground truth."""
    if detector.wants_proposals:
        options["proposals"] = given_proposals()
    return detector.forward(
        detector.preprocess(images), training=groundtruth is not None, groundtruth=groundtruth, **options
    )


def values_of(terms):
    """Name to value of each loss term."""
    return {name: term.total / tf.maximum(term.normalizer, 1.0) for name, term in terms.items()}
