"""Suppression in a TFLite file's operations, against the greedy procedure written with loops."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from detzoo.export import tflite_nms
from detzoo.export.tflite_nms import best_pairs, prefix_length, suppress
from detzoo.ops.nms import NmsLimits

LIMITS = NmsLimits(score_threshold=0.05, iou_threshold=0.5, max_detections_per_class=100, max_total_detections=10)


def overlap(a, b):
    height = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    width = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return height * width / (sum(areas) - height * width)


def greedy(boxes, scores, limits, is_class_agnostic):
    """Rows (anchor, class) by the exhaustive procedure, for scores [A, K]."""
    if is_class_agnostic:
        pairs = [(anchor, int(classes.argmax())) for anchor, classes in enumerate(scores)]
    else:
        pairs = [(anchor, number) for anchor in range(len(scores)) for number in range(scores.shape[1])]
    pairs.sort(key=lambda pair: -scores[pair])
    kept = []
    for anchor, number in pairs:
        rivals = [other for other, of_class in kept if is_class_agnostic or of_class == number]
        if scores[anchor, number] <= limits.score_threshold:
            continue
        if not is_class_agnostic and len(rivals) == limits.max_detections_per_class:
            continue
        if all(overlap(boxes[anchor], boxes[other]) <= limits.iou_threshold for other in rivals):
            kept.append((anchor, number))
    clipped = np.clip(boxes, 0.0, 1.0)
    has_area = np.all(clipped[:, 2:] > clipped[:, :2], axis=1)
    return [pair for pair in kept if has_area[pair[0]]][: limits.max_total_detections]


def found_by(boxes, scores, limits, is_class_agnostic):
    pairs = best_pairs(scores[np.newaxis], limits, is_class_agnostic)
    of_pairs = boxes[pairs.anchors.numpy()]
    kept, is_filled = suppress(of_pairs, pairs, limits, scores.shape[1], is_class_agnostic)
    kept = kept.numpy()[is_filled.numpy()]
    return list(zip(pairs.anchors.numpy()[kept].tolist(), pairs.classes.numpy()[kept].tolist()))


@pytest.mark.parametrize("is_class_agnostic", [False, True])
@pytest.mark.parametrize(
    ("num_classes", "per_class", "length"), [(4, 100, 300), (4, 2, 300), (1, 100, 300), (7, 100, 60)]
)
def test_rows_are_those_of_the_greedy_procedure(num_classes, per_class, length, is_class_agnostic, monkeypatch):
    for name in ("_PAIRS", "_PAIRS_PER_DETECTION", "_PAIRS_TIMES_CLASSES"):
        monkeypatch.setattr(tflite_nms, name, length if name == "_PAIRS" else 1)
    limits = dataclasses.replace(LIMITS, max_detections_per_class=per_class)
    for seed in range(5):
        generator = np.random.default_rng(seed)
        # Centres around three places, one of them outside of the image: many overlaps, and boxes without area inside.
        centers = generator.choice([[0.3, 0.3], [0.6, 0.7], [1.3, 0.5]], 80) + generator.normal(0.0, 0.08, (80, 2))
        sizes = generator.uniform(0.1, 0.4, (80, 2))
        boxes = np.concatenate([centers - sizes / 2, centers + sizes / 2], axis=1).astype(np.float32)
        scores = generator.permutation(80 * num_classes).reshape(80, num_classes).astype(np.float32) / 1000.0
        assert found_by(boxes, scores, limits, is_class_agnostic) == greedy(boxes, scores, limits, is_class_agnostic)


def test_a_prefix_that_is_too_short_gives_the_first_rows():
    # 3000 squares of one class: 2000 equal ones of side 1 score highest, the rest have the sides 1, 0.999, ..., 0.001.
    # Two of them with the same corner overlap by their areas' ratio, so each kept side is below the last one by at
    # least a factor of sqrt(0.5): 1, 0.707, 0.499, ... With one class the prefix has 4096 pairs, so all take part. With
    # four it has 1024, which are all equal.
    boxes = np.zeros([3000, 4], np.float32)
    boxes[:, 2:] = 1.0
    boxes[2000:, :2] = np.linspace(0.0, 0.999, 1000)[:, np.newaxis]
    scores = np.linspace(0.9, 0.1, 3000, dtype=np.float32)[:, np.newaxis]
    assert prefix_length(LIMITS, 1) == 4096
    assert found_by(boxes, scores, LIMITS, False)[:3] == [(0, 0), (2293, 0), (2501, 0)]
    scores = np.pad(scores, [[0, 0], [0, 3]])
    assert prefix_length(LIMITS, 4) == 1024
    assert found_by(boxes, scores, LIMITS, False) == [(0, 0)]


def test_the_prefix_grows_with_the_number_of_detections():
    assert prefix_length(dataclasses.replace(LIMITS, max_total_detections=300), 90) == 3000
