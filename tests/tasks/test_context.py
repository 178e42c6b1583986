"""Context R-CNN as a user makes one: features of a detector, records with memory, training, evaluation, export."""

from __future__ import annotations

import io

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from PIL import Image

from detzoo.builders.detector import build_detector
from detzoo.checkpoints.layout import save_weights
from detzoo.cli.main import main
from detzoo.config import pb
from detzoo.config.load import save_pipeline
from detzoo.errors import UsageError
from detzoo.serving.image_detector import ImageDetector
from detzoo.serving.saved_detector import SavedDetector
from detzoo.tasks.context import add_context
from detzoo.tasks.evaluate import evaluate
from detzoo.tasks.export import export
from detzoo.tasks.train import train

NUM_IMAGES = 4
CONTEXT = "faster_rcnn { context_config { attention_bottleneck_dimension: 8 max_num_context_features: 6 %s } }"
PIPELINE = """
train_config {
  batch_size: 2 num_steps: 2
  optimizer { momentum_optimizer { learning_rate { constant_learning_rate { learning_rate: 0.001 } } } }
}
train_input_reader {
  label_map_path: '%(folder)s/label_map.pbtxt'
  load_context_features: true
  tf_record_input_reader { input_path: '%(folder)s/context-00000-of-00001.tfrecord' }
}
eval_config { batch_size: 2 }
eval_input_reader {
  label_map_path: '%(folder)s/label_map.pbtxt'
  load_context_features: true
  input_type: TF_SEQUENCE_EXAMPLE
  tf_record_input_reader { input_path: '%(folder)s/sequences-00000-of-00001.tfrecord' }
}
"""


def pictures():
    """Two cameras that take two pictures each, of one object at different places."""
    for number in range(NUM_IMAGES):
        image = np.full((64, 96, 3), 30 + 60 * (number % 2), np.uint8)
        top, left = 8 + 6 * number, 10 + 12 * number
        image[top : top + 24, left : left + 32] = (250, 40, 40 * number)
        yield number, image, [top / 64, left / 96, (top + 24) / 64, (left + 32) / 96]


def write_records(path):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for number, image, box in pictures():
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, format="PNG")
            message = tf.train.Example()
            features = message.features.feature
            texts = {"image/encoded": buffer.getvalue(), "image/source_id": b"%d" % number, "image/format": b"png"}
            texts |= {"image/location": b"camera%d" % (number % 2), "image/object/class/text": b"animal"}
            texts["image/date_captured"] = b"2020-07-0%d 10:00:00" % (number + 1)
            for key, value in texts.items():
                features[key].bytes_list.value.append(value)
            for key, value in {"image/height": 64, "image/width": 96, "image/object/class/label": 1}.items():
                features[key].int64_list.value.append(value)
            for side, value in zip(("ymin", "xmin", "ymax", "xmax"), box):
                features[f"image/object/bbox/{side}"].float_list.value.append(value)
            writer.write(message.SerializeToString())


@pytest.fixture(scope="module")
def folder(load_module, tmp_path_factory):
    """Records, a label map, and an exported Faster R-CNN that gives the features of its boxes."""
    small = load_module("small_two_stage.py")
    folder = tmp_path_factory.mktemp("context")
    (folder / "label_map.pbtxt").write_text("item { id: 1 name: 'animal' }\n")
    write_records(folder / "images.tfrecord")
    message = text_format.Parse(PIPELINE % {"folder": folder}, pb.TrainEvalPipelineConfig())
    message.model.CopyFrom(small.message_of("plain", "faster_rcnn { num_classes: 1 output_final_box_features: true }"))
    for reader in (message.train_input_reader, message.eval_input_reader[0]):
        reader.ClearField("load_context_features")
    save_pipeline(message, folder / "plain.config")
    save_weights(build_detector(message.model), folder / "plain", step=1)
    export(folder / "plain.config", folder / "plain", folder / "exported", check=False)
    return folder


def test_features_of_boxes_are_an_output(folder):
    detector = SavedDetector(folder / "exported")
    (_, image, _), *_ = pictures()
    outputs = detector.outputs(detector.as_input(image))
    # Five detections; the crop of 4 x 4 cells is pooled to 2 x 2, and halved by the rest of MobileNet, whose last layer
    # has a quarter of 1024 channels.
    features = outputs["detection_features"].numpy()
    assert features.shape == (1, 5, 1, 1, 256)
    assert np.ptp(features[0, : int(outputs["num_detections"][0])], axis=0).max() > 0  # boxes have different ones


