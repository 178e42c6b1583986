"""Detectors that classify given regions are served with two inputs: images and proposals."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from detzoo.builders.detector import build_detector
from detzoo.builders.resize import build_model_resizer
from detzoo.contracts import Proposals
from detzoo.errors import UsageError
from detzoo.evaluate.runner import detect_batch
from detzoo.export.exporter import Export, export_detector
from detzoo.serving.given_regions import GivenRegions, as_proposals, inputs_of, random_regions
from detzoo.serving.live_detector import LiveDetector
from detzoo.serving.one_by_one import OneByOne
from detzoo.serving.saved_detector import SavedDetector
from tests import small_two_stage
from tests.detectors.test_spp_net import message_of as spp_net_of

WINDOWS = np.array([[0.1, 0.2, 0.5, 0.6], [0.5, 0.5, 0.9, 0.7], [0.0, 0.0, 1.0, 1.0]], np.float32)


@pytest.fixture(scope="module")
def spp_net(tmp_path_factory):
    """A detector, and what was exported of it."""
    message = spp_net_of()
    detector = build_detector(message)
    generator = np.random.default_rng(0)
    for model, spread in ((detector.svm, 0.05), (detector.box_regression, 0.0005)):
        for variable in model.variables:
            variable.assign(generator.normal(0.0, spread, variable.shape))
    folder = tmp_path_factory.mktemp("spp_net")
    report = export_detector(detector, build_model_resizer(message), folder, "image_tensor", Export())
    assert report.max_score_difference < 1e-3
    return detector, SavedDetector(folder)


def image(height=50, width=70):
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), np.uint8)


def test_an_exported_spp_net_detects_as_the_detector_does(spp_net):
    detector, exported = spp_net
    assert exported.wants_proposals
    found = exported(image(), WINDOWS)
    given = Proposals(tf.constant(WINDOWS[np.newaxis]), tf.zeros([1, 3]), tf.constant([3]))
    expected = detect_batch(detector, tf.constant(image()[np.newaxis]), tf.constant([[50, 70]]), given)
    count = int(expected.num_valid[0])
    assert count > 0
    np.testing.assert_allclose(found.boxes_norm, expected.boxes_norm[0, :count], atol=1e-4)
    np.testing.assert_allclose(found.scores, expected.scores[0, :count], atol=1e-4)


def test_a_detector_in_memory_detects_as_its_export(spp_net):
    detector, exported = spp_net
    live = LiveDetector(detector, build_model_resizer(spp_net_of()))
    regions = [WINDOWS, WINDOWS[:2]]
    found = live.detect_all([image(), image(40, 60)], regions)
    expected = exported.detect_all([image(), image(40, 60)], regions)
    for one, other in zip(found, expected, strict=True):
        assert len(one.scores) > 0
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)


def test_it_is_called_with_two_tensors_or_by_name(spp_net):
    _, exported = spp_net
    loaded = tf.saved_model.load(str(exported.folder))
    images, regions = image()[np.newaxis], tf.constant(WINDOWS[np.newaxis])
    by_place = loaded(images, regions)["detection_scores"]
    by_name = loaded.signatures["serving_default"](input_tensor=tf.constant(images), proposals=regions)
    np.testing.assert_array_equal(by_place, by_name["detection_scores"])
    assert by_place.numpy().max() > 0


def test_padding_and_what_lies_outside_change_nothing(spp_net):
    _, exported = spp_net
    padded = np.concatenate([WINDOWS, np.zeros((2, 4), np.float32)])
    padded[2] = (-0.5, -0.25, 1.5, 1.25)  # cut off: the whole image
    found, expected = exported(image(), padded), exported(image(), WINDOWS)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)


def test_an_image_without_regions_has_no_detections(spp_net):
    _, exported = spp_net
    assert len(exported(image(), np.zeros((0, 4), np.float32)).scores) == 0


def test_regions_must_be_given(spp_net):
    _, exported = spp_net
    with pytest.raises(UsageError, match="classifies given regions, so it needs the proposals of each image"):
        exported(image())


def test_an_evaluation_gives_an_exported_model_the_regions_of_each_image(spp_net):
    """Two images of different sizes, padded to one; their proposals are fractions of the padding, too."""
    _, exported = spp_net
    images = np.zeros((2, 60, 80, 3), np.float32)
    images[0, :50, :70], images[1, :60, :80] = image(), image(60, 80)
    shapes = tf.constant([[50, 70], [60, 80]])
    scale = np.array([[[50 / 60, 70 / 80] * 2], [[1.0] * 4]], np.float32)
    given = Proposals(tf.constant(WINDOWS * scale), tf.zeros([2, 3]), tf.constant([3, 2]))
    found = detect_batch(OneByOne(exported), tf.constant(images), shapes, given)
    for row, expected in enumerate((exported(image(), WINDOWS), exported(image(60, 80), WINDOWS[:2]))):
        count = int(found.num_valid[row])
        assert count == len(expected.scores)
        np.testing.assert_allclose(found.scores[row, :count], expected.scores, atol=1e-5)
        np.testing.assert_allclose(found.boxes_norm[row, :count], expected.boxes_norm, atol=1e-5)


def test_fast_rcnn_is_served_with_regions(tmp_path):
    message = small_two_stage.message_of("from_reader")
    detector = build_detector(message)
    export_detector(detector, build_model_resizer(message), tmp_path, "image_tensor", Export())
    exported = SavedDetector(tmp_path)
    pixels = image(small_two_stage.HEIGHT, small_two_stage.WIDTH)
    found = exported(pixels, WINDOWS)
    given = Proposals(tf.constant(WINDOWS[np.newaxis]), tf.zeros([1, 3]), tf.constant([3]))
    expected = detect_batch(
        detector, tf.constant(pixels[np.newaxis], tf.float32), tf.constant([pixels.shape[:2]]), given
    )
    count = int(expected.num_valid[0])
    assert count > 0
    np.testing.assert_allclose(found.scores, expected.scores[0, :count], atol=1e-4)


def test_regions_of_a_caller_become_proposals():
    # Image 1 covers the left half of its padded input. Row 1 has no area; what follows it still counts.
    regions = tf.constant(
        [[[0.5, 0.5, 2.0, 1.0], [0.3, 0.3, 0.3, 0.9], [0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.0, 0.0]]] * 2
    )
    windows = tf.constant([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.5]])
    proposals = as_proposals(regions, windows)
    assert proposals.num_valid.numpy().tolist() == [3, 3]
    np.testing.assert_allclose(proposals.boxes_norm[0, 0], [0.5, 0.5, 1.0, 1.0])
    np.testing.assert_allclose(proposals.boxes_norm[1, 0], [0.5, 0.25, 1.0, 0.5])


def test_inputs_are_told_apart_from_images():
    assert inputs_of("images") == ("images",)
    assert inputs_of(GivenRegions("images", "regions")) == ("images", "regions")


def test_random_regions_lie_inside_and_have_an_area():
    regions = random_regions(2, 100)
    assert regions.shape == (2, 100, 4)
    assert (regions >= 0).all()
    assert (regions <= 1).all()
    assert (regions[..., 2:] - regions[..., :2] > 0.04).all()
