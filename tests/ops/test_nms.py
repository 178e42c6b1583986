"""Suppression equals an exhaustive procedure written in numpy, ties included."""

import numpy as np
import pytest
import tensorflow as tf

from detzoo.ops import nms
from detzoo.ops.graph_form import GraphForm, tracing_for
from detzoo.ops.nms import NmsLimits, class_agnostic_nms, per_class_nms

UNIT_WINDOW = np.array([[0.0, 0.0, 1.0, 1.0]], np.float32)


def _iou(a, b):
    height = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
    width = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - height * width
    return height * width / union if union > 0 else 0.0


def _is_visible(box, window):
    return min(box[2], window[2]) > max(box[0], window[0]) and min(box[3], window[3]) > max(box[1], window[1])


def _oracle(boxes, scores, window, limits):
    """Greedy suppression a class, then the best over all: list of (score, anchor, class)."""
    found = []
    for k in range(scores.shape[1]):
        kept = []
        for a in sorted(np.flatnonzero(scores[:, k] > limits.score_threshold), key=lambda a: (-scores[a, k], a)):
            if len(kept) == limits.max_detections_per_class:
                break
            if all(_iou(boxes[a], boxes[b]) <= limits.iou_threshold for b in kept):
                kept.append(a)
        found += [(-scores[a, k], a, k) for a in kept if _is_visible(boxes[a], window)]
    return [(-s, a, k) for s, a, k in sorted(found)][: limits.max_total_detections]


def _random_boxes(generator, images, anchors, low=-0.2, high=1.2):
    centers = generator.uniform(low, high, (images, anchors, 2))
    sizes = generator.uniform(0.1, 0.5, (images, anchors, 2))
    return np.concatenate([centers - sizes / 2, centers + sizes / 2], -1).astype(np.float32)


def _assert_equals_oracle(selection, boxes, scores, windows, limits):
    for image in range(len(boxes)):
        expected = _oracle(boxes[image], scores[image], windows[image], limits)
        count = int(selection.num_valid[image])
        actual = list(
            zip(
                selection.scores[image, :count].numpy(),
                selection.anchor_indices[image, :count].numpy(),
                selection.classes[image, :count].numpy(),
                strict=True,
            )
        )
        assert actual == expected
        assert not selection.scores[image, count:].numpy().any()
        assert not selection.anchor_indices[image, count:].numpy().any()
        assert not selection.classes[image, count:].numpy().any()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("score_steps", [0, 7, 2, 1], ids=["no ties", "ties", "many ties", "all alike"])
@pytest.mark.parametrize("prefix_lengths", [(512,), (4, 16, 64), (24,), ()], ids=str)
def test_equals_the_exhaustive_procedure(monkeypatch, seed, score_steps, prefix_lengths):
    monkeypatch.setattr(nms, "_PREFIX_LENGTHS", prefix_lengths)
    generator = np.random.default_rng(seed)
    boxes = _random_boxes(generator, 2, 40)
    scores = generator.uniform(0, 1, (2, 40, 5)).astype(np.float32)
    if score_steps:
        scores = np.ceil(scores * score_steps).astype(np.float32) / score_steps
    windows = np.array([[0, 0, 1, 1], [0, 0, 0.7, 0.9]], np.float32)
    limits = NmsLimits(0.2, 0.3, max_detections_per_class=4, max_total_detections=12)
    selection = per_class_nms(tf.constant(boxes), tf.constant(scores), tf.constant(windows), limits)
    _assert_equals_oracle(selection, boxes, scores, windows, limits)


@pytest.mark.parametrize("form", [GraphForm.ONNX, GraphForm.PORTABLE])
@pytest.mark.parametrize("score_steps", [0, 2], ids=["no ties", "many ties"])
@pytest.mark.parametrize("per_class", [4, 30])
def test_forms_for_other_runtimes_equal_the_exhaustive_procedure(form, score_steps, per_class):
    generator = np.random.default_rng(per_class)
    boxes = _random_boxes(generator, 2, 40)
    scores = generator.uniform(0, 1, (2, 40, 5)).astype(np.float32)
    if score_steps:
        scores = np.ceil(scores * score_steps).astype(np.float32) / score_steps
    windows = np.array([[0, 0, 1, 1], [0, 0, 0.7, 0.9]], np.float32)
    limits = NmsLimits(0.2, 0.3, max_detections_per_class=per_class, max_total_detections=12)
    with tracing_for(form):
        selection = per_class_nms(tf.constant(boxes), tf.constant(scores), tf.constant(windows), limits)
    _assert_equals_oracle(selection, boxes, scores, windows, limits)


