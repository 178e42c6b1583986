"""Several SPP-nets as one: their windows are joined before the suppression."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from detzoo.contracts import Proposals
from detzoo.detectors.spp_net import SppNet, SppParts, WindowScales
from detzoo.detectors.spp_net_combination import CombinedSppNets
from detzoo.errors import ConfigError
from detzoo.features.normalization import subtract_imagenet_mean
from detzoo.ops.nms import NmsLimits

LIMITS = NmsLimits(score_threshold=0.0, iou_threshold=0.3, max_detections_per_class=20, max_total_detections=20)
IMAGE = np.random.default_rng(0).uniform(0, 255, [1, 72, 96, 3]).astype(np.float32)
SHAPES = tf.constant([[72, 96]])


def make(seed, num_classes=2, max_proposals=10, **parts):
    """A small SPP-net with features of pool5 and random SVMs."""
    keras.utils.set_random_seed(seed)
    made = {"pyramid_bins": (2, 1), "fc_depth": 8, "depth_multiplier": 0.05, "has_fine_tuning": False} | parts
    detector = SppNet(
        SppParts(**made), WindowScales((96,), 48), LIMITS, subtract_imagenet_mean, max_proposals, num_classes
    )
    random = np.random.default_rng(seed)
    for layer in (detector.svm, detector.box_regression):
        if layer is not None:
            layer.set_weights([random.normal(0, 0.01, each.shape) for each in layer.get_weights()])
    return detector


def windows(boxes):
    boxes = tf.constant([boxes], tf.float32)
    return Proposals(boxes, tf.ones([1, boxes.shape[1]]), tf.constant([boxes.shape[1]]))


def detect(detector, proposals):
    predictions = detector.forward(detector.preprocess(IMAGE), proposals=proposals)
    return detector.postprocess(predictions, SHAPES, (72, 96))


FAR_APART = windows([[0, 0, 0.4, 0.4], [0, 0.5, 0.4, 0.9], [0.5, 0, 0.9, 0.4]])


def test_windows_of_both_compete():
    one, other = make(1, has_box_regression=False), make(2, has_box_regression=False)
    scores = [detect(member, FAR_APART) for member in (one, other)]
    both = detect(CombinedSppNets([one, other]), FAR_APART)
    # Boxes are the windows, no two of which overlap: of the two scores of a window and class the higher one is left.
    best = {}
    for found in scores:
        for row in range(int(found.num_valid[0])):
            key = (*np.round(found.boxes_norm[0, row].numpy(), 4), int(found.classes[0, row]))
            best[key] = max(best.get(key, 0), float(found.scores[0, row]))
    kept = {
        (*np.round(both.boxes_norm[0, row].numpy(), 4), int(both.classes[0, row])): float(both.scores[0, row])
        for row in range(int(both.num_valid[0]))
    }
    assert kept.keys() == best.keys()
    assert len(kept) == 6
    for key, score in kept.items():
        assert score == pytest.approx(best[key], rel=1e-5)
    assert any(abs(float(s) - float(t)) > 1e-4 for s, t in zip(scores[0].scores[0], scores[1].scores[0]))


def test_a_model_adds_nothing_to_itself():
    member = make(3)
    alone, both = detect(member, FAR_APART), detect(CombinedSppNets([member, member]), FAR_APART)
    assert int(both.num_valid[0]) == int(alone.num_valid[0]) > 0
    np.testing.assert_allclose(both.scores, alone.scores, rtol=1e-5)
    np.testing.assert_allclose(both.boxes_norm, alone.boxes_norm, rtol=1e-5)


def test_padding_is_no_window():
    padded = FAR_APART._replace(
        boxes_norm=tf.pad(FAR_APART.boxes_norm, [[0, 0], [0, 4], [0, 0]]),
        scores=tf.pad(FAR_APART.scores, [[0, 0], [0, 4]]),
    )
    # The second model uses only the first two windows, and unlike the first model it has no boxes per class.
    combined = CombinedSppNets([make(1), make(2, max_proposals=2, has_box_regression=False)])
    predictions = combined.forward(combined.preprocess(IMAGE), proposals=padded)
    assert predictions.proposals.num_valid.numpy().tolist() == [5]
    np.testing.assert_allclose(predictions.proposals.boxes_norm[0, :3], FAR_APART.boxes_norm[0])
    np.testing.assert_allclose(predictions.proposals.boxes_norm[0, 3:5], FAR_APART.boxes_norm[0, :2])
    np.testing.assert_allclose(predictions.box_deltas[0, 3:5], np.zeros([2, 2, 4]))


def test_no_windows_no_detections():
    none = Proposals(tf.zeros([1, 3, 4]), tf.zeros([1, 3]), tf.constant([0]))
    assert int(detect(CombinedSppNets([make(1), make(2)]), none).num_valid[0]) == 0


def test_what_cannot_be_combined():
    with pytest.raises(ConfigError, match="two models or more"):
        CombinedSppNets([make(1)])
    with pytest.raises(ConfigError, match="of 2 and of 3 classes"):
        CombinedSppNets([make(1), make(2, num_classes=3)])
    with pytest.raises(ConfigError, match="one without cannot be combined"):
        CombinedSppNets([make(1), make(2, has_svm=False, has_fine_tuning=True)])
