"""detzoo train_four_step: the whole recipe on a few images, killed once, and what it refuses."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import types

import numpy as np
import pytest
import tensorflow as tf

pytest.importorskip("orbit", reason="needs detzoo[train]: tf-models-official is not installed")

from detzoo.builders.detector import build_detector
from detzoo.builders.inputs import build_dataset
from detzoo.checkpoints import restore_for_inference
from detzoo.checkpoints.files import open_checkpoint
from detzoo.checkpoints.layout import MODEL, variables_by_path
from detzoo.cli.main import main
from detzoo.config.load import load_pipeline
from detzoo.contracts import Proposals
from detzoo.errors import DataError, UsageError
from detzoo.folders import PROPOSALS_FILE
from detzoo.recipes import four_step
from detzoo.recipes.four_step_plan import STEPS, StageConfigs, config_of_proposals, config_of_step
from detzoo.tasks.propose import write_training_proposals
from detzoo.train.loop import Outcome
from detzoo.train.run_record import write_finished
from detzoo.train.stop import StopRequest
from detzoo.train.variables import select_trainable

NUM_IMAGES = 10


class StopOnceThereIs(StopRequest):
    """Requests a stop as soon as a given file exists."""

    def __init__(self, file):
        super().__init__()
        self._file = file

    @property
    def requested(self):
        return self._file.exists()


def train(config, model_dir, *more):
    return main(["train_four_step", "--pipeline_config_path", str(config), "--model_dir", str(model_dir), *more])


@pytest.fixture(scope="module")
def toy_config(load_module, tmp_path_factory):
    """A function: family -> path of a config on ten images of shapes."""
    folder = tmp_path_factory.mktemp("four_step")
    words = ["dataset", "shapes", "--output_path", f"{folder}/train", "--num_images", str(NUM_IMAGES)]
    assert main([*words, "--image_size", "64", "--num_shards", "2"]) == 0

    def write(family):
        path = folder / f"{family}.config"
        path.write_text(load_module("recipes/four_step_toy.py").config_text(family, folder))
        return path

    return write


@pytest.fixture(scope="module")
def run(toy_config, tmp_path_factory):
    """A run on a pyramid that was stopped in the middle of its second step, and went on.

    ``after_stop``: the files of the run when it was stopped.
    """
    config, folder = toy_config("pyramid"), tmp_path_factory.mktemp("run")
    message = load_pipeline(str(config)).message
    stages = StageConfigs(message, message)
    with StopOnceThereIs(folder / "2_fast_rcnn" / "ckpt-1.index") as stop:
        merged = four_step.train_four_step(message, folder, "one_device", stages, write_training_proposals, stop)
    assert merged is None
    after_stop = {str(file.relative_to(folder)): file.stat().st_mtime_ns for file in folder.rglob("*")}
    assert train(config, folder, "--strategy", "one_device") == 0
    return types.SimpleNamespace(folder=folder, config=config, pipeline=message, after_stop=after_stop)


def weights(folder):
    stored = open_checkpoint(folder)
    return {path: stored.read(MODEL, path) for path in stored.paths(MODEL)}


def detector_of(pipeline, folder):
    detector = build_detector(pipeline.model)
    restore_for_inference(detector, folder)
    return detector


def plain_batches(run, batch_size):
    """The training images as they are, in the order of the records."""
    reader = config_of_proposals(run.pipeline).train_input_reader
    resizer = run.pipeline.model.faster_rcnn.image_resizer
    return build_dataset(reader, resizer, None, training=False, batch_size=batch_size, seed=0)


def sessions(folder):
    facts = json.loads((folder / "run.json").read_text())["sessions"]
    return [(session.get("first_step"), session["last_step"]) for session in facts]


@pytest.mark.slow
def test_a_stopped_run_goes_on_where_it_was(run):
    assert "2_fast_rcnn/ckpt-1.index" in run.after_stop
    assert "2_fast_rcnn/ckpt-2.index" not in run.after_stop
    assert not any(name.startswith("3_rpn") for name in run.after_stop)
    for name in ("1_rpn/ckpt-3.index", "1_rpn/proposals.npz"):  # neither trained nor made again
        assert (run.folder / name).stat().st_mtime_ns == run.after_stop[name]
    found = {step.folder: sessions(run.folder / step.folder) for step in STEPS}
    assert found == {
        "1_rpn": [(0, 3)],
        "2_fast_rcnn": [(0, 1), (1, 3)],
        "3_rpn": [(0, 3)],
        "4_fast_rcnn": [(0, 3)],
    }


@pytest.mark.slow
def test_the_shared_parts_never_change_after_step_2(run):
    one, two, three, four = (weights(run.folder / step.folder) for step in STEPS)
    merged = weights(run.folder)
    shared = [path for path in merged if path.startswith(("backbone/", "neck/"))]
    assert {path.split("/")[0] for path in shared} == {"backbone", "neck"}
    for path in shared:
        for later in (three, four, merged):
            assert np.array_equal(two[path], later[path]), path
    # They did learn in step 2, statistics included, and not what step 1 learned.
    for path in ("backbone/conv1/kernel", "backbone/conv1_bn/moving_mean", "neck/fpn_smooth_3_batch_norm/moving_mean"):
        assert not np.array_equal(one[path], two[path]), path
    moved = [path for path in shared if path.endswith("moving_mean") and np.any(two[path] != 0)]
    assert len(moved) == sum(path.endswith("moving_mean") for path in shared)


@pytest.mark.slow
def test_heads_are_those_of_the_last_trainings(run):
    one, two, three, four = (weights(run.folder / step.folder) for step in STEPS)
    merged = weights(run.folder)
    own = [path for path in merged if not path.startswith(("backbone/", "neck/"))]
    assert {path.split("/")[0] for path in own} == {"rpn", "box_backbone", "box_head"}
    for path in own:
        earlier, last = (one, three) if path.startswith("rpn/") else (two, four)
        assert np.array_equal(merged[path], last[path]), path
        if path in ("rpn/conv/kernel", "box_backbone/fc1/kernel", "box_head/class_predictor/kernel"):
            assert not np.array_equal(earlier[path], last[path]), path


@pytest.mark.slow
def test_the_merged_detector_proposes_as_step_3_and_classifies_as_step_4(run):
    whole = detector_of(run.pipeline, run.folder)
    first = detector_of(load_pipeline(str(run.folder / "3_rpn" / "pipeline.config")).message, run.folder / "3_rpn")
    second_config = load_pipeline(str(run.folder / "4_fast_rcnn" / "pipeline.config")).message
    second = detector_of(second_config, run.folder / "4_fast_rcnn")
    batch = next(iter(plain_batches(run, 3)))
    inputs = whole.preprocess(batch.images)
    predicted = whole.forward(inputs, true_shapes=batch.true_shapes)
    proposed = first.forward(inputs, true_shapes=batch.true_shapes).proposals
    np.testing.assert_allclose(predicted.proposals.boxes_norm, proposed.boxes_norm, atol=1e-6)
    np.testing.assert_allclose(predicted.proposals.scores, proposed.scores, atol=1e-6)
    classified = second.forward(inputs, true_shapes=batch.true_shapes, proposals=proposed)
    np.testing.assert_allclose(predicted.class_logits, classified.class_logits, atol=1e-5)
    np.testing.assert_allclose(predicted.box_deltas, classified.box_deltas, atol=1e-5)
    assert predicted.class_logits.shape == (3, 6, 6)  # first_stage_max_proposals, and 5 classes with the background


@pytest.mark.slow
def test_proposals_are_of_every_plain_training_image_in_the_order_of_the_records(run):
    with np.load(run.folder / "3_rpn" / PROPOSALS_FILE) as stored:
        ids, offsets, boxes, scores = (stored[name] for name in ("image_ids", "offsets", "boxes", "scores"))
    pipeline = config_of_proposals(run.pipeline)
    first = detector_of(pipeline, run.folder / "3_rpn")
    images = list(plain_batches(run, 1))
    assert ids.tolist() == [batch.image_ids.numpy()[0].decode() for batch in images]
    assert len(ids) == NUM_IMAGES
    counts = np.diff(offsets)
    assert counts.max() == 9  # first_stage_max_proposals_in_training, not the 6 of testing
    for begin, end, batch in zip(offsets, offsets[1:], images):
        proposed: Proposals = first.forward(first.preprocess(batch.images), true_shapes=batch.true_shapes).proposals
        np.testing.assert_allclose(boxes[begin:end], proposed.boxes_norm[0, : end - begin], atol=1e-5)
        np.testing.assert_allclose(scores[begin:end], proposed.scores[0, : end - begin], atol=1e-5)


@pytest.mark.slow
def test_the_result_is_a_run_like_any_other(run, tmp_path, capsys):
    words = ["evaluate", "--pipeline_config_path", f"{run.folder}/pipeline.config", "--checkpoint_dir", str(run.folder)]
    assert main([*words, "--output_dir", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "metrics.json").read_text())["step"] == 4 * 3
    capsys.readouterr()
    assert train(run.config, run.folder) == 0
    assert "is finished: the four steps are merged" in capsys.readouterr().err


@pytest.mark.parametrize("family", ["pyramid", "one_map", "rfcn"])
def test_every_family_is_divided_into_what_is_shared_and_what_is_not(toy_config, tmp_path, family):
    pipeline = load_pipeline(str(toy_config(family))).message
    whole = variables_by_path(build_detector(pipeline.model).variables)
    trains = dict.fromkeys(whole, True)
    for step in STEPS:
        config = config_of_step(step, StageConfigs(pipeline, pipeline), tmp_path, trains)
        detector = build_detector(config.model)
        assert set(variables_by_path(detector.variables)) == {path for path in whole if step.trains_on(path)}
        trained = select_trainable(detector, (), tuple(config.train_config.freeze_variables))
        parts = {variable.path.split("/")[0] for variable in trained}
        if not step.starts_from:
            assert "backbone" in parts
        else:  # the rest of the backbone, after the crop, is the second stage's own
            assert parts == ({"rpn"} if step.is_first_stage else {"box_backbone", "box_head"})


@pytest.fixture
def recorded(monkeypatch, toy_config, tmp_path):
    """A run whose trainings are only noted: ``events``, ``proposals`` (replaceable), ``go()``."""
    message = load_pipeline(str(toy_config("pyramid"))).message
    noted = types.SimpleNamespace(events=[], folder=tmp_path, message=message)

    def fake_training(config, folder, strategy_name, make_evaluate, stop, allow_random_weights):
        noted.events.append((folder.name, config.train_config.num_steps))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "checkpoint").touch()
        write_finished(folder, 3, 3, "reached num_train_steps")
        return Outcome(3, True, "reached num_train_steps")

    def propose(config, folder, file):
        noted.events.append(("propose", folder.name))
        file.write_bytes(b"")
        return NUM_IMAGES

    monkeypatch.setattr(four_step, "train_pipeline", fake_training)
    monkeypatch.setattr(four_step, "merge_steps", lambda folder, shapes: "merged")
    noted.propose = propose

    def go(strategy="one_device"):
        with StopRequest() as stop:
            stages = StageConfigs(message, message)
            made = four_step.train_four_step(message, tmp_path, strategy, stages, noted.propose, stop)
            return made, stop.signal

    noted.go = go
    return noted


ALL_EVENTS = [
    ("1_rpn", 3),
    ("propose", "1_rpn"),
    ("2_fast_rcnn", 3),
    ("3_rpn", 3),
    ("propose", "3_rpn"),
    ("4_fast_rcnn", 3),
]


def test_the_order_of_the_recipe(recorded):
    assert recorded.go() == ("merged", None)
    assert recorded.events == ALL_EVENTS


def test_a_signal_while_proposing_ends_it_at_once_and_it_is_done_again(recorded):
    whole = recorded.propose

    def interrupted(config, folder, file):
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("the signal must end the proposing")

    recorded.propose = interrupted
    assert recorded.go() == (None, signal.SIGTERM)
    assert recorded.events == ALL_EVENTS[:1]
    recorded.propose = whole
    assert recorded.go() == ("merged", None)
    assert recorded.events == ALL_EVENTS


def test_several_machines_are_refused(recorded, monkeypatch):
    cluster = {"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    with pytest.raises(UsageError, match="runs on one machine: unset TF_CONFIG"):
        recorded.go()
    assert recorded.events == []


def test_records_without_ids_are_told_before_the_first_training(recorded, tmp_path):
    empty = tf.train.Example(features=tf.train.Features(feature={})).SerializeToString()
    with tf.io.TFRecordWriter(str(tmp_path / "data.tfrecord")) as writer:
        for _ in range(3):
            writer.write(empty)
    recorded.message.train_input_reader.tf_record_input_reader.input_path[:] = [str(tmp_path / "data.tfrecord")]
    with pytest.raises(DataError, match="3 of the first 3 records of train_input_reader have no image/source_id"):
        recorded.go()
    assert recorded.events == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--set", "model.faster_rcnn.number_of_stages=1"], "number_of_stages is 1, a first stage alone"),
        (["--set", "train_config.num_steps=0"], "how many steps"),
        (
            ["--rpn_set", "model.faster_rcnn.fc_depth=8"],
            "--rpn_set model.faster_rcnn.fc_depth=8: only fields of",
        ),
        (["--box_set", "train_config.batch_sice=8"], "batch_size"),
        (["--strategy", "multi_worker"], "strategy"),
        (["--rpn_steps", "0"], "rpn_steps"),
        (["--set", "train_input_reader.tf_record_input_reader.input_path[0]=gone.tfrecord"], "no file matches"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_made(toy_config, tmp_path, capsys, flags, message):
    assert train(toy_config("pyramid"), tmp_path / "run", *flags) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_one_stage_config_is_refused_before_tensorflow_starts(tmp_path):
    config = "model_configs/shapes_ssd_mobilenet_v1.config"
    words = ["train_four_step", "--pipeline_config_path", config, "--model_dir", str(tmp_path / "run")]
    script = f"import sys\nfrom detzoo.cli.main import main\nprint(main({words!r}), 'tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=600)
    assert done.stdout.split() == ["2", "False"]
    assert "model.ssd has no two stages" in done.stderr


def test_steps_and_settings_of_each_stage(toy_config, tmp_path, monkeypatch, capsys):
    seen = {}

    def fake(pipeline, folder, strategy, stages, write_proposals, stop, allow_random_weights):
        seen.update(whole=pipeline, rpn=stages.rpn, box=stages.box, strategy=strategy)

    monkeypatch.setattr(four_step, "train_four_step", fake)
    flags = ["--num_train_steps", "20", "--rpn_steps", "30", "--checkpoint_every_n", "4"]
    flags += ["--box_set", "train_config.batch_size=8", "--set", "train_config.seed=5", "--strategy", "mirrored"]
    assert train(toy_config("pyramid"), tmp_path / "run", *flags) == 0
    found = {
        name: (c.num_steps, c.batch_size, c.seed, c.checkpoint_every_n_steps)
        for name, c in ((name, seen[name].train_config) for name in ("whole", "rpn", "box"))
    }
    assert found == {"whole": (20, 2, 5, 4), "rpn": (30, 2, 5, 4), "box": (20, 8, 5, 4)}
    assert seen["strategy"] == "mirrored"
    assert "The same command continues from here" in capsys.readouterr().err
