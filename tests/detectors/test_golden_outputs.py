"""The whole detector against the Object Detection API's own outputs for the same weights, image and ground truth."""

from __future__ import annotations

import functools
import re

import numpy as np
import pytest
import tensorflow as tf

from detzoo.builders.detector import build_detector
from detzoo.config.load import load_pipeline

FINEST_EXTRA, FINEST_PYRAMID, COARSEST_LATERAL, FINEST_COARSE = 4, 3, 5, 6

# Where a tensor of the published layout lies in detzoo: pattern -> path, built from the numbers in the name.
RULES = [
    (r"box_predictor/_prediction_heads/box_encodings/(\d+)/.*", lambda i: f"head/box_predictor_{FINEST_EXTRA + i}"),
    (
        r"box_predictor/_prediction_heads/class_predictions_with_background/(\d+)/.*",
        lambda i: f"head/class_predictor_{FINEST_EXTRA + i}",
    ),
    (
        r"feature_extractor/feature_map_generator/convolutions/(\d+)/(\d)",
        lambda i, j: "neck/extra_{}{}".format(
            FINEST_EXTRA + i, {0: "_reduce_conv", 1: "_reduce_batch_norm", 3: "_conv", 4: "_batch_norm"}[j]
        ),
    ),
    (r"feature_extractor/_fpn_features_generator/top_layers/0", lambda: f"neck/fpn_lateral_{COARSEST_LATERAL}"),
    (
        r"feature_extractor/_fpn_features_generator/residual_blocks/(\d)/0",
        lambda i: f"neck/fpn_lateral_{COARSEST_LATERAL - 1 - i}",
    ),
    (
        r"feature_extractor/_fpn_features_generator/conv_layers/(\d)/(\d)",
        lambda i, j: f"neck/fpn_smooth_{COARSEST_LATERAL - 1 - i}_{('conv', 'batch_norm')[j]}",
    ),
    (
        r"feature_extractor/_coarse_feature_layers/(\d)/(\d)",
        lambda i, j: f"neck/fpn_coarse_{FINEST_COARSE + i}_{('conv', 'batch_norm')[j]}",
    ),
    (r"box_predictor/_head_scope_conv_layers/BoxPredictionTower/(\d)", lambda i: f"head/box_tower_{i}"),
    (r"box_predictor/_head_scope_conv_layers/ClassPredictionTower/(\d)", lambda i: f"head/class_tower_{i}"),
    (
        r"box_predictor/_base_tower_layers_for_heads/box_encodings/(\d)/(\d+)",
        lambda i, j: f"head/box_tower_{j // 3}_level_{FINEST_PYRAMID + i}_batch_norm",
    ),
    (
        r"box_predictor/_base_tower_layers_for_heads/class_predictions_with_background/(\d)/(\d+)",
        lambda i, j: f"head/class_tower_{j // 3}_level_{FINEST_PYRAMID + i}_batch_norm",
    ),
    (r"box_predictor/_box_prediction_head/_box_encoder_layers/0", lambda: "head/box_predictor"),
    (
        r"box_predictor/_prediction_heads/class_predictions_with_background/_class_predictor_layers/0",
        lambda: "head/class_predictor",
    ),
]


def path_of(name, backbone_layers, suffix):
    """detzoo's path of a tensor of the published layout."""
    owner, kind = name.removesuffix(suffix).removeprefix("model/_").rsplit("/", 1)
    backbone = re.fullmatch(r"feature_extractor/classification_backbone/layer_with_weights-(\d+)", owner)
    if backbone:  # without separable convolutions; Keras 3 calls the kernel of a depthwise one "kernel"
        return f"{backbone_layers[int(backbone[1])]}/{kind.removeprefix('depthwise_')}"
    for pattern, path in RULES:
        match = re.fullmatch(pattern, owner)
        if match:
            return f"{path(*map(int, match.groups()))}/{kind}"
    raise AssertionError(f"no rule for {name}")


@functools.cache
def outputs_of(golden, folder):
    """Predictions, detections, loss terms of detzoo, and the published outputs."""
    model = load_pipeline(folder / "pipeline.config").message.model
    detector = build_detector(model)
    layers = golden.owners_in(detector.network, "backbone")
    golden.set_seeded_weights(detector, folder, lambda name: path_of(name, layers, golden.SUFFIX))
    padded, true_shapes = golden.image_and_shape(folder, model)
    inputs = detector.preprocess(padded)
    predictions = detector.predict(inputs)
    detections = detector.postprocess(predictions, true_shapes, detector.input_shape_px)
    losses = {
        name: float(term.total / tf.maximum(term.normalizer, 1.0))
        for name, term in detector.loss_terms(predictions, golden.golden_groundtruth()).items()
    }
    return inputs, predictions, detections, losses, dict(np.load(folder / "outputs.npz"))


@pytest.fixture(params=["ssd_mobilenet_v2_320", "ssd_resnet50_v1_fpn_640"])
def outputs(shared, golden_weights, request):
    return outputs_of(golden_weights, shared / "golden" / request.param)


def test_normalised_image(outputs):
    inputs, _, _, _, golden = outputs
    np.testing.assert_array_equal(inputs.shape, golden["preprocessed_shape"])
    np.testing.assert_allclose([np.mean(inputs), np.std(inputs)], golden["preprocessed_mean_std"], atol=1e-3)


def test_raw_predictions(outputs):
    _, predictions, _, _, golden = outputs
    np.testing.assert_allclose(predictions.anchors_norm, golden["final_anchors"][0], atol=1e-6)
    np.testing.assert_allclose(predictions.box_deltas, golden["box_encodings"], atol=1e-3)
    if "class_predictions_with_background" in golden:
        np.testing.assert_allclose(predictions.class_logits, golden["class_predictions_with_background"], atol=1e-3)
    else:
        every24 = predictions.class_logits[:, ::24]
        np.testing.assert_allclose(every24, golden["class_predictions_with_background__every24"], atol=1e-3)


def test_losses(outputs):
    _, _, _, losses, golden = outputs
    assert losses["localization"] == pytest.approx(float(golden["loss_Loss/localization_loss"]), rel=1e-3)
    assert losses["classification"] == pytest.approx(float(golden["loss_Loss/classification_loss"]), rel=1e-3)


def test_detections(outputs, golden_weights):
    _, _, detections, _, golden = outputs
    np.testing.assert_allclose(detections.raw_boxes_norm, golden["post_raw_detection_boxes"], atol=1e-3)
    assert int(detections.num_valid[0]) == int(golden["post_num_detections"][0])
    np.testing.assert_allclose(detections.scores, golden["post_detection_scores"], atol=1e-4)
    clear = golden_weights.clear_rows(golden["post_detection_scores"][0])
    np.testing.assert_array_equal(detections.classes[0][clear], golden["post_detection_classes"][0][clear])
    np.testing.assert_allclose(detections.boxes_norm[0][clear], golden["post_detection_boxes"][0][clear], atol=1e-3)
