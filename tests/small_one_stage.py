"""One-stage detectors small enough to build and export in a test, with weights under which scores differ."""

from __future__ import annotations

import numpy as np
from google.protobuf import text_format
from PIL import Image

from detzoo.benchmark.random_weights import randomize
from detzoo.builders.detector import build_detector
from detzoo.builders.resize import build_model_resizer
from detzoo.config import pb

HEIGHT, WIDTH, NUM_CLASSES, MAX_DETECTIONS = 64, 96, 6, 12
SSD = """
ssd {
  num_classes: 6
  image_resizer { fixed_shape_resizer { height: 64 width: 96 } }
  feature_extractor {
    type: 'ssd_mobilenet_v1' depth_multiplier: 0.25
    min_depth: 8 num_layers: 3
    override_base_feature_extractor_hyperparams: true
    conv_hyperparams {
      activation: RELU_6
      initializer { variance_scaling_initializer { } }
      batch_norm { scale: true decay: 0.9 }
    }
  }
  box_predictor {
    convolutional_box_predictor {
      kernel_size: 3 use_dropout: false
      conv_hyperparams { initializer { random_normal_initializer { stddev: 0.01 } } }
    }
  }
  anchor_generator { ssd_anchor_generator { num_layers: 3 aspect_ratios: [1.0, 2.0, 0.5] } }
  box_coder {
    faster_rcnn_box_coder {
      y_scale: 10.0 x_scale: 10.0
      height_scale: 5.0 width_scale: 5.0
    }
  }
  matcher { argmax_matcher { force_match_for_each_row: true } }
  similarity_calculator { iou_similarity {} }
  loss { classification_loss { weighted_sigmoid_focal { alpha: 0.25 } } localization_loss { weighted_smooth_l1 {} } }
  post_processing {
    batch_non_max_suppression {
      score_threshold: 0.1 iou_threshold: 0.6
      max_total_detections: 12
    }
    score_converter: SIGMOID
  }
}
"""
FPN_LITE = """
ssd {
  feature_extractor {
    type: 'ssd_mobilenet_v1_fpn_keras' use_depthwise: true
    num_layers: 6
    fpn {
      min_level: 3 max_level: 5
      additional_layer_depth: 16
    }
  }
  box_predictor {
    weight_shared_convolutional_box_predictor {
      depth: 16 num_layers_before_predictor: 1
      kernel_size: 3 use_depthwise: true
      share_prediction_tower: true
      conv_hyperparams { initializer { random_normal_initializer { stddev: 0.01 } } batch_norm { } }
    }
  }
  anchor_generator {
    multiscale_anchor_generator {
      min_level: 3 max_level: 5
      anchor_scale: 2 scales_per_octave: 1
      aspect_ratios: [1.0, 2.0]
    }
  }
}
"""


def message(*changes):
    """The model block of the small SSD, with blocks merged into it as text."""
    result = text_format.Parse(SSD, pb.DetectionModel())
    for change in changes:
        part = text_format.Parse(change, pb.DetectionModel())
        for block in ("box_predictor", "anchor_generator"):  # a choice is replaced, not merged
            if part.ssd.HasField(block):
                result.ssd.ClearField(block)
        result.MergeFrom(part)
    return result


def detector_and_resizer(*changes, seed=0):
    """A detector with drawn weights, and its resizer."""
    model = message(*changes)
    built = build_detector(model)
    randomize(built, seed)
    return built, build_model_resizer(model)


def detector(*changes):
    """A detector as it is built."""
    return build_detector(message(*changes))


def save_blobs(folder, count=4, size=(HEIGHT, WIDTH)):
    """Soft blobs as PNG files: image data that ranges can be measured on."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        coarse = np.random.default_rng(number).integers(0, 256, (5, 7, 3), np.uint8)
        Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return folder
