"""Follows objects through a video with ByteTrack of the library supervision.

ByteTrack (Zhang et al., 2022) joins the boxes of a frame to those of the frames before: first the sure ones, then those
of low scores, which are often objects that something covers.
"""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np

from detzoo.errors import UsageError
from detzoo.extras import install_command, require_extras
from detzoo.tasks.result import Result

LOW_SCORE = 0.1  # of boxes that continue an object, but start none
_SCORE_MARGIN = 0.1  # ByteTrack starts objects at its threshold plus this


class ObjectTracker:
    """Gives the detections of successive frames of one video the numbers of their objects.

    Args:
        rate: Frames per second that are given. An object that is lost for a second gets another number.
        score_threshold: Least score of the detections that are kept. Others, from ``LOW_SCORE``, continue an object.

    Raises:
        UsageError: supervision is not installed, or has no ByteTrack.
    """

    def __init__(self, rate: float, score_threshold: float) -> None:
        require_extras("tracking", "track")
        self._score_threshold = score_threshold
        with warnings.catch_warnings():  # of the absence of OpenCV, and of the end of ByteTrack in the next release
            warnings.simplefilter("ignore")
            import supervision

            if not hasattr(supervision, "ByteTrack"):
                raise UsageError(
                    f"supervision {supervision.__version__} has no ByteTrack. Install: {install_command('track')}"
                )
            activation = max(score_threshold - _SCORE_MARGIN, LOW_SCORE)
            self._tracker = supervision.ByteTrack(track_activation_threshold=activation, frame_rate=max(rate, 1.0))
        self._detections = supervision.Detections

    def __call__(self, result: Result) -> Result:
        """Returns the detections above the threshold, with ``track_ids``."""
        given = self._detections(
            xyxy=result.boxes_px[:, [1, 0, 3, 2]], confidence=result.scores, data={"row": np.arange(len(result))}
        )
        followed = self._tracker.update_with_detections(given)
        track_ids = np.zeros(len(result), np.int32)
        if len(followed):
            track_ids[followed.data["row"]] = followed.tracker_id
        result = dataclasses.replace(result, track_ids=track_ids)
        return result[result.scores >= self._score_threshold]
