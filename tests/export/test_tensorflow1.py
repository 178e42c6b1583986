"""Exports for clients of TensorFlow 1: their code as it is found in projects, on the files of ``--tf1_names``."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

import detzoo
from detzoo.errors import UsageError
from detzoo.export.exporter import Export, export_detector
from detzoo.export.parity import as_input
from detzoo.serving.saved_detector import SavedDetector

OLD_NAMES = ("detection_boxes", "detection_scores", "detection_classes", "num_detections")
IMAGE = np.random.default_rng(3).integers(0, 256, (41, 67, 3), np.uint8)


def export(toy, folder, input_type="image_tensor", kind="ToyDetector", **options):
    """Exports the toy detector."""
    export_detector(toy.toy_detector(kind=getattr(toy, kind)), toy.ToyResizer(), folder, input_type, Export(**options))
    return folder


@pytest.fixture(scope="module")
def plain(toy, tmp_path_factory):
    """The outputs of the ordinary export, by the kind of the detector."""
    kinds = ("ToyDetector", "ToyMaskDetector")
    return {
        kind: tf.saved_model.load(str(export(toy, tmp_path_factory.mktemp(kind), kind=kind) / "saved_model"))(
            IMAGE[np.newaxis]
        )
        for kind in kinds
    }


@pytest.fixture(scope="module", params=["ToyDetector", "ToyMaskDetector"])
def exported(request, toy, tmp_path_factory):
    """The kind of a detector, and the folder of its export with the names of TensorFlow 1."""
    folder = tmp_path_factory.mktemp("tensorflow1")
    return request.param, export(toy, folder, kind=request.param, tf1_names=True)


def test_frozen_graphs_in_a_session(exported, plain):
    kind, folder = exported
    # The code of object_detection_tutorial.ipynb of TensorFlow 1.
    detection_graph = tf.Graph()
    with detection_graph.as_default():
        od_graph_def = tf.compat.v1.GraphDef()
        with tf.io.gfile.GFile(str(folder / "frozen_inference_graph.pb"), "rb") as fid:
            od_graph_def.ParseFromString(fid.read())
            tf.import_graph_def(od_graph_def, name="")
        with tf.compat.v1.Session() as sess:
            ops = tf.compat.v1.get_default_graph().get_operations()
            all_tensor_names = {output.name for op in ops for output in op.outputs}
            tensor_dict = {}
            for key in [*OLD_NAMES, "detection_masks"]:
                tensor_name = key + ":0"
                if tensor_name in all_tensor_names:
                    tensor_dict[key] = detection_graph.get_tensor_by_name(tensor_name)
            image_tensor = detection_graph.get_tensor_by_name("image_tensor:0")
            output_dict = sess.run(tensor_dict, feed_dict={image_tensor: np.expand_dims(IMAGE, 0)})
    assert image_tensor.dtype == tf.uint8
    assert image_tensor.shape.as_list() == [None, None, None, 3]
    assert ("detection_masks" in output_dict) == (kind == "ToyMaskDetector")
    for name, value in output_dict.items():
        assert value.dtype == np.float32
        np.testing.assert_allclose(value, plain[kind][name], atol=1e-6)
    assert output_dict["num_detections"].shape == (1,)
    assert int(output_dict["num_detections"][0]) > 0


def test_saved_models_in_a_session(exported, plain):
    kind, folder = exported
    with tf.compat.v1.Session(graph=tf.Graph()) as sess:
        meta_graph = tf.compat.v1.saved_model.load(
            sess, [tf.compat.v1.saved_model.tag_constants.SERVING], str(folder / "saved_model")
        )
        found = sess.run([f"{name}:0" for name in OLD_NAMES], {"image_tensor:0": IMAGE[np.newaxis]})
    for name, value in zip(OLD_NAMES, found, strict=True):
        np.testing.assert_allclose(value, plain[kind][name], atol=1e-6)
    signature = meta_graph.signature_def["serving_default"]
    assert signature.method_name == "tensorflow/serving/predict"
    assert {key: info.name for key, info in signature.inputs.items()} == {"inputs": "image_tensor:0"}
    assert {key: info.name for key, info in signature.outputs.items()} == {name: f"{name}:0" for name in plain[kind]}


def test_every_output_keeps_its_shape(exported, plain):
    kind, folder = exported
    detect = tf.saved_model.load(str(folder / "saved_model")).signatures["serving_default"]
    found = detect(inputs=tf.constant(IMAGE[np.newaxis]))
    assert set(found) == set(plain[kind])
    for name, value in found.items():
        np.testing.assert_allclose(value, plain[kind][name], atol=1e-6)


@pytest.mark.parametrize("part", ["frozen_inference_graph.pb", "saved_model"])
def test_they_are_read_back(exported, plain, part):
    kind, folder = exported
    detector = SavedDetector(folder / part)
    assert detector.has_masks == (kind == "ToyMaskDetector")
    [first, second] = detector.detect_all([IMAGE, IMAGE])
    np.testing.assert_allclose(first.boxes_norm, plain[kind]["detection_boxes"][0][: len(first.boxes_norm)], atol=1e-6)
    np.testing.assert_array_equal(first.scores, second.scores)


def test_the_front_door_loads_a_graph(exported, plain, tmp_path):
    """Next to the record of its export, and alone."""
    kind, folder = exported
    shutil.copy(folder / "frozen_inference_graph.pb", tmp_path)
    for place in (folder, tmp_path):
        result = detzoo.load(place / "frozen_inference_graph.pb").detect(IMAGE, score_threshold=0.0)
        scores = plain[kind]["detection_scores"][0]
        np.testing.assert_allclose(result.scores, scores[: len(result.scores)], atol=1e-6)


@pytest.mark.parametrize("input_type", ["encoded_image_string_tensor", "tf_example"])
def test_other_inputs(toy, tmp_path, plain, input_type):
    export(toy, tmp_path, input_type, tf1_names=True)
    given = as_input(IMAGE[np.newaxis], input_type).numpy()
    with tf.Graph().as_default(), tf.compat.v1.Session() as sess:
        graph_def = tf.compat.v1.GraphDef()
        graph_def.ParseFromString((tmp_path / "frozen_inference_graph.pb").read_bytes())
        tf.import_graph_def(graph_def, name="")
        boxes = sess.run("detection_boxes:0", {f"{input_type}:0": given})
    np.testing.assert_allclose(boxes, plain["ToyDetector"]["detection_boxes"], atol=1e-6)
    (tmp_path / "export.json").unlink()  # the name of the input is enough
    for part in ("frozen_inference_graph.pb", "saved_model"):
        found = SavedDetector(tmp_path / part)(IMAGE)
        np.testing.assert_allclose(found.boxes_norm, boxes[0][: len(found.boxes_norm)], atol=1e-6)


def test_an_ordinary_export_replaces_the_graph(toy, tmp_path):
    export(toy, tmp_path, tf1_names=True)
    assert json.loads((tmp_path / "export.json").read_text())["tf1_names"] is True
    export(toy, tmp_path)
    assert not (tmp_path / "frozen_inference_graph.pb").exists()


def test_graphs_that_are_no_detector(tmp_path):
    with tf.Graph().as_default() as graph:
        tf.compat.v1.placeholder(tf.float32, [1, 300, 300, 3], "normalized_input_image_tensor")
        tf.constant(1.0, name="TFLite_Detection_PostProcess")
    (tmp_path / "tflite_graph.pb").write_bytes(graph.as_graph_def().SerializeToString())
    with pytest.raises(UsageError, match=r"tflite_graph\.pb is not a detector.*TFLite_Detection.*; take the model"):
        SavedDetector(tmp_path / "tflite_graph.pb")
