"""A run as a whole: files, resuming, evaluation, the best checkpoint, early stopping, and every way to end."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf

from detzoo.checkpoints import restore_for_inference
from detzoo.checkpoints.files import latest_prefix
from detzoo.data.issue_counter import IssueCounter, count_vector
from detzoo.detectors.batch_norm_statistics import BatchNormStatistics
from detzoo.errors import CheckpointError, ConfigError, DataError, DiskFullError, TrainingError
from detzoo.optim.schedules import ManualStepRate, PlateauRate
from detzoo.train.loop import TrainingLoop
from detzoo.train.run_record import read_finished
from detzoo.train.settings import EarlyStopping
from detzoo.train.stop import StopRequest


def scalars_of(folder):
    """tag -> {step: value} of the event files in a folder."""
    found = {}
    for file in pathlib.Path(folder).glob("events.*"):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                found.setdefault(value.tag, {})[event.step] = float(tf.make_ndarray(value.tensor))
    return found


def weights_of(trainer):
    return {path: variable.numpy() for path, variable in trainer.model_variables.items()}


def scripted(values):
    """An evaluation that returns these numbers one after another."""
    remaining = iter(values)
    return lambda detector: {"mAP": next(remaining), "mAP@.50IOU": 0.5}


def test_a_run_leaves_checkpoints_events_and_the_marker(training_toy, one_device, tmp_path, capsys):
    run = training_toy.settings(keep_checkpoint_max=2)
    trainer, outcome = training_toy.run_to_end(tmp_path, one_device, run)
    assert (outcome.step, outcome.finished) == (20, True)
    assert {file.stem for file in tmp_path.glob("ckpt-*.index")} == {"ckpt-15", "ckpt-20"}
    assert read_finished(tmp_path) == {"step": 20, "num_train_steps": 20, "reason": "reached num_train_steps"}
    scalars = scalars_of(tmp_path / "train")
    assert {"Loss/localization_loss", "Loss/classification_loss", "Loss/total_loss"} <= scalars.keys()
    assert set(scalars["learning_rate"]) == {5, 10, 15, 20}
    assert scalars["learning_rate"][5] == pytest.approx(0.05)
    assert min(scalars["gradient_norm"].values()) > 0
    assert min(scalars["images_per_second"].values()) > 0
    shown = capsys.readouterr().err
    assert "step 20/20  loss " in shown
    assert "localization " in shown
    assert shown.rstrip().endswith(" images/s")  # nothing is left after the last step
    again = training_toy.make_trainer(one_device)
    assert restore_for_inference(again.detector, tmp_path) == 20
    for path, value in weights_of(trainer).items():
        np.testing.assert_array_equal(weights_of(again)[path], value)


def test_a_resumed_run_equals_one_that_was_never_interrupted(training_toy, one_device, two_replicas, tmp_path):
    # Nothing may be left out: momentum, schedule, averages and the position in the data; nor may the strategy matter.
    def session(folder, num_steps, strategy=one_device):
        def optimizer():
            return keras.optimizers.SGD(ManualStepRate([7], [0.02, 0.01]), momentum=0.9, name="momentum")

        run = training_toy.settings(num_steps=num_steps, moving_average_decay=0.9)
        return training_toy.run_to_end(tmp_path / folder, strategy, run, optimizer=optimizer)

    whole, _ = session("whole", 10)
    session("one", 5)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    for resumed, outcome in (session("one", 10), session("two", 10, two_replicas)):
        assert outcome.step == 10
        assert int(resumed.next_record) == int(whole.next_record) == 40
        for path, value in weights_of(whole).items():
            np.testing.assert_allclose(weights_of(resumed)[path], value, rtol=1e-3, atol=1e-5, err_msg=path)
        for path, value in whole.average.averages.items():
            np.testing.assert_allclose(resumed.average.averages[path].numpy(), value.numpy(), rtol=1e-3, atol=1e-5)


def test_evaluation_keeps_the_best_and_reports_it(training_toy, one_device, tmp_path, capsys):
    run = training_toy.settings(eval_every_n_steps=5)
    training_toy.run_to_end(tmp_path, one_device, run, evaluate=scripted([0.1, 0.3, 0.2, 0.3]))
    assert latest_prefix(tmp_path / "best").endswith("ckpt-10")
    record = json.loads((tmp_path / "best" / "best.json").read_text())
    assert record == {"step": 10, "metric": "mAP", "value": 0.3}
    history = [json.loads(line) for line in (tmp_path / "evaluations.jsonl").read_text().splitlines()]
    assert [(entry["step"], entry["mAP"]) for entry in history] == [(5, 0.1), (10, 0.3), (15, 0.2), (20, 0.3)]
    scalars = scalars_of(tmp_path / "eval")
    assert scalars["DetectionBoxes_Precision/mAP"] == pytest.approx({5: 0.1, 10: 0.3, 15: 0.2, 20: 0.3})
    assert "evaluation at step 15: mAP 0.2000  mAP@.50IOU 0.5000  (best 0.3000 at step 10)" in capsys.readouterr().err
    assert restore_for_inference(training_toy.make_trainer(one_device).detector, tmp_path / "best") == 10


def test_evaluation_sees_the_averaged_weights(training_toy, one_device, tmp_path):
    run = training_toy.settings(num_steps=5, eval_every_n_steps=5, moving_average_decay=0.9)
    seen = []

    def evaluate(detector):
        seen.append(detector.trainable_variables[0].numpy())
        return {"mAP": 0.0}

    trainer, _ = training_toy.run_to_end(tmp_path, one_device, run, evaluate=evaluate)
    path = trainer.detector.trainable_variables[0].path
    np.testing.assert_array_equal(seen[0], trainer.average.averages[path].numpy())
    detector = training_toy.make_trainer(one_device).detector
    restore_for_inference(detector, tmp_path)
    np.testing.assert_array_equal(detector.trainable_variables[0].numpy(), seen[0])
    restore_for_inference(detector, tmp_path, prefer_ema=False)
    np.testing.assert_array_equal(detector.trainable_variables[0].numpy(), weights_of(trainer)[path])


def test_early_stopping_counts_across_a_restart(training_toy, one_device, tmp_path):
    rule = EarlyStopping(patience_evaluations=2, min_delta=0.05)
    first = training_toy.settings(num_steps=10, eval_every_n_steps=5, early_stopping=rule)
    _, outcome = training_toy.run_to_end(tmp_path, one_device, first, evaluate=scripted([0.3, 0.31]))
    assert outcome.reason == "reached num_train_steps"
    second = training_toy.settings(num_steps=100, eval_every_n_steps=5, early_stopping=rule)
    _, outcome = training_toy.run_to_end(tmp_path, one_device, second, evaluate=scripted([0.32, 0.9]))
    assert (outcome.step, outcome.finished) == (15, True)
    assert outcome.reason == "stopped early: mAP has not improved for 2 evaluations (best 0.3000)"
    assert read_finished(tmp_path)["num_train_steps"] == 100


def test_the_rate_falls_after_each_plateau_also_across_a_restart(training_toy, one_device, tmp_path):
    rule = EarlyStopping(patience_evaluations=2)
    sgd = lambda: keras.optimizers.SGD(PlateauRate(0.0025, factor=0.5, minimum=0.001))  # noqa: E731

    def train(num_steps, values):
        run = training_toy.settings(num_steps=num_steps, eval_every_n_steps=5, plateau=rule)
        training_toy.run_to_end(tmp_path, one_device, run, scripted(values), optimizer=sgd)

    train(10, [0.3, 0.2])  # the second one is the first without improvement
    train(25, [0.1, 0.3, 0.2])  # the first one ends the patience after step 15, the third one after step 25
    train(35, [0.4, 0.1])  # later progress does not raise the rate
    rates = scalars_of(tmp_path / "train")["learning_rate"]
    # 0.0025, halved, and then 0.000625, below the minimum.
    wanted = {5: 0.0025, 10: 0.0025, 15: 0.0025, 20: 0.00125, 25: 0.00125, 30: 0.001, 35: 0.001}
    assert rates == pytest.approx(wanted)


def test_a_plateau_needs_evaluations(training_toy, one_device, tmp_path):
    sgd = lambda: keras.optimizers.SGD(PlateauRate(0.25, factor=0.5))  # noqa: E731
    with pytest.raises(ConfigError, match="plateau_learning_rate needs evaluations while training"):
        training_toy.run_to_end(tmp_path, one_device, optimizer=sgd)


def test_an_unknown_metric_names_those_there_are(training_toy, one_device, tmp_path):
    run = training_toy.settings(checkpoint_every_n_steps=100, eval_every_n_steps=5, best_checkpoint_metric="accuracy")
    with pytest.raises(ConfigError, match=r"best_checkpoint_metric 'accuracy' is none of .*: mAP, mAP@.50IOU"):
        training_toy.run_to_end(tmp_path, one_device, run, evaluate=scripted([0.1]))
    assert latest_prefix(tmp_path).endswith("ckpt-5")


def fails_at(steps):
    """An evaluation that raises when its count (from 1) is in ``steps``."""
    count = iter(range(1, 100))

    def evaluate(detector):
        number = next(count)
        if number in steps:
            raise ValueError(f"picture {number} cannot be drawn")
        return {"mAP": 0.1 * number, "mAP@.50IOU": 0.5}

    return evaluate


def test_a_failed_evaluation_saves_and_training_continues(training_toy, one_device, tmp_path, caplog):
    run = training_toy.settings(checkpoint_every_n_steps=100, eval_every_n_steps=5)
    _, outcome = training_toy.run_to_end(tmp_path, one_device, run, evaluate=fails_at({1, 3}))
    assert (outcome.step, outcome.finished) == (20, True)
    assert {file.stem for file in tmp_path.glob("ckpt-*.index")} == {"ckpt-5", "ckpt-15", "ckpt-20"}
    history = [json.loads(line)["step"] for line in (tmp_path / "evaluations.jsonl").read_text().splitlines()]
    assert history == [10, 20]
    assert "evaluation at step 5 failed, training continues" in caplog.text
    assert "ValueError: picture 3 cannot be drawn" in caplog.text
    assert "2 evaluations of this session failed" in caplog.text
    assert read_finished(tmp_path)["step"] == 20


def test_a_failed_last_evaluation_is_an_error_and_is_repeated(training_toy, one_device, tmp_path):
    run = training_toy.settings(num_steps=10, eval_every_n_steps=5)
    message = r"step 10: reached num_train_steps; .*ckpt-10 is saved, but its evaluation failed: ValueError: picture 2"
    with pytest.raises(TrainingError, match=message):
        training_toy.run_to_end(tmp_path, one_device, run, evaluate=fails_at({2}))
    assert read_finished(tmp_path) is None
    _, outcome = training_toy.run_to_end(tmp_path, one_device, run, evaluate=scripted([0.3]))
    assert outcome.finished
    assert read_finished(tmp_path)["step"] == 10
    assert json.loads((tmp_path / "best" / "best.json").read_text())["step"] == 10


def test_events_that_cannot_be_written_end_nothing(training_toy, one_device, tmp_path, caplog):
    (tmp_path / "train").write_text("a file where the folder of events belongs")
    _, outcome = training_toy.run_to_end(tmp_path, one_device)
    assert outcome.finished
    assert latest_prefix(tmp_path).endswith("ckpt-20")
    assert caplog.text.count("TensorBoard's events cannot be written, the work continues") == 1
    assert "could not be written 4 times" in caplog.text  # steps 5, 10, 15, 20


def fill_disk(monkeypatch, at_step):
    """From this step on, no checkpoint can be written, as TensorFlow reports it; parts of its files are left."""
    save = tf.train.CheckpointManager.save

    def save_until_full(self, checkpoint_number):
        if checkpoint_number < at_step:
            return save(self, checkpoint_number)
        prefix = f"{self.directory}/ckpt-{checkpoint_number}"
        os.makedirs(f"{prefix}_temp")
        pathlib.Path(f"{prefix}.data-00000-of-00001").write_bytes(b"part")
        raise tf.errors.ResourceExhaustedError(None, None, f"{prefix}_temp/part-0; No space left on device [Op:SaveV2]")

    monkeypatch.setattr(tf.train.CheckpointManager, "save", save_until_full)


def test_a_full_disk_keeps_what_was_saved_and_is_no_lack_of_memory(training_toy, one_device, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        fill_disk(patch, at_step=15)
        # 807 numbers of 4 bytes: 8 * 8 * 3 * 4 + 4 of the stem, 4 * 4 + 4 of the boxes, 4 * 3 + 3 of the classes; twice
        # with their momenta; the optimizer's count of 8 bytes and its rate of 4.
        size = f"{807 * 4 * 2 + 8 + 4:,} bytes"
        message = rf"disk is full .*{tmp_path.name} has .* free; 0\.0 MB \({size}\) were"
        with pytest.raises(DiskFullError, match=message):
            training_toy.run_to_end(tmp_path, one_device)
    assert {file.name.split(".")[0] for file in tmp_path.glob("ckpt-*")} == {"ckpt-5", "ckpt-10"}
    assert latest_prefix(tmp_path).endswith("ckpt-10")
    _, outcome = training_toy.run_to_end(tmp_path, one_device)
    assert (outcome.step, outcome.finished) == (20, True)


def test_a_full_disk_in_an_evaluation_ends_the_run_with_its_name(training_toy, one_device, tmp_path, monkeypatch):
    fill_disk(monkeypatch, at_step=5)
    run = training_toy.settings(checkpoint_every_n_steps=100, eval_every_n_steps=5)
    with pytest.raises(DiskFullError, match="disk is full"):
        training_toy.run_to_end(tmp_path, one_device, run, evaluate=fails_at({1}))


@pytest.mark.parametrize(
    "content", [b"", b"model_checkpoint", bytes(range(128, 256)), b'model_checkpoint_path: "ckpt-99"']
)
def test_a_damaged_index_of_checkpoints_blocks_nothing(training_toy, one_device, tmp_path, content):
    training_toy.run_to_end(tmp_path, one_device, training_toy.settings(num_steps=10))
    (tmp_path / "checkpoint").write_bytes(content)
    assert latest_prefix(tmp_path) == str(tmp_path / "ckpt-10")
    run = training_toy.settings(num_steps=15, keep_checkpoint_max=2)
    trainer, outcome = training_toy.run_to_end(tmp_path, one_device, run)
    assert (outcome.step, int(trainer.next_record)) == (15, 60)
    assert tf.train.latest_checkpoint(str(tmp_path)) == str(tmp_path / "ckpt-15")
    # The two checkpoints that the damaged file had named before count among the two to keep.
    assert {file.stem for file in tmp_path.glob("ckpt-*.index")} == {"ckpt-10", "ckpt-15"}


def test_an_index_without_any_checkpoint_starts_from_scratch(training_toy, one_device, tmp_path):
    (tmp_path / "checkpoint").write_bytes(bytes(range(128, 256)))
    _, outcome = training_toy.run_to_end(tmp_path, one_device, training_toy.settings(num_steps=5))
    assert outcome.step == 5


def test_sigterm_while_saving_ends_after_it(training_toy, one_device, tmp_path, monkeypatch):
    save = tf.train.CheckpointManager.save

    def save_after_signal(self, checkpoint_number):
        os.kill(os.getpid(), signal.SIGTERM)
        return save(self, checkpoint_number)

    monkeypatch.setattr(tf.train.CheckpointManager, "save", save_after_signal)
    with StopRequest() as stop:
        _, outcome = training_toy.run_to_end(tmp_path, one_device, stop=stop)
    assert (outcome.step, outcome.finished, outcome.reason) == (5, False, "stopped by SIGTERM")
    assert latest_prefix(tmp_path).endswith("ckpt-5")


def test_sigterm_during_an_evaluation_saves_and_ends(training_toy, one_device, tmp_path):
    run = training_toy.settings(num_steps=1000, eval_every_n_steps=3)

    def evaluate(detector):
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the evaluation continues after SIGTERM")

    with StopRequest() as stop:
        _, outcome = training_toy.run_to_end(tmp_path, one_device, run, evaluate=evaluate, stop=stop)
    assert (outcome.step, outcome.finished, outcome.reason) == (3, False, "stopped by SIGTERM")
    assert latest_prefix(tmp_path).endswith("ckpt-3")
    assert read_finished(tmp_path) is None
    # The evaluation that was cut short is made up for.
    with StopRequest() as stop:
        run = training_toy.settings(num_steps=4, eval_every_n_steps=3)
        training_toy.run_to_end(tmp_path, one_device, run, evaluate=scripted([0.5, 0.6]), stop=stop)
    history = [json.loads(line)["step"] for line in (tmp_path / "evaluations.jsonl").read_text().splitlines()]
    assert history == [3, 4]


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(training_toy, one_device, tmp_path):
    rate = ManualStepRate([7], [0.01, 1e30])
    # Step 8 is the first with the high rate, so the loss of step 9 is the first that is not finite, or huge.
    message = r"not finite at step (9|10): localization .*, classification .*; learning rate 1e\+30.*ckpt-5"
    with pytest.raises(TrainingError, match=message):
        training_toy.run_to_end(tmp_path, one_device, optimizer=lambda: keras.optimizers.SGD(rate))
    assert latest_prefix(tmp_path).endswith("ckpt-5")
    assert all(np.isfinite(value).all() for value in weights_at(tmp_path).values())


def train_on(training_toy, strategy, folder, change, num_records=None, counter=None, **run):
    """Trains on the toy's batches after a change of their ground truth."""
    optimizer = lambda: keras.optimizers.SGD(1e-6)  # noqa: E731 - at the toy's own rate it diverges without objects
    trainer = training_toy.make_trainer(strategy, training_toy.settings(**run), optimizer, num_records)
    made = trainer._make_dataset
    trainer._make_dataset = lambda start, context: made(start, context).map(
        lambda batch: batch._replace(groundtruth=batch.groundtruth._replace(**change(batch)))
    )
    if counter is not None:
        trainer.issue = counter
    return TrainingLoop(trainer, folder, None, StopRequest()).run()


