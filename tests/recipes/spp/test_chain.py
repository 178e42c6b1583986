"""The whole chain on a few images, stopped twice, and what it refuses before it works."""

from __future__ import annotations

import json
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from detzoo.builders.detector import build_detector
from detzoo.checkpoints import restore_for_inference
from detzoo.checkpoints.files import open_checkpoint
from detzoo.checkpoints.layout import MODEL, variables_by_path
from detzoo.checkpoints.merge import save_weights
from detzoo.cli.main import main
from detzoo.config.label_map import load_label_map
from detzoo.config.load import load_pipeline
from detzoo.data.proposals import write_proposals
from detzoo.errors import DataError, DetzooError, UsageError
from detzoo.recipes.spp import chain
from detzoo.recipes.spp.arrays import load_arrays
from detzoo.recipes.spp.plan import check_folder, make_plan
from detzoo.train.stop import StopRequest

NUM_IMAGES = 12
TEXT = """
model { spp_net {
  num_classes: 5
  network {
    type: 'zf_5' pyramid_bins: [2, 1]
    fc_depth: 16 depth_multiplier: 0.1
    dropout: 0.0
  }
  scale: 96
  window_size: 48
  max_proposals: 25
  fine_tuning { batch_size: 16 images_per_step: 2 }
  svm { c: 1.0 }
  box_regression { regularization: 10.0 }
  post_processing { batch_non_max_suppression {
    score_threshold: 0.0 iou_threshold: 0.3
    max_detections_per_class: 10 max_total_detections: 20
  } }
} }
train_config {
  batch_size: 1
  num_steps: 6
  optimizer {
    momentum_optimizer { learning_rate { constant_learning_rate { learning_rate: 0.01 } } }
    use_moving_average: false
  }
  fine_tune_checkpoint: 'DATA/classifier'
  fine_tune_checkpoint_type: 'classification'
  checkpoint_every_n_steps: 2
}
train_input_reader {
  label_map_path: 'DATA/label_map.pbtxt'
  tf_record_input_reader { input_path: 'DATA/train-?????-of-00001.tfrecord' }
  proposals_path: 'DATA/proposals.npz'
}
eval_config { batch_size: 1 metrics_set: 'pascal_voc_detection_metrics' }
eval_input_reader {
  label_map_path: 'DATA/label_map.pbtxt' shuffle: false
  num_epochs: 1
  tf_record_input_reader { input_path: 'DATA/train-?????-of-00001.tfrecord' }
  proposals_path: 'DATA/proposals.npz'
}
"""
RECORDS = "train-00000-of-00001.tfrecord"


class StopOnceThereIs(StopRequest):
    """Requests a stop as soon as a given file exists."""

    def __init__(self, file):
        super().__init__()
        self._file = file

    @property
    def requested(self):
        return self._file.exists()


def write_windows(folder):
    """A proposals.npz for the records of a folder: around the true boxes, and anywhere."""
    ids, boxes = [], []
    for number, serialized in enumerate(tf.data.TFRecordDataset(str(folder / RECORDS)).as_numpy_iterator()):
        features = tf.train.Example.FromString(serialized).features.feature
        ids.append(features["image/source_id"].bytes_list.value[0].decode())
        sides = [features[f"image/object/bbox/{side}"].float_list.value for side in ("ymin", "xmin", "ymax", "xmax")]
        true = np.array(sides).T.reshape(-1, 4)
        random = np.random.default_rng(number)
        near = np.repeat(true, 3, axis=0) + random.normal(0, 0.02, [3 * len(true), 4])
        corners = random.uniform(0, 0.5, [25 - len(near), 2])
        far = np.concatenate([corners, corners + random.uniform(0.2, 0.5, corners.shape)], axis=1)
        boxes.append(np.clip(np.concatenate([near, far]), 0, 1).astype(np.float32))
    write_proposals(folder / "proposals.npz", ids, boxes, [np.ones(len(each), np.float32) for each in boxes])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with records, windows, a classifier's weights and a config."""
    folder = tmp_path_factory.mktemp("spp_chain")
    words = ["dataset", "shapes", "--output_path", f"{folder}/train", "--num_images", str(NUM_IMAGES)]
    assert main([*words, "--image_size", "96", "--num_shards", "1"]) == 0
    write_windows(folder)
    config = folder / "toy.config"
    config.write_text(TEXT.replace("DATA", str(folder)))
    keras.utils.set_random_seed(5)
    detector = build_detector(load_pipeline(str(config)).message.model)
    weights = {path: variable.numpy() for path, variable in variables_by_path(detector.variables).items()}
    classifier = {path: value for path, value in weights.items() if path.split("/")[0] in ("backbone", "box_backbone")}
    save_weights(folder / "classifier", 1, classifier)
    return types.SimpleNamespace(folder=folder, config=config, classifier=classifier)


