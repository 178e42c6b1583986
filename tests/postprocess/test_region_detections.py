"""Detections of a second stage by hand: a box a class or one for all, raw boxes, padding; a first stage alone."""

import math

import numpy as np
import pytest
import tensorflow as tf

from detzoo.contracts import Proposals, RegionPredictions
from detzoo.ops import nms
from detzoo.ops.box_coder import FasterRcnnBoxCoder
from detzoo.ops.nms import NmsLimits, class_agnostic_nms, per_class_nms
from detzoo.postprocess.region_detections import RegionDetections, proposals_as_detections
from detzoo.postprocess.scores import ScoreConverter, ScoreFunction

CODER, SOFTMAX = FasterRcnnBoxCoder(), ScoreConverter(ScoreFunction.SOFTMAX)
UNIT_WINDOW = np.float32([[0.0, 0.0, 1.0, 1.0]])
REGIONS = [[0.0, 0.0, 0.4, 0.2], [0.0, 0.6, 0.4, 0.8], [0.0, 0.0, 0.0, 0.0]]


def _predictions(probabilities, deltas, num_valid=2, regions=REGIONS):
    """One image; logits are the logarithms of [background, class 0, class 1, ...]."""
    proposals = Proposals(
        tf.constant([regions], tf.float32), tf.zeros([1, len(regions)]), tf.constant([num_valid], tf.int32)
    )
    return RegionPredictions(
        first_stage=(),
        proposals=proposals,
        box_deltas=tf.constant([deltas], tf.float32),
        class_logits=tf.math.log(tf.constant([probabilities], tf.float32)),
        windows=tf.constant([[0.0, 0.0, 1.0, 1.0]]),
    )


# Region 0 is probably class 1, region 1 class 0, region 2 padding that looks certain.
PROBABILITIES = [[0.1, 0.2, 0.7], [0.1, 0.6, 0.3], [0.01, 0.01, 0.98]]
STAY, RIGHT, LARGER = [0.0] * 4, [0.0, 10.0, 0.0, 0.0], [0.0, 0.0, 0.0, 5 * math.log(2)]


def _detect(predictions, true_shape=(100, 200), **options):
    part = RegionDetections(CODER, SOFTMAX, NmsLimits(0.25, 0.6, 10, 5), **options)
    return part(predictions, tf.constant([true_shape]), (100, 200))


def test_each_class_has_a_box_of_its_own():
    # Class 0 moves right by the region's width, .2; class 1 doubles the width around the centre.
    detections = _detect(_predictions(PROBABILITIES, [[RIGHT, LARGER]] * 3))
    assert int(detections.num_valid[0]) == 3
    assert detections.classes[0].numpy().tolist() == [1, 0, 1, 0, 0]
    assert detections.anchor_indices[0].numpy().tolist() == [0, 1, 1, 0, 0]
    np.testing.assert_allclose(detections.scores[0], [0.7, 0.6, 0.3, 0, 0], atol=1e-6)
    # Region 0 doubled is -.1 to .3, cut at 0; region 1 moved is .8 to 1; doubled it is .5 to .9.
    expected = [[0, 0, 0.4, 0.3], [0, 0.8, 0.4, 1.0], [0, 0.5, 0.4, 0.9], [0] * 4, [0] * 4]
    np.testing.assert_allclose(detections.boxes_norm[0], expected, atol=1e-6)
    np.testing.assert_allclose(detections.multiclass_scores[0, :3], [PROBABILITIES[i] for i in (0, 1, 1)], atol=1e-6)


def test_classes_may_share_a_box():
    detections = _detect(_predictions(PROBABILITIES, [[RIGHT]] * 3))
    assert detections.classes[0].numpy().tolist() == [1, 0, 1, 0, 0]
    expected = [[0, 0.2, 0.4, 0.4], [0, 0.8, 0.4, 1.0], [0, 0.8, 0.4, 1.0]]
    np.testing.assert_allclose(detections.boxes_norm[0, :3], expected, atol=1e-6)


def test_class_agnostic_suppression_detects_each_region_once():
    detections = _detect(_predictions(PROBABILITIES, [[RIGHT, LARGER]] * 3), is_class_agnostic=True)
    assert int(detections.num_valid[0]) == 2
    assert detections.classes[0].numpy().tolist() == [1, 0, 0, 0, 0]
    np.testing.assert_allclose(detections.boxes_norm[0, :2], [[0, 0, 0.4, 0.3], [0, 0.8, 0.4, 1.0]], atol=1e-6)


def test_boxes_are_fractions_of_the_true_image_and_cut_to_it():
    # The image covers 80 of 100 rows and 160 of 200 columns: region 1 moved right (.8 to 1) lies beyond it.
    detections = _detect(_predictions(PROBABILITIES, [[RIGHT, LARGER]] * 3), true_shape=(80, 160))
    assert int(detections.num_valid[0]) == 2
    expected = [[0, 0, 0.5, 0.375], [0, 0.625, 0.5, 1.0]]
    np.testing.assert_allclose(detections.boxes_norm[0, :2], expected, atol=1e-6)