def without_objects(batch):
    return {"classes": -tf.ones_like(batch.groundtruth.classes)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_objects, "no object to learn from in 200 steps: the records have no boxes"),
        (
            lambda batch: {"is_crowd": tf.ones_like(batch.groundtruth.is_crowd)},
            # Record i has i % 3 + 1 objects: 800 records are 266 times six objects, and one and two more.
            r"in 200 steps: 1599 objects are crowds \(image/object/is_crowd.*import them with is_crowd 0",
        ),
        (lambda batch: {"weights": tf.zeros_like(batch.groundtruth.weights)}, "1599 objects are of weight 0"),
    ],
)
def test_200_steps_without_an_object_stop_a_training(training_toy, one_device, tmp_path, change, message):
    with pytest.raises(TrainingError, match=message):
        train_on(training_toy, one_device, tmp_path, change, num_steps=300, checkpoint_every_n_steps=1000)


def test_an_epoch_without_an_object_stops_a_training_with_what_was_dropped(training_toy, one_device, tmp_path):
    counter = IssueCounter()
    counter.add(count_vector(unknown_class=7))
    counter.end_epoch(12)
    message = "in [345] steps: 7 objects were dropped as unknown_class.*label_map_path has other names or ids"
    with pytest.raises(TrainingError, match=message):
        train_on(training_toy, one_device, tmp_path, without_objects, counter=counter)


