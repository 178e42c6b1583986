"""Tests of detzoo train: checks before TensorFlow starts, flags, finished trainings, and real images."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.error

import numpy as np
import pytest
import tensorflow as tf

pytest.importorskip("orbit", reason="needs detzoo[train]: tf-models-official is not installed")

from detzoo.cli.main import main
from detzoo.config.load import load_pipeline
from detzoo.errors import UsageError
from detzoo.folders import reserved
from detzoo.train.session import train_pipeline
from detzoo.train.stop import StopRequest

MODEL = """
model { ssd {
  num_classes: 1
  image_resizer { fixed_shape_resizer { height: 64 width: 96 } }
  feature_extractor {
    type: 'ssd_mobilenet_v1_keras' depth_multiplier: 0.25 min_depth: 8 num_layers: 3
    conv_hyperparams {
      activation: RELU_6
      regularizer { l2_regularizer { weight: 0.00004 } }
      initializer { truncated_normal_initializer { stddev: 0.03 } }
      batch_norm { decay: 0.9 epsilon: 0.001 scale: true center: true train: true }
    }
    override_base_feature_extractor_hyperparams: true
  }
  anchor_generator { ssd_anchor_generator { num_layers: 3 min_scale: 0.2 max_scale: 0.95 aspect_ratios: [1.0, 2.0] } }
  box_coder { faster_rcnn_box_coder { y_scale: 10.0 x_scale: 10.0 height_scale: 5.0 width_scale: 5.0 } }
  matcher { argmax_matcher { matched_threshold: 0.5 unmatched_threshold: 0.5 force_match_for_each_row: true } }
  similarity_calculator { iou_similarity { } }
  box_predictor { convolutional_box_predictor {
    kernel_size: 1
    conv_hyperparams {
      activation: RELU_6
      regularizer { l2_regularizer { weight: 0.00004 } }
      initializer { truncated_normal_initializer { stddev: 0.03 } }
    }
  } }
  loss {
    classification_loss { weighted_sigmoid_focal { alpha: 0.75 gamma: 2.0 } }
    localization_loss { weighted_smooth_l1 { } }
    classification_weight: 1.0
    localization_weight: 1.0
  }
  normalize_loss_by_num_matches: true
  post_processing {
    batch_non_max_suppression { score_threshold: 0.0 iou_threshold: 0.6 max_total_detections: 10
      max_detections_per_class: 10 }
    score_converter: SIGMOID
  }
} }
train_config {
  batch_size: 4
  num_steps: 6
  log_every_n_steps: 3
  eval_every_n_steps: 6
  optimizer {
    momentum_optimizer { learning_rate { constant_learning_rate { learning_rate: 0.002 } } }
    use_moving_average: false
  }
}
"""
READERS = """
train_input_reader {
  label_map_path: "LABELS" tf_record_input_reader { input_path: "RECORDS" }
}
eval_config { batch_size: 8 }
eval_input_reader {
  label_map_path: "LABELS" shuffle: false
  sample_1_of_n_examples: 4 tf_record_input_reader { input_path: "RECORDS" }
}
"""


@pytest.fixture
def config(tmp_path):
    """The path of a config whose files do not exist yet."""
    text = (MODEL + READERS).replace("LABELS", str(tmp_path / "labels.pbtxt"))
    path = tmp_path / "pipeline.config"
    path.write_text(text.replace("RECORDS", str(tmp_path / "missing.record")))
    return path


@pytest.fixture
def raccoons(tmp_path, shared):
    """The same with real images."""
    (tmp_path / "labels.pbtxt").write_text("item { id: 1 name: 'raccoon' }\n")
    text = (MODEL + READERS).replace("LABELS", str(tmp_path / "labels.pbtxt"))
    path = tmp_path / "pipeline.config"
    path.write_text(text.replace("RECORDS", str(shared / "data" / "raccoon" / "test.record")))
    return path


def train(config, model_dir, *more):
    return main(["train", "--pipeline_config_path", str(config), "--model_dir", str(model_dir), *more])


def test_every_problem_is_shown_before_tensorflow_starts(config, tmp_path):
    script = (
        "import sys\nfrom detzoo.cli.main import main\n"
        f"code = main(['train', '--pipeline_config_path', {str(config)!r}, '--model_dir', {str(tmp_path / 'run')!r}])\n"
        "print(code, 'tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=600)
    assert done.stdout.split() == ["2", "False"]
    assert "train_input_reader.label_map_path" in done.stderr
    assert "train_input_reader.tf_record_input_reader.input_path[0]: no file matches" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--strategy", "tpu"], "strategy"),
        (["--num_train_steps", "0"], "num_train_steps"),
        (["--checkpoint_every", "5"], "checkpoint_every_n"),
    ],
)
def test_wrong_flags(config, tmp_path, capsys, flags, message):
    assert train(config, tmp_path / "run", *flags) == 2
    assert message in capsys.readouterr().err


def test_a_config_without_steps_asks_for_them(raccoons, tmp_path, capsys):
    assert train(raccoons, tmp_path / "run", "--set", "train_config.num_steps=0") == 2
    assert "--num_train_steps" in capsys.readouterr().err


def test_a_finished_run_says_so(config, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    (run / "checkpoint").write_text("")
    finished = {"step": 6, "num_train_steps": 6, "reason": "reached num_train_steps"}
    (run / "finished").write_text(json.dumps(finished))
    assert train(config, run) == 0
    assert "is finished: step 6, reached num_train_steps. To train on, raise" in capsys.readouterr().err
    # More steps were asked for, so the run would go on, were its data there.
    assert train(config, run, "--num_train_steps", "7") == 2


def test_a_folder_that_another_training_uses_is_refused_before_anything_is_built(config, tmp_path):
    pipeline, before = load_pipeline(str(config)).message, {".training.json", ".training.lock"}
    with reserved(tmp_path, "--model_dir"), pytest.raises(UsageError, match=rf"--model_dir {tmp_path} is in use by"):
        train_pipeline(pipeline, tmp_path, "one_device", None, StopRequest())
    assert {file.name for file in tmp_path.iterdir()} == {"pipeline.config", *before}


@pytest.mark.slow
def test_a_run_on_real_images(raccoons, tmp_path, capsys):
    run = tmp_path / "run"
    assert train(raccoons, run, "--checkpoint_every_n", "4") == 0
    shown = capsys.readouterr().err
    assert "step 6/6  loss " in shown
    assert "evaluation at step 6: mAP " in shown
    assert "step 6: reached num_train_steps" in shown
    assert {file.stem for file in run.glob("ckpt-*.index")} == {"ckpt-4", "ckpt-6"}
    assert (run / "best" / "ckpt-6.index").is_file()
    resolved = load_pipeline(str(run / "pipeline.config")).message
    assert (resolved.train_config.num_steps, resolved.train_config.checkpoint_every_n_steps) == (6, 4)
    [session] = json.loads((run / "run.json").read_text())["sessions"]
    assert (session["seed"], session["batch_size"], session["last_step"]) == (0, 4, 6)
    assert {"tensorflow", "keras", "python"} <= session["versions"].keys()
    # A run that was killed after its last checkpoint has no marker yet.
    (run / "finished").unlink()
    assert train(raccoons, run) == 0
    assert "resuming from step 6 of 6" in capsys.readouterr().err
    assert (run / "finished").is_file()
    assert len(json.loads((run / "run.json").read_text())["sessions"]) == 2
    warm_start_with_another_class(raccoons, run, tmp_path, capsys)


def warm_start_with_another_class(raccoons, run, tmp_path, capsys):
    """Starts from ``run`` with two classes, and ends before the first step."""
    changes = ["model.ssd.num_classes=2", f"train_config.fine_tune_checkpoint={run / 'ckpt-6'}"]
    pipeline = load_pipeline(str(raccoons), changes).message
    stop = StopRequest()
    stop.signal = signal.SIGTERM
    outcome = train_pipeline(pipeline, tmp_path / "second", "one_device", None, stop)
    assert (outcome.step, outcome.finished) == (0, False)
    shown = capsys.readouterr().err
    assert f"warm start from {run / 'ckpt-6'}" in shown
    assert "new: head/" in shown
    assert "in the checkpoint" in shown
    assert "another number of classes" in shown


def test_a_graph_of_bytes_is_no_start(config, tmp_path, capsys):
    shapes = ["--num_images=4", "--image_size=64", f"--output_path={tmp_path}/shapes"]
    assert main(["dataset", "shapes", *shapes]) == 0
    node = tf.compat.v1.NodeDef(name="FeatureExtractor/MobilenetV1/Conv2d_0/weights_quantized_const", op="Const")
    node.attr["dtype"].type = tf.uint8.as_datatype_enum
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(np.ones([3, 3, 3, 8], np.uint8)))
    graph = tmp_path / "frozen_inference_graph.pb"
    graph.write_bytes(tf.compat.v1.GraphDef(node=[node]).SerializeToString())
    changes = {
        "model.ssd.num_classes": 5,
        "train_input_reader.label_map_path": tmp_path / "label_map.pbtxt",
        "train_input_reader.tf_record_input_reader.input_path": f"['{tmp_path}/shapes*']",
        "eval_input_reader[0].label_map_path": tmp_path / "label_map.pbtxt",
        "eval_input_reader[0].tf_record_input_reader.input_path": f"['{tmp_path}/shapes*']",
        "train_config.fine_tune_checkpoint": graph,
        "train_config.fine_tune_checkpoint_type": "detection",
    }
    overrides = [f"--set={path}={value}" for path, value in changes.items()]
    capsys.readouterr()
    assert train(config, tmp_path / "run", *overrides) == 1
    shown = capsys.readouterr().err
    assert f"the weights in {graph} are quantized to uint8" in shown
    assert "take the model.ckpt or the frozen" in shown
    assert "Traceback" not in shown
    assert not list((tmp_path / "run").glob("ckpt-*"))


@pytest.fixture
def without_network(tmp_path, monkeypatch):
    """The path of a config that asks for ImageNet's weights, and records for it; no download succeeds."""

    def fail(url, *_):
        raise urllib.error.URLError("no route to host")

    (tmp_path / "keras").mkdir()
    monkeypatch.setattr("keras.src.backend.config.keras_home", lambda: str(tmp_path / "keras"))
    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", fail)
    shapes = tmp_path / "shapes"
    assert main(["dataset", "shapes", f"--output_path={shapes}", "--num_images=8", "--image_size=96"]) == 0
    text = (MODEL + READERS).replace("LABELS", str(tmp_path / "label_map.pbtxt")).replace("RECORDS", f"{shapes}-*")
    text = text.replace("num_classes: 1", "num_classes: 5").replace("eval_every_n_steps: 6", "eval_every_n_steps: 0")
    config = tmp_path / "pipeline.config"
    config.write_text(text.replace("min_depth: 8", "min_depth: 8 pretrained_weights: 'imagenet'"))
    return config


