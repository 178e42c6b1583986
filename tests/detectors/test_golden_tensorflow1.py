"""Detectors with the seeded weights of TensorFlow 1 checkpoints against the Object Detection API's own outputs."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

import detzoo

pytestmark = pytest.mark.shared


def strided(ours, golden, key):
    """Returns an array of ours and the published one, which keeps every n-th row and column of a large array."""
    ours = np.asarray(ours)
    if key in golden:
        return ours, golden[key]
    return ours[tuple(slice(None, None, step) for step in golden[f"{key}__stride"])], golden[f"{key}__sub"]


ONE_STAGE = (
    "tf1_ssd_mobilenet_v1_coco",
    "tf1_ssd_inception_v2_coco",
    "tf1_ssd_mobilenet_v1_ppn_shared_box_predictor_300x300_coco14_sync",
    "tf1_ssd_mobilenet_v2_coco",
    "tf1_ssd_resnet50_v1_fpn_shared_box_predictor_640x640_coco14_sync",
    "tf1_ssdlite_mobilenet_v2_coco",
    "tf1_ssdlite_mobiledet_cpu_320x320_coco_sync_4x4",
    "tf1_ssdlite_mobilenet_v3_large_320x320_coco",
)
TWO_STAGE = (
    "tf1_faster_rcnn_resnet50_coco",
    "tf1_faster_rcnn_inception_resnet_v2_atrous_coco",
    "tf1_faster_rcnn_inception_v2_coco",
    "tf1_faster_rcnn_nas_coco",
    "tf1_mask_rcnn_inception_v2_coco",
    "tf1_rfcn_resnet101_coco",
)


def all_of(names):
    """The first by default, the others with --all."""
    return [names[0], *(pytest.param(name, marks=pytest.mark.full_sweep) for name in names[1:])]


def outputs_of(folder):
    if not (folder / "outputs.npz").is_file():
        pytest.skip(f"{folder} has no outputs.npz")
    return dict(np.load(folder / "outputs.npz"))


@pytest.mark.parametrize("name", all_of(ONE_STAGE))
def test_one_stage(shared, golden_weights, name):
    folder = shared / "golden" / name
    golden = outputs_of(folder)
    model, detector = golden_weights.seeded_detector(folder)
    padded, true_shapes = golden_weights.image_and_shape(folder, model)
    predictions = golden_weights.predictions_of(detector, detector.preprocess(padded))
    np.testing.assert_allclose(*strided(predictions.box_deltas, golden, "box_encodings"), atol=1e-3)
    logits = strided(predictions.class_logits, golden, "class_predictions_with_background")
    np.testing.assert_allclose(*logits, atol=1e-3)
    detections = detector.postprocess(predictions, true_shapes, detector.input_shape_px)
    np.testing.assert_allclose(detections.scores, golden["post_detection_scores"], atol=1e-4)
    clear = golden_weights.clear_rows(golden["post_detection_scores"][0])
    np.testing.assert_array_equal(detections.classes[0][clear], golden["post_detection_classes"][0][clear])
    np.testing.assert_allclose(detections.boxes_norm[0][clear], golden["post_detection_boxes"][0][clear], atol=1e-3)
    losses = golden_weights.losses_of(detector, predictions)
    for part in ("localization", "classification"):
        assert losses[part] == pytest.approx(float(golden[f"loss_Loss_{part}_loss"]), rel=1e-4)


@pytest.mark.parametrize("name", all_of(TWO_STAGE))
def test_two_stages(shared, golden_weights, name):
    folder = shared / "golden" / name
    golden = outputs_of(folder)
    model, detector = golden_weights.seeded_detector(folder)
    padded, true_shapes = golden_weights.image_and_shape(folder, model)
    predictions = golden_weights.predictions_of(detector, detector.preprocess(padded), true_shapes=true_shapes)
    first = predictions.first_stage
    np.testing.assert_allclose(*strided(first.box_deltas, golden, "rpn_box_encodings"), atol=1e-3)
    objectness = strided(first.class_logits, golden, "rpn_objectness_predictions_with_background")
    np.testing.assert_allclose(*objectness, atol=1e-3)
    # Rounding may swap proposals, so that their rows are found by their boxes. It may also place the last cells of a
    # proposal that ends at the edge of the image outside the image, where a crop has zeros.
    ours, edges = predictions.proposals.boxes_norm[0].numpy(), golden["proposal_boxes_normalized"][0]
    distances = np.abs(ours[:, np.newaxis] - edges)
    rows, theirs = np.nonzero((distances.max(axis=-1) < 1e-5) & (edges.max(axis=-1) < 1.0))
    assert len(set(theirs)) >= 0.99 * (edges.max(axis=-1) < 1.0).sum() > 250
    logits = predictions.class_logits[0].numpy()[rows]
    np.testing.assert_allclose(logits, golden["class_predictions_with_background"][theirs], atol=1e-3)
    detections = detector.postprocess(predictions, true_shapes, padded.shape[1:3])
    np.testing.assert_allclose(detections.scores, golden["post_detection_scores"], atol=1e-4)


@pytest.mark.parametrize("name", all_of([*ONE_STAGE, *TWO_STAGE]))
def test_served_detections(shared, golden_weights, tmp_path, name):
    """From the checkpoint to the outputs of the exported SavedModel."""
    folder = shared / "golden" / name
    golden = outputs_of(folder)
    scores, boxes, masks = golden_weights.served_differences(golden, golden_weights.exported_outputs(folder, tmp_path))
    assert scores < 1e-4
    assert boxes < 1e-3
    assert masks < 1e-3


@pytest.fixture(scope="module")
def trained(shared, load_module, tmp_path_factory):
    """An archive of the zoo in small, with weights that were trained on COCO: class 18 is a dog."""
    folder = tmp_path_factory.mktemp("archive")
    name = "ssd_mobilenet_v1_0.75_depth_quantized_300x300_coco14_sync"
    load_module("../../shared/data/coco_ssd_mobilenet_v1/write_tf1_checkpoint.py").main(str(folder / "model.ckpt"))
    config = (shared / "configs" / "published" / "tf1" / f"{name}.config").read_text()
    (folder / "pipeline.config").write_text(config)
    return detzoo.load(folder)


def test_trained_weights_detect_two_dogs(shared, trained):
    result = trained.detect(shared / "data" / "odapi_test" / "image1.jpg")
    assert [found.class_id for found in result if found.score > 0.6] == [18, 18]


@pytest.mark.filterwarnings("ignore:.*(tf.lite.Interpreter|experimental_preserve_all_tensors)")
def test_trained_weights_score_as_the_quantized_file(shared, trained, golden_weights):
    """Scores of all anchors and classes, but for the rounding of every activation to 8 bits in the file."""
    path = shared / "data" / "coco_ssd_mobilenet_v1" / "detect.tflite"
    interpreter = tf.lite.Interpreter(str(path), experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    [scores] = [tensor for tensor in interpreter.get_tensor_details() if tensor["name"] == "convert_scores"]
    detector = trained.keras_model
    image = PIL.Image.open(shared / "data" / "odapi_test" / "image1.jpg").resize((300, 300))
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.asarray(image)[np.newaxis])
    interpreter.invoke()
    theirs = interpreter.get_tensor(scores["index"]) / 256
    inputs = detector.preprocess(tf.constant(np.asarray(image, np.float32)[np.newaxis]))
    ours = tf.sigmoid(golden_weights.predictions_of(detector, inputs).class_logits)
    assert np.percentile(np.abs(ours - theirs), 99.9) < 0.01
