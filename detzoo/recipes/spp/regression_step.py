"""The step that trains box regression: sums over all windows of a group of classes, which are then solved.

The solution of each class is a separate file; the sums of the current group are in ``state.npz``.
"""

from __future__ import annotations

import logging
import pathlib
import time
from collections.abc import Sequence

import numpy as np

from detzoo.progress import track
from detzoo.recipes.spp.arrays import load_arrays, save_arrays
from detzoo.recipes.spp.box_regression import CODE_SIZE, RidgeSums, box_targets, classes_at_once
from detzoo.recipes.spp.images import TrainingImages
from detzoo.train.stop import StopRequest

STATE_FILE = "state.npz"
SECONDS_BETWEEN_SAVES = 120.0
MOST_BYTES_OF_SUMS = 4e9

logger = logging.getLogger(__name__)


def train_box_regression(
    images: TrainingImages,
    class_names: Sequence[str],
    folder: pathlib.Path,
    stop: StopRequest,
    *,
    min_iou: float,
    regularization: float,
) -> tuple[np.ndarray, np.ndarray] | None:
    """Solves the classes that are not finished.

    Args:
        images: Training set.
        class_names: K names, for the log.
        folder: Folder of the step, created if missing.
        stop: Stop request, read between images.
        min_iou: Least IoU with a true box of the windows that count.
        regularization: Weight of the squared coefficients.

    Returns:
        Kernel float32 [D, K * 4] and bias float32 [K * 4], class by class, or None if a signal came first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    num_classes = len(class_names)
    depth = images.network.pooled_depth
    at_once = classes_at_once(num_classes, depth, MOST_BYTES_OF_SUMS)
    for first in range(0, num_classes, at_once):
        group = range(first, min(first + at_once, num_classes))
        left = [number for number in group if load_arrays(_file(folder, number)) is None]
        if not left:
            continue
        sums = _summed(images, group, folder, stop, min_iou)
        if sums is None:
            return None
        for row, number in enumerate(group):
            kernel, bias = sums.solve(row, regularization)
            count = np.array(sums.count(row))
            save_arrays(_file(folder, number), {"kernel": kernel, "bias": bias, "windows": count})
        (folder / STATE_FILE).unlink(missing_ok=True)
    solved = [load_arrays(_file(folder, number)) or {} for number in range(num_classes)]
    counts = ", ".join(f"{name} {int(each['windows'])}" for name, each in zip(class_names, solved))
    logger.info("box regression of %d classes, windows of each: %s", num_classes, counts)
    kernels = np.stack([each["kernel"] for each in solved], axis=1)
    return kernels.reshape(depth, num_classes * CODE_SIZE), np.concatenate([each["bias"] for each in solved])


def _file(folder: pathlib.Path, number: int) -> pathlib.Path:
    return folder / f"class_{number + 1:04d}.npz"  # ids of the label map


def _summed(
    images: TrainingImages, group: Sequence[int], folder: pathlib.Path, stop: StopRequest, min_iou: float
) -> RidgeSums | None:
    """Returns the sums of a group of classes over all images, or None if a signal came."""
    sums = RidgeSums(len(group), images.network.pooled_depth)
    file, next_record = folder / STATE_FILE, 0
    state = load_arrays(file)
    if state is not None and state["group"].tolist() == list(group):
        sums.restore(state)
        next_record = int(state["next_record"])

    def save() -> None:
        position = {"group": np.array(list(group)), "next_record": np.array(next_record)}
        save_arrays(file, sums.state() | position)

    saved = time.monotonic()
    label = f"box regression, classes {group[0] + 1} to {group[-1] + 1}"
    for image in track(images.since(next_record), images.num_images, label):
        if stop.requested:
            save()
            return None
        windows = image.windows
        near = (windows.best_iou >= min_iou) & np.isin(windows.best_classes, list(group))
        rows = np.flatnonzero(near)
        if len(rows):
            pooled = images.pooled(image, rows)
            targets = box_targets(windows.boxes_norm[rows], windows.best_true_boxes[rows])
            for position, number in enumerate(group):
                own = windows.best_classes[rows] == number
                if own.any():
                    sums.add(position, pooled[own], targets[own])
        next_record = image.number + 1
        if time.monotonic() - saved > SECONDS_BETWEEN_SAVES:
            save()
            saved = time.monotonic()
    return sums
