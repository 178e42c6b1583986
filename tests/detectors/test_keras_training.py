"""Keras's methods of a detector: what ``fit``, ``evaluate`` and ``compile`` accept, compute and refuse."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from detzoo.detectors.keras_data import to_arrays
from detzoo.errors import DataError, UsageError

PARTS = ["loss", "localization", "classification"]


@pytest.fixture(scope="module")
def toys(load_module):
    """The module tests/train/training_toy.py, whose detector is traced within a second."""
    return load_module("train/training_toy.py")


def data(count=4, objects=2):
    """Images of 16 x 24 pixels with two objects each; the last image has one, then padding."""
    generator = np.random.default_rng(5)
    images = generator.integers(0, 256, (count, 16, 24, 3), np.uint8)
    corners = generator.uniform(0.0, 0.4, (count, objects, 2))
    boxes = np.concatenate([corners, corners + 0.5], axis=-1).astype(np.float32)
    classes = generator.integers(0, 3, (count, objects))
    boxes[-1, -1], classes[-1, -1] = 0.0, -1
    return images, {"boxes": boxes, "classes": classes}


@pytest.fixture
def compiled(toys):
    """A detector whose weights do not change, so that each way to give the data has the same losses."""
    detector = toys.TrainingToy()
    detector.compile(keras.optimizers.SGD(0.0))
    return detector


def by_hand(toys, detector, images, truth):
    """The mean of the toy's losses over batches of two images, without detzoo's conversion."""
    deltas, logits = map(np.asarray, detector.network(images / 127.5 - 1.0))
    entropy = np.maximum(logits, 0) + np.log1p(np.exp(-np.abs(logits)))
    batches = []
    for rows in (slice(0, 2), slice(2, 4)):
        objects = (truth["classes"][rows] >= 0).sum()
        wanted = np.eye(3)[truth["classes"][rows, 0]][:, np.newaxis]
        squares = (deltas[rows] - truth["boxes"][rows, :1]) ** 2
        batches.append([squares.sum() / objects, (entropy[rows] - logits[rows] * wanted).sum() / objects])
    localization, classification = np.mean(batches, axis=0)
    return [localization + classification, localization, classification]


class Batches(keras.utils.PyDataset):
    """Two batches of two images."""

    def __len__(self):
        return 2

    def __getitem__(self, number):
        return tf.nest.map_structure(lambda x: x[2 * number : 2 * number + 2], data())


def given(kind):
    """The arguments that give the same four images in one of the accepted ways."""
    images, truth = data()
    lengths = (truth["classes"] >= 0).sum(axis=1)
    rows = {key: [value[:length] for value, length in zip(truth[key], lengths)] for key in truth}
    if kind == "arrays":
        return {"x": images, "y": truth, "batch_size": 2}
    if kind == "float images":
        return {"x": images.astype(np.float32), "y": truth, "batch_size": 2}
    if kind == "float classes":
        return {"x": images, "y": truth | {"classes": truth["classes"].astype(np.float32)}, "batch_size": 2}
    if kind == "lists":
        return {"x": list(images), "y": rows, "batch_size": 2}
    if kind == "dataset":
        return {"x": tf.data.Dataset.from_tensor_slices((images, truth)).batch(2)}
    if kind == "ragged dataset":
        ragged = {
            "boxes": tf.ragged.constant(rows["boxes"], ragged_rank=1),
            "classes": tf.ragged.constant(rows["classes"]),
        }
        return {"x": tf.data.Dataset.from_tensor_slices((images, ragged)).batch(2)}
    if kind == "PyDataset":
        return {"x": Batches()}
    return {"x": (Batches()[number] for number in range(2))}


KINDS = ["arrays", "float images", "float classes", "lists", "dataset", "ragged dataset", "PyDataset", "generator"]


@pytest.mark.parametrize("kind", KINDS)
def test_losses_do_not_depend_on_the_form_of_the_data(toys, compiled, kind):
    expected = by_hand(toys, compiled, *data())
    steps = 2 if kind == "generator" else None
    history = compiled.fit(**given(kind), shuffle=False, steps_per_epoch=steps, verbose=0).history
    np.testing.assert_allclose([history[name][0] for name in PARTS], expected, rtol=1e-5)
    assert compiled.metrics_names == PARTS
    np.testing.assert_allclose(compiled.evaluate(**given(kind), verbose=0), expected, rtol=1e-5)


def test_batches_of_the_input_pipeline(toys, compiled):
    batches = toys.make_dataset(4, num_records=8)(0, tf.distribute.InputContext())
    compiled.fit(batches, verbose=0)
    assert int(compiled.optimizer.iterations) == 2
    values = []
    for batch in batches:
        predictions = compiled.forward(compiled.preprocess(batch.images))
        terms = compiled.loss_terms(predictions, batch.groundtruth)
        values.append(sum(term.total / term.normalizer for term in terms.values()))
    assert compiled.evaluate(batches, verbose=0, return_dict=True)["loss"] == pytest.approx(np.mean(values), rel=1e-5)


def test_regularisation_is_a_part_of_the_loss(toys):
    detector = toys.TrainingToy(l2=0.5)
    detector.compile()
    logs = detector.test_on_batch(*data(), return_dict=True)
    kernel = next(np.asarray(v) for v in detector.weights if v.path == "backbone/stem/kernel")
    assert logs["regularization"] == pytest.approx(0.5 * np.sum(kernel**2), rel=1e-5)
    parts = [value for name, value in logs.items() if name != "loss"]
    assert logs["loss"] == pytest.approx(sum(parts), rel=1e-5)


def test_training_lowers_the_loss_with_callbacks(toys, tmp_path):
    detector = toys.TrainingToy(batch_norm=True)
    detector.compile(keras.optimizers.Adam(0.01), steps_per_execution=2)
    callbacks = [
        keras.callbacks.EarlyStopping("val_loss", patience=20, restore_best_weights=True),
        keras.callbacks.ModelCheckpoint(tmp_path / "best.weights.h5", save_best_only=True, save_weights_only=True),
        keras.callbacks.TensorBoard(tmp_path / "events"),
        keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.01 if epoch < 3 else 0.005),
        keras.callbacks.TerminateOnNaN(),
    ]
    history = detector.fit(
        *data(), batch_size=2, epochs=6, verbose=0, callbacks=callbacks, validation_data=data()
    ).history
    assert history["loss"][-1] < history["loss"][0]
    assert history["learning_rate"] == pytest.approx([0.01] * 3 + [0.005] * 3)
    assert {f"val_{name}" for name in PARTS} < set(history)
    assert (tmp_path / "best.weights.h5").exists()
    assert list((tmp_path / "events").rglob("events*"))
    assert detector.evaluate(*data(), batch_size=2, verbose=0)[0] == pytest.approx(min(history["val_loss"]), rel=1e-4)


def test_evaluation_does_not_move_statistics(toys):
    detector = toys.TrainingToy(batch_norm=True)
    detector.compile()
    before = [np.array(value) for value in detector.get_weights()]
    detector.evaluate(*data(), verbose=0)
    for value, unchanged in zip(detector.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, unchanged)


def test_two_replicas_train_as_one(toys, two_cpus):
    # Collectives of several strategies in one process would share their keys.
    mirrored = tf.distribute.MirroredStrategy(two_cpus, cross_device_ops=tf.distribute.ReductionToOneDevice())
    results = []
    for strategy in (tf.distribute.get_strategy(), mirrored):
        keras.utils.set_random_seed(3)
        with strategy.scope():
            detector = toys.TrainingToy(l2=0.01)
            detector.compile(keras.optimizers.SGD(0.05, momentum=0.9))
        dataset = toys.make_dataset(4, num_records=8)(0, tf.distribute.InputContext())
        losses = detector.fit(dataset, epochs=3, verbose=0).history["loss"]
        results.append((losses, detector.evaluate(dataset, verbose=0), detector.get_weights()))
    (losses, evaluated, weights), (their_losses, their_evaluated, their_weights) = results
    np.testing.assert_allclose(their_losses, losses, rtol=1e-5)
    np.testing.assert_allclose(their_evaluated, evaluated, rtol=1e-5)
    for one, two in zip(weights, their_weights, strict=True):
        np.testing.assert_allclose(two, one, atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(toys, policy):
    before = keras.config.dtype_policy()
    keras.mixed_precision.set_global_policy(policy)
    try:
        detector = toys.TrainingToy()
    finally:
        keras.config.set_dtype_policy(before)
    detector.compile(keras.optimizers.Adam(0.01))
    losses = detector.fit(*data(), batch_size=4, epochs=4, verbose=0).history["loss"]
    is_scaled = isinstance(detector.optimizer, keras.optimizers.LossScaleOptimizer)
    assert is_scaled == (policy == "mixed_float16")
    assert losses[-1] < losses[0]
    assert {variable.dtype for variable in detector.weights} == {"float32"}


def test_checkpoints_hold_no_metrics(toys, compiled):
    paths = [variable.path for variable in compiled.variables]
    compiled.fit(*data(), verbose=0)
    assert [variable.path for variable in compiled.variables] == paths


def changed(**changes):
    """The data with other arrays."""
    images, truth = data()
    return changes.pop("images", images), {**truth, **changes}


BOXES, CLASSES = data()[1].values()
BAD_DATA = {
    "boxes of five": (changed(boxes=np.zeros((4, 2, 5))), r'"boxes" has the shape .*5\); ground truth is a dict'),
    "ragged boxes": (
        changed(boxes=[[[0.1, 0.1, 0.5], [0.1, 0.1, 0.5, 0.5]]] * 4),
        "rows of several lengths in an image",
    ),
    "no dict": ((data()[0], BOXES), "ground truth is a ndarray; ground truth is a dict"),
    "no classes": ((data()[0], {"boxes": BOXES}), 'has the keys "boxes"; ground truth is a dict .*"classes"'),
    "labels": ((data()[0], {"boxes": BOXES, "labels": CLASSES}), 'has the keys "boxes", "labels"; .*"classes"'),
    "fewer classes": (changed(classes=CLASSES[:, :1]), r"\(4, 2, 4\) and .classes. \(4, 1\) of 4 images do not match"),
    "from 1": (changed(classes=CLASSES * 0 + 3), "class 3 of object 0 in image 0 .* 0 to 2.*subtract 1"),
    "class 7": (changed(classes=CLASSES * 0 + [0, 7]), "class 7 of object 1 in image 0 .*accepted: 0 to 2, and -1"),
    "class 0.5": (changed(classes=CLASSES * 0 + 0.5), "class 0.5 of object 0"),
    "pixels": (changed(boxes=BOXES * 16), "outside of the image .pixels.* fractions of the image"),
    "xyxy": (changed(boxes=BOXES[..., [2, 1, 0, 3]]), r"has no area .*\[ymin, xmin, ymax, xmax\]"),
    "NaN box": (changed(boxes=BOXES * np.nan), "box .nan.* is not finite"),
    "NaN image": (changed(images=np.full((4, 16, 24, 3), np.nan, np.float32)), "not finite .*0..255"),
    "fractions": (changed(images=np.full((4, 16, 24, 3), 0.5, np.float32)), "normalised, with values from 0.5 to 0.5"),
    "standardised": (changed(images=np.linspace(-2, 2, 4608).reshape(4, 16, 24, 3)), "normalised, .* from -2 to 2"),
    "16 bits": (changed(images=np.full((4, 16, 24, 3), 4000, np.uint16)), "from 4000 to 4000; accepted: RGB"),
    "gray": (changed(images=np.zeros((4, 16, 24, 1), np.uint8)), r"\(4, 16, 24, 1\); accepted: .*RGB"),
    "one image": ((data()[0][0], {"boxes": BOXES[0], "classes": CLASSES[0]}), r"\(16, 24, 3\); accepted: .*batch"),
}


@pytest.fixture(scope="module")
def refusing(toys):
    """A detector that calls the step without a trace."""
    detector = toys.TrainingToy()
    detector.compile(run_eagerly=True)
    return detector


@pytest.mark.parametrize("name", BAD_DATA)
def test_bad_data_are_refused_in_a_sentence(refusing, name):
    (images, truth), message = BAD_DATA[name]
    before = refusing.get_weights()
    with pytest.raises(DataError, match=message) as caught:
        refusing.train_on_batch(images, truth)
    assert "\n" not in str(caught.value)
    for value, unchanged in zip(refusing.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, unchanged)


def test_bad_data_are_refused_from_a_graph(compiled):
    images, truth = data()
    dataset = tf.data.Dataset.from_tensor_slices((images, truth | {"boxes": truth["boxes"] * 24})).batch(2)
    with pytest.raises(DataError, match=r"^box .* outside of the image .pixels"):
        compiled.fit(dataset, verbose=0)


def test_no_object_in_any_image_is_accepted(refusing):
    images, _ = data()
    empty = {"boxes": [np.zeros((0, 4))] * 4, "classes": [[]] * 4}
    none = {"boxes": np.zeros((4, 0, 4)), "classes": np.zeros((4, 0), int)}
    padding = {"boxes": np.full((4, 3, 4), -1.0), "classes": np.full((4, 3), -1)}
    losses = [refusing.test_on_batch(images, truth, return_dict=True)["loss"] for truth in (empty, none, padding)]
    assert np.isfinite(losses).all()
    assert losses[1] == pytest.approx(losses[0]) == pytest.approx(losses[2])


def test_weights_and_crowds_reach_the_ground_truth(refusing):
    images, truth = data()
    extra = {"weights": np.full((4, 2), 0.25, np.float32), "is_crowd": np.array([[True, False]] * 4)}
    batch = refusing._keras_data.examples((images, truth | extra))
    np.testing.assert_array_equal(batch.groundtruth.weights, np.where(truth["classes"] >= 0, 0.25, 0.0))
    np.testing.assert_array_equal(batch.groundtruth.is_crowd[:, 0], [True] * 4)


def test_images_of_several_sizes_are_no_array():
    with pytest.raises(DataError, match=r"one size; received .4, 6, 3. and others"):
        to_arrays([np.zeros((4, 6, 3)), np.zeros((5, 6, 3))])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "mse"}, "takes no loss"),
        ({"loss_weights": [1.0]}, "takes no loss"),
        ({"metrics": ["accuracy"]}, "takes no metrics.*detzoo.tasks.evaluate"),
    ],
)
def test_compile_takes_no_other_loss(refusing, options, message):
    with pytest.raises(UsageError, match=message):
        refusing.compile("adam", **options)


def test_default_optimizer(toys):
    detector = toys.TrainingToy()
    with pytest.raises(ValueError, match="must call `compile"):
        detector.fit(*data())
    detector.compile()
    assert isinstance(detector.optimizer, keras.optimizers.Adam)
    assert not detector.jit_compile


@pytest.mark.parametrize("name", ["class_weight", "sample_weight"])
def test_weights_of_images_are_refused(refusing, name):
    with pytest.raises(UsageError, match=f'{name} is not accepted.*"weights"'):
        refusing.fit(*data(), **{name: {0: 1.0}})


def test_sample_weights_in_a_dataset_are_refused(compiled):
    dataset = tf.data.Dataset.from_tensor_slices((*data(), np.ones(4))).batch(2)
    with pytest.raises(DataError, match="sample weights are not accepted"):
        compiled.fit(dataset, verbose=0)


def test_nothing_to_train(toys):
    detector = toys.TrainingToy()
    detector.trainable = False
    detector.compile(run_eagerly=True)
    with pytest.raises(UsageError, match="nothing to train"):
        detector.fit(*data(), verbose=0)


def test_several_workers_are_refused(refusing, monkeypatch):
    strategy = object.__new__(tf.distribute.MultiWorkerMirroredStrategy)
    monkeypatch.setattr(type(refusing), "distribute_strategy", strategy)
    with pytest.raises(UsageError, match="detzoo train --strategy"):
        refusing.fit(*data())
