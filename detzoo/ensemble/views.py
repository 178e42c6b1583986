"""Views of an image (the whole, overlapping crops, and their mirror images) and the way back to the image.

A crop that cuts an object off shows a smaller object whose box ends at the side of the crop. So detections that reach a
side of the crop inside the image are dropped. The neighbouring crop shows the whole object if it is no larger than the
overlap, and the whole image is always one of the views.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from detzoo.errors import UsageError

WHOLE_IMAGE_NORM = (0.0, 0.0, 1.0, 1.0)
# A box counts as cut off if it ends within this share of the crop's length from the crop's side: the predicted box of
# a cut object ends near the side, not exactly on it.
CUT_MARGIN = 0.02
MIN_CROP_PX = 16  # nothing is recognised on less
MIN_TILE_PX = 32
MOST_ROWS = 16  # of a grid of crops; also the most columns
MOST_OVERLAP = 0.75  # with more, crops grow in number without showing anything new

logger = logging.getLogger(__name__)


class View(NamedTuple):
    """A part of an image [H, W, 3], mirrored or not."""

    window_px: tuple[int, int, int, int]  # ymin, xmin, ymax, xmax
    shape: tuple[int, int]  # (height, width) of the image
    is_mirrored: bool = False

    @property
    def window_norm(self) -> tuple[float, float, float, float]:
        """The window in fractions of the image."""
        (height, width), (ymin, xmin, ymax, xmax) = self.shape, self.window_px
        return ymin / height, xmin / width, ymax / height, xmax / width

    def of(self, image: np.ndarray) -> np.ndarray:
        """Cuts the view out of an image [H, W, ...]."""
        ymin, xmin, ymax, xmax = self.window_px
        seen = image[ymin:ymax, xmin:xmax]
        return np.ascontiguousarray(seen[:, ::-1] if self.is_mirrored else seen)

    def boxes_in_image(self, boxes_norm: np.ndarray) -> np.ndarray:
        """Converts boxes [D, 4] from fractions of the view to fractions of the image."""
        boxes = np.asarray(boxes_norm, np.float32).reshape(-1, 4)
        if self.is_mirrored:
            ymin, xmin, ymax, xmax = boxes.T
            boxes = np.stack([ymin, 1.0 - xmax, ymax, 1.0 - xmin], axis=1)
        low, high = np.array(self.window_norm, np.float32).reshape(2, 2)
        return boxes * np.tile(high - low, 2) + np.tile(low, 2)

    def points_in_image(self, points_norm: np.ndarray | None) -> np.ndarray | None:
        """Converts keypoints [D, T, 2] from fractions of the view to fractions of the image; None stays None.

        Raises:
            UsageError: The view is mirrored, so that left and right keypoints have changed places.
        """
        if points_norm is None:
            return None
        if self.is_mirrored:
            raise UsageError(
                "mirror images are not supported for models with keypoints: in them a left eye is a right one, and a "
                "model does not name the pairs; leave them out (--noflip, or flip: false in ensemble.json)"
            )
        low, high = np.array(self.window_norm, np.float32).reshape(2, 2)
        return np.asarray(points_norm, np.float32) * (high - low) + low

    def masks_in_image(self, masks: np.ndarray) -> np.ndarray:
        """Converts masks [D, h, w] that cover their boxes from the view to the image."""
        return masks[:, :, ::-1] if self.is_mirrored else masks


def are_cut(boxes_norm: np.ndarray, window_norm: Sequence[float]) -> np.ndarray:
    """Returns bool [D]: true for boxes that a part of the image may not show as a whole; see ``cut_sides``."""
    return np.any(cut_sides(boxes_norm, window_norm), axis=1)


def cut_sides(boxes_norm: np.ndarray, windows_norm: Sequence[float] | np.ndarray) -> np.ndarray:
    """Returns bool [D, 4]: true for sides of boxes at which a part of the image may cut the object off.

    Args:
        boxes_norm: Boxes [D, 4] in fractions of the image.
        windows_norm: The part of the image, [ymin, xmin, ymax, xmax], or one for each box [D, 4]. Its sides that are
            sides of the image cut nothing.
    """
    windows = np.asarray(windows_norm, np.float64)
    low, high = windows[..., :2], windows[..., 2:]
    margin = CUT_MARGIN * (high - low)
    boxes = np.asarray(boxes_norm, np.float64).reshape(-1, 4)
    before = (boxes[:, :2] < low + margin) & (low > 0.0)
    behind = (boxes[:, 2:] > high - margin) & (high < 1.0)
    return np.concatenate([before, behind], axis=1)


@dataclasses.dataclass(frozen=True)
class ViewPlan:
    """The views of every image; the whole image is always one."""

    crops: tuple[tuple[int, int], ...] = ()  # grids of crops, (rows, columns) each
    overlap: float = 0.25  # of neighbouring crops, as a share of a crop's side
    flip: bool = False  # adds the mirror image of every view, left to right

    @property
    def num_views(self) -> int:
        """Number of views per image, if the image is large enough for all crops."""
        return (1 + sum(rows * columns for rows, columns in self.crops)) * (2 if self.flip else 1)

    def views(self, shape: tuple[int, int]) -> list[View]:
        """Returns the views of an image of (height, width), the whole image first.

        Grids whose crops are smaller than ``MIN_CROP_PX`` are skipped, with a warning.
        """
        height, width = shape
        windows = [(0, 0, height, width)]
        for rows, columns in self.crops:
            tops, crop_height = _starts(height, rows, self.overlap)
            lefts, crop_width = _starts(width, columns, self.overlap)
            if min(crop_height, crop_width) < MIN_CROP_PX:
                _warn_of_small_images(rows, columns)
                continue
            windows += [(top, left, top + crop_height, left + crop_width) for top in tops for left in lefts]
        return [
            View(window, shape, mirrored)
            for mirrored in ((False, True) if self.flip else (False,))
            for window in windows
        ]


@functools.lru_cache  # one warning per grid
def _warn_of_small_images(rows: int, columns: int) -> None:
    text = "images that a grid of %d x %d would cut into crops below %d pixels are seen without it"
    logger.warning(text, rows, columns, MIN_CROP_PX)


def _starts(size: int, count: int, overlap: float) -> tuple[list[int], int]:
    """Returns the starts and the length of ``count`` equal parts that overlap by a share and cover ``size`` pixels."""
    length = min(size, math.ceil(size / (count - (count - 1) * overlap)))
    return [round(part * (size - length) / max(count - 1, 1)) for part in range(count)], length


def parse_crops(text: str, origin: str = "--crops") -> tuple[tuple[int, int], ...]:
    """Parses grids of crops, rows x columns: ``2x2,3x4`` gives ((2, 2), (3, 4)).

    Raises:
        UsageError: The text has another form, repeats a grid, or asks for no crops or for too many.
    """
    grids: list[tuple[int, int]] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = re.fullmatch(r"(\d+)x(\d+)", part)
        accepted = f"ROWSxCOLUMNS with 1 to {MOST_ROWS} of each and at least two crops, e.g. 2x2 or 2x2,3x3"
        if not match:
            raise UsageError(f"{origin} has '{part}', which is not a grid of crops; accepted: {accepted}")
        grid = int(match[1]), int(match[2])
        if not (min(grid) >= 1 and max(grid) <= MOST_ROWS) or grid == (1, 1):
            whole = " (the whole image is always a view)" if grid == (1, 1) else ""
            raise UsageError(f"{origin} has {part}{whole}; accepted: {accepted}")
        if grid in grids:
            raise UsageError(f"{origin} has {part} twice")
        grids.append(grid)
    return tuple(grids)


def check_views(plan: ViewPlan) -> ViewPlan:
    """Returns the plan, or raises a UsageError if a value is out of range."""
    if not is_number(plan.overlap) or not 0 <= plan.overlap <= MOST_OVERLAP:
        raise UsageError(f"overlap of crops is {plan.overlap!r}; accepted: 0 to {MOST_OVERLAP}")
    if not isinstance(plan.flip, bool):
        raise UsageError(f"flip is {plan.flip!r}; accepted: true, false")
    return plan


def is_number(value: Any) -> bool:
    """Returns true for a number from JSON, but not for NaN."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)
