"""``detzoo export --format tflite`` from flags to the file, and the file in ``detect`` and ``evaluate``."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf

from detzoo.checkpoints.layout import make_checkpoint, variables_by_path
from detzoo.cli.main import main
from detzoo.config.load import load_pipeline, save_pipeline
from detzoo.export.tflite_graph import INPUT_DTYPES, QUANTIZATIONS
from detzoo.serving.tflite_detector import TfliteDetector
from detzoo.tasks import export

SUPPRESSION = "model.ssd.post_processing.batch_non_max_suppression"


@pytest.fixture
def ssd_run(toy_run, load_module, monkeypatch):
    """The toy's records and config with a small SSD, which TFLite can hold, and a checkpoint of it."""
    monkeypatch.undo()  # the toy's builder
    one_stage = load_module("small_one_stage.py")
    message = load_pipeline(str(toy_run.config)).message
    message.model.CopyFrom(one_stage.message("ssd { num_classes: 3 }"))
    save_pipeline(message, toy_run.config)
    detector, _ = one_stage.detector_and_resizer("ssd { num_classes: 3 }")
    checkpoint = make_checkpoint(
        tf.Variable(9, dtype=tf.int64, trainable=False), model=variables_by_path(detector.variables)
    )
    toy_run.model_dir = toy_run.folder / "ssd"
    tf.train.CheckpointManager(checkpoint, str(toy_run.model_dir), max_to_keep=1).save(checkpoint_number=9)
    toy_run.out = toy_run.folder / "exported"
    return toy_run


def arguments(run, *more):
    flags = [f"--pipeline_config_path={run.config}", f"--trained_checkpoint_dir={run.model_dir}"]
    return ["export", *flags, f"--output_directory={run.folder / 'exported'}", "--format=tflite", *more]


def test_a_checkpoint_becomes_a_file_that_detects_and_is_evaluated(ssd_run, capsys):
    assert main(arguments(ssd_run, "--max_detections=5")) == 0
    shown = capsys.readouterr()
    assert "model.tflite: step 9, input image_tensor, quantize none" in shown.out
    assert "agrees with the detector in memory" in shown.out
    assert "Warning" not in shown.err
    config = load_pipeline(str(ssd_run.out / "pipeline.config")).message
    assert config.model.ssd.post_processing.batch_non_max_suppression.max_total_detections == 5
    assert (ssd_run.out / "labels.txt").read_text().splitlines() == ["cat", "Dog", "bird"]
    model = ssd_run.out / "model.tflite"

    photo = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    (ssd_run.folder / "photos").mkdir()
    (ssd_run.folder / "photos" / "a.png").write_bytes(tf.io.encode_png(photo).numpy())
    flags = [f"--saved_model={model}", f"--images={ssd_run.folder}/photos", f"--output_dir={ssd_run.folder}/pictures"]
    assert main(["detect", *flags, "--score_threshold=0.1"]) == 0
    listed = json.loads((ssd_run.folder / "pictures" / "detections.json").read_text())
    found = TfliteDetector(model)(photo)
    assert [entry["score"] for entry in listed] == pytest.approx(found.scores.tolist(), abs=1e-4)
    assert {entry["category_name"] for entry in listed} <= {"cat", "Dog", "bird"}

    flags = [f"--pipeline_config_path={ssd_run.config}", f"--saved_model={model}", f"--output_dir={ssd_run.folder}/e"]
    assert main(["evaluate", *flags]) == 0
    assert "model.tflite: 3 images" in capsys.readouterr().out
    metrics = json.loads((ssd_run.folder / "e" / "metrics.json").read_text())
    assert (metrics["num_images"], metrics["saved_model"]) == (3, str(model))


def test_nothing_is_compared_if_the_user_says_so(ssd_run, monkeypatch, capsys):
    monkeypatch.setattr("detzoo.export.tflite._compare", None)  # calling it would fail
    assert main(arguments(ssd_run, "--no_check")) == 0
    assert "with the detector" not in capsys.readouterr().out
    assert json.loads((ssd_run.out / "model.json").read_text())["agreement"] is None


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--input_type=tf_example"], "needs an image decoder, and only TensorFlow has one"),
        (["--quantize=int8"], "--quantize=int8 needs --representative_data"),
        (["--optimize_for=gpu"], "--optimize_for has no meaning with --format=tflite"),
        (["--format=saved_model", "--quantize=int8"], "--quantize has no meaning with --format=saved_model"),
        ([f"--set={SUPPRESSION}.soft_nms_sigma=0.5"], "no soft suppression"),
        (["--set=model.ssd.image_resizer.identity_resizer{}"], "the size that identity_resizer gives depends"),
        (
            [
                "--set=model.ssd.image_resizer.keep_aspect_ratio_resizer.min_dimension=64",
                "--set=model.ssd.image_resizer.keep_aspect_ratio_resizer.max_dimension=96",
            ],
            "keep_aspect_ratio_resizer.pad_to_max_dimension=true",
        ),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_built(toy_run, load_module, monkeypatch, capsys, flags, message):
    config = load_pipeline(str(toy_run.config)).message
    config.model.CopyFrom(load_module("small_one_stage.py").message())
    save_pipeline(config, toy_run.config)
    monkeypatch.setattr("detzoo.builders.detector.build_detector", None)  # calling it would fail otherwise
    assert main(arguments(toy_run, *flags)) == 2
    assert message in capsys.readouterr().err
    assert not (toy_run.folder / "exported").exists()


def test_two_stages_and_data_that_is_not_there(toy_run, small, monkeypatch, capsys):
    monkeypatch.setattr("detzoo.builders.detector.build_detector", None)
    assert main(arguments(toy_run, f"--representative_data={toy_run.folder}/gone-*.tfrecord")) == 1
    assert "no TFRecord file matches" in capsys.readouterr().err
    config = load_pipeline(str(toy_run.config)).message
    config.model.CopyFrom(small.message_of())
    save_pipeline(config, toy_run.config)
    assert main(arguments(toy_run)) == 2
    assert (
        "one-stage detectors (model.ssd, model.center_net); this config has model.faster_rcnn"
        in capsys.readouterr().err
    )


def test_evaluation_takes_a_checkpoint_or_an_export(toy_run, capsys):
    flags = ["evaluate", f"--pipeline_config_path={toy_run.config}", f"--output_dir={toy_run.folder / 'e'}"]
    assert main(flags) == 2
    assert "give either --checkpoint_dir or --saved_model" in capsys.readouterr().err
    assert main([*flags, "--saved_model=gone.tflite", "--continuous"]) == 2
    assert "--continuous watches --checkpoint_dir" in capsys.readouterr().err
    assert main([*flags, "--saved_model=gone.tflite"]) == 2
    assert "there is no TFLite model gone.tflite" in capsys.readouterr().err


def test_the_flags_know_what_the_library_knows():
    assert export.QUANTIZATIONS == QUANTIZATIONS
    assert tuple(INPUT_DTYPES) == export.PIXEL_INPUT_TYPES
