"""CenterNet's detections from maps of 4 x 6 cells: an input of 16 x 24 pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from detzoo.contracts import CenterPredictions
from detzoo.ops.nms import NmsLimits
from detzoo.postprocess.center_detections import CenterDetections

PADDED = (16, 24)


def logit(score):
    return math.log(score / (1.0 - score))


def predictions(peaks, sizes=None, offsets=None, num_classes=2):
    """Maps with scores 0.01 everywhere, and higher ones at (y, x, class)."""
    heatmap = np.full((1, 4, 6, num_classes), logit(0.01), np.float32)
    scale, offset = np.zeros((1, 4, 6, 2), np.float32), np.zeros((1, 4, 6, 2), np.float32)
    for (y, x, channel), score in peaks.items():
        heatmap[0, y, x, channel] = logit(score)
    for (y, x), size in (sizes or {}).items():
        scale[0, y, x] = size
    for (y, x), shift in (offsets or {}).items():
        offset[0, y, x] = shift
    maps = {"object_center": [tf.constant(heatmap)], "box/scale": [scale], "box/offset": [offset]}
    return CenterPredictions(maps, tf.constant([PADDED]), PADDED)


def detect(given, true_shape=PADDED, **options):
    return CenterDetections(**{"max_detections": 3, **options})(given, tf.constant([true_shape]), PADDED)


def test_a_box_is_decoded_around_its_center():
    found = detect(predictions({(1, 2, 1): 0.9}, {(1, 2): (2.0, 3.0)}, {(1, 2): (0.5, 0.25)}))
    # Centre (1.5, 2.25) cells, 2 x 3 cells: y 0.5 to 2.5 of 4 cells, x 0.75 to 3.75 of 6.
    np.testing.assert_allclose(found.boxes_norm[0, 0], [0.125, 0.125, 0.625, 0.625], rtol=1e-6)
    assert float(found.scores[0, 0]) == pytest.approx(0.9)
    assert int(found.classes[0, 0]) == 1
    np.testing.assert_allclose(found.multiclass_scores[0, 0], [0.01, 0.9], rtol=1e-4)


def test_boxes_are_fractions_of_the_image_and_stay_in_it():
    given = predictions({(0, 0, 0): 0.9}, {(0, 0): (9.0, 9.0)})
    found = detect(given, true_shape=(8, 24))
    np.testing.assert_allclose(found.boxes_norm[0, 0], [0.0, 0.0, 1.0, 0.75])


def test_centers_in_the_padding_are_no_detections():
    given = predictions({(3, 1, 0): 0.9, (1, 1, 0): 0.5}, {(1, 1): (1.0, 1.0), (3, 1): (1.0, 1.0)})
    np.testing.assert_allclose(detect(given).scores[0, :2], [0.9, 0.5], rtol=1e-5)
    found = detect(given, true_shape=(10, 24))  # rows 0 to 2
    np.testing.assert_allclose(found.scores[0, 0], 0.5, rtol=1e-5)
    assert not np.any(np.isclose(found.scores, 0.9))


def test_negative_sizes_are_zero():
    found = detect(predictions({(1, 2, 0): 0.9}, {(1, 2): (-2.0, 3.0)}))
    ymin, _, ymax, _ = found.boxes_norm[0, 0].numpy()
    assert ymin == ymax


def test_rows_without_a_peak_are_empty():
    given = predictions({(1, 2, 0): 0.9}, num_classes=1)
    found = detect(given, true_shape=(4, 4), max_detections=30)  # one cell in the image, not a peak of its surroundings
    assert int(found.num_valid[0]) == int(np.count_nonzero(found.scores[0]))
    assert np.all(found.boxes_norm.numpy()[0, int(found.num_valid[0]) :] == 0.0)


def test_suppression_among_the_peaks():
    boxes = {(1, 1): (2.0, 4.0), (1, 3): (2.0, 4.0)}  # x -1 to 3 and 1 to 5: overlap 2 of 5 within the image
    given = predictions({(1, 1, 0): 0.9, (1, 3, 0): 0.8}, boxes)
    assert int(np.sum(detect(given).scores[0] > 0.5)) == 2
    kept = detect(given, limits=NmsLimits(score_threshold=0.05, iou_threshold=0.3, max_total_detections=3))
    assert int(kept.num_valid[0]) == 1
    np.testing.assert_allclose(kept.multiclass_scores[0, 0], [0.9, 0.01], rtol=1e-4)
    apart = detect(given, limits=NmsLimits(score_threshold=0.05, iou_threshold=0.5, max_total_detections=3))
    np.testing.assert_allclose(apart.scores[0, :2], [0.9, 0.8], rtol=1e-5)


def test_function_is_eager():
    given = predictions({(1, 2, 1): 0.9, (3, 5, 0): 0.3}, {(1, 2): (2.0, 3.0)})
    run = CenterDetections(max_detections=3)
    eager = run(given, tf.constant([PADDED]), PADDED)
    traced = tf.function(lambda: run(given, tf.constant([PADDED]), PADDED))()
    for one, other in zip(eager, traced):
        np.testing.assert_allclose(one, other, rtol=1e-6)