def test_a_beam_pipeline_writes_the_same_records(folder, monkeypatch):
    pytest.importorskip("apache_beam", reason="the extra beam is not installed")
    monkeypatch.setattr("detzoo.tasks.beam_pipelines.ITEMS_PER_FILE", 3)
    flags = [f"--saved_model={folder}/exported", f"--input_path={folder}/images.tfrecord", "--top_k=2"]
    beam = ["--runner=DirectRunner", "--beam_options=--direct_running_mode=in_memory"]
    written = {}
    for name, more in (("here", []), ("beam", beam)):
        assert main(["dataset", "context", *flags, f"--output_path={folder}/{name}/train", *more]) == 0
        written[name] = {path.name: path.read_bytes() for path in (folder / name).iterdir()}
    assert list(written["here"]) == ["train-00000-of-00001.tfrecord"]
    assert written["beam"] == written["here"]


def test_from_records_to_an_exported_context_rcnn(folder, load_module, capsys):
    flags = [f"--saved_model={folder}/exported", f"--input_path={folder}/images.tfrecord", "--top_k=2"]
    assert main(["dataset", "context", *flags, f"--output_path={folder}/context"]) == 0
    printed = capsys.readouterr().out
    assert "4 images in 2 groups with 8 features, at most 4 in a group" in printed
    assert "context_feature_length: 265" in printed  # 256 channels, 4 of place and size, 5 of time
    assert main(["dataset", "context", *flags, f"--output_path={folder}/sequences", "--images_per_sequence=9"]) == 0

    small = load_module("small_two_stage.py")
    message = text_format.Parse(PIPELINE % {"folder": folder}, pb.TrainEvalPipelineConfig())
    model = small.message_of("plain", CONTEXT % "context_feature_length: 265", "faster_rcnn { num_classes: 1 }")
    message.model.CopyFrom(model)
    save_pipeline(message, folder / "context.config")
    train(folder / "context.config", folder / "model", record_summaries=False)
    metrics = evaluate(folder / "context.config", checkpoint_dir=folder / "model").metrics
    assert metrics["mAP"] >= 0.0  # of the four images of two sequences

    exported = export(folder / "context.config", folder / "model", folder / "with_context")
    assert exported.report.max_score_difference < 1e-3
    detector = SavedDetector(folder / "with_context")
    inputs = detector.function.structured_input_signature[1]
    assert inputs["context_features"].shape.as_list() == [None, None, 265]
    assert inputs["valid_context_size"].dtype == tf.int32
    (_, image, _), *_ = pictures()
    images = tf.constant(image[np.newaxis])
    memory = np.random.default_rng(1).uniform(0, 1, (1, 3, 265)).astype(np.float32)
    call = tf.saved_model.load(str(folder / "with_context" / "saved_model")).signatures["serving_default"]
    given = {"input_tensor": images, "valid_context_size": tf.constant([3])}
    scores = call(**given, context_features=tf.constant(memory))["raw_detection_scores"]
    padded = np.concatenate([memory, np.full((1, 2, 265), 9.0, np.float32)], axis=1)
    same = call(**given, context_features=tf.constant(padded))["raw_detection_scores"]
    np.testing.assert_allclose(scores, same, atol=1e-6)
    # Without a memory the model detects as with an empty one.
    empty = call(**given | {"valid_context_size": tf.constant([0])}, context_features=tf.constant(memory))
    np.testing.assert_allclose(detector(image).scores, empty["detection_scores"][0][: len(detector(image).scores)])
    assert not np.allclose(scores, empty["raw_detection_scores"], atol=1e-6)


def test_a_model_without_features(monkeypatch, tmp_path):
    monkeypatch.setattr("detzoo.tasks.context.load_exported", lambda path: ImageDetector())
    with pytest.raises(UsageError, match=r"has no output detection_features; .* --set model.faster_rcnn.output_final"):
        add_context("exported", "images.tfrecord", str(tmp_path / "out"))