def test_a_training_that_ends_without_an_object_is_an_error(training_toy, two_replicas, tmp_path):
    with pytest.raises(TrainingError, match="no object to learn from in 2 steps"):
        train_on(training_toy, two_replicas, tmp_path, without_objects, num_records=11)
    assert read_finished(tmp_path) is None


def test_one_object_in_an_epoch_is_enough(training_toy, one_device, tmp_path):
    counter = IssueCounter()
    counter.end_epoch(12)

    def only_record_2(batch):
        return {"classes": tf.where(batch.record_index[:, tf.newaxis] == 2, batch.groundtruth.classes, -1)}

    assert train_on(training_toy, one_device, tmp_path, only_record_2, counter=counter).finished


def test_a_loss_that_is_not_finite_names_the_records_of_its_batch(training_toy, two_replicas, tmp_path):
    def poison(batch):
        return {"boxes_norm": batch.groundtruth.boxes_norm * 1e38}

    message = (
        r"not finite at step 1: localization inf, classification [\d.]+; learning rate 1e-06.*Its batch has the images "
        r"'0' \(record 0\), '1' \(record 1\), '2' \(record 2\), '3' \(record 3\): look"
    )
    with pytest.raises(TrainingError, match=message):
        train_on(training_toy, two_replicas, tmp_path, poison)


