"""A classifier from folders of images to its export, through the commands."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from detzoo.cli.main import main

pytestmark = pytest.mark.train

CONFIG = """
model { spp_classifier {
  num_classes: 2
  network {
    type: 'zf_5' pyramid_bins: [2, 1]
    fc_depth: 8 depth_multiplier: 0.1
  }
  shorter_side: 64 crop_size: 56
  train_size: [56, 48] test_view: FULL_IMAGE
} }
train_config {
  batch_size: 4 num_steps: 3
  log_every_n_steps: 2 eval_every_n_steps: 3
  optimizer { momentum_optimizer { learning_rate { constant_learning_rate { learning_rate: 0.005 } } }
    use_moving_average: false }
}
train_input_reader { image_folder_reader { path: "FOLDER" } }
eval_config { batch_size: 4 }
eval_input_reader { shuffle: false image_folder_reader { path: "FOLDER" } }
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Folder of a run of three steps: config, images of two sizes, model_dir."""
    path = tmp_path_factory.mktemp("classifier")
    generator = np.random.default_rng(0)
    for number in range(6):
        name = path / "images" / ("dark" if number % 2 else "light") / f"{number}.png"
        name.parent.mkdir(parents=True, exist_ok=True)
        low = 0 if number % 2 else 180
        pixels = generator.integers(low, low + 60, (50, 60 + 10 * (number % 3), 3), np.uint8)
        Image.fromarray(pixels).save(name)
    (path / "a.config").write_text(CONFIG.replace("FOLDER", f"{path}/images"))
    assert main(["train", f"--pipeline_config_path={path}/a.config", f"--model_dir={path}/run"]) == 0
    return path


def test_training_evaluates_keeps_the_best_and_goes_on(run):
    [entry] = [json.loads(line) for line in (run / "run" / "evaluations.jsonl").read_text().splitlines()]
    assert entry["step"] == 3
    assert 0 <= entry["top-1 error"] <= 1
    assert list((run / "run" / "best").glob("*.index"))
    arguments = ["train", f"--pipeline_config_path={run}/a.config", f"--model_dir={run}/run", "--num_train_steps=5"]
    assert main([*arguments, "--set", "train_config.eval_every_n_steps=0"]) == 0
    assert (run / "run" / "ckpt-5.index").is_file()


def test_evaluation(run, capsys):
    arguments = [f"--pipeline_config_path={run}/a.config", f"--checkpoint_dir={run}/run/ckpt-3"]
    assert main(["evaluate", *arguments, f"--output_dir={run}/evaluation"]) == 0
    printed = capsys.readouterr().out
    assert "step 3: 6 images" in printed
    assert "top-1 error" in printed
    metrics = json.loads((run / "evaluation" / "metrics.json").read_text())
    assert metrics["num_images"] == 6
    assert {row["images"] for row in metrics["per_class"].values()} == {3}
    predictions = json.loads((run / "evaluation" / "predictions.json").read_text())
    assert {row["image_id"]: row["class"] for row in predictions}["dark/1.png"] == "dark"


def test_export_gives_the_scores_that_evaluation_has(run, capsys):
    arguments = [f"--pipeline_config_path={run}/a.config", f"--trained_checkpoint_dir={run}/run/ckpt-3"]
    assert main(["export", *arguments, f"--output_directory={run}/exported"]) == 0
    assert "agrees with the detector in memory: scores within" in capsys.readouterr().out
    assert 'name: "dark"' in (run / "exported" / "label_map.pbtxt").read_text()
    assert main(["evaluate", f"--pipeline_config_path={run}/a.config", f"--checkpoint_dir={run}/run/ckpt-3",
                 f"--output_dir={run}/again"]) == 0  # fmt: skip
    rows = {row["image_id"]: row for row in json.loads((run / "again" / "predictions.json").read_text())}
    serve = tf.saved_model.load(str(run / "exported" / "saved_model"))
    for name, classes in (("light/0.png", ("dark", "light")), ("dark/5.png", ("dark", "light"))):
        pixels = np.asarray(Image.open(run / "images" / name))
        scores = serve(tf.constant(pixels[np.newaxis]))["class_scores"][0].numpy()
        expected = {best["class"]: best["score"] for best in rows[name]["best"]}
        np.testing.assert_allclose(scores, [expected[class_name] for class_name in classes], atol=2e-5)


def test_what_makes_no_sense_for_a_classifier_is_refused(run, capsys):
    arguments = [f"--pipeline_config_path={run}/a.config", f"--trained_checkpoint_dir={run}/run/ckpt-3"]
    assert main(["export", *arguments, f"--output_directory={run}/served"]) == 0
    capsys.readouterr()
    image = run / "images" / "dark" / "1.png"
    assert main(["detect", f"--saved_model={run}/served", f"--images={image}", f"--output_dir={run}/drawn"]) == 2
    assert "is a classifier: it gives class_scores of images, and no boxes" in capsys.readouterr().err
    measured = ["evaluate", f"--pipeline_config_path={run}/a.config", f"--saved_model={run}/served"]
    assert main([*measured, f"--output_dir={run}/measured"]) == 2
    assert "a classifier is measured by its checkpoint: give --checkpoint_dir" in capsys.readouterr().err
    assert main(["export", *arguments, f"--output_directory={run}/lite", "--format=tflite"]) == 2
    assert "spp_classifier" in capsys.readouterr().err