@pytest.mark.parametrize("form", [GraphForm.ONNX, GraphForm.PORTABLE])
def test_forms_for_other_runtimes_have_one_prefix(form):
    # 1024 pairs, the prefix for 2 detections, are copies of one box: the other box is the pair after the last one.
    boxes = np.tile(np.float32([0.1, 0.1, 0.5, 0.5]), (1, 1025, 1))
    boxes[0, -1] = [0.6, 0.6, 0.9, 0.9]
    scores = np.linspace(0.9, 0.5, 1025, dtype=np.float32).reshape(1, -1, 1)
    limits = NmsLimits(0.1, 0.5, max_total_detections=2)
    with tracing_for(form):
        for removed, expected in ((0, [0]), (1, [0, 1023])):
            given = tf.constant(boxes[:, removed:]), tf.constant(scores[:, removed:]), tf.constant(UNIT_WINDOW)
            selection = per_class_nms(*given, limits)
            assert selection.anchor_indices[0, : int(selection.num_valid[0])].numpy().tolist() == expected


def test_boxes_far_outside_of_the_image_stay_in_their_cells():
    # Both classes have a box that covers 40 images in each direction, and a small one inside of it.
    boxes = tf.constant([[[-20.0, -20.0, 20.0, 20.0], [0.2, 0.2, 0.4, 0.4]]])
    scores = tf.constant([[[0.9, 0.8], [0.7, 0.6]]])
    with tracing_for(GraphForm.PORTABLE):
        found = per_class_nms(boxes, scores, tf.constant(UNIT_WINDOW), NmsLimits(0.1, 0.5, max_total_detections=5))
    assert found.num_valid.numpy().tolist() == [4]
    assert found.classes.numpy().tolist() == [[0, 1, 0, 1, 0]]


def test_equals_the_exhaustive_procedure_in_a_graph_of_unknown_shapes(monkeypatch):
    monkeypatch.setattr(nms, "_PREFIX_LENGTHS", (8, 32))
    limits = NmsLimits(0.1, 0.4, max_detections_per_class=6, max_total_detections=9)
    specs = [tf.TensorSpec([None, None, 4]), tf.TensorSpec([None, None, 3]), tf.TensorSpec([None, 4])]
    graph = tf.function(lambda *tensors: per_class_nms(*tensors, limits), input_signature=specs, autograph=False)
    for seed, anchors in enumerate((30, 5, 1)):
        generator = np.random.default_rng(seed)
        boxes = _random_boxes(generator, 1, anchors)
        scores = generator.uniform(0, 1, (1, anchors, 3)).astype(np.float32)
        _assert_equals_oracle(graph(boxes, scores, UNIT_WINDOW), boxes, scores, UNIT_WINDOW, limits)


@pytest.mark.parametrize(("best", "threshold"), [(0.9, 0.1), (1e-3, 0.0), (1e-3, 1e-8), (1e-7, 1e-8)])
def test_falls_back_when_every_prefix_is_suppressed_to_too_few(best, threshold):
    # 19,999 copies of one box exhaust every prefix; one other box scores lowest, yet above the threshold. A prefix is
    # complete where its last pair is at or below the threshold, however low the scores are.
    boxes = np.tile(np.float32([0.1, 0.1, 0.5, 0.5]), (1, 20000, 1))
    boxes[0, -1] = [0.6, 0.6, 0.9, 0.9]
    scores = np.linspace(best, 0.5 * best, 20000, dtype=np.float32).reshape(1, -1, 1)
    limits = NmsLimits(threshold, 0.5, max_total_detections=2)
    selection = per_class_nms(tf.constant(boxes), tf.constant(scores), tf.constant(UNIT_WINDOW), limits)
    assert selection.anchor_indices.numpy().tolist() == [[0, 19999]]
    assert selection.num_valid.numpy().tolist() == [2]


