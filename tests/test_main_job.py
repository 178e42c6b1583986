"""The main job through the command line, as a user runs it: data, train, evaluate, export, benchmark, detect."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from detzoo.cli.main import main

pytestmark = pytest.mark.train

CONFIG = pathlib.Path(__file__).resolve().parents[1] / "model_configs" / "shapes_ssd_mobilenet_v1.config"
NUM_STEPS = 6


def detzoo(*words: object) -> None:
    """Runs one command line; anything but success fails the test."""
    assert main([str(word) for word in words]) == 0


def data_flags(config: pathlib.Path, records: str, label_map: pathlib.Path) -> list[object]:
    return [
        "--pipeline_config_path",
        config,
        "--set",
        f"train_input_reader.label_map_path={label_map}",
        "--set",
        f"train_input_reader.tf_record_input_reader.input_path[0]={records}",
        "--set",
        f"eval_input_reader[0].label_map_path={label_map}",
        "--set",
        f"eval_input_reader[0].tf_record_input_reader.input_path[0]={records}",
    ]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A run of a few steps on a handful of synthetic images, up to and including the export."""
    folder = tmp_path_factory.mktemp("run")
    detzoo(
        *("dataset", "shapes", "--output_path", folder / "data/train", "--num_images", 12, "--image_size", 96),
        *("--seed", 3, "--num_shards", 2, "--images_dir", folder / "images"),
    )
    reader = data_flags(CONFIG, f"{folder}/data/train-?????-of-00002.tfrecord", folder / "data/label_map.pbtxt")
    small = ["--set", "train_config.batch_size=4", "--set", "train_config.checkpoint_every_n_steps=3"]
    # The schedule is as long as the shortened run.
    schedule = "train_config.optimizer.rms_prop_optimizer.learning_rate.cosine_decay_learning_rate"
    small += ["--set", f"{schedule}.total_steps={NUM_STEPS}", "--set", f"{schedule}.warmup_steps=1"]
    # So early every score is near that of the prior.
    small += ["--set", "model.ssd.post_processing.batch_non_max_suppression.score_threshold=0.0"]
    detzoo("train", *reader, *small, "--model_dir", folder / "model", "--num_train_steps", NUM_STEPS)
    resolved = folder / "model/pipeline.config"
    detzoo(
        *("evaluate", "--pipeline_config_path", resolved, "--checkpoint_dir", folder / "model"),
        *("--output_dir", folder / "evaluation"),
    )
    detzoo(
        *("export", "--pipeline_config_path", resolved, "--trained_checkpoint_dir", folder / "model"),
        *("--output_directory", folder / "export"),
    )
    return folder


@pytest.mark.slow
def test_training_leaves_checkpoints_a_resolved_config_and_a_record_of_the_run(run_folder):
    model_dir = run_folder / "model"
    assert list(model_dir.glob(f"ckpt-{NUM_STEPS}.index")) or list(model_dir.glob("ckpt-*.index"))
    assert (model_dir / "finished").exists()
    assert "num_steps: 6" in (model_dir / "pipeline.config").read_text()
    record = json.loads((model_dir / "run.json").read_text())
    assert "tensorflow" in json.dumps(record)


@pytest.mark.slow
def test_training_again_has_nothing_left_to_do(run_folder, capfd):
    before = {path.name: path.stat().st_mtime_ns for path in (run_folder / "model").glob("ckpt-*")}
    detzoo("train", "--pipeline_config_path", run_folder / "model/pipeline.config", "--model_dir", run_folder / "model")
    after = {path.name: path.stat().st_mtime_ns for path in (run_folder / "model").glob("ckpt-*")}
    assert after == before
    assert str(NUM_STEPS) in capfd.readouterr().err


@pytest.mark.slow
def test_evaluation_writes_coco_names_and_results(run_folder):
    metrics = json.loads((run_folder / "evaluation/metrics.json").read_text())
    assert 0.0 <= metrics["mAP@.50IOU"] <= 1.0
    results = json.loads((run_folder / "evaluation/detections.json").read_text())
    assert results
    assert set(results[0]) >= {"image_id", "category_id", "bbox", "score"}
    assert {row["category_id"] for row in results} <= {1, 2, 3, 4, 5}


@pytest.mark.slow
def test_the_saved_model_needs_tensorflow_alone(run_folder):
    """In a fresh process that must not import detzoo or Keras, for two image sizes and for a batch."""
    program = f"""
import sys
import numpy as np
import tensorflow as tf
model = tf.saved_model.load({str(run_folder / "export/saved_model")!r})
signature = model.signatures["serving_default"]
for shape in ((1, 96, 96, 3), (1, 60, 200, 3), (3, 70, 50, 3)):
    images = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    outputs = signature(input_tensor=tf.constant(images))
    assert outputs["detection_boxes"].shape[0] == shape[0], outputs["detection_boxes"].shape
    assert outputs["num_detections"].dtype == tf.float32
    boxes = outputs["detection_boxes"].numpy()
    assert boxes.min() >= 0.0 and boxes.max() <= 1.0
    assert "raw_detection_scores" in outputs
assert not any(name == "detzoo" or name.startswith("detzoo.") for name in sys.modules)
print("served")
"""
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert finished.stdout.strip().endswith("served"), finished.stderr[-2000:]


@pytest.mark.slow
def test_benchmark_writes_one_row(run_folder):
    output = run_folder / "benchmark.json"
    detzoo(
        *("benchmark", "--saved_model", run_folder / "export/saved_model", "--runs", 3, "--warmup", 1),
        *("--output", output),
    )
    assert "median" in output.read_text()


@pytest.mark.slow
def test_detect_draws_every_readable_image_and_counts_the_rest(run_folder, capfd):
    from PIL import Image

    (run_folder / "images/broken.jpg").write_bytes(b"not an image")
    output = run_folder / "pictures"
    detzoo(
        *("detect", "--saved_model", run_folder / "export/saved_model", "--images", run_folder / "images"),
        *("--output_dir", output, "--score_threshold", 0.0),
    )
    (run_folder / "images/broken.jpg").unlink()
    pictures = [path for path in output.iterdir() if path.suffix in (".png", ".jpg")]
    assert len(pictures) == 12
    assert np.asarray(Image.open(pictures[0])).shape[2] == 3
    assert (output / "detections.json").exists()
    told = capfd.readouterr()
    assert "broken.jpg" in told.err + told.out
