"""TFLite files: four outputs in their order, the detector's numbers, every class, and the checks that must fail."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from detzoo.errors import DataError, DetzooError, UsageError
from detzoo.export import tflite, tflite_graph, tflite_parity
from detzoo.export.exporter import Export
from detzoo.export.representative import find_files, representative_images
from detzoo.export.tflite import TfliteOptions, export_tflite
from detzoo.export.tflite_graph import convert_network, convert_postprocessing
from detzoo.export.tflite_nms import best_pairs
from detzoo.export.tflite_parity import check_postprocessing, check_quantized
from detzoo.serving.served import ServingModule
from detzoo.serving.tflite_detector import OUTPUTS, TfliteDetector, open_interpreter

BESIDE = Export(
    "model {}\n",
    """
    item { id: 1 name: 'cat' }
    item {
      id: 3 name: 'dog'
      display_name: 'Dog'
    }
    """,
    "run",
    7,
)
FLOAT = TfliteOptions()


@pytest.fixture(scope="module")
def one_stage(load_module):
    return load_module("small_one_stage.py")


@pytest.fixture(scope="module")
def ssd(one_stage):
    return one_stage.detector_and_resizer()


@pytest.fixture(scope="module")
def exported(ssd, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tflite") / "new"
    path, report = export_tflite(*ssd, folder, FLOAT, BESIDE)
    return path, report


def blobs(one_stage, seed=3):
    coarse = np.random.default_rng(seed).uniform(0, 255, (1, 5, 7, 3))
    resized = tf.image.resize(coarse, (one_stage.HEIGHT, one_stage.WIDTH), "bicubic")
    return np.clip(resized, 0, 255).astype(np.uint8)


def run(interpreter, images):
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], images)
    interpreter.invoke()
    return [interpreter.get_tensor(output["index"]) for output in interpreter.get_output_details()]


def assert_same_detections(outputs, expected):
    """The four outputs against the dict of an exported SavedModel, rows in the same order."""
    boxes, classes, scores, count = outputs
    assert count[0] == expected["num_detections"][0]
    np.testing.assert_allclose(scores, expected["detection_scores"], atol=1e-3)
    np.testing.assert_allclose(boxes, expected["detection_boxes"], atol=1e-3)
    found = int(count[0])
    np.testing.assert_array_equal(classes[0, :found] + 1, expected["detection_classes"][0, :found])


def test_the_folder(exported):
    path, report = exported
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "label_map.pbtxt",
        "labels.txt",
        "model.json",
        "model.tflite",
        "pipeline.config",
    ]
    assert (path.parent / "labels.txt").read_text().splitlines() == ["cat", "???", "Dog", "???", "???", "???"]
    record = json.loads(path.with_suffix(".json").read_text())
    assert (record["quantize"], record["step"], record["input_shape"]) == ("none", 7, [1, 64, 96, 3])
    assert record["num_folded_batch_norms"] > 20
    assert record["agreement"]["max_score_difference"] == report.max_score_difference < 1e-4


def test_input_and_outputs_are_those_that_clients_expect(exported, one_stage):
    interpreter = open_interpreter(exported[0], 1)
    [given] = interpreter.get_input_details()
    assert (given["dtype"], given["shape"].tolist()) == (np.uint8, [1, 64, 96, 3])
    shapes = [(output["name"], output["shape"].tolist()) for output in interpreter.get_output_details()]
    rows = one_stage.MAX_DETECTIONS
    assert shapes == list(zip(OUTPUTS, ([1, rows, 4], [1, rows], [1, rows], [1])))
    assert list(interpreter.get_signature_list()["serving_default"]["outputs"]) == list(OUTPUTS)


def test_all_operations_are_built_in(exported):
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(str(exported[0]))
    assert not [code.customCode for code in model.operatorCodes if code.customCode]
    assert len(model.subgraphs) == 1  # no branches, which compilers for accelerators refuse


@pytest.mark.parametrize("interpreter", ["tensorflow", "ai_edge_litert"])
def test_detections_are_the_saved_models(exported, ssd, one_stage, interpreter):
    images = blobs(one_stage)
    expected = {name: value.numpy() for name, value in ServingModule(*ssd).detect(tf.constant(images)).items()}
    assert expected["num_detections"][0] == one_stage.MAX_DETECTIONS
    if interpreter == "tensorflow":
        loaded = open_interpreter(exported[0], 1)
    else:
        loaded = pytest.importorskip("ai_edge_litert.interpreter").Interpreter(model_path=str(exported[0]))
        loaded.allocate_tensors()
    assert_same_detections(run(loaded, images), expected)


def test_feature_pyramids_with_softmax_and_a_background_column(one_stage, tmp_path):
    softmax = "ssd { add_background_class: true post_processing { score_converter: SOFTMAX } }"
    detector, resizer = one_stage.detector_and_resizer(one_stage.FPN_LITE, softmax)
    path, report = export_tflite(detector, resizer, tmp_path, FLOAT, Export())
    assert report.max_box_difference < 1e-4
    images = blobs(one_stage)
    expected = {k: v.numpy() for k, v in ServingModule(detector, resizer).detect(tf.constant(images)).items()}
    assert_same_detections(run(open_interpreter(path, 1), images), expected)


def postprocessing(detector, num_threads=1):
    """The converted post-processing as a function."""
    return open_interpreter(convert_postprocessing(detector), num_threads).get_signature_runner()


def outputs_of_network(detector, logits_by_class):
    """Deltas of zero, and logits of -20 but for each class's, which go to anchors spread over the image."""
    num_anchors = len(detector.static_anchors_norm)
    first_column = int(detector.dense_detections.has_background_column)
    logits = np.full([1, num_anchors, first_column + detector.num_classes], -20.0, np.float32)
    for number, values in logits_by_class.items():
        logits[0, spread(num_anchors, len(values)), first_column + number] = values
    return np.zeros([1, num_anchors, 4], np.float32), logits


