"""TFLite files of the Object Detection API and of other programs: outputs in their order, inputs, names, and errors."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import tensorflow as tf

from detzoo.config.label_map import LabelMap
from detzoo.data.resize import FixedShapeResizer
from detzoo.errors import UsageError
from detzoo.export.tflite_graph import _convert
from detzoo.serving.tflite_detector import TfliteDetector, stretch
from detzoo.tasks.models import load_exported

HEIGHT, WIDTH = 6, 8
# Anchors as centre and size; the boxes that deltas of zero decode to: [0, 0, 0.4, 0.4], [0.5, 0.5, 1, 1], ...
ANCHORS = np.array([[0.2, 0.2, 0.4, 0.4], [0.75, 0.75, 0.5, 0.5], [0.5, 0.1, 0.2, 0.2]], np.float32)
BOXES = [[0.0, 0.0, 0.4, 0.4], [0.5, 0.5, 1.0, 1.0], [0.4, 0.0, 0.6, 0.2]]
OPERATION = """name: "TFLite_Detection_PostProcess" attr { key: "max_detections" value { i: 3 } }
    attr { key: "max_classes_per_detection" value { i: 1 } } attr { key: "num_classes" value { i: 2 } }
    attr { key: "detections_per_class" value { i: 3 } } attr { key: "use_regular_nms" value { b: true } }
    attr { key: "nms_score_threshold" value { f: 0.3 } } attr { key: "nms_iou_threshold" value { f: 0.6 } }
    attr { key: "y_scale" value { f: 10 } } attr { key: "x_scale" value { f: 10 } }
    attr { key: "h_scale" value { f: 5 } } attr { key: "w_scale" value { f: 5 } }"""


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """A float model like those of export_tflite_graph_tf2.py: the mean of the input is a class score of each anchor."""

    @tf.function(experimental_implements=OPERATION, autograph=False)
    def operation(deltas, scores, anchors):
        rows = tf.zeros([1, 3])
        return tf.zeros([1, 3, 4]), rows, rows, tf.zeros([1])

    def detect(image):
        # A background column, then the two classes; for the input x, the anchors score (x + 1) / 2 of class 0, 0.4 of
        # class 1, and 0.1, which is below the threshold.
        mean = (tf.reduce_mean(image) + 1.0) / 2.0
        scores = tf.stack([[0.0, mean, 0.0], [0.0, 0.0, 0.4], [0.0, 0.1, 0.0]])[tf.newaxis]
        boxes, classes, best, count = operation(tf.zeros([1, 3, 4]), scores, tf.constant(ANCHORS))
        return {"a_count": count, "b_scores": best, "c_classes": classes, "d_boxes": boxes}

    def configure(converter):
        converter.allow_custom_ops = True

    spec = tf.TensorSpec([1, HEIGHT, WIDTH, 3], tf.float32, name="image")
    path = tmp_path_factory.mktemp("foreign") / "detect.tflite"
    path.write_bytes(_convert(tf.function(detect, input_signature=[spec], autograph=False), configure))
    return path


def test_outputs_of_the_object_detection_api_are_found_whatever_their_order(foreign):
    # Bytes of 204 are (204 / 127.5 - 1 + 1) / 2 = 0.8 in the scale of the Object Detection API.
    found = load_exported(foreign)(np.full([9, 5, 3], 204, np.uint8))
    np.testing.assert_allclose(found.boxes_norm, BOXES[:2], atol=1e-6)
    np.testing.assert_allclose(found.scores, [0.8, 0.4], atol=1e-6)
    assert found.class_ids.tolist() == [1, 2]


def test_eight_bit_inputs_take_the_bytes_of_a_camera(foreign, monkeypatch):
    detector = TfliteDetector(foreign)
    image = np.arange(256, dtype=np.uint8)
    for dtype, expected in ((np.uint8, image), (np.int8, np.arange(-128, 128))):
        monkeypatch.setitem(detector._input, "dtype", dtype)
        np.testing.assert_array_equal(detector._as_input(image), expected)
        np.testing.assert_array_equal(detector._as_input(image + np.float32(0.4)), expected)


@pytest.mark.parametrize("shape", [(9, 5), (4, 16), (HEIGHT, WIDTH), (480, 640)])
def test_images_are_resized_as_tensorflow_does(shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    expected, _ = FixedShapeResizer(height=HEIGHT, width=WIDTH)(tf.constant(image))
    np.testing.assert_allclose(stretch(image, (HEIGHT, WIDTH)), expected, atol=1e-4)


def test_names_are_next_to_the_model_or_in_it(foreign, tmp_path):
    path = tmp_path / "detect.tflite"
    path.write_bytes(foreign.read_bytes())
    assert load_exported(path).label_map is None
    # A first line of ??? stands for the id 0: id 1 is a cat.
    (tmp_path / "labelmap.txt").write_text("???\ncat\n???\ndog\n")
    assert load_exported(path).label_map == LabelMap({1: "cat", 3: "dog"})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("names.txt", "bird\n???\nfish\n")
    assert load_exported(path).label_map == LabelMap({1: "bird", 3: "fish"})
    LabelMap(["tree"]).save(tmp_path / "label_map.pbtxt")
    assert load_exported(path).label_map == LabelMap({1: "tree"})


def test_a_config_of_another_size_is_not_used(foreign, caplog):
    detector = TfliteDetector(foreign, FixedShapeResizer(height=320, width=320))
    assert "images are stretched" in caplog.text
    assert len(detector(np.full([9, 5, 3], 204, np.uint8)).scores) == 2


@pytest.mark.parametrize(
    ("function", "shape"),
    [
        (lambda x: {"scores": tf.reduce_mean(x, axis=[1, 2])}, [1, HEIGHT, WIDTH, 3]),  # a classifier
        (lambda x: {"output": tf.reshape(x, [1, 4, -1])}, [1, HEIGHT, WIDTH, 3]),  # boxes without suppression
        (lambda x: {"y": x + 1.0}, [1, 5]),  # no image
    ],
)
def test_models_of_other_kinds_are_refused_in_one_sentence(function, shape, tmp_path):
    path = tmp_path / "other.tflite"
    spec = tf.TensorSpec(shape, tf.float32, name="image")
    path.write_bytes(_convert(tf.function(function, input_signature=[spec], autograph=False)))
    with pytest.raises(UsageError, match=r"other.tflite is no TFLite detector of `detzoo export .*it has the input"):
        load_exported(path)


def test_no_tensorflow_is_imported(foreign, tmp_path):
    pytest.importorskip("ai_edge_litert", reason="the interpreter without TensorFlow is not installed")
    tf.io.write_file(str(tmp_path / "a.png"), tf.io.encode_png(np.full([9, 5, 3], 204, np.uint8)))
    program = f"""
import sys
sys.modules["tensorflow"] = None
import detzoo
detector = detzoo.load("{foreign}", label_map="{tmp_path}/names.txt")
assert "1 detections: 1 cat" in repr(detector.detect("{tmp_path}/a.png"))
from detzoo.cli.main import main
sys.exit(main(["detect", "--saved_model={foreign}", "--images={tmp_path}/a.png", "--output_dir={tmp_path}/out"]))
"""
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "1 detections on 1 images" in done.stdout


def test_the_published_coco_model(shared):
    folder = pathlib.Path(shared) / "data"
    detector = load_exported(folder / "coco_ssd_mobilenet_v1" / "detect.tflite")
    assert (detector.dtype, detector.input_shape_px) == (np.uint8, (300, 300))
    photo = tf.io.decode_jpeg(tf.io.read_file(str(folder / "odapi_test" / "image1.jpg"))).numpy()
    found = detector(photo)
    # Two dogs (id 18 of COCO), the left one in the left third of the photo.
    assert found.class_ids[:2].tolist() == [18, 18]
    left = found.boxes_norm[found.boxes_norm[:, 3].argmin()]
    assert left[1] < 0.05
    assert left[3] < 0.4
