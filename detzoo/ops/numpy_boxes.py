"""Areas and overlaps of boxes [ymin, xmin, ymax, xmax] as numpy arrays, for code that runs once per image on the host.

The twin of ``detzoo.ops.boxes`` without the start-up time of TensorFlow operations.
"""

from __future__ import annotations

import numpy as np

_SMALLEST_AREA = 1e-12


def areas(boxes: np.ndarray) -> np.ndarray:
    """Returns the areas [...] of boxes [..., 4]; 0 for inverted boxes."""
    return np.prod(np.maximum(boxes[..., 2:] - boxes[..., :2], 0.0), axis=-1)


def shared_areas(boxes_a: np.ndarray, boxes_b: np.ndarray) -> np.ndarray:
    """Returns the shared areas [...] of boxes [..., 4] and boxes [..., 4], whose shapes broadcast."""
    low = np.maximum(boxes_a[..., :2], boxes_b[..., :2])
    high = np.minimum(boxes_a[..., 2:], boxes_b[..., 2:])
    return np.prod(np.maximum(high - low, 0.0), axis=-1)


def box_iou(boxes_a: np.ndarray, boxes_b: np.ndarray) -> np.ndarray:
    """Returns intersection over union [...] of boxes whose shapes broadcast; 0 for an empty union."""
    shared = shared_areas(boxes_a, boxes_b)
    return shared / np.maximum(areas(boxes_a) + areas(boxes_b) - shared, _SMALLEST_AREA)


def intersections(boxes_a: np.ndarray, boxes_b: np.ndarray) -> np.ndarray:
    """Returns the shared areas [N, M] of boxes [N, 4] and boxes [M, 4]."""
    return shared_areas(boxes_a[:, np.newaxis], boxes_b[np.newaxis])


def pairwise_iou(boxes_a: np.ndarray, boxes_b: np.ndarray) -> np.ndarray:
    """Returns intersection over union [N, M] of boxes [N, 4] and boxes [M, 4]; 0 for an empty union."""
    return box_iou(boxes_a[:, np.newaxis], boxes_b[np.newaxis])