def spread(num_anchors, count):
    return np.linspace(0, num_anchors - 1, count).astype(int)


@pytest.mark.parametrize("num_threads", [1, 3])
def test_every_class_is_detected_whatever_the_number_of_threads(one_stage, num_threads):
    detector = one_stage.detector()
    deltas, logits = outputs_of_network(detector, {})
    # One anchor for each class, with the score 0.5 + 0.05 * class: sigmoid(x) = s for x = log(s / (1 - s)).
    scores = 0.5 + 0.05 * np.arange(6)
    anchors = spread(logits.shape[1], 6)
    logits[0, anchors, np.arange(6) - 6] = np.log(scores / (1 - scores))
    found = postprocessing(detector, num_threads)(box_deltas=deltas, class_logits=logits)
    assert found["num_detections"][0] == 6
    np.testing.assert_array_equal(found["detection_classes"][0, :6], [5, 4, 3, 2, 1, 0])
    np.testing.assert_allclose(found["detection_scores"][0, :6], [0.75, 0.7, 0.65, 0.6, 0.55, 0.5], atol=1e-6)
    # Deltas of zero mean the anchor itself, as far as it lies in the image.
    expected = np.clip(detector.static_anchors_norm[anchors[::-1]], 0.0, 1.0)
    np.testing.assert_allclose(found["detection_boxes"][0, :6], expected, atol=1e-6)


def test_a_lost_class_is_noticed(ssd, tmp_path, monkeypatch):
    def lose_last(scores, *arguments):
        return best_pairs(scores[..., :-1], *arguments)

    monkeypatch.setattr(tflite_graph, "best_pairs", lose_last)
    with pytest.raises(DetzooError, match=r"on invented outputs of the network"):
        export_tflite(*ssd, tmp_path, FLOAT, BESIDE)
    assert not list(tmp_path.iterdir())


