"""The step that trains the SVMs: positives and first negatives, then rounds of mining over all images.

``state.npz`` always holds the progress: the SVMs, references to their training windows, and the next image. Features of
the windows are not stored; they are computed from the cached maps.
"""

from __future__ import annotations

import logging
import pathlib
import time
from typing import Any

import numpy as np

from detzoo.progress import track
from detzoo.recipes.spp.arrays import load_arrays, save_arrays
from detzoo.recipes.spp.images import TrainingImages
from detzoo.recipes.spp.linear_svm import INITIAL_NEGATIVES, RETRAIN_AT, LinearSvms
from detzoo.recipes.spp.windows import distinct_rows
from detzoo.train.stop import StopRequest

STATE_FILE, RESULT_FILE = "state.npz", "svm.npz"
SECONDS_BETWEEN_SAVES = 60.0

logger = logging.getLogger(__name__)


def train_svms(
    images: TrainingImages,
    svms: LinearSvms,
    folder: pathlib.Path,
    stop: StopRequest,
    *,
    mining_rounds: int,
    seed: int,
) -> dict[str, Any] | None:
    """Trains the SVMs that are not finished, in ``mining_rounds`` passes over all images.

    Returns:
        ``kernels`` float32 [K, F] and ``biases`` float32 [K], or None if a signal came first.

    Raises:
        DataError: A class has no positives or negatives.
    """
    result = load_arrays(folder / RESULT_FILE)
    if result is not None:
        return result
    folder.mkdir(parents=True, exist_ok=True)
    step = _SvmStep(images, svms, folder, stop, seed)
    if not (step.begin() and all(step.mine(number, mining_rounds) for number in range(mining_rounds))):
        return None
    counts = [(len(positives), len(negatives)) for positives, negatives in zip(svms.positives, svms.negatives)]
    described = ", ".join(f"{name} {count[0]} and {count[1]}" for name, count in zip(svms.class_names, counts))
    logger.info("SVMs of %d classes, positives and negatives of each: %s", len(counts), described)
    result = {"kernels": svms.kernels, "biases": svms.biases, "windows": np.array(counts)}
    save_arrays(folder / RESULT_FILE, result)
    (folder / STATE_FILE).unlink(missing_ok=True)
    return result


class _SvmStep:
    """State of the phases."""

    def __init__(
        self,
        images: TrainingImages,
        svms: LinearSvms,
        folder: pathlib.Path,
        stop: StopRequest,
        seed: int,
    ) -> None:
        self._images, self._svms, self._file, self._stop = images, svms, folder / STATE_FILE, stop
        self._seed = seed
        self._round, self._next_record = 0, 0
        self._saved = time.monotonic()

    def begin(self) -> bool:
        """Collects positives and first negatives and trains on them, or restores the stored state."""
        state = load_arrays(self._file)
        if state is None:
            if not self._collect():
                return False
            self._svms.set_scale()
        else:
            self._svms.restore(state)
            self._round, self._next_record = int(state["round"]), int(state["next_record"])
            if not self._remember():
                return False
        logger.info("training the SVMs of %d classes", len(self._svms.stale))
        return self._fit()

    def mine(self, number: int, of: int) -> bool:
        """Runs one round of mining. Returns False if a signal came."""
        if number < self._round:
            return True
        label = f"mining hard negatives, round {number + 1} of {of}"
        found = 0
        for image in track(self._images.since(self._next_record), self._images.num_images, label):
            if self._stop.requested:
                self._save()
                return False
            rows = np.arange(len(image.windows.boxes_norm))
            features = self._images.network.classify(self._images.pooled(image, rows))
            found += self._svms.mine(image.number, image.windows, features)
            self._next_record = image.number + 1
            if not self._fit(RETRAIN_AT):
                return False
            if time.monotonic() - self._saved > SECONDS_BETWEEN_SAVES:
                self._save()
        logger.info("round %d of mining: %d hard negatives of all classes", number + 1, found)
        if not self._fit():
            return False
        self._round, self._next_record = number + 1, 0
        self._save()
        return True

    def _collect(self) -> bool:
        """Adds the true boxes of all images and random windows of each."""
        count = -(-INITIAL_NEGATIVES // max(1, self._images.num_images))
        for image in track(self._images.since(), self._images.num_images, "positives and first negatives"):
            if self._stop.requested:
                return False
            windows = image.windows
            random = np.random.default_rng([self._seed, image.number])
            others = windows.num_true + random.permutation(len(windows.boxes_norm) - windows.num_true)[:count]
            others = distinct_rows(windows.boxes_norm, others, self._svms.options.duplicate_iou)
            rows = np.concatenate([np.arange(windows.num_true), others])
            features = self._images.network.classify(self._images.pooled(image, rows))
            self._svms.add_initial(image.number, windows, rows, features)
        return True

    def _remember(self) -> bool:
        """Computes the features of the windows that the SVMs were trained on."""
        missing = self._svms.missing_rows()
        for image in track(self._images.since(), self._images.num_images, "windows of the SVMs so far"):
            if self._stop.requested:
                return False
            rows = missing.get(image.number)
            if rows is not None:
                self._svms.keep(image.number, rows, self._images.network.classify(self._images.pooled(image, rows)))
        return True

    def _fit(self, at_least: int = 0) -> bool:
        if self._svms.fit_stale(lambda: self._stop.requested, at_least):
            return True
        self._save()
        return False

    def _save(self) -> None:
        position = {"round": np.array(self._round), "next_record": np.array(self._next_record)}
        save_arrays(self._file, self._svms.state() | position)
        self._saved = time.monotonic()
