"""Small two-stage configs for the tests of the 4-step training: on a pyramid, on one map, and R-FCN."""

from __future__ import annotations

_PYRAMID = """
    feature_extractor {
      type: 'faster_rcnn_mobilenet_v1_fpn' depth_multiplier: 0.25
      min_depth: 8 batch_norm_trainable: true
      override_base_feature_extractor_hyperparams: true
      fpn {
        min_level: 3 max_level: 5
        additional_layer_depth: 16
      }
      conv_hyperparams {
        activation: RELU_6
        initializer { variance_scaling_initializer { factor: 2.0 mode: FAN_IN } }
        batch_norm {
          scale: true center: true
          train: true decay: 0.9
          epsilon: 0.001
        }
      }
    }
    first_stage_anchor_generator { multiscale_anchor_generator {
      min_level: 3 max_level: 5
      anchor_scale: 2.5 aspect_ratios: [1.0, 2.0]
      scales_per_octave: 1
    } }
    initial_crop_size: 7
    fc_depth: 16
"""
_ONE_MAP = """
    feature_extractor {
      type: 'faster_rcnn_mobilenet_v1' depth_multiplier: 0.25
      min_depth: 8 batch_norm_trainable: true
      first_stage_features_stride: 16
    }
    first_stage_anchor_generator { grid_anchor_generator {
      scales: [0.125, 0.25] aspect_ratios: [1.0, 2.0]
      height_stride: 16 width_stride: 16
    } }
"""
_CROP = """
    initial_crop_size: 14 maxpool_kernel_size: 2
    maxpool_stride: 2
    """
_FULLY_CONNECTED = """
    second_stage_box_predictor { mask_rcnn_box_predictor {
      fc_hyperparams { initializer { variance_scaling_initializer { uniform: true mode: FAN_AVG } } }
    } }
"""
_POSITION_SENSITIVE = """
    second_stage_box_predictor { rfcn_box_predictor {
      conv_hyperparams { initializer { variance_scaling_initializer { mode: FAN_IN } } }
      depth: 16 crop_height: 6
      crop_width: 6 num_spatial_bins_height: 3
      num_spatial_bins_width: 3
    } }
"""
_TEMPLATE = """
model { faster_rcnn {
    num_classes: 5
    image_resizer { fixed_shape_resizer { height: 64 width: 64 } }
    FAMILY
    first_stage_box_predictor_conv_hyperparams {
      initializer { variance_scaling_initializer { factor: 2.0 mode: FAN_IN } }
    }
    first_stage_box_predictor_depth: 16
    first_stage_minibatch_size: 32
    first_stage_max_proposals: 6
    first_stage_max_proposals_in_training: 9
    second_stage_batch_size: 8
    second_stage_post_processing {
      batch_non_max_suppression {
        score_threshold: 0.0 iou_threshold: 0.6
        max_detections_per_class: 10 max_total_detections: 10
      }
      score_converter: SOFTMAX
    }
} }
train_config {
  batch_size: 2
  num_steps: 3
  optimizer {
    momentum_optimizer { learning_rate { constant_learning_rate { learning_rate: 0.002 } } }
    use_moving_average: false
  }
  data_augmentation_options { random_horizontal_flip {} }
  checkpoint_every_n_steps: 1
}
train_input_reader {
  label_map_path: 'DATA/label_map.pbtxt'
  tf_record_input_reader { input_path: 'DATA/train-?????-of-00002.tfrecord' }
}
eval_config { batch_size: 4 }
eval_input_reader {
  label_map_path: 'DATA/label_map.pbtxt' shuffle: false
  num_epochs: 1
  tf_record_input_reader { input_path: 'DATA/train-?????-of-00002.tfrecord' }
}
"""
FAMILIES = {
    "pyramid": _PYRAMID + _FULLY_CONNECTED,
    "one_map": _ONE_MAP + _CROP + _FULLY_CONNECTED,
    "rfcn": _ONE_MAP + _POSITION_SENSITIVE,
}


def config_text(family, data="data"):
    """A pipeline.config whose records lie in the folder ``data``."""
    return _TEMPLATE.replace("FAMILY", FAMILIES[family]).replace("DATA", str(data))