def test_limits_arrive(one_stage):
    one_a_class = """ssd { post_processing { batch_non_max_suppression {
        max_detections_per_class: 1 max_total_detections: 4 } } }"""
    detector = one_stage.detector(one_a_class)
    # Twelve logits rise along the anchors for class 0, and those of class 5 are 1 lower.
    deltas, logits = outputs_of_network(detector, {0: np.linspace(0.0, 2.0, 12), 5: np.linspace(-1.0, 1.0, 12)})
    found = postprocessing(detector)(box_deltas=deltas, class_logits=logits)
    assert found["detection_scores"].shape == (1, 4)
    assert found["num_detections"][0] == 2
    np.testing.assert_array_equal(found["detection_classes"][0, :2], [0, 5])
    # sigmoid(2) and sigmoid(1)
    np.testing.assert_allclose(found["detection_scores"][0, :2], [0.880797, 0.731059], atol=1e-6)


def test_suppression_among_all_classes(one_stage):
    agnostic = "ssd { post_processing { batch_non_max_suppression { use_class_agnostic_nms: true } } }"
    detector = one_stage.detector(agnostic)
    # The same anchors for two classes: only the better class of each is left, and none is lost.
    deltas, logits = outputs_of_network(detector, {2: np.full(3, 1.0), 4: np.full(3, 2.0)})
    found = postprocessing(detector)(box_deltas=deltas, class_logits=logits)
    assert found["num_detections"][0] == 3
    np.testing.assert_array_equal(found["detection_classes"][0, :3], [4, 4, 4])


@pytest.mark.parametrize("coder", ["mean_stddev_box_coder", "keypoint_box_coder"])
def test_boxes_of_every_coder(one_stage, coder):
    detector = one_stage.detector(f"ssd {{ box_coder {{ {coder} {{}} }} }}")
    check_postprocessing(detector, convert_postprocessing(detector))


def test_grey_and_float_inputs_arrive(one_stage, tmp_path):
    gray = "ssd { image_resizer { fixed_shape_resizer { convert_to_grayscale: true } } }"
    detector, resizer = one_stage.detector_and_resizer(gray)
    path, _ = export_tflite(detector, resizer, tmp_path, TfliteOptions(input_type="float_image_tensor"), Export())
    interpreter = open_interpreter(path, 1)
    assert interpreter.get_input_details()[0]["dtype"] == np.float32
    images = blobs(one_stage)
    expected = {k: v.numpy() for k, v in ServingModule(detector, resizer).detect(tf.constant(images)).items()}
    assert_same_detections(run(interpreter, images.astype(np.float32)), expected)


@pytest.mark.parametrize("quantize", ["float16", "dynamic", "int8"])
def test_quantized_models_are_smaller_and_detect_alike(ssd, exported, one_stage, tmp_path, quantize, monkeypatch):
    # Drawn weights are not made to be rounded: the best of scores that hardly differ change places.
    monkeypatch.setattr(tflite_parity, "MIN_FOUND_AGAIN", 0.5)
    data = one_stage.save_blobs(tmp_path / "images")
    path, report = export_tflite(*ssd, tmp_path / "out", TfliteOptions(quantize, representative_data=str(data)), BESIDE)
    assert path.name == f"model_{quantize}.tflite"
    assert path.stat().st_size < 0.6 * exported[0].stat().st_size
    assert report.is_quantized
    assert "compared with the detector" in report.sentence()
    [given] = open_interpreter(path, 1).get_input_details()
    assert given["dtype"] == np.uint8
    # A pixel's byte is the quantised value as it is.
    assert given["quantization"] == ((1.0, 0) if quantize == "int8" else (0.0, 0))


def test_another_detector_is_noticed_and_nothing_is_written(ssd, one_stage, tmp_path, monkeypatch):
    path, _ = export_tflite(*ssd, tmp_path, FLOAT, BESIDE)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    other, _ = one_stage.detector_and_resizer(seed=5)
    monkeypatch.setattr(tflite, "convert_network", lambda detector, *arguments: convert_network(other, *arguments))
    with pytest.raises(DetzooError, match=r"detections on image 1|differ from the detector's on image"):
        export_tflite(*ssd, tmp_path, FLOAT, dataclasses.replace(BESIDE, config_text="changed"))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    assert path.is_file()


