"""Anchors, targets, losses and post-processing together, against golden outputs of the original implementation."""

import numpy as np
import pytest
import tensorflow as tf

from detzoo.builders.anchors import build_anchor_generator
from detzoo.builders.losses import build_dense_loss
from detzoo.builders.postprocess import build_dense_detections
from detzoo.builders.targets import build_anchor_targets
from detzoo.config.load import load_pipeline
from detzoo.contracts import Groundtruth, Predictions

SSD = "ssd_mobilenet_v2_320"
RETINANET = "ssd_resnet50_v1_fpn_640"
SHAPES = {
    SSD: ([(19, 19), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1)], (300, 300)),
    RETINANET: ([(80, 80), (40, 40), (20, 20), (10, 10), (5, 5)], (640, 640)),
}


def _golden(shared, name):
    folder = shared / "golden" / name
    return load_pipeline(folder / "pipeline.config").message.model.ssd, np.load(folder / "outputs.npz")


def _groundtruth():
    boxes = [[0.05, 0.03, 0.95, 0.32], [0.10, 0.42, 0.94, 0.97], [0.3, 0.3, 0.4, 0.4], [0.0, 0.0, 0.0, 0.0]]
    return Groundtruth(
        boxes_norm=tf.constant([boxes]),
        classes=tf.constant([[0, 1, 5, -1]]),
        weights=tf.constant([[1.0, 1.0, 1.0, 0.0]]),
        is_crowd=tf.zeros([1, 4], tf.bool),
        is_difficult=tf.zeros([1, 4], tf.bool),
        area_px=tf.zeros([1, 4]),
        masks=tf.zeros([1, 4, 0, 0], tf.uint8),
    )


def _losses(config, predictions):
    targets = build_anchor_targets(config)(predictions.anchors_norm, _groundtruth())
    terms = build_dense_loss(config)(predictions, targets)
    return {name: float(term.total / tf.maximum(term.normalizer, 1.0)) for name, term in terms.items()}


@pytest.mark.parametrize("name", [SSD, RETINANET])
def test_anchors(shared, name):
    config, golden = _golden(shared, name)
    anchors = build_anchor_generator(config.anchor_generator)(*SHAPES[name])
    np.testing.assert_allclose(anchors, golden["anchors"], atol=1e-6)


def test_ssd_losses_and_detections(shared):
    config, golden = _golden(shared, SSD)
    logits = tf.constant(golden["class_predictions_with_background"])
    predictions = Predictions(tf.constant(golden["box_encodings"]), logits, tf.constant(golden["anchors"]))
    losses = _losses(config, predictions)
    assert losses["localization"] == pytest.approx(golden["loss_Loss/localization_loss"], rel=1e-4)
    assert losses["classification"] == pytest.approx(golden["loss_Loss/classification_loss"], rel=1e-4)

    detections = build_dense_detections(config)(predictions, tf.constant([[300, 300]]), (300, 300))
    np.testing.assert_allclose(detections.raw_boxes_norm, golden["post_raw_detection_boxes"], atol=1e-5)
    np.testing.assert_allclose(detections.raw_scores, golden["post_raw_detection_scores"], atol=1e-5)
    assert int(detections.num_valid[0]) == int(golden["post_num_detections"][0])
    np.testing.assert_array_equal(detections.anchor_indices, golden["post_detection_anchor_indices"])
    np.testing.assert_array_equal(detections.classes, golden["post_detection_classes"])
    np.testing.assert_allclose(detections.scores, golden["post_detection_scores"], atol=1e-5)
    np.testing.assert_allclose(detections.boxes_norm, golden["post_detection_boxes"], atol=1e-5)
    np.testing.assert_allclose(detections.multiclass_scores, golden["post_detection_multiclass_scores"], atol=1e-5)


def test_retinanet_localization_loss_and_decoded_boxes(shared):
    # The golden file keeps every 24th row of the logits only; the other rows are filled with a sure background.
    config, golden = _golden(shared, RETINANET)
    anchors, deltas = tf.constant(golden["anchors"]), tf.constant(golden["box_encodings"])
    logits = np.full((1, len(golden["anchors"]), 91), -20.0, np.float32)
    logits[:, ::24] = golden["class_predictions_with_background__every24"]
    predictions = Predictions(deltas, tf.constant(logits), anchors)
    losses = _losses(config, predictions)
    assert losses["localization"] == pytest.approx(golden["loss_Loss/localization_loss"], rel=1e-4)

    detections = build_dense_detections(config)(predictions, tf.constant([[640, 640]]), (640, 640))
    np.testing.assert_allclose(detections.raw_boxes_norm, golden["post_raw_detection_boxes"], atol=1e-5)
    kept = detections.raw_scores.numpy()[:, ::24]
    np.testing.assert_allclose(kept, golden["post_raw_detection_scores__sub"], atol=1e-5)


def test_retinanet_detections_from_the_scores_that_the_golden_file_keeps(shared):
    # Every golden detection's row of scores is known; with all other rows empty, suppression has to keep them all.
    config, golden = _golden(shared, RETINANET)
    scores = np.zeros((1, len(golden["anchors"]), 91), np.float32)
    indices = golden["post_detection_anchor_indices"][0]
    scores[0, indices] = golden["post_detection_multiclass_scores"][0]
    keep = np.zeros(90, bool)
    keep[np.unique(golden["post_detection_classes"][0]).astype(int)] = True
    scores[..., 1:][..., ~keep] = 0.0
    config.post_processing.score_converter = 0  # IDENTITY
    predictions = Predictions(tf.constant(golden["box_encodings"]), tf.constant(scores), tf.constant(golden["anchors"]))
    detections = build_dense_detections(config)(predictions, tf.constant([[640, 640]]), (640, 640))
    np.testing.assert_array_equal(detections.anchor_indices[0], indices)
    np.testing.assert_array_equal(detections.classes, golden["post_detection_classes"])
    np.testing.assert_allclose(detections.scores, golden["post_detection_scores"], atol=1e-6)
    np.testing.assert_allclose(detections.boxes_norm, golden["post_detection_boxes"], atol=1e-5)