@pytest.mark.parametrize("deltas", [[[RIGHT, LARGER]] * 3, [[LARGER]] * 3])
def test_raw_boxes_are_of_the_best_class_and_raw_scores_of_every_row(deltas):
    detections = _detect(_predictions(PROBABILITIES, deltas), true_shape=(80, 160))
    first = [0, 0, 0.5, 0.375]  # class 1: -.1 to .3
    second = [0, 1.0, 0.5, 1.0] if len(deltas[0]) == 2 else [0, 0.625, 0.5, 1.0]  # class 0, or the shared box
    np.testing.assert_allclose(detections.raw_boxes_norm[0], [first, second, [0] * 4], atol=1e-6)
    np.testing.assert_allclose(detections.raw_scores[0], PROBABILITIES, atol=1e-6)


def test_rows_of_padding_are_never_detected():
    # All three rows have area here; only those before num_valid are regions.
    regions = [*REGIONS[:2], [0.5, 0.5, 1.0, 1.0]]
    for num_valid, expected in ((3, [2, 0, 1, 1]), (2, [0, 1, 1]), (1, [0]), (0, [])):
        detections = _detect(_predictions(PROBABILITIES, [[STAY, STAY]] * 3, num_valid, regions))
        assert detections.anchor_indices[0].numpy().tolist()[: int(detections.num_valid[0])] == expected


def test_proposals_alone_are_detections_of_one_class():
    proposals = Proposals(tf.constant([REGIONS]), tf.constant([[0.9, 0.4, 0.0]]), tf.constant([2]))
    predictions = RegionPredictions((), proposals, (), (), windows=tf.constant([[0.0, 0.0, 0.5, 1.0]]))
    detections = proposals_as_detections(predictions, tf.constant([[50, 200]]), (100, 200))
    np.testing.assert_allclose(detections.boxes_norm[0], [[0, 0, 0.8, 0.2], [0, 0.6, 0.8, 0.8], [0] * 4], atol=1e-6)
    np.testing.assert_allclose(detections.scores[0], [0.9, 0.4, 0.0])
    np.testing.assert_allclose(detections.multiclass_scores[0], [[0.1, 0.9], [0.6, 0.4], [0, 0]], atol=1e-6)
    assert detections.classes[0].numpy().tolist() == [0, 0, 0]
    assert detections.anchor_indices[0].numpy().tolist() == [0, 1, 0]
    assert detections.num_valid.numpy().tolist() == [2]


def _iou(a, b):
    sides = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)
    overlap = np.prod(sides)
    return overlap / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - overlap)


def _loop(boxes, scores, limits):
    """Greedy suppression of every class among its own boxes, then the best of all: (score, anchor, class)."""
    found = []
    for k in range(scores.shape[1]):
        kept = []
        for a in np.argsort(-scores[:, k], kind="stable"):
            is_new = all(_iou(boxes[a, k], boxes[b, k]) <= limits.iou_threshold for b in kept)
            if scores[a, k] > limits.score_threshold and is_new and len(kept) < limits.max_detections_per_class:
                kept.append(a)
        found += [(scores[a, k], a, k) for a in kept]
    return sorted(found, key=lambda row: (-row[0], row[1], row[2]))[: limits.max_total_detections]


@pytest.mark.parametrize("prefix_lengths", [(512,), (16, 64), (8,), ()], ids=str)
def test_suppression_of_a_box_a_class_equals_a_loop(monkeypatch, prefix_lengths):
    monkeypatch.setattr(nms, "_PREFIX_LENGTHS", prefix_lengths)
    generator = np.random.default_rng(2)
    corners = generator.uniform(0, 0.6, (2, 30, 4, 2))
    boxes = np.concatenate([corners, corners + generator.uniform(0.1, 0.4, corners.shape)], -1).astype(np.float32)
    scores = generator.uniform(0, 1, (2, 30, 4)).astype(np.float32)
    limits = NmsLimits(0.2, 0.3, max_detections_per_class=5, max_total_detections=12)
    selection = per_class_nms(tf.constant(boxes), tf.constant(scores), np.repeat(UNIT_WINDOW, 2, axis=0), limits)
    for image in range(2):
        expected = _loop(boxes[image], scores[image], limits)
        assert len(expected) == int(selection.num_valid[image]) == 12
        columns = (selection.scores, selection.anchor_indices, selection.classes)
        assert list(zip(*(column[image].numpy() for column in columns), strict=True)) == expected


def test_class_agnostic_suppression_looks_at_the_box_of_the_best_class():
    # The boxes of class 0 are one place, those of class 1 apart. Both anchors are best at class 1: both stay.
    boxes = tf.constant([[[[0, 0, 0.5, 0.5], [0, 0, 0.2, 0.2]], [[0, 0, 0.5, 0.5], [0.5, 0.5, 0.9, 0.9]]]])
    limits = NmsLimits(0.1, 0.5, 10, 3)
    selection = class_agnostic_nms(boxes, tf.constant([[[0.3, 0.8], [0.4, 0.9]]]), UNIT_WINDOW, limits)
    assert selection.anchor_indices[0].numpy().tolist() == [1, 0, 0]
    assert selection.classes[0].numpy().tolist() == [1, 1, 0]
    # Best at class 0, one suppresses the other.
    selection = class_agnostic_nms(boxes, tf.constant([[[0.8, 0.3], [0.9, 0.4]]]), UNIT_WINDOW, limits)
    assert int(selection.num_valid[0]) == 1
