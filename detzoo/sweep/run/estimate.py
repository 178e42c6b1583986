"""How long a sweep will take: a guess from multiply-adds, corrected by what was measured.

The guess knows a model's multiply-adds at one size (models.csv), this machine's speed, and a few rules of thumb that
are named here. Points that were measured before, and each that ends, correct it.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping

import numpy as np

OVERHEAD_SECONDS = 18.0  # of a point: process, imports, building, exporting, memory in a fresh process; two cores
TRAINING_OVERHEAD_SECONDS = 12.0  # process, imports, building, tracing of the training step
TRAINING_IMAGE_SECONDS = 0.004  # to read and augment an image, and what a step costs beside convolutions
CALLS_BESIDES_RUNS = 0.7  # a share of the runs: stages are timed apart, memory takes calls, too
BACKWARD_COST = 3.0  # of a training step, in forward passes
# The share of a matrix product's speed that a CPU reaches grows with the work of a call: measured 0.07 at 0.05e9
# multiply-adds (the quickstart's SSD), 0.27 at 0.8e9 (SSD MobileNet v2), 0.8 at 89e9 (RetinaNet-50), 1.0 at 309e9.
_SHARE_AT_1E9, _SHARE_BY_DECADE, _LEAST_SHARE, _MOST_SHARE = 0.3, 0.26, 0.07, 0.95
# The share of multiply-adds that grows with the proposals, at 300 of them: of Faster R-CNN with what follows the crop.
PROPOSAL_SHARES = {"faster_rcnn": 0.75, "mask_rcnn": 0.75, "fast_rcnn": 0.9}
_MATRIX = 1024
_UNKNOWN_MULTIPLY_ADDS = 20e9  # a middling detector, where models.csv has none


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a guess needs of a point.

    Attributes:
        base_multiply_adds: of its base, an image; 0 where it is not known.
        meta_architecture: of the point.
        area_ratio: pixels of its input to those of the base's.
        proposals: of the point; None without.
        base_proposals: of the base.
        calls: detections that are timed, times the images of a call.
        eval_images: that accuracy is measured on.
    """

    base_multiply_adds: float
    meta_architecture: str
    area_ratio: float
    proposals: int | None
    base_proposals: int | None
    calls: int
    eval_images: int

    @property
    def multiply_adds(self) -> float:
        """Of one image, roughly."""
        total = self.base_multiply_adds or _UNKNOWN_MULTIPLY_ADDS
        share = PROPOSAL_SHARES.get(self.meta_architecture, 0.0)
        growth = (self.proposals or 1) / (self.base_proposals or self.proposals or 1)
        return total * ((1 - share) * self.area_ratio + share * growth)


def share_of_peak(multiply_adds: float) -> float:
    """The share of a matrix product's speed that a call with so many multiply-adds reaches."""
    decades = math.log10(max(multiply_adds, 1.0) / 1e9)
    return min(_MOST_SHARE, max(_LEAST_SHARE, _SHARE_AT_1E9 + _SHARE_BY_DECADE * decades))


def point_seconds(cost: Cost, gflops: float) -> float:
    """A point without its training, ``gflops`` being the machine's speed."""
    image = 2 * cost.multiply_adds / (gflops * 1e9 * share_of_peak(cost.multiply_adds))
    return OVERHEAD_SECONDS + image * (cost.calls * (1 + CALLS_BESIDES_RUNS) + cost.eval_images)


def training_seconds(cost: Cost, steps: int, batch_size: int, gflops: float) -> float:
    """A training of so many steps."""
    num_images = steps * batch_size
    image = 2 * cost.multiply_adds / (gflops * 1e9 * share_of_peak(cost.multiply_adds * batch_size))
    return TRAINING_OVERHEAD_SECONDS + (TRAINING_IMAGE_SECONDS + image * BACKWARD_COST) * num_images


def machine_gflops() -> float:
    """The speed of a float32 matrix product, in 1e9 operations a second; a few tenths of a second."""
    matrix = np.ones((_MATRIX, _MATRIX), np.float32)
    matrix @ matrix
    best = min(_timed(matrix) for _ in range(3))
    return 2 * _MATRIX**3 / best / 1e9


def _timed(matrix: np.ndarray) -> float:
    started = time.perf_counter()
    matrix @ matrix
    return time.perf_counter() - started


class Remaining:
    """The time left, from what each piece of work was expected to take and what those that ended took.

    Args:
        expected: seconds by key.
        jobs: pieces at a time.
    """

    def __init__(self, expected: Mapping[str, float], jobs: int = 1) -> None:
        self._left = dict(expected)
        self._jobs = jobs
        self._took = self._was_expected = 0.0

    def ended(self, key: str, seconds: float) -> None:
        """A piece of work has ended; 0 seconds for one that another sweep did."""
        expected = self._left.pop(key, 0.0)
        if seconds and expected:
            self._took += seconds
            self._was_expected += expected

    def seconds(self, running: Mapping[str, float] | None = None) -> float:
        """What is left, at the pace so far.

        Args:
            running: seconds by key that work has taken which has not ended.
        """
        # The guess counts as one more piece of work, so that a first one that is odd does not decide alone.
        guess = sum(self._left.values())
        one = guess / len(self._left) if self._left else 0.0
        pace = (self._took + one) / (self._was_expected + one) if self._was_expected + one else 1.0
        running = running or {}
        left = sum(max(0.0, seconds * pace - running.get(key, 0.0)) for key, seconds in self._left.items())
        return left / self._jobs


def in_words(seconds: float) -> str:
    """E.g. "40 s", "7 min", "3 h 20 min", "2 days 4 h"."""
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, rest = divmod(round(minutes, -1), 60)
    if hours < 48:
        return f"{hours} h {rest} min" if rest else f"{hours} h"
    return f"{hours // 24} days {hours % 24} h" if hours % 24 else f"{hours // 24} days"
