"""The whole detector against the Object Detection API's own outputs for the same weights, image and ground truth."""

from __future__ import annotations

import numpy as np
import pytest


def outputs_of(golden, folder):
    """Predictions, detections, loss terms of detzoo, and the published outputs."""
    model, detector = golden.seeded_detector(folder)
    padded, true_shapes = golden.image_and_shape(folder, model)
    inputs = detector.preprocess(padded)
    predictions = golden.predictions_of(detector, inputs)
    detections = detector.postprocess(predictions, true_shapes, detector.input_shape_px)
    losses = golden.losses_of(detector, predictions)
    return inputs, predictions, detections, losses, dict(np.load(folder / "outputs.npz"))


@pytest.fixture(scope="module", params=["ssd_mobilenet_v2_320", "ssd_resnet50_v1_fpn_640"])
def outputs(shared, golden_weights, quick_initializers, request):
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
