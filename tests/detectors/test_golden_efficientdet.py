"""EfficientDet-D0 against the Object Detection API's outputs for the same weights and image."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import tensorflow as tf

from detzoo.builders.detector import build_detector
from detzoo.config.load import load_pipeline
from detzoo.contracts import Predictions
from detzoo.features.network import symbolic

pytestmark = pytest.mark.shared

NAME = "efficientdet_d0"


@pytest.fixture
def folder(shared):
    return shared / "golden" / NAME


@functools.cache
def outputs_of(golden, folder):
    """detzoo's detector with its inputs, predictions and losses, and the published outputs."""
    model, detector = golden.seeded_detector(folder)
    padded, _ = golden.image_and_shape(folder, model)
    inputs = detector.preprocess(padded)
    predictions = detector.forward(inputs)
    losses = golden.losses_of(detector, predictions)
    return detector, inputs, predictions, losses, dict(np.load(folder / "outputs.npz"))


@pytest.fixture
def outputs(folder, golden_weights):
    if not (folder / "outputs.npz").is_file():
        pytest.skip("there are no outputs of EfficientDet-D0 in the golden folder")
    return outputs_of(golden_weights, folder)


def test_padding_is_the_zero_of_the_normalised_image(folder, golden_weights):
    """The original normalises, then pads: 427 x 640 becomes 342 x 512, and rows 342 to 511 are 0."""
    model = load_pipeline(folder / "pipeline.config").message.model
    padded, true_shapes = golden_weights.image_and_shape(folder, model)
    np.testing.assert_array_equal(true_shapes, [[342, 512]])
    inputs = symbolic(lambda: build_detector(model)).preprocess(padded).numpy()
    assert inputs.shape == (1, 512, 512, 3)
    assert np.abs(inputs[:, :342]).max() > 1.0
    np.testing.assert_allclose(inputs[:, 342:], 0.0, atol=1e-6)


def test_normalised_image(outputs):
    _, inputs, *_, golden = outputs
    np.testing.assert_allclose([np.mean(inputs), np.std(inputs)], golden["preprocessed_mean_std"], atol=1e-3)


def test_raw_predictions(outputs):
    _, _, predictions, _, golden = outputs
    np.testing.assert_allclose(predictions.anchors_norm, golden["final_anchors"][0], atol=1e-6)
    np.testing.assert_allclose(predictions.box_deltas, golden["box_encodings"], atol=1e-3)
    name = "class_predictions_with_background"
    step = 1 if name in golden else 24
    logits = golden[name if name in golden else f"{name}__every24"]
    np.testing.assert_allclose(predictions.class_logits[:, ::step], logits, atol=1e-3)


def test_losses(outputs):
    *_, losses, golden = outputs
    assert losses["localization"] == pytest.approx(float(golden["loss_Loss/localization_loss"]), rel=1e-3)
    assert losses["classification"] == pytest.approx(float(golden["loss_Loss/classification_loss"]), rel=1e-3)


def test_detections_of_the_published_predictions(outputs, golden_weights):
    """Of theirs, because the scores of these weights are so close that rounding decides which boxes are first."""
    detector, _, _, _, golden = outputs
    predictions = Predictions(
        golden["box_encodings"], golden["class_predictions_with_background"], golden["final_anchors"][0]
    )
    detections = detector.postprocess(predictions, tf.constant([[342, 512]]), detector.input_shape_px)
    np.testing.assert_allclose(detections.raw_boxes_norm, golden["post_raw_detection_boxes"], atol=1e-5)
    assert int(detections.num_valid[0]) == int(golden["post_num_detections"][0])
    np.testing.assert_allclose(detections.scores, golden["post_detection_scores"], atol=1e-6)
    clear = golden_weights.clear_rows(golden["post_detection_scores"][0], tolerance=1e-6)
    np.testing.assert_array_equal(detections.classes[0][clear], golden["post_detection_classes"][0][clear])
    np.testing.assert_allclose(detections.boxes_norm[0][clear], golden["post_detection_boxes"][0][clear], atol=1e-5)
