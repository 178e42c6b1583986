"""``detzoo export`` from flags to the folder."""

from __future__ import annotations

import json

import numpy as np
import tensorflow as tf
from PIL import Image

from detzoo.cli.main import main
from detzoo.config.label_map import load_label_map
from detzoo.config.load import load_pipeline
from detzoo.serving.served import INPUT_SPECS
from detzoo.tasks import export
from tests.cli.conftest import save_best


def arguments(run, *more):
    flags = [f"--pipeline_config_path={run.config}", f"--trained_checkpoint_dir={run.model_dir}"]
    return ["export", *flags, f"--output_directory={run.folder / 'exported'}", *more]


def test_a_checkpoint_becomes_a_saved_model(toy_run, toy, capsys):
    assert main(arguments(toy_run, "--set=eval_config.batch_size=5")) == 0
    folder = toy_run.folder / "exported"
    assert "step 7, input image_tensor" in capsys.readouterr().out
    assert load_pipeline(str(folder / "pipeline.config")).message.eval_config.batch_size == 5
    assert load_label_map(folder / "label_map.pbtxt").display_names[2] == "Dog"
    assert json.loads((folder / "export.json").read_text())["checkpoint"] == str(toy_run.model_dir)
    images = np.random.default_rng(0).integers(0, 256, (1, 32, 48, 3), np.uint8)
    found = tf.saved_model.load(str(folder / "saved_model"))(tf.constant(images))
    inputs = toy_run.detector.preprocess(tf.constant(images))
    expected = toy_run.detector.postprocess(toy_run.detector.forward(inputs), tf.constant([[32, 48]]), (32, 48))
    np.testing.assert_allclose(found["raw_detection_scores"], expected.raw_scores, atol=1e-4)


def test_a_better_checkpoint_is_named_by_all_who_take_another(toy_run, capsys):
    best = toy_run.model_dir / "best"
    save_best(toy_run, 5)
    hint = f"best is step 5, mAP 0.61: --trained_checkpoint_dir {best}"
    assert main(arguments(toy_run)) == 0
    assert f"this is step 7; {hint}" in capsys.readouterr().err
    exported = toy_run.folder / "exported"
    photo = toy_run.folder / "photo.png"
    Image.new("RGB", (60, 40)).save(photo)
    detect = ["detect", f"--saved_model={exported}", f"--images={photo}", f"--output_dir={toy_run.folder / 'out'}"]
    assert main(detect) == 0
    assert f"{exported}/saved_model is of step 7; {hint} (of `detzoo export`)" in capsys.readouterr().err
    # The best one itself, a run without evaluations and a broken record have nothing to say.
    assert main(arguments(toy_run, f"--trained_checkpoint_dir={best}")) == 0
    assert main(detect) == 0
    save_best(toy_run, 7)
    assert main(arguments(toy_run)) == 0
    (best / "best.json").write_text("{")
    assert main(arguments(toy_run)) == 0
    assert "best is" not in capsys.readouterr().err


def test_mistakes_get_one_message(toy_run, capsys):
    assert main(arguments(toy_run, "--trained_checkpoint_dir=nowhere")) == 1
    assert "there is no checkpoint at nowhere" in capsys.readouterr().err
    assert main(arguments(toy_run, "--input_type=jpeg")) == 2
    assert "image_tensor" in capsys.readouterr().err
    assert not (toy_run.folder / "exported").exists()


def test_a_missing_label_map_costs_the_names_only(toy_run, capsys):
    assert main(arguments(toy_run, "--set=eval_input_reader[0].label_map_path=gone.pbtxt")) == 0
    assert "the export has no class names" in capsys.readouterr().err
    assert not (toy_run.folder / "exported" / "label_map.pbtxt").exists()


def test_the_flag_knows_every_input_type():
    assert tuple(INPUT_SPECS) == export.INPUT_TYPES
