"""From config blocks to EfficientDet's parts: backbone, neck, head, and the padding of its images."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format

from detzoo.builders.detector import build_detector
from detzoo.builders.features import build_feature_extractor
from detzoo.builders.necks import build_neck, neck_levels
from detzoo.builders.resize import build_model_resizer
from detzoo.config import pb
from detzoo.contracts import FeatureSpec
from detzoo.detectors.one_stage import OneStageDetector
from detzoo.features.network import symbolic
from detzoo.layers.activation import swish

TYPE = "type: 'ssd_efficientnet-b0_bifpn_keras'"
BIFPN = "bifpn { num_iterations: 1 num_filters: 24 %s }"
HYPERPARAMS = "conv_hyperparams { activation: SWISH batch_norm { scale: true decay: 0.9 } }"
DETECTOR = """
ssd {
  num_classes: 3
  add_background_class: false
  image_resizer { keep_aspect_ratio_resizer { min_dimension: 96 max_dimension: 96 pad_to_max_dimension: true } }
  feature_extractor {
    type: 'ssd_efficientnet-b0_bifpn_keras'
    bifpn { num_iterations: 1 num_filters: 24 }
    conv_hyperparams {
      activation: SWISH
      batch_norm { scale: true decay: 0.9 }
    }
  }
  box_predictor {
    weight_shared_convolutional_box_predictor {
      depth: 24 num_layers_before_predictor: 1
      kernel_size: 3 use_depthwise: true
      conv_hyperparams { activation: SWISH batch_norm { scale: true } }
    }
  }
  anchor_generator {
    multiscale_anchor_generator {
      min_level: 3 max_level: 7
      aspect_ratios: [1, 2, 0.5]
    }
  }
  box_coder { faster_rcnn_box_coder {} }
  matcher { argmax_matcher { matched_threshold: 0.5 unmatched_threshold: 0.5 } }
  similarity_calculator { iou_similarity {} }
  loss { classification_loss { weighted_sigmoid_focal {} } localization_loss { weighted_smooth_l1 {} } }
  post_processing { batch_non_max_suppression {} score_converter: SIGMOID }
}
"""


def message(text):
    return text_format.Parse(text, pb.SsdFeatureExtractor())


def model_of(text):
    return text_format.Parse(text, pb.DetectionModel())


def neck_model(text, freeze_batchnorm=False):
    maps = {level: keras.Input((256 >> level, 384 >> level, 4 * level)) for level in (3, 4, 5)}
    neck = build_neck(message(text), freeze_batchnorm)
    return keras.Model(list(maps.values()), list(neck(maps).values()))


def test_the_backbone_delivers_levels_three_to_five_of_any_size():
    extractor = symbolic(lambda: build_feature_extractor(message(f"{TYPE} {BIFPN % ''}"), (70, 100)))
    assert extractor.specs == (FeatureSpec(3, 40), FeatureSpec(4, 112), FeatureSpec(5, 320))
    shapes = {level: tuple(x.shape[1:3]) for level, x in extractor.model.output.items()}
    assert shapes == {3: (9, 13), 4: (5, 7), 5: (3, 4)}
    assert float(extractor.normalize(np.float32([[[123.675, 116.28, 103.53]]])).numpy().max()) == 0.0


def test_the_backbone_ends_at_the_pyramids_coarsest_level():
    text = f"{TYPE} {BIFPN % 'min_level: 2 max_level: 4'}"
    extractor = symbolic(lambda: build_feature_extractor(message(text), (64, 96)))
    assert [spec.level for spec in extractor.specs] == [2, 3, 4]


def test_the_backbone_keeps_its_own_hyperparameters():
    text = f"{TYPE} {BIFPN % ''} {HYPERPARAMS}"
    model = symbolic(lambda: build_feature_extractor(message(text), (64, 96))).model
    norm, conv = model.get_layer("stem_bn"), model.get_layer("stem_conv")
    assert (norm.momentum, norm.epsilon, norm.scale) == (0.99, 0.001, True)
    assert conv.kernel_regularizer.l2 == pytest.approx(5e-6)
    assert (conv.kernel_initializer.scale, conv.kernel_initializer.mode) == (2.0, "fan_out")
    assert model.get_layer("stem_activation").activation is swish
    assert model.get_layer("block1a_dwconv").depthwise_regularizer is None


def test_levels_passes_filters_and_hyperparameters_reach_the_neck():
    text = f"{TYPE} {BIFPN % 'max_level: 6'} {HYPERPARAMS}"
    assert neck_levels(message(text)) == (3, 4, 5, 6)
    model = neck_model(text)
    assert [tuple(x.shape[1:]) for x in model.outputs] == [(32, 48, 24), (16, 24, 24), (8, 12, 24), (4, 6, 24)]
    names = {layer.name for layer in model.layers}
    assert "bifpn_1_up_6_separable" in names
    assert not [name for name in names if name.startswith("bifpn_2")]
    assert model.get_layer("bifpn_1_up_6_batch_norm").momentum == pytest.approx(0.9)
    assert model.get_layer("bifpn_1_up_6_activation").activation is swish
    assert model.get_layer("bifpn_1_up_6_sum").method == "fast_attention"


def test_plain_sums_have_no_weights():
    model = neck_model(f"{TYPE} " + BIFPN % 'combine_method: "sum"')
    assert isinstance(model.get_layer("bifpn_1_up_4_sum"), keras.layers.Add)
    assert not [weight.path for weight in model.weights if "combine_weights" in weight.path]


def test_frozen_batch_norm_arrives():
    text = f"{TYPE} {BIFPN % ''} {HYPERPARAMS}"
    assert neck_model(text, freeze_batchnorm=True).get_layer("bifpn_1_up_4_batch_norm").train_statistics is False


def test_the_detector_and_its_predictions():
    detector = symbolic(lambda: build_detector(model_of(DETECTOR)))
    assert type(detector) is OneStageDetector
    assert detector.name == "ssd"  # as the config calls it
    # 12^2 + 6^2 + 3^2 + 2^2 + 1 cells with 3 ratios of 2 scales.
    assert detector.network.output["class_logits"].shape == (None, (144 + 36 + 9 + 4 + 1) * 6, 3)


@pytest.mark.parametrize(
    ("extractor", "padding"),
    [
        ("ssd_efficientnet-b0_bifpn_keras", (123.675, 116.28, 103.53)),
        ("ssd_mobilenet_v2_keras", (127.5, 127.5, 127.5)),
        ("ssd_resnet50_v1_fpn_keras", (123.68, 116.779, 103.939)),
    ],
)
def test_one_stage_detectors_pad_with_what_becomes_zero(extractor, padding):
    model = model_of(DETECTOR.replace("ssd_efficientnet-b0_bifpn_keras", extractor))
    padded, true_shape = build_model_resizer(model)(tf.fill([48, 64, 3], 200.0))
    np.testing.assert_array_equal(true_shape, [72, 96])
    np.testing.assert_allclose(padded[:72], 200.0)
    np.testing.assert_allclose(padded[72:], np.broadcast_to(np.float32(padding), (24, 96, 3)), rtol=1e-6)


def test_a_configured_padding_is_in_the_normalised_scale():
    text = DETECTOR.replace("max_dimension: 96 ", "max_dimension: 96 per_channel_pad_value: [1, 0, -1] ")
    padded, _ = build_model_resizer(model_of(text))(tf.zeros([96, 48, 3]))
    np.testing.assert_allclose(padded[0, 50], (123.675 + 58.395, 116.28, 103.53 - 57.375), rtol=1e-5)


def test_padding_to_a_multiple_has_the_same_colour():
    keep = "keep_aspect_ratio_resizer { min_dimension: 96 max_dimension: 96 pad_to_max_dimension: true }"
    text = DETECTOR.replace(keep, "pad_to_multiple_resizer { multiple: 32 }")
    padded, _ = build_model_resizer(model_of(text))(tf.zeros([1, 40, 64, 3]))
    assert padded.shape[1:3] == (64, 64)
    np.testing.assert_allclose(padded[0, 40, 0], (123.675, 116.28, 103.53), rtol=1e-6)


def test_two_stage_detectors_pad_with_black():
    resizer = "keep_aspect_ratio_resizer { min_dimension: 8 max_dimension: 8 pad_to_max_dimension: true }"
    model = model_of(f"faster_rcnn {{ image_resizer {{ {resizer} }} }}")
    padded, _ = build_model_resizer(model)(tf.ones([4, 8, 3]))
    np.testing.assert_array_equal(padded[4:], np.zeros((4, 8, 3)))
