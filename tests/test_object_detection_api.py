"""Projects of the Object Detection API as they are: its checkpoint fine-tuned, exported and served to its clients."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from detzoo.cli.main import main

pytestmark = [pytest.mark.shared, pytest.mark.usefixtures("quick_initializers")]

# The client code of its tutorials: only TensorFlow and numpy, arrays as inputs, and outputs selected by name.
CLIENT = """
import sys
import numpy as np
import tensorflow as tf

saved_model, given, outputs = sys.argv[1:]
image = np.load(given)

detect_fn = tf.saved_model.load(saved_model)
detections = detect_fn(np.expand_dims(image, 0))
num_detections = int(detections.pop("num_detections")[0])
by_call = {key: value[0, :num_detections].numpy() for key, value in detections.items()}
by_call["detection_classes"] = by_call["detection_classes"].astype(np.int64)

model_fn = detect_fn.signatures["serving_default"]
assert list(model_fn.structured_input_signature[1]) == ["input_tensor"]
output_dict = model_fn(tf.convert_to_tensor(image)[tf.newaxis, ...])
assert int(output_dict.pop("num_detections")[0]) == num_detections
for key, value in output_dict.items():
    assert value.dtype == tf.float32, key
    np.testing.assert_array_equal(value[0, :num_detections].numpy(), by_call[key], err_msg=key)
