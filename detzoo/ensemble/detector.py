"""Several exported models and several views of an image behind the call of one model.

image -> views -> every model -> boxes back in the image, without those that a view cuts off -> merged detections
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from detzoo.ensemble.description import MergeOptions
from detzoo.ensemble.merging import Source, join_sources, merge
from detzoo.ensemble.views import View, ViewPlan, are_cut
from detzoo.errors import UsageError
from detzoo.serving.image_detector import ImageDetections, ImageDetector
from detzoo.serving.served import FIRST_CLASS_ID

logger = logging.getLogger(__name__)


class Member(NamedTuple):
    """A model of an ensemble."""

    name: str
    detect: Callable[[np.ndarray], ImageDetections]  # from an image uint8 [H, W, 3]
    weight: float = 1.0  # factor of its scores, in (0, 1]


class EnsembleDetector(ImageDetector):
    """An ensemble of at least one model, whose masks must have one size, as one detector."""

    def __init__(
        self, members: Sequence[Member], plan: ViewPlan, options: MergeOptions, has_masks: bool = False
    ) -> None:
        self._members = tuple(members)
        self._plan = plan
        self._options = options
        self.has_masks = has_masks
        self._has_warned = False

    def __call__(self, image: np.ndarray) -> ImageDetections:
        """Detects objects in an image uint8 [H, W, 3], RGB; raises a UsageError for masks of different sizes."""
        views = self._plan.views((image.shape[0], image.shape[1]))
        found = [_detect_on(view, member, image) for view in views for member in self._members]
        sources = [Source(member.weight, view.window_norm) for view in views for member in self._members]
        candidates = join_sources([(e.boxes_norm, e.scores, e.class_ids - FIRST_CLASS_ID) for e in found])
        merged = merge(candidates, sources, self._options)
        masks = self._joined_masks(found)[merged.rows] if self.has_masks else None
        keypoints = [None if column is None else column[merged.rows] for column in self._joined_keypoints(found)]
        return ImageDetections(merged.boxes_norm, merged.scores, merged.classes + FIRST_CLASS_ID, masks, *keypoints)

    def _joined_keypoints(self, found: Sequence[ImageDetections]) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Returns points [A, T, 2] and scores [A, T]; None for both, with a warning, if only some models have any."""
        points = [each.keypoints_norm for each in found if each.keypoints_norm is not None]
        scores = [each.keypoint_scores for each in found if each.keypoint_scores is not None]
        if len(points) < len(found):
            if points and not self._has_warned:
                self._has_warned = True
                without = {member.name for member, each in zip(self._members, found) if each.keypoints_norm is None}
                logger.warning("keypoints are left out: %s has none", ", ".join(sorted(without)))
            return None, None
        counts = sorted({each.shape[1] for each in points})
        if len(counts) > 1:
            names = ", ".join(member.name for member in self._members)
            shown = " and ".join(map(str, counts))
            raise UsageError(f"the keypoints of {names} cannot be merged: there are {shown}; give models of one number")
        return np.concatenate(points), np.concatenate(scores)

    def _joined_masks(self, found: Sequence[ImageDetections]) -> np.ndarray:
        masks = [each.masks for each in found if each.masks is not None]
        sizes = sorted({mask.shape[1:] for mask in masks})
        if len(sizes) > 1:
            names = ", ".join(member.name for member in self._members)
            shown = " and ".join(f"{height} x {width}" for height, width in sizes)
            raise UsageError(f"the masks of {names} cannot be merged: they measure {shown}; give models of one size")
        return np.concatenate(masks)


def _detect_on(view: View, member: Member, image: np.ndarray) -> ImageDetections:
    """Runs a model on a view. Returns boxes in fractions of the image, without those that the view cuts off."""
    found = member.detect(view.of(image))
    boxes_norm = view.boxes_in_image(found.boxes_norm)
    is_whole = ~are_cut(boxes_norm, view.window_norm)
    masks = None if found.masks is None else view.masks_in_image(found.masks)
    points = view.points_in_image(found.keypoints_norm)
    return found._replace(boxes_norm=boxes_norm, masks=masks, keypoints_norm=points).rows(is_whole)