def run_chain(config, folder, stop):
    pipeline = load_pipeline(str(config)).message
    return chain.train_spp_net(pipeline, folder, make_plan(pipeline, str(config)), "one_device", stop)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A run that was stopped while it fine-tuned and after its SVMs, and ended by the command line."""
    folder = tmp_path_factory.mktemp("run")
    with StopOnceThereIs(folder / "2_fine_tuning" / "ckpt-2.index") as stop:
        assert run_chain(data.config, folder, stop) is None
    with StopOnceThereIs(folder / "3_svm" / "svm.npz") as stop:
        assert run_chain(data.config, folder, stop) is None
    stopped = {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    words = ["train", "--pipeline_config_path", str(data.config), "--model_dir", str(folder)]
    assert main([*words, "--strategy", "one_device"]) == 0
    return types.SimpleNamespace(folder=folder, stopped=stopped, words=words)


@pytest.fixture(scope="module")
def weights(run):
    """path -> value of the run's checkpoint."""
    stored = open_checkpoint(run.folder)
    return {path: stored.read(MODEL, path) for path in stored.paths(MODEL)}


def test_what_was_done_is_not_done_again(run):
    for part in ("1_maps/", "2_fine_tuning/ckpt-", "3_svm/svm.npz"):
        kept = {name: time for name, time in run.stopped.items() if name.startswith(part)}
        assert kept
        assert all((run.folder / name).stat().st_mtime_ns == time for name, time in kept.items())
    assert len(list((run.folder / "1_maps").rglob("*.npz"))) == NUM_IMAGES


def test_the_checkpoint_is_made_of_the_steps(run, data, weights):
    for path, value in data.classifier.items():
        assert np.array_equal(weights[path], value) == path.startswith("backbone/"), path
    tuned = open_checkpoint(run.folder / "2_fine_tuning")
    assert tuned.step == 6
    for path in ("box_backbone/fc6/kernel", "head/fc8/kernel"):
        np.testing.assert_array_equal(weights[path], tuned.read(MODEL, path))
    svms = load_arrays(run.folder / "3_svm" / "svm.npz")
    np.testing.assert_array_equal(weights["svm/kernel"], svms["kernels"].T)
    np.testing.assert_array_equal(weights["svm/bias"], svms["biases"])
    first = load_arrays(run.folder / "4_box_regression" / "class_0001.npz")
    np.testing.assert_array_equal(weights["box_regression/kernel"][:, :4], first["kernel"])
    assert first["windows"] > 0


def test_the_detector_reads_it(run, data):
    detector = build_detector(load_pipeline(str(data.config)).message.model)
    assert restore_for_inference(detector, run.folder) == 6


def test_what_a_run_tells_about_itself(run, capfd):
    sessions = json.loads((run.folder / "run.json").read_text())["sessions"]
    ends = [(session["last_step"], session["ended_by"]) for session in sessions]
    assert ends[1][0] == "4_box_regression"
    assert ends[2] == ("4_box_regression", "finished")
    assert ends[0][0] == "2_fine_tuning"
    assert main(run.words) == 0
    assert "is finished: all steps of SPP-net are done" in capfd.readouterr().err


def test_an_uninterrupted_run_without_room_for_all_maps_ends_alike(data, weights, tmp_path):
    text = data.config.read_text().replace("max_proposals: 25", "max_proposals: 25 cache { max_gigabytes: 0.00002 }")
    config = tmp_path / "small_cache.config"
    config.write_text(text)
    made = run_chain(config, tmp_path / "run", StopRequest())
    kept = list((tmp_path / "run" / "1_maps").rglob("*.npz"))
    assert 0 < len(kept) < NUM_IMAGES
    stored = open_checkpoint(made.checkpoint)
    for path, value in weights.items():
        np.testing.assert_allclose(stored.read(MODEL, path), value, rtol=1e-3, atol=1e-5, err_msg=path)


def evaluate(run, output, *more):
    words = ["evaluate", "--pipeline_config_path", f"{run.folder}/pipeline.config", "--checkpoint_dir", str(run.folder)]
    return main([*words, "--output_dir", str(output), *more])


def test_evaluation_alone_and_with_itself(run, tmp_path):
    assert evaluate(run, tmp_path / "alone") == 0
    assert evaluate(run, tmp_path / "twice", "--combine_with", str(run.folder)) == 0
    alone, twice = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("alone", "twice"))
    # Section 4.4: a model gains nothing from one with the same convolutions; here all of it is the same.
    name = "VOC mAP@.50IOU"
    assert 0 < alone[name] <= 1
    assert twice[name] == pytest.approx(alone[name], abs=1e-6)


def test_combinations_that_make_no_sense(run, tmp_path, capfd):
    assert evaluate(run, tmp_path / "a", "--combine_with", str(tmp_path)) == 2
    assert "has no pipeline.config; name the --model_dir" in capfd.readouterr().err
    assert evaluate(run, tmp_path / "a", "--combine_with", str(run.folder), "--continuous") == 2
    assert "goes with --checkpoint_dir alone" in capfd.readouterr().err


