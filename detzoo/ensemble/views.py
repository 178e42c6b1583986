"""Views of an image: the whole, overlapping crops, and their mirror images; and the way back from them.

An object that a crop cuts off is found as a smaller one. Its box ends where the crop does, so detections that reach a
side of the crop which is not a side of the image are dropped: the neighbouring crop sees such an object whole if it is
no larger than the overlap, and the whole image is always one of the views.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from detzoo.ensemble.options import is_number
from detzoo.errors import UsageError

WHOLE_IMAGE_NORM = (0.0, 0.0, 1.0, 1.0)
# A box that ends within this share of a crop's side from it counts as cut off. Boxes are predicted: that of an object
# that goes on beyond the crop ends near its side, not on it.
CUT_MARGIN = 0.02
MIN_CROP_PX = 16  # nothing is recognised on less
MOST_ROWS = 16  # of crops, and as many columns
MOST_OVERLAP = 0.75  # with more, crops grow in number without showing anything new

logger = logging.getLogger(__name__)


class View(NamedTuple):
    """A part of an image [H, W, 3], mirrored or not."""

    window_px: tuple[int, int, int, int]  # ymin, xmin, ymax, xmax
    shape: tuple[int, int]  # (height, width) of the image
    is_mirrored: bool = False

    @property
    def window_norm(self) -> tuple[float, float, float, float]:
        """The part in fractions of the image."""
        (height, width), (ymin, xmin, ymax, xmax) = self.shape, self.window_px
        return ymin / height, xmin / width, ymax / height, xmax / width

    def of(self, image: np.ndarray) -> np.ndarray:
        """What the view shows of an image [H, W, ...]."""
        ymin, xmin, ymax, xmax = self.window_px
        seen = image[ymin:ymax, xmin:xmax]
        return np.ascontiguousarray(seen[:, ::-1] if self.is_mirrored else seen)

    def boxes_in_image(self, boxes_norm: np.ndarray) -> np.ndarray:
        """Boxes [D, 4] in fractions of the view -> in fractions of the image."""
        boxes = np.asarray(boxes_norm, np.float32).reshape(-1, 4)
        if self.is_mirrored:
            ymin, xmin, ymax, xmax = boxes.T
            boxes = np.stack([ymin, 1.0 - xmax, ymax, 1.0 - xmin], axis=1)
        low, high = np.array(self.window_norm, np.float32).reshape(2, 2)
        return boxes * np.tile(high - low, 2) + np.tile(low, 2)

    def masks_in_image(self, masks: np.ndarray) -> np.ndarray:
        """Masks [D, h, w], stretched over their boxes in the view -> the same in the image."""
        return masks[:, :, ::-1] if self.is_mirrored else masks


def are_cut(boxes_norm: np.ndarray, window_norm: Sequence[float]) -> np.ndarray:
    """Which boxes [D, 4] a part of the image does not show whole, or may not: bool [D].

    Args:
        boxes_norm: fractions of the image.
        window_norm: the part [ymin, xmin, ymax, xmax]; a side on the image's side cuts nothing.
    """
    low, high = np.array(window_norm, np.float64).reshape(2, 2)
    margin = CUT_MARGIN * (high - low)
    boxes = np.asarray(boxes_norm, np.float64).reshape(-1, 4)
    before = (boxes[:, :2] < low + margin) & (low > 0.0)
    behind = (boxes[:, 2:] > high - margin) & (high < 1.0)
    return np.any(before | behind, axis=1)


@dataclasses.dataclass(frozen=True)
class ViewPlan:
    """Which views of every image are looked at; the whole image always is.

    Attributes:
        crops: grids of crops, (rows, columns) each.
        overlap: of neighbouring crops, as a share of a crop's side.
        flip: every view mirrored, too, left to right.
    """

    crops: tuple[tuple[int, int], ...] = ()
    overlap: float = 0.25
    flip: bool = False

    @property
    def num_views(self) -> int:
        """Views of an image that is large enough for all crops."""
        return (1 + sum(rows * columns for rows, columns in self.crops)) * (2 if self.flip else 1)

    def views(self, shape: tuple[int, int]) -> list[View]:
        """The views of an image of (height, width), the whole image first.

        A grid whose crops would measure less than ``MIN_CROP_PX`` is left out, with a warning.
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


@functools.lru_cache  # once for each grid, not for each image
def _warn_of_small_images(rows: int, columns: int) -> None:
    text = "images that a grid of %d x %d would cut into crops below %d pixels are seen without it"
    logger.warning(text, rows, columns, MIN_CROP_PX)


def _starts(size: int, count: int, overlap: float) -> tuple[list[int], int]:
    """Where ``count`` equal parts begin that cover ``size`` pixels and overlap by a share, and how long they are."""
    length = min(size, math.ceil(size / (count - (count - 1) * overlap)))
    return [round(part * (size - length) / max(count - 1, 1)) for part in range(count)], length


def parse_crops(text: str, origin: str = "--crops") -> tuple[tuple[int, int], ...]:
    """``2x2,3x4`` -> ((2, 2), (3, 4)): grids of crops, rows x columns; empty for none.

    Raises:
        UsageError: it does not read like that, a grid is given twice, or has no or too many crops.
    """
    grids: list[tuple[int, int]] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = re.fullmatch(r"(\d+)x(\d+)", part)
        accepted = f"ROWSxCOLUMNS with 1 to {MOST_ROWS} of each and at least two crops, e.g. 2x2 or 2x2,3x3"
        if not match:
            raise UsageError(f"{origin}: '{part}' is not a grid of crops; accepted: {accepted}")
        grid = int(match[1]), int(match[2])
        if not (min(grid) >= 1 and max(grid) <= MOST_ROWS) or grid == (1, 1):
            whole = "; the whole image is always looked at" if grid == (1, 1) else ""
            raise UsageError(f"{origin}: {part}{whole}; accepted: {accepted}")
        if grid in grids:
            raise UsageError(f"{origin}: {part} is given twice")
        grids.append(grid)
    return tuple(grids)


def check_views(plan: ViewPlan) -> ViewPlan:
    """The plan, if its numbers make sense.

    Raises:
        UsageError: with the name of what does not, and what is accepted.
    """
    if not is_number(plan.overlap) or not 0 <= plan.overlap <= MOST_OVERLAP:
        raise UsageError(f"overlap of crops is {plan.overlap!r}; accepted: 0 to {MOST_OVERLAP}")
    if not isinstance(plan.flip, bool):
        raise UsageError(f"flip is {plan.flip!r}; accepted: true, false")
    return plan
