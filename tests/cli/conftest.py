"""A finished run of the toy detector: records, label map, pipeline.config, checkpoint, for the commands after it."""

from __future__ import annotations

import io
import json
import pathlib
import types

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from detzoo.checkpoints.layout import make_checkpoint, variables_by_path
from detzoo.config.load import load_pipeline, save_pipeline

MODEL_CONFIG = pathlib.Path(__file__).resolve().parents[2] / "model_configs" / "ssd_mobilenet_v2_300.config"
LABEL_MAP = """
    item { id: 1 name: 'cat' }
    item {
      id: 2 name: 'dog'
      display_name: 'Dog'
    }
    item { id: 3 name: 'bird' }
    """


def png(height, width, seed):
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def example(number):
    def floats(value):
        return tf.train.Feature(float_list=tf.train.FloatList(value=[value]))

    def texts(value):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    feature = {
        "image/encoded": texts(png(40, 60 + number, number)),
        "image/source_id": texts(str(100 + number).encode()),
        "image/object/bbox/ymin": floats(0.25),
        "image/object/bbox/ymax": floats(0.5),
        "image/object/bbox/xmin": floats(0.0),
        "image/object/bbox/xmax": floats(0.5),
        "image/object/class/text": texts(b"cat"),
        "image/object/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[1])),
    }
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def save_checkpoint(detector, folder, step):
    steps = tf.Variable(step, dtype=tf.int64, trainable=False)
    checkpoint = make_checkpoint(steps, model=variables_by_path(detector.variables))
    tf.train.CheckpointManager(checkpoint, str(folder), max_to_keep=5).save(checkpoint_number=step)


def save_config(folder):
    """The published config with the toy's size and number of classes, on the records in ``folder``."""
    message = load_pipeline(str(MODEL_CONFIG)).message
    message.model.ssd.num_classes = 3
    resizer = message.model.ssd.image_resizer.fixed_shape_resizer
    resizer.height, resizer.width = 32, 48
    message.eval_config.batch_size = 2
    del message.eval_config.metrics_set[:]
    del message.eval_input_reader[1:]
    reader = message.eval_input_reader[0]
    reader.label_map_path = f"{folder}/label_map.pbtxt"
    reader.tf_record_input_reader.input_path[:] = [f"{folder}/data.tfrecord"]
    save_pipeline(message, folder / "pipeline.config")


@pytest.fixture
def toy_run(toy, tmp_path, monkeypatch):
    """``folder``, ``config``, ``model_dir``, ``detector`` of a run; the config's network is the toy of the ``kind``."""
    run = types.SimpleNamespace(kind=toy.ToyDetector)

    def build(message, dtype_policy="float32"):
        assert not message.ssd.feature_extractor.pretrained_weights, "weights that the checkpoint replaces"
        assert dtype_policy == "float32"
        return toy.toy_detector(message.ssd.num_classes, seed=99, kind=run.kind)

    monkeypatch.setattr("detzoo.builders.detector.build_detector", build)
    with tf.io.TFRecordWriter(str(tmp_path / "data.tfrecord")) as writer:
        for number in range(3):
            writer.write(example(number))
    (tmp_path / "label_map.pbtxt").write_text(LABEL_MAP)
    save_config(tmp_path)
    detector = toy.toy_detector()
    save_checkpoint(detector, tmp_path / "model", 7)
    run.folder, run.config, run.model_dir = tmp_path, tmp_path / "pipeline.config", tmp_path / "model"
    run.detector = detector
    return run


def save_best(run, step, metric="DetectionBoxes_Precision/mAP", value=0.612):
    """Writes the files that a training leaves in model_dir/best."""
    save_checkpoint(run.detector, run.model_dir / "best", step)
    record = {"step": step, "metric": metric, "value": value}
    (run.model_dir / "best" / "best.json").write_text(json.dumps(record) + "\n")