def changed(data, old, new):
    text = data.config.read_text()
    assert old in text
    path = data.folder / "changed.config"
    path.write_text(text.replace(old, new))
    return path


@pytest.mark.parametrize(
    ("old", "new", "steps"),
    [
        ("svm { c: 1.0 }", "svm { c: 2.0 }", ["3_svm"]),
        ("regularization: 10.0", "regularization: 20.0", ["4_box_regression"]),
        ("scale: 96", "scale: 128", ["2_fine_tuning", "3_svm", "4_box_regression"]),
        ("num_steps: 6", "num_steps: 7", ["3_svm"]),
    ],
)
def test_results_of_another_config_are_not_used(run, data, old, new, steps):
    pipeline = load_pipeline(str(changed(data, old, new))).message
    with pytest.raises(UsageError, match="results of another config") as caught:
        check_folder(run.folder, pipeline)
    named = str(caught.value).split("delete ")[1]
    for step in ("1_maps", "2_fine_tuning", "3_svm", "4_box_regression"):
        assert (str(run.folder / step) in named) == (step in steps)
    assert str(run.folder / "finished") in named


def test_harmless_changes_are_told(run, data):
    pipeline = load_pipeline(str(changed(data, "iou_threshold: 0.3", "iou_threshold: 0.5"))).message
    (difference,) = check_folder(run.folder, pipeline)
    assert "iou_threshold" in difference


def test_results_of_other_weights_and_images_are_not_used(run, data, tmp_path):
    other = {path: value + 0.1 for path, value in data.classifier.items()}
    save_weights(tmp_path / "other", 1, other)
    pipeline = load_pipeline(str(data.config)).message
    pipeline.train_config.fine_tune_checkpoint = str(tmp_path / "other")
    plan = make_plan(pipeline, "")
    assert len(check_folder(run.folder, pipeline)) == 1  # another path may be the same checkpoint
    with pytest.raises(UsageError, match="another fine_tune_checkpoint"):
        chain.train_spp_net(pipeline, run.folder, plan, "one_device", StopRequest())
    fewer = load_pipeline(str(data.config)).message
    fewer.train_input_reader.sample_1_of_n_examples = 2
    with pytest.raises(UsageError, match="another set of training images"):
        chain.train_spp_net(fewer, run.folder, plan, "one_device", StopRequest())


def test_a_folder_of_another_run_is_refused(data, tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(UsageError, match="another run in it"):
        check_folder(tmp_path, load_pipeline(str(data.config)).message)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("fine_tune_checkpoint: 'DATA/classifier'", "", "fine_tune_checkpoint is empty"),
        (
            "batch_size: 1\n  num_steps",
            "data_augmentation_options { random_horizontal_flip {} }\n  num_steps",
            "do not go",
        ),
        ("images_per_step: 2", "images_per_step: 17", "images_per_step 17 is above"),
        ("num_steps: 6", "", "how many steps of fine-tuning"),
    ],
)
def test_configs_that_cannot_run(data, old, new, message):
    path = changed(data, old.replace("DATA", str(data.folder)), new)
    with pytest.raises(DetzooError, match=message):
        make_plan(load_pipeline(str(path)).message, str(path))


def rewrite(data, folder, edit):
    """The records of the toy with each tf.Example edited, and a config that reads them."""
    with tf.io.TFRecordWriter(str(folder / RECORDS)) as writer:
        for number, record in enumerate(tf.data.TFRecordDataset(str(data.folder / RECORDS)).as_numpy_iterator()):
            example = tf.train.Example.FromString(record)
            edit(number, example.features.feature)
            writer.write(example.SerializeToString())
    config = folder / "edited.config"
    text = data.config.read_text().replace(f"{data.folder}/train-", f"{folder}/train-")
    config.write_text(text)
    return config


def test_a_class_without_a_positive_is_told_before_the_work(data, tmp_path):
    names = list(load_label_map(str(data.folder / "label_map.pbtxt")).names.values())

    def without_first(number, features):
        del number
        texts = features["image/object/class/text"].bytes_list
        texts.value[:] = [names[1].encode() for _ in texts.value]

    config = rewrite(data, tmp_path, without_first)
    missing = ", ".join([names[0], *names[2:]])
    with pytest.raises(DataError, match=f"no true box of {missing} in the {NUM_IMAGES} images"):
        run_chain(config, tmp_path / "run", StopRequest())
    assert not (tmp_path / "run" / "1_maps").exists()


@pytest.mark.parametrize(
    ("image_id", "message"), [(b"", "2 of the training records have no image/source_id"), (b"same", "such as same")]
)
def test_images_that_cannot_be_told_apart(data, tmp_path, image_id, message):
    def edit(number, features):
        if number in (3, 5):
            features["image/source_id"].bytes_list.value[:] = [image_id]

    config = rewrite(data, tmp_path, edit)
    with pytest.raises(DataError, match=message):
        run_chain(config, tmp_path / "run", StopRequest())
