"""``detzoo export --format onnx`` and ``--nms portable`` from flags to files, and the ONNX file in other commands."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

import detzoo
from detzoo.cli.main import main
from detzoo.config.load import load_pipeline
from detzoo.serving.onnx_detector import OnnxDetector


@pytest.fixture(scope="module")
def run(load_module, tmp_path_factory):
    """Folder with a config and a checkpoint of a small SSD, its export to ONNX, and a photo."""
    one, small_run = load_module("small_one_stage.py"), load_module("small_run.py")
    folder = tmp_path_factory.mktemp("onnx")
    config = small_run.write_config(folder, one.message())
    detector, _ = one.detector_and_resizer("ssd { num_classes: 5 }")
    small_run.write_run(folder / "model", config, detector)
    photo = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    (folder / "photos").mkdir()
    Image.fromarray(photo).save(folder / "photos" / "a.png")
    return folder


def arguments(run, out, *more):
    flags = [f"--pipeline_config_path={run}/model/pipeline.config", f"--trained_checkpoint_dir={run}/model"]
    return ["export", *flags, f"--output_directory={run / out}", *more]


def test_a_checkpoint_becomes_a_file_that_detects_and_is_evaluated(run, capsys):
    assert main(arguments(run, "exported", "--format=onnx")) == 0
    model = run / "exported" / "model.onnx"
    shown = capsys.readouterr()
    assert f"{model}: step 7, input image_tensor, " in shown.out
    assert "agrees with the detector in memory on " in shown.out
    assert sorted(file.name for file in model.parent.iterdir()) == [
        "label_map.pbtxt",
        "model.json",
        "model.onnx",
        "pipeline.config",
    ]
    alone = run / "alone.onnx"
    alone.write_bytes(model.read_bytes())

    flags = [f"--images={run}/photos", f"--output_dir={run}/pictures", "--score_threshold=0.1"]
    assert main(["detect", f"--saved_model={alone}", *flags]) == 0
    listed = json.loads((run / "pictures" / "detections.json").read_text())
    photo = np.asarray(Image.open(run / "photos" / "a.png"))
    found = OnnxDetector(alone)(photo)
    assert [entry["score"] for entry in listed] == pytest.approx(found.scores.tolist(), abs=1e-4)
    assert {entry["category_name"] for entry in listed} <= {"circle", "square", "triangle", "star", "ring"}

    config = load_pipeline(str(run / "model" / "pipeline.config"))
    flags = [f"--pipeline_config_path={config.path}", f"--saved_model={alone}", f"--output_dir={run}/evaluation"]
    assert main(["evaluate", *flags]) == 0
    assert "alone.onnx: 4 images" in capsys.readouterr().out

    loaded = detzoo.load(run / "exported")  # the only model in its folder
    assert loaded.config == config.message
    assert repr(loaded).endswith("5 classes, ONNX model)")
    assert len(loaded.detect(photo, score_threshold=0.1)) == len(listed)


def test_a_portable_saved_model_is_written(run, capsys):
    assert main(arguments(run, "portable", "--nms=portable")) == 0
    assert "agrees with the detector in memory" in capsys.readouterr().out
    record = json.loads((run / "portable" / "export.json").read_text())
    assert (record["graph_form"], record["num_winograd_convolutions"]) == ("portable", 0)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--format=onnx", "--nms=portable"], "--nms has no meaning with --format=onnx; leave it out"),
        (["--format=onnx", "--quantize=int8"], "--quantize has no meaning with --format=onnx; leave it out"),
        (["--nms=portable", "--input_type=tf_example"], "--nms=portable takes image_tensor or float_image_tensor"),
        (
            ["--format=onnx", "--set=model.ssd.image_resizer.fixed_shape_resizer.resize_method=BICUBIC"],
            "--format=onnx: only TensorFlow has the resize_method BICUBIC",
        ),
    ],
)
def test_what_cannot_be_is_reported_before_anything_is_built(run, monkeypatch, capsys, flags, message):
    monkeypatch.setattr("detzoo.builders.detector.build_detector", None)  # calling it would fail otherwise
    assert main(arguments(run, "refused", *flags)) == 2
    assert message in capsys.readouterr().err
    assert not (run / "refused").exists()


def test_a_file_of_others_is_one_sentence(run, capsys):
    (run / "other.onnx").write_text("no model")
    flags = [f"--saved_model={run}/other.onnx", f"--images={run}/photos", f"--output_dir={run}/no"]
    assert main(["detect", *flags]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert f"{run}/other.onnx cannot be loaded as an ONNX model: " in line
