"""Counts of data issues in the records of the input pipeline, for the log of the trainer and the evaluator.

A clean record costs nothing: the input pipeline calls back into Python only for a record with an issue.
"""

from __future__ import annotations

import logging
import threading

import numpy as np

logger = logging.getLogger(__name__)

# Issues of a record, in the order of the count vectors that travel through the input pipeline.
REASONS = (
    "unreadable",  # the record, its image or a mask cannot be decoded; the record is dropped
    "missing_image",  # no image/encoded, or an empty record; dropped
    "inconsistent_record",  # lists of objects of different lengths; dropped
    "missing_masks",  # objects without image/object/mask, though load_instance_masks is set; dropped
    "missing_context",  # no image/context_feature_length, though load_context_features is set; the memory is empty
    "missing_proposals",  # the image has no entry in proposals_path; it has no proposals
    "too_many_pixels",  # more than --max_image_megapixels; not decoded, the record is dropped
    "truncated_file",  # a file that ends within a record; read up to there
    "nan_box",  # a coordinate that is not finite; the object is dropped
    "empty_box",  # no area inside the image; the object is dropped
    "unknown_class",  # neither name nor id is in the label map; the object is dropped
    "too_many_boxes",  # beyond max_number_of_boxes; the object is dropped
    "inverted_box",  # minimum above maximum; repaired by exchanging them
    "box_outside_image",  # reaches beyond the image; repaired by clipping
    "wrong_weight",  # not finite, negative or above 1e4; the weight becomes 1
    "wrong_area",  # not finite or negative; the area becomes 0, unknown
)

_LOGGED_PER_REASON = 3


def count_vector(**counts: int) -> np.ndarray:
    """Returns int64 [len(REASONS)] with the given counts, zeros elsewhere."""
    unknown = set(counts) - set(REASONS)
    if unknown:
        raise ValueError(f"unknown reasons {sorted(unknown)}; accepted are {', '.join(REASONS)}")
    return np.array([counts.get(reason, 0) for reason in REASONS], np.int64)


class IssueCounter:
    """Thread-safe counts by reason. One counter may serve several pipelines."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = np.zeros(len(REASONS), np.int64)
        self._total_logged = 0
        self.is_remote = False  # the input runs in processes that cannot call this one; they print issues themselves
        self.first_epoch_end: int | None = None  # position in the stream after the first end of an epoch that was read

    def end_epoch(self, position: int) -> None:
        """Logs the counts at the end of an epoch, which lies before a position of the stream."""
        if self.first_epoch_end is None:
            self.first_epoch_end = int(position)
        self.log_summary()

    def add(self, vector: np.ndarray, where: str = "") -> None:
        """Adds an int64 [len(REASONS)] vector; the first few of each reason are logged with ``where``."""
        with self._lock:
            before = self._counts.copy()
            self._counts += np.asarray(vector, np.int64)
        for index in np.flatnonzero(vector):
            if before[index] < _LOGGED_PER_REASON:
                logger.warning("data issue in the records: %s%s", REASONS[index], f" ({where})" if where else "")

    def counts(self) -> dict[str, int]:
        """Returns reason -> count so far, without the reasons that did not occur."""
        with self._lock:
            return {reason: int(count) for reason, count in zip(REASONS, self._counts) if count}

    def log_summary(self) -> None:
        """Logs all counts in one line, if any has grown since the last call."""
        counts = self.counts()
        if sum(counts.values()) > self._total_logged:
            self._total_logged = sum(counts.values())
            listed = ", ".join(f"{count} {reason}" for reason, count in counts.items())
            logger.warning("data issues in the records so far (each epoch counts again): %s", listed)
