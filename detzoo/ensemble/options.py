"""How detections are merged, as numbers that a user chooses (no TensorFlow here: they are checked before it starts)."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from detzoo.errors import UsageError

BEST_SCORE, MEAN_SCORE = "best", "mean"
SCORE_RULES = (BEST_SCORE, MEAN_SCORE)


@dataclasses.dataclass(frozen=True)
class MergeOptions:
    """How detections are merged.

    Attributes:
        iou_threshold: a box that overlaps a better one of its class by more than this is dropped; 0.6 in the paper.
        max_detections: boxes kept over all classes.
        score_threshold: only scores above it take part.
        box_voting: move each kept box to the weighted mean of the boxes around it.
        vote_iou_threshold: least overlap of the boxes around a kept one; 0.5 in Gidaris and Komodakis.
        scores: ``BEST_SCORE`` or ``MEAN_SCORE``.
    """

    iou_threshold: float = 0.6
    max_detections: int = 100
    score_threshold: float = 0.0
    box_voting: bool = False
    vote_iou_threshold: float = 0.5
    scores: str = BEST_SCORE


def check_merging(options: MergeOptions) -> MergeOptions:
    """The options, if their numbers make sense.

    Raises:
        UsageError: with the name of what does not, and what is accepted.
    """
    for name in ("iou_threshold", "vote_iou_threshold", "score_threshold"):
        value = getattr(options, name)
        if not is_number(value) or not 0 <= value <= 1:
            raise UsageError(f"{name} is {value!r}; accepted: 0 to 1")
    if isinstance(options.max_detections, bool) or not isinstance(options.max_detections, int):
        raise UsageError(f"max_detections is {options.max_detections!r}; accepted: a whole number from 1")
    if options.max_detections < 1:
        raise UsageError(f"max_detections is {options.max_detections}; accepted: a whole number from 1")
    if options.scores not in SCORE_RULES:
        raise UsageError(f"scores is {options.scores!r}; accepted: {', '.join(SCORE_RULES)}")
    if not isinstance(options.box_voting, bool):
        raise UsageError(f"box_voting is {options.box_voting!r}; accepted: true, false")
    return options


def is_number(value: Any) -> bool:
    """Whether a value of JSON is a number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)
