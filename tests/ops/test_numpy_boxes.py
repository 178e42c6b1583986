"""Overlaps of boxes as numpy arrays."""

from __future__ import annotations

import numpy as np

from detzoo.ops import boxes as tensor_boxes
from detzoo.ops.numpy_boxes import areas, intersections, pairwise_iou


def test_the_twin_for_tensors_agrees():
    random = np.random.default_rng(0)
    corners = random.uniform(0, 0.6, [40, 2])
    boxes = np.concatenate([corners, corners + random.uniform(0, 0.4, [40, 2])], axis=1).astype(np.float32)
    boxes[3] = 0.5  # no area
    expected = tensor_boxes.pairwise_iou(boxes[:15], boxes[15:]).numpy()
    np.testing.assert_allclose(pairwise_iou(boxes[:15], boxes[15:]), expected, atol=1e-6)


def test_areas_and_intersections_by_hand():
    # 2 x 3 and an inverted box; the first shares 1 x 2 with [1, 1, 3, 3].
    boxes = np.array([[0.0, 0.0, 2.0, 3.0], [2.0, 0.0, 1.0, 1.0]])
    np.testing.assert_array_equal(areas(boxes), [6.0, 0.0])
    np.testing.assert_array_equal(intersections(boxes[:1], np.array([[1.0, 1.0, 3.0, 3.0]])), [[2.0]])
    assert pairwise_iou(boxes, np.zeros([0, 4])).shape == (2, 0)
    np.testing.assert_array_equal(pairwise_iou(np.zeros([1, 4]), np.zeros([1, 4])), [[0.0]])
