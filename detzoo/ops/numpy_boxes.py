"""Areas and overlaps of boxes [ymin, xmin, ymax, xmax] as numpy arrays, for code that runs once per image on the host.

The twin of ``detzoo.ops.boxes`` without the start-up time of TensorFlow operations.
"""

from __future__ import annotations

import numpy as np

_SMALLEST_AREA = 1e-12


def areas(boxes: np.ndarray) -> np.ndarray:
    """Returns the areas [N] of boxes [N, 4]; 0 for inverted boxes."""
    return np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0.0), axis=1)


def intersections(boxes_a: np.ndarray, boxes_b: np.ndarray) -> np.ndarray:
    """Returns the shared areas [N, M] of boxes [N, 4] and boxes [M, 4]."""
    low = np.maximum(boxes_a[:, np.newaxis, :2], boxes_b[np.newaxis, :, :2])
    high = np.minimum(boxes_a[:, np.newaxis, 2:], boxes_b[np.newaxis, :, 2:])
    return np.prod(np.maximum(high - low, 0.0), axis=-1)


def pairwise_iou(boxes_a: np.ndarray, boxes_b: np.ndarray) -> np.ndarray:
    """Returns intersection over union [N, M] of boxes [N, 4] and boxes [M, 4]; 0 for an empty union."""
    shared = intersections(boxes_a, boxes_b)
    union = areas(boxes_a)[:, np.newaxis] + areas(boxes_b)[np.newaxis] - shared
    return shared / np.maximum(union, _SMALLEST_AREA)