def test_imagenet_weights_that_are_not_available_are_an_error(without_network, tmp_path, capsys):
    first, second = "v1_keras' depth_multiplier: 0.25", "v2_keras' depth_multiplier: 0.35"  # no exact float32
    without_network.write_text(without_network.read_text().replace(first, second))
    assert train(without_network, tmp_path / "run") == 1
    message = capsys.readouterr().err
    assert "ImageNet's weights are not available: URL fetch failure on https://storage.googleapis.com/" in message
    file = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5"
    assert f"Put the file {file} from https://" in message
    assert f" into the folder {tmp_path}/keras/models. Otherwise name a file in pretrained_weights" in message
    assert "Traceback" not in message
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.slow
def test_random_weights_are_recorded_where_they_are_allowed_and_a_resume_needs_no_imagenet(
    without_network, tmp_path, capsys
):
    run = tmp_path / "run"
    assert train(without_network, run, "--num_train_steps", "1", "--allow_random_weights") == 0
    assert "the backbone starts from random weights" in capsys.readouterr().err
    assert train(without_network, run, "--num_train_steps", "2") == 0
    assert "resuming from step 1 of 2" in capsys.readouterr().err
    first, second = json.loads((run / "run.json").read_text())["sessions"]
    assert "URL fetch failure" in first["random_weights"]
    assert "random_weights" not in second
    assert 'pretrained_weights: "imagenet"' in (run / "pipeline.config").read_text()