def test_weights_that_are_not_finite_are_refused(one_stage, tmp_path):
    detector, resizer = one_stage.detector_and_resizer()
    detector.network.weights[0].assign(np.full(detector.network.weights[0].shape, np.nan))
    with pytest.raises(DetzooError, match="not finite"):
        export_tflite(detector, resizer, tmp_path, FLOAT, BESIDE)


def answer(scores, classes=(0, 1), boxes=((0.1, 0.1, 0.4, 0.4), (0.5, 0.5, 0.9, 0.9))):
    """Four outputs of two detections."""
    columns = (np.array([boxes], np.float32), np.array([classes]), np.array([scores], np.float32))
    return [*columns, np.array([2.0])]


@pytest.fixture
def certain(monkeypatch, ssd):
    """A detector that finds two objects on every image, with the scores 0.9 and 0.8."""
    expected = ServingModule(*ssd).detector.postprocess
    template = tf.nest.map_structure(
        np.asarray,
        expected(ssd[0].forward(tf.zeros([1, 64, 96, 3])), tf.constant([[64, 96]]), (64, 96)),
    )
    boxes, classes, scores, _ = answer((0.9, 0.8))
    found = template._replace(boxes_norm=boxes, classes=classes, scores=scores, num_valid=np.array([2]))
    monkeypatch.setattr(tflite_parity, "detect", lambda detector, images: found)
    return ssd[0]


IMAGES = np.zeros([2, 64, 96, 3], np.uint8)


def test_quantized_detections_are_compared_as_objects(certain):
    report = check_quantized(certain, np.asarray, lambda image: answer((0.85, 0.8)), IMAGES)
    # Two images, two objects each, looked for in both directions; scores differ by 0.05 and 0 in the first direction.
    assert (report.num_sure, report.found_again) == (8, 1.0)
    assert report.mean_score_difference == pytest.approx(0.025)
    assert "100% of 8 detections" in report.sentence()


@pytest.mark.parametrize(
    "found",
    [
        answer((0.9, 0.8), classes=(0, 2)),
        answer((0.9, 0.8), boxes=((0.1, 0.1, 0.4, 0.4), (0.1, 0.5, 0.3, 0.9))),
    ],
)
def test_quantized_detections_of_other_things_are_refused(certain, found):
    # One object of two is the same, in both directions: half.
    with pytest.raises(DetzooError, match=r"50% of 8 detections .* are the same"):
        check_quantized(certain, np.asarray, lambda image: found, IMAGES)


def test_a_quantized_model_may_be_less_sure_but_not_of_nothing(certain):
    # 4 of 4 found in the first direction; in the second nothing is sure.
    assert check_quantized(certain, np.asarray, lambda image: answer((0.2, 0.2)), IMAGES).num_sure == 4
    with pytest.raises(DetzooError, match="0% of 4 detections"):
        check_quantized(certain, np.asarray, lambda image: [*answer((0.9, 0.8))[:3], np.zeros(1)], IMAGES)


def test_what_has_no_form_in_tflite_is_refused(ssd, one_stage, toy, tmp_path):
    with pytest.raises(UsageError, match="one-stage detectors"):
        export_tflite(toy.toy_detector(), toy.ToyResizer(), tmp_path, FLOAT, BESIDE)
    with pytest.raises(UsageError, match="int8 needs representative data"):
        export_tflite(*ssd, tmp_path, TfliteOptions("int8"), BESIDE)
    with pytest.raises(UsageError, match=r"'int4'; accepted: none, float16, dynamic, int8"):
        export_tflite(*ssd, tmp_path, TfliteOptions("int4"), BESIDE)
    with pytest.raises(UsageError, match="'tf_example'; for TFLite: image_tensor"):
        export_tflite(*ssd, tmp_path, TfliteOptions(input_type="tf_example"), BESIDE)
    soft = "ssd { post_processing { batch_non_max_suppression { soft_nms_sigma: 0.5 } } }"
    with pytest.raises(DetzooError, match="no soft suppression"):
        convert_postprocessing(one_stage.detector(soft))
    assert not list(tmp_path.iterdir())


