"""A complete config with the files it names, small enough to read, for the tests of detzoo.config."""

from __future__ import annotations

import pathlib

import pytest

SSD_TEXT = """
model {
  ssd {
    num_classes: 2
    image_resizer { fixed_shape_resizer { height: 96 width: 128 } }
    feature_extractor {
      type: "ssd_mobilenet_v2_fpn_keras"
      fpn { min_level: 3 max_level: 6 }
    }
    box_coder {
      faster_rcnn_box_coder {
        y_scale: 10 x_scale: 10
        height_scale: 5 width_scale: 5
      }
    }
    matcher { argmax_matcher { matched_threshold: 0.5 unmatched_threshold: 0.5 } }
    similarity_calculator { iou_similarity {} }
    box_predictor { weight_shared_convolutional_box_predictor { depth: 32 num_layers_before_predictor: 1 } }
    anchor_generator {
      multiscale_anchor_generator {
        min_level: 3 max_level: 6
        aspect_ratios: [1.0, 2.0, 0.5]
      }
    }
    post_processing {
      batch_non_max_suppression { score_threshold: 0.01 iou_threshold: 0.6 }
      score_converter: SIGMOID
    }
    loss {
      localization_loss { weighted_smooth_l1 {} }
      classification_loss { weighted_sigmoid_focal { alpha: 0.25 gamma: 2.0 } }
    }
  }
}
train_config {
  batch_size: 8
  num_steps: 100
  optimizer {
    momentum_optimizer {
      learning_rate {
        cosine_decay_learning_rate {
          learning_rate_base: 0.01
          total_steps: 100
          warmup_steps: 10
          warmup_learning_rate: 0.001
        }
      }
    }
  }
  data_augmentation_options { random_horizontal_flip {} }
  recompute_batch_norm { num_batches: 10 }
}
train_input_reader {
  label_map_path: "FOLDER/label_map.pbtxt"
  tf_record_input_reader { input_path: "FOLDER/train-?????-of-00002.tfrecord" }
}
eval_config { metrics_set: "coco_detection_metrics" }
eval_input_reader {
  label_map_path: "FOLDER/label_map.pbtxt"
  tf_record_input_reader { input_path: "FOLDER/val.tfrecord" }
}
"""


@pytest.fixture
def config_path(tmp_path) -> pathlib.Path:
    """A config without a problem; its label map has ``cat`` and ``dog``."""
    items = "item { id: 1 name: 'cat' }", "item { id: 2 name: 'dog' }"
    (tmp_path / "label_map.pbtxt").write_text("\n".join(items) + "\n")
    for name in ("train-00000-of-00002.tfrecord", "train-00001-of-00002.tfrecord", "val.tfrecord"):
        (tmp_path / name).write_bytes(b"records")
    path = tmp_path / "pipeline.config"
    path.write_text(SSD_TEXT.replace("FOLDER", str(tmp_path)).lstrip("\n"))
    return path


_SSD_BLOCK = SSD_TEXT[SSD_TEXT.index("  ssd {") : SSD_TEXT.index("}\ntrain_config")]
REGION_BLOCK = """  faster_rcnn {
    num_classes: 2
    image_resizer { fixed_shape_resizer { height: 96 width: 128 } }
    feature_extractor {
      type: "faster_rcnn_resnet50_keras"
      first_stage_features_stride: 16
      batch_norm_trainable: true
    }
    first_stage_anchor_generator {
      grid_anchor_generator {
        height_stride: 16
        width_stride: 16
        scales: [0.25, 0.5, 1.0, 2.0]
        aspect_ratios: [0.5, 1.0, 2.0]
      }
    }
    first_stage_max_proposals: 300
    initial_crop_size: 14
    maxpool_kernel_size: 2
    maxpool_stride: 2
    second_stage_box_predictor {
      mask_rcnn_box_predictor {
        use_dropout: false
      }
    }
    second_stage_post_processing {
      batch_non_max_suppression { iou_threshold: 0.6 max_total_detections: 300 }
      score_converter: SOFTMAX
    }
  }
"""


@pytest.fixture
def region_path(config_path) -> pathlib.Path:
    """The same with a Faster R-CNN; also without a problem. Its map has 6 x 8 cells with 12 anchors: 576."""
    text = config_path.read_text()
    assert _SSD_BLOCK in text
    config_path.write_text(text.replace(_SSD_BLOCK, REGION_BLOCK))
    return config_path