def test_nothing_above_the_threshold():
    boxes = tf.constant(_random_boxes(np.random.default_rng(0), 2, 30))
    limits = NmsLimits(0.5, max_total_detections=7)
    selection = per_class_nms(boxes, tf.fill([2, 30, 4], 0.5), tf.constant(np.repeat(UNIT_WINDOW, 2, 0)), limits)
    assert selection.num_valid.numpy().tolist() == [0, 0]
    assert selection.scores.shape == (2, 7)


def test_boxes_outside_the_window_use_up_their_class_limit_but_no_place_in_the_result():
    boxes = np.float32([[[1.1, 0.0, 1.2, 0.1], [0.0, 0.0, 0.1, 0.1], [0.5, 0.5, 0.6, 0.6]]])
    scores = np.float32([[[0.9], [0.8], [0.7]]])
    limits = NmsLimits(0.0, 0.5, max_detections_per_class=2, max_total_detections=2)
    selection = per_class_nms(tf.constant(boxes), tf.constant(scores), tf.constant(UNIT_WINDOW), limits)
    assert selection.anchor_indices.numpy().tolist() == [[1, 0]]
    assert selection.num_valid.numpy().tolist() == [1]


def test_class_agnostic_suppression_works_across_classes():
    boxes = np.float32([[[0.0, 0.0, 0.4, 0.4], [0.0, 0.0, 0.4, 0.41], [0.5, 0.5, 0.9, 0.9]]])
    scores = np.float32([[[0.2, 0.9], [0.8, 0.1], [0.3, 0.2]]])
    limits = NmsLimits(0.1, 0.5, max_detections_per_class=1, max_total_detections=4)
    selection = class_agnostic_nms(tf.constant(boxes), tf.constant(scores), tf.constant(UNIT_WINDOW), limits)
    assert selection.num_valid.numpy().tolist() == [2]
    assert selection.anchor_indices.numpy().tolist() == [[0, 2, 0, 0]]
    assert selection.classes.numpy().tolist() == [[1, 0, 0, 0]]
    per_class = per_class_nms(tf.constant(boxes), tf.constant(scores), tf.constant(UNIT_WINDOW), limits)
    assert per_class.anchor_indices.numpy().tolist() == [[0, 1, 0, 0]]


def test_soft_suppression_lowers_scores_instead_of_dropping():
    boxes = np.float32([[[0.0, 0.0, 0.4, 0.4], [0.0, 0.0, 0.4, 0.2]]])  # IoU .5
    scores = np.float32([[[0.9], [0.8]]])
    limits = NmsLimits(0.1, 0.3, max_total_detections=3, soft_nms_sigma=0.5)
    selection = per_class_nms(tf.constant(boxes), tf.constant(scores), tf.constant(UNIT_WINDOW), limits)
    assert selection.num_valid.numpy().tolist() == [2]
    np.testing.assert_allclose(selection.scores, [[0.9, 0.8 * np.exp(-0.25 / (2 * 0.5)), 0.0]], rtol=1e-5)


def test_equals_tensorflow_class_by_class():
    generator = np.random.default_rng(5)
    boxes = _random_boxes(generator, 1, 300, 0.2, 0.8)
    scores = generator.uniform(0, 1, (1, 300, 3)).astype(np.float32)
    limits = NmsLimits(0.3, 0.4, max_detections_per_class=20, max_total_detections=60)
    selection = per_class_nms(tf.constant(boxes), tf.constant(scores), tf.constant(UNIT_WINDOW), limits)
    count = int(selection.num_valid[0])
    for k in range(3):
        expected = tf.image.non_max_suppression(boxes[0], scores[0, :, k], 20, 0.4, 0.3)
        chosen = selection.classes[0, :count].numpy() == k
        np.testing.assert_array_equal(selection.anchor_indices[0, :count].numpy()[chosen], expected)