def test_representative_images_of_records_folders_and_globs(ssd, one_stage, tmp_path):
    _, resizer = ssd
    folder = one_stage.save_blobs(tmp_path / "images", count=3)
    images = representative_images(str(folder), resizer)
    assert (images.shape, images.dtype) == ((3, 64, 96, 3), np.uint8)
    np.testing.assert_array_equal(images[1], tf.io.decode_png((folder / "1.png").read_bytes()))
    with tf.io.TFRecordWriter(str(tmp_path / "a.tfrecord")) as writer:
        for number in (2, 0, 1):
            encoded = tf.train.BytesList(value=[(folder / f"{number}.png").read_bytes() if number else b"broken"])
            features = tf.train.Features(feature={"image/encoded": tf.train.Feature(bytes_list=encoded)})
            writer.write(tf.train.Example(features=features).SerializeToString())
    np.testing.assert_array_equal(representative_images(f"{tmp_path}/*.tfrecord", resizer), images[[2, 1]])
    assert len(representative_images(f"{folder},{tmp_path}/a.tfrecord", resizer)) == 5
    assert len(representative_images(str(folder), resizer, max_images=2)) == 2


def test_representative_data_that_is_not_there(ssd, tmp_path):
    with pytest.raises(DataError, match=r"no TFRecord file matches"):
        find_files(f"{tmp_path}/*.tfrecord")
    with pytest.raises(DataError, match="holds no image"):
        find_files(str(tmp_path))
    with pytest.raises(DataError, match="is empty"):
        find_files(" ,")
    (tmp_path / "a.jpg").write_bytes(b"broken")
    with pytest.raises(DataError, match="none of the files could be read"):
        representative_images(str(tmp_path), ssd[1])


def test_padded_images_are_detected_in_their_own_frame(one_stage, tmp_path, caplog):
    pads = """
        ssd {
          image_resizer {
            keep_aspect_ratio_resizer {
              min_dimension: 64 max_dimension: 96
              pad_to_max_dimension: true
            }
          }
        }
        """
    detector, resizer = one_stage.detector_and_resizer(pads)
    # float32, because the padding's 127.5 is no byte
    options = TfliteOptions(input_type="float_image_tensor")
    path, _ = export_tflite(detector, resizer, tmp_path, options, Export())
    assert "fractions of the padded input" in caplog.text
    image = blobs(one_stage)[0]  # 64 x 96: stays as it is, the input of 96 x 96 has 32 rows of padding
    found = TfliteDetector(path, resizer)(image)
    expected = {k: v.numpy()[0] for k, v in ServingModule(detector, resizer).detect(tf.constant(image[None])).items()}
    raw_boxes = np.clip(expected["raw_detection_boxes"] * [1.5, 1, 1.5, 1], 0.0, 1.0)  # 96 / 64 in height
    assert len(found.scores) > 0
    for box, score, class_id in zip(*found[:3]):
        column = class_id - 1 - one_stage.NUM_CLASSES
        distance = np.abs(raw_boxes - box).max(axis=1) + np.abs(expected["raw_detection_scores"][:, column] - score)
        assert distance.min() < 1e-3


def test_files_that_are_no_detector(ssd, tmp_path):
    with pytest.raises(UsageError, match="there is no TFLite model"):
        TfliteDetector(tmp_path / "gone.tflite")
    (tmp_path / "a.tflite").write_bytes(b"text")
    with pytest.raises(UsageError, match="cannot be loaded"):
        TfliteDetector(tmp_path / "a.tflite")
    network, _ = convert_network(ssd[0], "image_tensor")
    with pytest.raises(UsageError, match="no TFLite detector of `detzoo export"):
        TfliteDetector(network)
