"""Ridge regression from pooled features to better boxes, on arrays (arXiv:1406.4729, section 4.1; R-CNN, appendix C).

Each class has windows x that overlap a true box of the class, and targets t = (ty, tx, th, tw) of the box relative to
the window. The kernel and bias minimise

    sum |t - (x s W + b)|^2 + regularization |W|^2

where s makes the mean length of the features 20. The solution needs sums over windows only, which are collected image
by image. The memory is D^2 numbers per class for any number of windows.

Differs from R-CNN's code: targets are not whitened, because the solution is linear in them, so whitening and its
inverse cancel. The bias is not regularised.
"""

from __future__ import annotations

from typing import Any

import numpy as np

FEATURE_NORM = 20.0  # R-CNN's, for which its weight of 1000 is chosen
CODE_SIZE = 4
_BYTES = 8  # of a float64
_ROWS_AT_ONCE = 1024  # windows that are buffered before the sums are updated
_SMALLEST = 1e-6  # keeps the matrix invertible


class RidgeSums:
    """Sums over the windows of some classes, with features of length ``depth``, enough to solve for each class."""

    def __init__(self, num_classes: int, depth: int) -> None:
        self._sums = {
            "count": np.zeros([num_classes]),
            "length": np.zeros([num_classes]),
            "x": np.zeros([num_classes, depth]),
            "y": np.zeros([num_classes, CODE_SIZE]),
            "xx": np.zeros([num_classes, depth, depth]),
            "xy": np.zeros([num_classes, depth, CODE_SIZE]),
        }
        self._waiting: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in range(num_classes)]

    def add(self, number: int, features: np.ndarray, targets: np.ndarray) -> None:
        """Adds windows of a class, features float32 [N, D] and targets [N, 4]."""
        waiting = self._waiting[number]
        waiting.append((features, targets))
        if sum(len(each) for each, _ in waiting) >= _ROWS_AT_ONCE:
            self._add_waiting(number)

    def _add_waiting(self, number: int) -> None:
        """Adds the buffered windows at once, because every update reads and writes D^2 numbers."""
        if not self._waiting[number]:
            return
        # Covariances are small differences of large sums: float32 would lose them.
        x, y = (np.concatenate(each).astype(np.float64) for each in zip(*self._waiting[number]))
        self._waiting[number].clear()
        sums = self._sums
        sums["count"][number] += len(x)
        sums["length"][number] += np.linalg.norm(x, axis=1).sum()
        sums["x"][number] += x.sum(axis=0)
        sums["y"][number] += y.sum(axis=0)
        sums["xx"][number] += x.T @ x
        sums["xy"][number] += x.T @ y

    def count(self, number: int) -> int:
        """Returns the number of windows of a class so far."""
        return int(self._sums["count"][number]) + sum(len(each) for each, _ in self._waiting[number])

    def solve(self, number: int, regularization: float) -> tuple[np.ndarray, np.ndarray]:
        """Returns kernel float32 [D, 4] and bias float32 [4] for unscaled features; zeros without windows."""
        from scipy import linalg

        self._add_waiting(number)
        count = max(self._sums["count"][number], 1.0)
        mean_x, mean_y = self._sums["x"][number] / count, self._sums["y"][number] / count
        covariance = self._sums["xx"][number] - count * np.outer(mean_x, mean_x)
        against = self._sums["xy"][number] - count * np.outer(mean_x, mean_y)
        length = self._sums["length"][number] / count
        # Features times s under the weight r have the solution of features as they are under r / s^2.
        covariance[np.diag_indices_from(covariance)] += (
            max(regularization, 1e-9) * max(length / FEATURE_NORM, 1e-6) ** 2
        )
        kernel = linalg.solve(covariance, against, assume_a="pos", overwrite_a=True)
        return kernel.astype(np.float32), (mean_y - mean_x @ kernel).astype(np.float32)

    def state(self) -> dict[str, np.ndarray]:
        """Returns the sums, for ``restore``."""
        for number in range(len(self._waiting)):
            self._add_waiting(number)
        return dict(self._sums)

    def restore(self, state: Any) -> None:
        """Sets the sums from the arrays of ``state``."""
        self._sums = {name: np.array(state[name]) for name in self._sums}


def classes_at_once(num_classes: int, depth: int, max_bytes: float) -> int:
    """Returns the number of classes, at least 1, whose sums fit into memory for one pass over the images."""
    return max(1, min(num_classes, int(max_bytes // (_BYTES * depth * depth))))


def box_targets(windows_norm: np.ndarray, true_boxes_norm: np.ndarray) -> np.ndarray:
    """Encodes true boxes [N, 4] relative to windows [N, 4] as (ty, tx, th, tw): shift of centre, logarithm of size.

    ``FasterRcnnBoxCoder`` with factors of 1 decodes them.
    """
    size, true_size = windows_norm[:, 2:] - windows_norm[:, :2], true_boxes_norm[:, 2:] - true_boxes_norm[:, :2]
    shift = (true_boxes_norm[:, :2] + true_size / 2 - windows_norm[:, :2] - size / 2) / size
    return np.concatenate([shift, np.log(true_size / size)], axis=1)
