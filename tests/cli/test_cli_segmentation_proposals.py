"""Segmentation proposals from records to pictures, by the commands that a user runs."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from detzoo.cli.main import main
from detzoo.evaluate.proposals import MASK_PROPOSAL_METRIC_NAMES
from detzoo.tasks.detect_files import detect_files
from detzoo.tasks.detect_images import DetectionLimits

pytestmark = pytest.mark.train

CONFIG = pathlib.Path(__file__).resolve().parents[2] / "model_configs" / "shapes_segmentation_proposals.config"
MODEL = "model.segmentation_proposals"
SMALL = [
    f"{MODEL}.feature_extractor.depth_multiplier=0.25",
    f"{MODEL}.feature_extractor.fpn.min_level=3",
    f"{MODEL}.feature_extractor.fpn.additional_layer_depth=8",
    f"{MODEL}.image_resizer.fixed_shape_resizer.height=64",
    f"{MODEL}.image_resizer.fixed_shape_resizer.width=96",
    f"{MODEL}.head_depth=16",
    f"{MODEL}.max_proposals=12",
    "train_config.batch_size=2",
    "train_config.optimizer.rms_prop_optimizer.learning_rate.cosine_decay_learning_rate.total_steps=2",
    "train_config.optimizer.rms_prop_optimizer.learning_rate.cosine_decay_learning_rate.warmup_steps=0",
]


def changes(folder, records="shapes-*.tfrecord"):
    """The flags --set of a small detector on the records of a folder."""
    files = [
        f"{reader}.{field}"
        for reader in ("train_input_reader", "eval_input_reader[0]")
        for field in (
            f"label_map_path={folder}/label_map.pbtxt",
            f"tf_record_input_reader.input_path[0]={folder}/{records}",
        )
    ]
    return [f"--set={change}" for change in (*SMALL, *files)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a training of two steps on six drawn images."""
    folder = tmp_path_factory.mktemp("masks")
    assert main(["dataset", "shapes", f"--output_path={folder}/shapes", "--num_images=6", "--image_size=80"]) == 0
    flags = [f"--pipeline_config_path={CONFIG}", f"--model_dir={folder}/model", "--num_train_steps=2"]
    assert main(["train", *flags, *changes(folder)]) == 0
    return folder


def test_evaluated_by_the_recall_of_masks(run, capsys):
    flags = [f"--pipeline_config_path={run}/model/pipeline.config", f"--checkpoint_dir={run}/model"]
    assert main(["evaluate", *flags, f"--output_dir={run}/evaluation"]) == 0
    assert "by masks: average recall of all classes' objects with 10 proposals" in capsys.readouterr().out
    metrics = json.loads((run / "evaluation" / "metrics.json").read_text())
    assert set(MASK_PROPOSAL_METRIC_NAMES) <= set(metrics)
    assert 0 <= metrics["mask AR@10"] <= metrics["mask AR@100"] == metrics["mask AR@1000"] <= 1
    entries = json.loads((run / "evaluation" / "detections.json").read_text())
    assert len(entries) == 6 * 12
    assert all(entry["segmentation"]["size"] == [80, 80] for entry in entries)
    assert (run / "evaluation" / "proposals.npz").is_file()


def test_exported_measured_and_drawn(run, capsys, monkeypatch):
    limits = []

    def remember(*arguments, **options):
        limits.extend(given.max_drawn_overlap for given in arguments if isinstance(given, DetectionLimits))
        return detect_files(*arguments, **options)

    monkeypatch.setattr("detzoo.tasks.detect_files.detect_files", remember)
    flags = [f"--pipeline_config_path={run}/model/pipeline.config", f"--trained_checkpoint_dir={run}/model"]
    assert main(["export", *flags, f"--output_directory={run}/exported"]) == 0
    assert 'name: "object"' in (run / "exported" / "label_map.pbtxt").read_text()
    photo = run / "photo.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)).save(photo)
    flags = [f"--saved_model={run}/exported", f"--images={photo}", "--score_threshold=0"]
    assert main(["detect", *flags, f"--output_dir={run}/pictures"]) == 0
    assert "12 detections on 1 images" in capsys.readouterr().out
    entries = json.loads((run / "pictures" / "detections.json").read_text())
    assert {entry["category_name"] for entry in entries} == {"object"}
    assert all(entry["segmentation"]["size"] == [60, 90] for entry in entries)
    classes = run / "label_map.pbtxt"  # of a detector that knows classes
    assert main(["detect", *flags, f"--output_dir={run}/pictures", f"--label_map={classes}"]) == 0
    assert main(["detect", *flags, f"--output_dir={run}/pictures", "--max_drawn_overlap=0.8"]) == 0
    assert limits == [0.5, 1.0, 0.8]
    # The exported model is measured in the form in which it serves.
    flags = [f"--pipeline_config_path={run}/model/pipeline.config", f"--saved_model={run}/exported"]
    assert main(["evaluate", *flags, f"--output_dir={run}/served"]) == 0
    served = json.loads((run / "served" / "metrics.json").read_text())
    measured = json.loads((run / "evaluation" / "metrics.json").read_text())
    assert served["mask AR@100"] == pytest.approx(measured["mask AR@100"], abs=0.1)


def test_records_without_masks_are_refused_before_the_work_starts(run, tmp_path, capsys):
    def floats(value):
        return tf.train.Feature(float_list=tf.train.FloatList(value=[value]))

    feature = {name: floats(value) for name, value in (("ymin", 0.1), ("xmin", 0.1), ("ymax", 0.9), ("xmax", 0.9))}
    feature = {f"image/object/bbox/{name}": value for name, value in feature.items()}
    encoded = tf.io.encode_png(np.zeros((40, 40, 3), np.uint8)).numpy()
    feature["image/encoded"] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded]))
    feature["image/object/class/label"] = tf.train.Feature(int64_list=tf.train.Int64List(value=[1]))
    with tf.io.TFRecordWriter(f"{tmp_path}/boxes.tfrecord") as writer:
        writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    (tmp_path / "label_map.pbtxt").write_text((run / "label_map.pbtxt").read_text())
    flags = [f"--pipeline_config_path={CONFIG}", f"--model_dir={tmp_path}/model", "--num_train_steps=2"]
    assert main(["train", *flags, *changes(tmp_path, "boxes.tfrecord")]) == 1
    assert "have no image/object/mask" in capsys.readouterr().err
    assert not list(tmp_path.glob("model/ckpt-*"))
    assert main(["train", *flags, *changes(run), "--set=train_input_reader.load_instance_masks=false"]) == 2
    assert "trained on the records' masks; accepted: true" in capsys.readouterr().err
