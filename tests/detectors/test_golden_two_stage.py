"""Two-stage detectors against the Object Detection API's own variables and outputs for the same weights and image."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from detzoo.contracts import Proposals, RegionPredictions

pytestmark = pytest.mark.shared


def outputs_of(golden, folder):
    """Predictions of detzoo, its detector, the size of the image, detections, and the published outputs."""
    model, detector = golden.seeded_detector(folder)
    padded, true_shapes = golden.image_and_shape(folder, model)
    predictions = golden.predictions_of(detector, detector.preprocess(padded), true_shapes=true_shapes)
    detections = detector.postprocess(predictions, true_shapes, detector.input_shape_px)
    return predictions, detector, true_shapes, detections, dict(np.load(folder / "outputs.npz"))


@pytest.fixture(scope="module", params=["faster_rcnn_resnet50_v1_640", "rfcn_resnet101_v1_640"])
def outputs(shared, golden_weights, quick_initializers, request):
    return outputs_of(golden_weights, shared / "golden" / request.param)


def shared_rows(predictions, golden):
    """Rows of our and of the published proposals that are one box, within a tenth of the tolerance."""
    ours = predictions.proposals.boxes_norm[0, : int(predictions.proposals.num_valid[0])].numpy()
    theirs = golden["proposal_boxes_normalized"][0, : int(golden["num_proposals"][0])]
    distances = np.abs(ours[:, np.newaxis] - theirs).max(axis=-1)
    rows = np.flatnonzero(distances.min(axis=1) < 1e-4)
    return rows, distances.argmin(axis=1)[rows], len(ours), len(theirs)


def test_first_stage(outputs):
    predictions, *_, golden = outputs
    first = predictions.first_stage
    np.testing.assert_allclose(first.anchors_norm * 640.0, golden["anchors"], atol=1e-3)
    np.testing.assert_allclose(first.box_deltas, golden["rpn_box_encodings"], atol=1e-3)
    np.testing.assert_allclose(first.class_logits, golden["rpn_objectness_predictions_with_background"], atol=1e-3)


def test_proposals(outputs):
    # Raw predictions differ by rounding, which may decide on which side of a threshold a borderline box falls.
    predictions, *_, golden = outputs
    rows, their_rows, num_ours, num_theirs = shared_rows(predictions, golden)
    assert len(set(their_rows)) == len(rows) >= num_theirs - 1
    assert abs(num_ours - num_theirs) <= 1


def test_second_stage(outputs):
    predictions, *_, golden = outputs
    rows, their_rows, _, _ = shared_rows(predictions, golden)
    theirs = golden["refined_box_encodings"][their_rows], golden["class_predictions_with_background"][their_rows]
    np.testing.assert_allclose(predictions.box_deltas.numpy()[0, rows], theirs[0], atol=1e-3)
    np.testing.assert_allclose(predictions.class_logits.numpy()[0, rows], theirs[1], atol=1e-3)


def test_detections_of_the_published_predictions(outputs, golden_weights):
    _, detector, true_shapes, _, golden = outputs
    boxes = golden["proposal_boxes_normalized"]
    num_regions = boxes.shape[1]
    published = RegionPredictions(
        first_stage=(),
        proposals=Proposals(boxes, np.zeros([1, num_regions], np.float32), golden["num_proposals"].astype(np.int32)),
        box_deltas=golden["refined_box_encodings"][np.newaxis],
        class_logits=golden["class_predictions_with_background"][np.newaxis],
        windows=tf.zeros([1, 4]),
    )
    detections = detector.postprocess(published, true_shapes, detector.input_shape_px)
    num_valid = int(golden["num_proposals"][0])
    raw = detections.raw_boxes_norm[:, :num_valid], golden["post_raw_detection_boxes"][:, :num_valid]
    np.testing.assert_allclose(*raw, atol=1e-5)
    assert int(detections.num_valid[0]) == int(golden["post_num_detections"][0])
    np.testing.assert_allclose(detections.scores, golden["post_detection_scores"], atol=1e-6)
    clear = golden_weights.clear_rows(golden["post_detection_scores"][0], tolerance=1e-6)
    np.testing.assert_array_equal(detections.classes[0][clear], golden["post_detection_classes"][0][clear])
    np.testing.assert_allclose(detections.boxes_norm[0][clear], golden["post_detection_boxes"][0][clear], atol=1e-5)


def test_detections(outputs):
    # A borderline proposal more or less changes single detections.
    _, _, _, detections, golden = outputs
    assert int(detections.num_valid[0]) == int(golden["post_num_detections"][0])
    distances = np.abs(detections.scores - golden["post_detection_scores"])
    assert np.mean(distances < 1e-4) > 0.99
