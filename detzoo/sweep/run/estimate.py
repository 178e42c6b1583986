"""Expected time of a sweep: a guess from multiply-adds, corrected by measurements.

The guess uses a model's multiply-adds at one size (models.csv), this machine's speed and the rules of thumb below.
Points that were measured before, and each point that ends, correct it.
"""

from __future__ import annotations

import dataclasses
import math
import timeit
from collections.abc import Mapping

import numpy as np

OVERHEAD_SECONDS = 18.0  # per point: process, imports, building, exporting, memory in a fresh process; two cores
TRAINING_OVERHEAD_SECONDS = 12.0  # process, imports, building, tracing of the training step
TRAINING_IMAGE_SECONDS = 0.004  # reading and augmenting an image, and its share of a step without convolutions
CALLS_BESIDES_RUNS = 0.7  # as a share of the runs: separate timing of the stages, and the calls that memory takes
BACKWARD_COST = 3.0  # of a training step, in forward passes
# The share of a matrix product's speed that a CPU reaches grows with the work per call: measured 0.07 at 0.05e9
# multiply-adds (the quickstart's SSD), 0.27 at 0.8e9 (SSD MobileNet v2), 0.8 at 89e9 (RetinaNet-50), 1.0 at 309e9.
_SHARE_AT_1E9, _SHARE_BY_DECADE, _LEAST_SHARE, _MOST_SHARE = 0.3, 0.26, 0.07, 0.95
# Share of the multiply-adds that grows with the proposals, at 300 proposals.
PROPOSAL_SHARES = {"faster_rcnn": 0.75, "mask_rcnn": 0.75, "fast_rcnn": 0.9}
_MATRIX = 1024
_UNKNOWN_MULTIPLY_ADDS = 20e9  # of a medium detector, for models that are not in models.csv


@dataclasses.dataclass(frozen=True)
class Cost:
    """Facts about a point that its expected time depends on."""

    base_multiply_adds: float  # per image of its base, 0 if unknown
    meta_architecture: str
    area_ratio: float  # pixels of its input by those of its base
    proposals: int | None  # None without proposals
    base_proposals: int | None
    calls: int  # timed detections times images per call
    eval_images: int  # images that accuracy is measured on

    @property
    def multiply_adds(self) -> float:
        """Multiply-adds per image, roughly."""
        total = self.base_multiply_adds or _UNKNOWN_MULTIPLY_ADDS
        share = PROPOSAL_SHARES.get(self.meta_architecture, 0.0)
        growth = (self.proposals or 1) / (self.base_proposals or self.proposals or 1)
        return total * ((1 - share) * self.area_ratio + share * growth)


def share_of_peak(multiply_adds: float) -> float:
    """Returns the share of a matrix product's speed that a call with this many multiply-adds reaches."""
    decades = math.log10(max(multiply_adds, 1.0) / 1e9)
    return min(_MOST_SHARE, max(_LEAST_SHARE, _SHARE_AT_1E9 + _SHARE_BY_DECADE * decades))


def point_seconds(cost: Cost, gflops: float) -> float:
    """Returns the time of a point without its training on a machine of this speed."""
    image = 2 * cost.multiply_adds / (gflops * 1e9 * share_of_peak(cost.multiply_adds))
    return OVERHEAD_SECONDS + image * (cost.calls * (1 + CALLS_BESIDES_RUNS) + cost.eval_images)


def training_seconds(cost: Cost, steps: int, batch_size: int, gflops: float) -> float:
    """Returns the time of a training on a machine of this speed."""
    num_images = steps * batch_size
    image = 2 * cost.multiply_adds / (gflops * 1e9 * share_of_peak(cost.multiply_adds * batch_size))
    return TRAINING_OVERHEAD_SECONDS + (TRAINING_IMAGE_SECONDS + image * BACKWARD_COST) * num_images


def machine_gflops() -> float:
    """Returns the speed of a float32 matrix product, in 1e9 operations per second; takes a few tenths of a second."""
    matrix = np.ones((_MATRIX, _MATRIX), np.float32)
    matrix @ matrix
    best = min(timeit.repeat(lambda: matrix @ matrix, number=1, repeat=3))
    return 2 * _MATRIX**3 / best / 1e9


class Remaining:
    """The time left, from the expected times of all work and the actual times of finished work.

    Args:
        expected: Expected seconds by key.
        jobs: Number of processes at a time.
    """

    def __init__(self, expected: Mapping[str, float], jobs: int = 1) -> None:
        self._left = dict(expected)
        self._jobs = jobs
        self._took = self._was_expected = 0.0

    def ended(self, key: str, seconds: float) -> None:
        """Notes the end of some work; 0 seconds for work of another sweep."""
        expected = self._left.pop(key, 0.0)
        if seconds and expected:
            self._took += seconds
            self._was_expected += expected

    def seconds(self, running: Mapping[str, float] | None = None) -> float:
        """Returns the seconds left at the pace so far.

        Args:
            running: Seconds by key that running work has taken.
        """
        # The guess counts like one more piece of work, so that an unusual first one does not decide alone.
        guess = sum(self._left.values())
        one = guess / len(self._left) if self._left else 0.0
        pace = (self._took + one) / (self._was_expected + one) if self._was_expected + one else 1.0
        running = running or {}
        left = sum(max(0.0, seconds * pace - running.get(key, 0.0)) for key, seconds in self._left.items())
        return left / self._jobs
