"""Tests of the steps on a toy: cached maps change nothing, and an interrupted step ends like an uninterrupted one."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from detzoo.errors import DataError
from detzoo.recipes.spp.arrays import load_arrays
from detzoo.recipes.spp.fine_tuning import FineTuningOptions, WindowClassifier, make_window_dataset
from detzoo.recipes.spp.linear_svm import LinearSvms, SvmOptions
from detzoo.recipes.spp.network import DetectorFeatures
from detzoo.recipes.spp.regression_step import train_box_regression
from detzoo.recipes.spp.svm_step import train_svms

NEVER = 10**9


def test_pooled_features_are_those_of_the_detector(spp_toy, detector, make_images, tmp_path):
    images = make_images(tmp_path)
    (image, *_) = images.since()
    pooled = images.pooled(image, np.array([0, 3, 4]))
    inputs = detector.preprocess(image.pixels[np.newaxis])
    windows = tf.constant(image.windows.boxes_norm[[0, 3, 4]])
    shape = tf.constant([spp_toy.HEIGHT, spp_toy.WIDTH])
    expected = detector.pool(detector.feature_maps(inputs), shape, windows[np.newaxis])[0]
    np.testing.assert_allclose(pooled, expected, rtol=1e-5, atol=1e-6)
    assert images.pooled(image, np.zeros(0, int)).shape == (0, detector.parts.num_pooled)


def test_the_cache_is_used(make_images, tmp_path):
    images = make_images(tmp_path)
    (image, *_) = images.since()
    maps = images.maps(image)
    images.cache.put(image.image_id, [2 * each for each in maps])
    np.testing.assert_array_equal(images.maps(image)[0], 2 * maps[0])


def test_what_the_svms_read(spp_toy):
    detector = spp_toy.make_detector()
    network = DetectorFeatures(detector)
    assert (network.pooled_depth, network.classifier_depth) == (255, 16)  # 5 bins of 0.2 x 256 channels; fc7
    pooled = tf.random.stateless_uniform([3, detector.parts.num_pooled], [0, 1])
    np.testing.assert_allclose(network.classify(pooled.numpy()), detector.fully_connected(pooled).fc7, rtol=1e-5)


def take(dataset, count):
    return [(batch.images.numpy(), batch.groundtruth.classes.numpy()) for batch in dataset.take(count)]


def test_batches_of_windows(spp_toy, make_images, tmp_path):
    images = make_images(tmp_path)
    options = FineTuningOptions(batch_size=12, images_per_step=3)
    dataset = make_window_dataset(images, spp_toy.read_for_ever(0), options, 12, seed=4)
    (first, second) = list(dataset.take(2))
    labels = first.groundtruth.classes.numpy()
    assert first.images.shape == (12, images.network.pooled_depth)
    assert np.sum(labels > 0) == 3  # a quarter
    assert set(labels.tolist()) <= {0, 1, 2}
    assert first.record_index.numpy().max() == 2
    assert second.record_index.numpy().max() == 5
    # The windows of a label are windows of its image: a pooled row is found again in one of the three images.
    all_rows = [images.pooled(image, np.arange(31)) for image in list(images.since())[:3]]
    distances = np.abs(np.concatenate(all_rows)[np.newaxis] - first.images.numpy()[:, np.newaxis]).max(axis=2)
    assert distances.min(axis=1).max() < 1e-5


def test_batches_go_on_where_they_were(spp_toy, make_images, tmp_path):
    images = make_images(tmp_path)
    options = FineTuningOptions(batch_size=8, images_per_step=2)
    whole = take(make_window_dataset(images, spp_toy.read_for_ever(0), options, 8, seed=4), 4)
    later = take(make_window_dataset(images, spp_toy.read_for_ever(4), options, 8, seed=4), 2)
    for (pooled, labels), (again, labels_again) in zip(whole[2:], later):
        np.testing.assert_array_equal(labels, labels_again)
        np.testing.assert_allclose(pooled, again, rtol=1e-5)


def test_windows_that_overlap_nothing_are_told(spp_toy, make_images, tmp_path, monkeypatch):
    monkeypatch.setattr("detzoo.recipes.spp.fine_tuning._MOST_EMPTY_GROUPS", 2)
    options = FineTuningOptions(batch_size=4, images_per_step=1, positive_iou=1.1, negative_iou=1.05)
    problems = []
    dataset = make_window_dataset(make_images(tmp_path), spp_toy.read_for_ever(0), options, 4, 0, problems)
    with pytest.raises(tf.errors.OpError, match="no window of 2 images in a row"):
        take(dataset, 1)
    (problem,) = problems
    assert isinstance(problem, DataError)


def test_the_window_classifier_is_part_of_the_detector(detector):
    classifier = WindowClassifier(detector)
    paths = {variable.path for variable in classifier.trainable_variables}
    assert paths == {
        f"{layer}/{kind}"
        for layer in ("box_backbone/fc6", "box_backbone/fc7", "head/fc8")
        for kind in ("kernel", "bias")
    }
    pooled = tf.random.stateless_uniform([2, detector.parts.num_pooled], [0, 1])
    logits = classifier.forward(classifier.preprocess(pooled))
    np.testing.assert_allclose(logits, detector.fc8_logits(detector.fully_connected(pooled).fc7), rtol=1e-5)


def test_the_loss_of_windows_by_hand(spp_toy, detector):
    # Logits of 0 give each of the three columns 1/3.
    truth = spp_toy.make_batch(0).groundtruth._replace(classes=tf.constant([0, 2]))
    terms = WindowClassifier(detector).loss_terms(tf.zeros([2, 3]), truth)
    assert float(terms["classification"].total) == pytest.approx(2 * np.log(3), rel=1e-6)
    assert float(terms["classification"].normalizer) == 2


def run_svms(images, folder, stop, rounds=1):
    svms = LinearSvms(["red", "green"], images.network.classifier_depth, SvmOptions(c=100.0))
    return train_svms(images, svms, folder, stop, mining_rounds=rounds, seed=1), svms


@pytest.fixture(scope="module")
def svm_result(spp_toy, network, tmp_path_factory):
    """A step that nothing stopped."""
    from detzoo.recipes.spp.images import TrainingImages
    from detzoo.recipes.spp.map_cache import MapCache
    from detzoo.train.stop import StopRequest

    folder = tmp_path_factory.mktemp("svm")
    images = TrainingImages(spp_toy.read, network, MapCache(folder / "maps", "a", 1e9), 2, spp_toy.NUM_IMAGES)
    result, svms = run_svms(images, folder / "3_svm", StopRequest())
    return result, svms, folder


def test_svms_tell_the_classes_apart(svm_result, make_images, tmp_path):
    _, svms, _ = svm_result
    images = make_images(tmp_path)
    for image in images.since():
        scores = svms.scores(images.network.classify(images.pooled(image, np.arange(1))))
        true = image.windows.true_classes[0]
        assert scores[0, true] > scores[0, 1 - true]


def test_a_finished_step_is_only_read(svm_result, make_images, stop_after, tmp_path):
    result, _, folder = svm_result
    again, _ = run_svms(make_images(tmp_path), folder / "3_svm", stop_after(0))
    np.testing.assert_array_equal(again["kernels"], result["kernels"])
    assert not (folder / "3_svm" / "state.npz").exists()


@pytest.mark.parametrize("times", [3, 7, 10], ids=["collecting", "training", "mining"])
def test_stopped_svms_end_alike(svm_result, make_images, stop_after, tmp_path, times):
    from detzoo.train.stop import StopRequest

    images = make_images(tmp_path / "maps")
    stopped, _ = run_svms(images, tmp_path / "3_svm", stop_after(times))
    assert stopped is None
    result, _ = run_svms(images, tmp_path / "3_svm", StopRequest())
    for name in ("kernels", "biases"):
        np.testing.assert_allclose(result[name], svm_result[0][name], rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(result["windows"], svm_result[0]["windows"])


def test_stopped_mining_goes_on_with_the_next_image(make_images, stop_after, tmp_path):
    images = make_images(tmp_path / "maps")
    run_svms(images, tmp_path / "3_svm", stop_after(12))
    state = load_arrays(tmp_path / "3_svm" / "state.npz")
    assert int(state["next_record"]) > 0


def regress(images, folder, stop, regularization=1.0):
    return train_box_regression(images, ["red", "green"], folder, stop, min_iou=0.5, regularization=regularization)


def test_stopped_regression_ends_alike_and_brings_boxes_nearer(
    detector, make_images, stop_after, tmp_path, monkeypatch
):
    from detzoo.ops.box_coder import FasterRcnnBoxCoder
    from detzoo.recipes.spp import regression_step
    from detzoo.train.stop import StopRequest

    images = make_images(tmp_path / "maps")
    whole = regress(images, tmp_path / "whole", StopRequest())
    # One class at a time, and a signal in the middle of the second one's pass.
    monkeypatch.setattr(regression_step, "MOST_BYTES_OF_SUMS", 1)
    assert regress(images, tmp_path / "parts", stop_after(9)) is None
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == ["class_0001.npz", "state.npz"]
    parts = regress(images, tmp_path / "parts", StopRequest())
    for one, other in zip(whole, parts):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    assert whole[0].shape == (detector.parts.num_pooled, 8)
    coder, before, after = FasterRcnnBoxCoder((1.0, 1.0, 1.0, 1.0)), [], []
    for image in images.since():
        rows = np.flatnonzero(image.windows.best_iou >= 0.5)
        deltas = (images.pooled(image, rows) @ whole[0] + whole[1]).reshape(-1, 2, 4)
        own = deltas[:, image.windows.true_classes[0]]
        boxes = coder.decode(own, image.windows.boxes_norm[rows]).numpy()
        true = image.windows.best_true_boxes[rows]
        before.append(np.abs(image.windows.boxes_norm[rows] - true).mean())
        after.append(np.abs(boxes - true).mean())
    assert np.mean(after) < 0.5 * np.mean(before)


def test_a_damaged_state_is_told(make_images, tmp_path, stop_after):
    (tmp_path / "3_svm").mkdir()
    (tmp_path / "3_svm" / "state.npz").write_bytes(b"PK\x03\x04broken")
    with pytest.raises(DataError, match=r"state\.npz is damaged .* delete it"):
        run_svms(make_images(tmp_path), tmp_path / "3_svm", stop_after(NEVER))