def weights_at(folder):
    reader = tf.train.load_checkpoint(latest_prefix(folder))
    return {key: reader.get_tensor(key) for key in reader.get_variable_to_shape_map() if key.startswith("model/")}


def test_the_end_of_the_data_ends_the_run(training_toy, one_device, tmp_path):
    _, outcome = training_toy.run_to_end(tmp_path, one_device, num_records=11)
    # Eleven records are two batches of four.
    assert (outcome.step, outcome.finished) == (2, True)
    assert "the training data ended" in outcome.reason
    assert latest_prefix(tmp_path).endswith("ckpt-2")


def test_a_damaged_newest_checkpoint_is_passed_over(training_toy, one_device, tmp_path, caplog):
    training_toy.run_to_end(tmp_path, one_device, training_toy.settings(num_steps=10))
    [data] = tmp_path.glob("ckpt-10.data*")
    data.write_bytes(data.read_bytes()[:100])
    _, outcome = training_toy.run_to_end(tmp_path, one_device, training_toy.settings(num_steps=12))
    assert outcome.step == 12
    assert "ckpt-10 is damaged or incomplete" in caplog.text
    for data in tmp_path.glob("ckpt-*.data*"):
        data.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* can be read; the newest: .*ckpt-12 is damaged"):
        training_toy.run_to_end(tmp_path, one_device)


