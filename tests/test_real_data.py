"""The main job on photographs: Pascal VOC files become a detector that runs on other people's pictures."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest

from detzoo.cli.main import main

pytestmark = pytest.mark.train

CONFIG = pathlib.Path(__file__).resolve().parents[1] / "model_configs" / "shapes_ssd_mobilenet_v1.config"
NUM_STEPS = 200


def detzoo(*words: object) -> None:
    """Runs one command line; anything but success fails the test."""
    assert main([str(word) for word in words]) == 0


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, shared):
    """200 steps of a small SSD on 200 raccoons from their VOC files, then the export."""
    raccoon, folder = shared / "data" / "raccoon", tmp_path_factory.mktemp("raccoon")
    detzoo(
        *("dataset", "voc", "--images_dir", raccoon / "images", "--annotations_dir", raccoon / "annotations"),
        *("--output_path", folder / "data/train"),
    )
    rate = "train_config.optimizer.rms_prop_optimizer.learning_rate.cosine_decay_learning_rate"
    changes = {
        "model.ssd.num_classes": 1,
        "train_config.batch_size": 8,
        "train_config.log_every_n_steps": 20,
        f"{rate}.total_steps": NUM_STEPS,
        f"{rate}.warmup_steps": 20,
        "train_input_reader.label_map_path": folder / "data/label_map.pbtxt",
        "train_input_reader.tf_record_input_reader.input_path[0]": folder / "data/train-00000-of-00001.tfrecord",
        "eval_input_reader[0].label_map_path": folder / "data/label_map.pbtxt",
        # Written by a user of the Object Detection API; read as it is.
        "eval_input_reader[0].tf_record_input_reader.input_path[0]": raccoon / "test.record",
    }
    detzoo(
        *("train", "--pipeline_config_path", CONFIG, "--model_dir", folder / "model", "--num_train_steps", NUM_STEPS),
        *(word for path, value in changes.items() for word in ("--set", f"{path}={value}")),
    )
    detzoo(
        *("export", "--pipeline_config_path", folder / "model/pipeline.config"),
        *("--trained_checkpoint_dir", folder / "model", "--output_directory", folder / "export"),
    )
    return folder


@pytest.mark.slow
@pytest.mark.shared
def test_the_loss_falls(run_folder, logged_scalars):
    logged = logged_scalars(run_folder / "model/train")["Loss/total_loss"]
    assert len(logged) >= NUM_STEPS // 20
    assert np.isfinite(logged).all()
    assert np.mean(logged[-2:]) < 0.7 * np.mean(logged[:2])


@pytest.mark.slow
@pytest.mark.shared
def test_evaluation_on_a_record_of_someone_else(run_folder):
    detzoo(
        *("evaluate", "--pipeline_config_path", run_folder / "model/pipeline.config"),
        *("--checkpoint_dir", run_folder / "model", "--output_dir", run_folder / "evaluation"),
    )
    metrics = json.loads((run_folder / "evaluation/metrics.json").read_text())
    # The test images are among the training images here: a detector that learned where things are finds some of them.
    assert metrics["mAP@.50IOU"] > 0.05
    groundtruth = json.loads((run_folder / "evaluation/groundtruth.json").read_text())
    assert len(groundtruth["images"]) == 40


@pytest.mark.slow
@pytest.mark.shared
def test_detection_on_other_photographs(run_folder, shared):
    from PIL import Image

    photographs = [shared / "data" / "odapi_test" / f"image{number}.jpg" for number in (1, 2, 3)]
    output = run_folder / "pictures"
    detzoo(
        *("detect", "--saved_model", run_folder / "export", "--images", ",".join(map(str, photographs))),
        *("--output_dir", output, "--score_threshold", 0.001),
    )
    entries = json.loads((output / "detections.json").read_text())
    assert {pathlib.Path(entry["file_name"]).name for entry in entries} == {"image1.jpg", "image2.jpg", "image3.jpg"}
    assert {entry["category_name"] for entry in entries} == {"raccoon"}
    for photograph in photographs:
        with Image.open(photograph) as image, Image.open(output / f"{photograph.stem}.png") as picture:
            assert picture.size == image.size
            height, width = image.height, image.width
        boxes = [entry["bbox"] for entry in entries if entry["file_name"] == str(photograph)]
        assert all(x >= 0 and y >= 0 and x + w <= width + 0.1 and y + h <= height + 0.1 for x, y, w, h in boxes)