assert not any(name.split(".")[0] in ("detzoo", "object_detection") for name in sys.modules), "not alone"
np.savez(outputs, num_detections=num_detections, **{key: value.numpy() for key, value in output_dict.items()})
"""


def detzoo(*words):
    """Runs one command line; anything but success fails the test."""
    assert main([str(word) for word in words]) == 0


@pytest.fixture(scope="module")
def seeded(shared, golden_weights, tmp_path_factory):
    """A function: name of a golden folder -> the folder, and a checkpoint of its seeded weights."""
    written = {}

    def write(name):
        if name not in written:
            folder = shared / "golden" / name
            scratch = tmp_path_factory.mktemp(name)
            written[name] = folder, golden_weights.seeded_checkpoint(folder, scratch)
        return written[name]

    return write


def served(saved_model, image, scratch):
    """Returns the outputs that a client of a published model gets for one image."""
    np.save(scratch / "image.npy", image)
    command = [sys.executable, "-c", CLIENT, saved_model, scratch / "image.npy", scratch / "outputs.npz"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert finished.returncode == 0, finished.stderr[-2000:]
    return dict(np.load(scratch / "outputs.npz"))


@pytest.mark.parametrize(
    "name", ["ssd_mobilenet_v2_320", pytest.param("faster_rcnn_resnet50_v1_640", marks=pytest.mark.full_sweep)]
)
def test_an_export_of_their_checkpoint_serves_their_outputs(seeded, shared, golden_weights, tmp_path, name):
    folder, prefix = seeded(name)
    detzoo(
        *("export", "--input_type", "image_tensor", "--pipeline_config_path", folder / "pipeline.config"),
        *("--trained_checkpoint_dir", prefix.parent, "--output_directory", tmp_path / "exported"),
    )
    image = tf.io.decode_png(tf.io.read_file(str(shared / "golden" / "image1.png"))).numpy()
    found = served(tmp_path / "exported" / "saved_model", image, tmp_path)
    golden = {key[5:]: value for key, value in np.load(folder / "outputs.npz").items() if key.startswith("post_")}
    assert found["num_detections"] == golden["num_detections"][0]
    for key in ("raw_detection_boxes", "raw_detection_scores", "detection_scores"):
        np.testing.assert_allclose(found[key], golden[key], atol=1e-4, err_msg=key)
    clear = golden_weights.clear_rows(golden["detection_scores"][0])
    assert clear.sum() >= 5
    np.testing.assert_array_equal(found["detection_classes"][0][clear], golden["detection_classes"][0][clear] + 1)
    np.testing.assert_allclose(found["detection_boxes"][0][clear], golden["detection_boxes"][0][clear], atol=1e-3)


def floats(*values):
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))


def texts(*values):
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


def write_golden_record(shared, golden_weights, folder):
    """A record of the golden image with the ground truth of the golden losses, and its label map."""
    truth = golden_weights.golden_groundtruth()
    ids = [int(number) + 1 for number in truth.classes[0]]
    corners = zip(("ymin", "xmin", "ymax", "xmax"), truth.boxes_norm[0].numpy().T.tolist(), strict=True)
    feature = {
        "image/encoded": texts((shared / "golden" / "image1.png").read_bytes()),
        **{f"image/object/bbox/{side}": floats(*values) for side, values in corners},
        "image/object/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=ids)),
    }
    with tf.io.TFRecordWriter(str(folder / "golden.record")) as writer:
        writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    items = "".join(f"item {{ id: {number} name: 'class {number}' }}\n" for number in range(1, 91))
    (folder / "label_map.pbtxt").write_text(items)


@pytest.mark.train
@pytest.mark.parametrize(
    "name", ["ssd_mobilenet_v2_320", pytest.param("ssd_resnet50_v1_fpn_640", marks=pytest.mark.full_sweep)]
)
def test_the_first_step_has_their_losses(seeded, shared, golden_weights, logged_scalars, tmp_path, name):
    # Their losses come from a network in inference mode: batch normalisation uses its moving statistics.
    folder, prefix = seeded(name)
    write_golden_record(shared, golden_weights, tmp_path)
    text = (folder / "pipeline.config").read_text()
    beginning, options, end = text.partition("  data_augmentation_options")
    assert options
    end = end[end.index("  optimizer {") :]  # all augmentation lies between
    (tmp_path / "pipeline.config").write_text(beginning + end)
    changes = {
        "model.ssd.freeze_batchnorm": "true",
        "train_config.batch_size": 1,
        "train_config.num_steps": 1,
        "train_config.log_every_n_steps": 1,
        "train_config.fine_tune_checkpoint": f"{prefix}.data-00000-of-00001",
        "train_config.fine_tune_checkpoint_type": "full",
        "train_input_reader.label_map_path": tmp_path / "label_map.pbtxt",
        "train_input_reader.tf_record_input_reader.input_path[0]": tmp_path / "golden.record",
        "train_input_reader.shuffle": "false",
        "eval_input_reader[0].label_map_path": tmp_path / "label_map.pbtxt",
        "eval_input_reader[0].tf_record_input_reader.input_path[0]": tmp_path / "golden.record",
    }
    detzoo(
        *("train", "--pipeline_config_path", tmp_path / "pipeline.config", "--model_dir", tmp_path / "model"),
        *(word for path, value in changes.items() for word in ("--set", f"{path}={value}")),
    )
    losses, golden = logged_scalars(tmp_path / "model" / "train"), np.load(folder / "outputs.npz")
    for part in ("localization", "classification"):
        assert losses[f"Loss/{part}_loss"][0] == pytest.approx(float(golden[f"loss_Loss/{part}_loss"]), rel=1e-3), part


@pytest.mark.train
@pytest.mark.slow
def test_from_their_checkpoint_to_served_pets(seeded, shared, tmp_path, capsys):
    """The way of a new user: a published config, a label map, records of pets and a checkpoint of COCO."""
    _, prefix = seeded("ssd_mobilenet_v2_320")
    config = shared / "configs/published/tf2/ssd_mobilenet_v2_320x320_coco17_tpu-8.config"
    labels, records = shared / "configs/label_maps/pet_label_map.pbtxt", shared / "data/odapi_test/pets_examples.record"
    changes = {
        "model.ssd.num_classes": 37,
        "train_config.batch_size": 2,
        "train_config.fine_tune_checkpoint": prefix,
        "train_config.fine_tune_checkpoint_type": "detection",
        "train_config.optimizer.momentum_optimizer.learning_rate.cosine_decay_learning_rate.learning_rate_base": 0.01,
        "train_config.optimizer.momentum_optimizer.learning_rate.cosine_decay_learning_rate.warmup_learning_rate": 0.0,
        "train_input_reader.label_map_path": labels,
        "train_input_reader.tf_record_input_reader.input_path[0]": records,
        "eval_input_reader[0].label_map_path": labels,
        "eval_input_reader[0].tf_record_input_reader.input_path[0]": records,
    }
    words = [word for path, value in changes.items() for word in ("--set", f"{path}={value}")]
    detzoo("config", "check", config, *words)
    model = tmp_path / "model"
    detzoo(
        *("train", "--pipeline_config_path", config, "--model_dir", model, "--num_train_steps", 3),
        *("--checkpoint_every_n", 3, *words),
    )
    assert "restored 300 variables (backbone 260, neck 40)" in capsys.readouterr().err
    detzoo(
        *("evaluate", "--pipeline_config_path", model / "pipeline.config", "--checkpoint_dir", model),
        *("--model_dir", model, "--sample_1_of_n_eval_examples", 5),
    )
    assert json.loads((model / "eval/metrics.json").read_text())["num_images"] == 2
    detzoo(
        *("export", "--pipeline_config_path", model / "pipeline.config", "--trained_checkpoint_dir", model),
        *("--output_directory", tmp_path / "exported"),
    )
    image = tf.io.decode_jpeg(tf.io.read_file(str(shared / "data/odapi_test/image1.jpg"))).numpy()
    found = served(tmp_path / "exported" / "saved_model", image, tmp_path)
    assert found["detection_multiclass_scores"].shape == (1, 100, 38)
    assert 1 <= found["detection_classes"].min() <= found["detection_classes"].max() <= 37