def test_a_checkpoint_of_another_model_is_refused(training_toy, one_device, tmp_path):
    training_toy.run_to_end(tmp_path, one_device, training_toy.settings(num_steps=5))
    with pytest.raises(CheckpointError, match=r"of another model: 2 variables of another shape \(head/classes/kernel"):
        training_toy.run_to_end(tmp_path, one_device, num_classes=5)


def test_another_optimizer_starts_anew_with_a_warning(training_toy, one_device, tmp_path, caplog):
    training_toy.run_to_end(tmp_path, one_device, training_toy.settings(num_steps=5))
    trainer, outcome = training_toy.run_to_end(
        tmp_path, one_device, training_toy.settings(num_steps=6), optimizer=lambda: keras.optimizers.Adam(0.001)
    )
    assert outcome.step == 6
    assert int(trainer.optimizer.iterations) == 6
    assert "the optimizer starts from its initial state" in caplog.text


NORM = ("backbone/norm/moving_mean", "backbone/norm/moving_variance")


def test_recomputed_statistics_are_evaluated_and_saved_and_change_nothing_else(
    training_toy, one_device, tmp_path, capsys
):
    seen = []

    def evaluate(detector):
        seen.append([variable.numpy() for variable in detector.variables if variable.path in NORM])
        return {"mAP": 0.5}

    run = training_toy.settings(num_steps=10, eval_every_n_steps=5)
    plain, _ = training_toy.run_to_end(tmp_path / "plain", one_device, run, evaluate, batch_norm=True)
    shown = capsys.readouterr().err
    # Keras's momentum of 0.99: 0.99 ** 5 = 0.951, 0.99 ** 10 = 0.904, log(0.01) / log(0.99) = 458.2.
    assert "after 5 steps the moving statistics of batch normalization are still 95% their initial values" in shown
    assert "still 90% their initial values (momentum 0.99: 1% is left after 459 steps)" in shown
    assert "--recompute_batch_norm" in shown
    run = training_toy.settings(num_steps=10, eval_every_n_steps=5, recompute_batch_norm_batches=3)
    precise, _ = training_toy.run_to_end(tmp_path / "precise", one_device, run, evaluate, batch_norm=True)
    shown = capsys.readouterr().err
    assert shown.count("recomputing batch normalization from 3 training batches") == 2  # once per step
    assert "initial values" not in shown
    for path, value in weights_of(plain).items():
        assert np.array_equal(weights_of(precise)[path], value) == (path not in NORM), path
    for one, other in zip(plain.optimizer.variables, precise.optimizer.variables):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    assert int(plain.next_record) == int(precise.next_record)
    trainer = training_toy.make_trainer(one_device, batch_norm=True)
    for step, values in ((5, seen[2]), (10, seen[3])):
        restore_for_inference(trainer.detector, tmp_path / "precise" / f"ckpt-{step}")
        for path, value in zip(NORM, values):
            np.testing.assert_array_equal(weights_of(trainer)[path], value)
    # The statistics of the last weights, computed once more.
    restore_for_inference(trainer.detector, tmp_path / "plain")
    BatchNormStatistics(trainer.detector, trainer._distributed_dataset(0)).recompute(3)
    for path in NORM:
        np.testing.assert_allclose(weights_of(trainer)[path], weights_of(precise)[path], rtol=1e-6)


def test_a_signal_does_not_wait_for_statistics_and_their_failure_ends_nothing(
    training_toy, one_device, tmp_path, monkeypatch, caplog
):
    calls = []

    def fail(trainer):
        calls.append(int(trainer.step))
        raise DataError("no batch")

    monkeypatch.setattr("detzoo.train.trainer.Trainer.recompute_statistics", fail)
    run = training_toy.settings(num_steps=10, recompute_batch_norm_batches=3)
    trainer, outcome = training_toy.run_to_end(tmp_path / "whole", one_device, run, batch_norm=True)
    assert (outcome.step, outcome.finished, calls) == (10, True, [5, 10])
    assert latest_prefix(tmp_path / "whole").endswith("ckpt-10")
    assert "batch normalization keeps its moving averages: no batch" in caplog.text
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        trainer.step.assign(9)
        outcome = TrainingLoop(trainer, tmp_path / "stopped", None, stop).run()
    assert (outcome.step, outcome.finished, calls) == (9, False, [5, 10])
    assert latest_prefix(tmp_path / "stopped").endswith("ckpt-9")
