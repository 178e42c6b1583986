"""One model on the overlapping tiles of a large image, behind the call of that model.

image -> tiles, in batches, and the whole image at a lower resolution -> boxes back in the image -> merged detections

A tile may cut an object off. A box that reaches an inner side of its tile is a fragment. It is dropped if another tile
shows all of it and what lies behind that side. An object that is larger than the overlap is a fragment in every tile:
the fragments of neighbouring tiles are joined, and the whole image shows the object as well. The whole image counts
for boxes that no tile shows completely. At the end ``merging`` suppresses what several tiles found.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from detzoo.ensemble.description import MergeOptions
from detzoo.ensemble.merging import Source, join_sources, merge
from detzoo.ensemble.views import MIN_TILE_PX, MOST_OVERLAP, View, are_cut, cut_sides
from detzoo.errors import UsageError
from detzoo.ops.boxes import pairwise_intersection
from detzoo.serving.image_detector import ImageDetections, ImageDetector
from detzoo.serving.served import FIRST_CLASS_ID

WHOLE_SIDE = 2  # longer side of the whole image as the model gets it, in sides of a tile
MAX_CANDIDATES = 10_000  # detections of an image that are merged, the best ones
MAX_FRAGMENTS = 1_000  # fragments that are compared with all detections, the best ones
# Two tiles show the same object with boxes that differ by a pixel or two: an IoU of 0.53 for 2 of 12 pixels.
MERGING = MergeOptions(iou_threshold=0.5, max_detections=MAX_CANDIDATES)
# Fragments in two tiles belong to one object if their extents along the common side agree, and so do their scores.
MIN_AGREEMENT = 0.5  # IoU of the extents
MIN_SCORE_RATIO = 0.3
COVERED = 0.7  # share of a fragment in a larger box of its class from which on that box replaces it

logger = logging.getLogger(__name__)


class _Found(NamedTuple):
    """Detections in an image, D of them, in fractions of the image."""

    boxes: np.ndarray  # float32 [D, 4]
    scores: np.ndarray
    class_ids: np.ndarray
    masks: np.ndarray | None
    keypoints: np.ndarray | None  # float32 [D, T, 2]
    keypoint_scores: np.ndarray | None
    windows: np.ndarray  # float64 [D, 4], the tile of each
    is_fragment: np.ndarray  # bool [D]

    def rows(self, rows: np.ndarray) -> _Found:
        """Returns some of the detections."""
        columns: list[Any] = [None if column is None else column[rows] for column in self]
        return _Found(*columns)


class TiledDetector(ImageDetector):
    """A detector that runs on tiles of large images, and on an image that is no larger than a tile as it is.

    Args:
        detector: The model.
        tile_px: Side of the square tiles.
        overlap: Least overlap of neighbouring tiles, as a share of their side, 0 to 0.75.
        batch_size: Tiles that run together, if the model takes several.

    Raises:
        UsageError: A number is out of range, or the model classifies given regions.
    """

    def __init__(self, detector: ImageDetector, tile_px: int, overlap: float = 0.2, batch_size: int = 1) -> None:
        if tile_px < MIN_TILE_PX:
            raise UsageError(f"--tile is {tile_px}; accepted: pixels, {MIN_TILE_PX} or more")
        if not 0 <= overlap <= MOST_OVERLAP:
            raise UsageError(f"--tile_overlap is {overlap:g}; accepted: 0 to {MOST_OVERLAP}")
        if detector.wants_proposals:
            raise UsageError("--tile has no meaning for a model that classifies given regions; leave it out")
        self._detector, self._tile_px, self._overlap, self._batch_size = detector, tile_px, overlap, batch_size
        self.keypoint_edges = detector.keypoint_edges
        self._has_warned = False

    @property
    def has_masks(self) -> bool:  # type: ignore[override]
        """True if the detections have masks."""
        return self._detector.has_masks

    def __call__(self, image: np.ndarray, *proposals_norm: Any) -> ImageDetections:
        """See ``ImageDetector``."""
        height, width = shape = image.shape[0], image.shape[1]
        if max(shape) <= self._tile_px:
            self._warn_of_small_image(shape)
            return self._detector(image)
        rows, columns = (_spans(size, self._tile_px, self._overlap) for size in shape)
        views = [View((top, left, bottom, right), shape) for top, bottom in rows for left, right in columns]
        found: list[_Found] = []
        for first in range(0, len(views), self._batch_size):
            batch = views[first : first + self._batch_size]
            of_tiles = self._detector.detect_all([view.of(image) for view in batch])
            found += [_in_image(each, view, rows, columns) for each, view in zip(of_tiles, batch)]
            if sum(len(each.scores) for each in found) > 2 * MAX_CANDIDATES:
                found = [_concatenated(found)]
        whole = self._detector(_reduced(image, WHOLE_SIDE * self._tile_px))
        found.append(_in_image(whole, View((0, 0, height, width), shape), rows, columns))
        return _merged(_without_covered(_with_joined_fragments(_concatenated(found))))

    def _warn_of_small_image(self, shape: tuple[int, int]) -> None:
        if not self._has_warned:
            self._has_warned = True
            text = "images no larger than --tile %d, such as one of %d x %d pixels, are detected on as a whole"
            logger.warning(text, self._tile_px, shape[1], shape[0])


def _spans(size: int, tile_px: int, overlap: float) -> list[tuple[int, int]]:
    """Returns (start, end) of equal parts that cover ``size`` pixels, spread evenly with at least the overlap."""
    length = min(size, tile_px)
    count = math.ceil((size - length) / (tile_px * (1.0 - overlap))) + 1
    starts = [round(part * (size - length) / max(count - 1, 1)) for part in range(count)]
    return [(start, start + length) for start in starts]


def _reduced(image: np.ndarray, side: int) -> np.ndarray:
    """Shrinks an image whose longer side is above ``side``, to bound the memory that the model needs."""
    height, width = image.shape[:2]
    factor = max(height, width) / side
    if factor <= 1:
        return image
    size = max(1, round(width / factor)), max(1, round(height / factor))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))


def _in_image(
    found: ImageDetections, view: View, rows: Sequence[tuple[int, int]], columns: Sequence[tuple[int, int]]
) -> _Found:
    """Returns the detections of a view that count: it shows them completely, or no tile does.

    The whole image has a lower resolution, so a tile takes precedence.
    """
    boxes, (height, width) = view.boxes_in_image(found.boxes_norm), view.shape
    fits_row = ~np.all([are_cut(boxes, (low / height, 0, high / height, 1)) for low, high in rows], axis=0)
    fits_column = ~np.all([are_cut(boxes, (0, low / width, 1, high / width)) for low, high in columns], axis=0)
    is_cut, is_tile = are_cut(boxes, view.window_norm), view.window_px != (0, 0, height, width)
    counts = ~(fits_row & fits_column) | (~is_cut & is_tile)
    windows = np.tile(np.array(view.window_norm), [len(boxes), 1])
    points = view.points_in_image(found.keypoints_norm)
    shown = _Found(boxes, found.scores, found.class_ids, found.masks, points, found.keypoint_scores, windows, is_cut)
    return shown.rows(np.flatnonzero(counts))


def _concatenated(found: Sequence[_Found]) -> _Found:
    """Returns the best ``MAX_CANDIDATES`` of several detections, best first."""
    columns: list[Any] = [None if column[0] is None else np.concatenate(column) for column in zip(*found)]
    joined = _Found(*columns)
    return joined.rows(np.argsort(-joined.scores, kind="stable")[:MAX_CANDIDATES])


def _with_joined_fragments(found: _Found) -> _Found:
    """Replaces the fragments of one object by the box around them, with the best of their scores."""
    rows = np.flatnonzero(found.is_fragment)[:MAX_FRAGMENTS]
    groups = [rows[group] for group in _groups(found.rows(rows))]
    if not groups:
        return found
    best = found.rows(np.array([group[0] for group in groups]))  # the rows are in the order of the scores
    low = np.array([found.boxes[group, :2].min(axis=0) for group in groups])
    high = np.array([found.boxes[group, 2:].max(axis=0) for group in groups])
    around = np.concatenate([low, high], axis=1)
    masks = found.masks
    if masks is not None:
        masks = np.stack([_joined_mask(masks[g], found.boxes[g], box) for g, box in zip(groups, around)])
    # An end of the whole object may still be cut off: by the tile of the fragment that reaches farthest.
    cut = cut_sides(found.boxes, found.windows)
    is_end = [found.boxes[group] == box for group, box in zip(groups, around)]
    is_fragment = np.array([np.any(cut[group] & ends) for group, ends in zip(groups, is_end)])
    joined = best._replace(boxes=around, masks=masks, is_fragment=is_fragment)
    if found.keypoints is not None and found.keypoint_scores is not None:
        # Of each keypoint that of the fragment with the best score for it.
        best_of = [(group, found.keypoint_scores[group].argmax(axis=0)) for group in groups]
        each = np.arange(found.keypoints.shape[1])
        points, scores = (
            np.stack([column[group][chosen, each] for group, chosen in best_of])
            for column in (found.keypoints, found.keypoint_scores)
        )
        joined = joined._replace(keypoints=points, keypoint_scores=scores)
    others = np.setdiff1d(np.arange(len(found.scores)), np.concatenate(groups))
    return _concatenated([found.rows(others), joined])


def _groups(fragments: _Found) -> list[np.ndarray]:
    """Returns the rows of the fragments of each object that is in several tiles.

    Two fragments are of one object if one is cut off at the end of its tile, the other at the beginning of the next
    tile, and each is the best match of the other.
    """
    boxes, windows = fragments.boxes.astype(np.float64), fragments.windows
    scores, cut = fragments.scores, cut_sides(fragments.boxes, fragments.windows)
    is_similar = fragments.class_ids[:, np.newaxis] == fragments.class_ids
    is_similar &= np.minimum.outer(scores, scores) >= MIN_SCORE_RATIO * np.maximum.outer(scores, scores)
    group_of = np.arange(len(scores))
    for axis in (0, 1):
        low, high = axis, axis + 2
        is_next = np.less.outer(windows[:, low], windows[:, low]) & ~np.less.outer(windows[:, high], windows[:, low])
        agreement = _agreement(boxes, windows, 1 - axis)
        is_pair = is_similar & is_next & cut[:, high, np.newaxis] & cut[:, low] & (agreement >= MIN_AGREEMENT)
        affinity = np.where(is_pair, agreement * np.sqrt(np.multiply.outer(scores, scores)), -1.0)
        best_of_row, best_of_column = affinity.max(axis=1, keepdims=True, initial=0), affinity.max(axis=0, initial=0)
        is_best = (affinity >= best_of_row) & (affinity >= best_of_column)
        for first, second in np.argwhere(is_pair & is_best):
            group_of[group_of == group_of[second]] = group_of[first]
    groups = [np.flatnonzero(group_of == number) for number in np.unique(group_of)]
    return [group for group in groups if len(group) > 1]


def _agreement(boxes: np.ndarray, windows: np.ndarray, axis: int) -> np.ndarray:
    """Returns the IoU [F, F] of the extents of fragments along an axis, within what both of their tiles show."""
    starts, ends = windows[:, axis], windows[:, axis + 2]
    shown = np.maximum.outer(starts, starts), np.minimum.outer(ends, ends)
    low, high = (np.clip(boxes[:, side, np.newaxis], *shown) for side in (axis, axis + 2))
    common = np.minimum(high, high.T) - np.maximum(low, low.T)
    union = np.maximum(high, high.T) - np.minimum(low, low.T)
    return np.clip(common, 0.0, None) / np.maximum(union, 1e-9)


def _joined_mask(masks: np.ndarray, boxes: np.ndarray, around: np.ndarray) -> np.ndarray:
    """Returns the union [h, w] of masks [G, h, w] in boxes [G, 4], stretched over the box around them."""

    def weights(low: float, high: float, first: float, last: float, cells: int) -> np.ndarray:
        # The first and the last cell lie on the sides of the box, see ``evaluate.masks.paste_mask``.
        places = (np.linspace(first, last, cells) - low) / max(high - low, 1e-9) * (cells - 1)
        return np.maximum(1.0 - np.abs(places[:, np.newaxis] - np.arange(cells)), 0.0)

    height, width = masks.shape[1:]
    parts = [
        weights(ymin, ymax, around[0], around[2], height) @ mask @ weights(xmin, xmax, around[1], around[3], width).T
        for mask, (ymin, xmin, ymax, xmax) in zip(masks, boxes)
    ]
    return np.max(parts, axis=0).astype(np.float32)


def _without_covered(found: _Found) -> _Found:
    """Drops fragments that lie in a larger box of their class, which shows more of the object."""
    rows = np.flatnonzero(found.is_fragment)[:MAX_FRAGMENTS]
    if not len(rows):
        return found
    inside = pairwise_intersection(found.boxes[rows], found.boxes).numpy()
    areas = np.prod(found.boxes[:, 2:] - found.boxes[:, :2], axis=1)
    is_larger = areas > areas[rows, np.newaxis]
    is_object = (found.class_ids == found.class_ids[rows, np.newaxis]) & (
        found.scores >= MIN_SCORE_RATIO * found.scores[rows, np.newaxis]
    )
    is_covered = np.any(is_larger & is_object & (inside > COVERED * areas[rows, np.newaxis]), axis=1)
    return found.rows(np.setdiff1d(np.arange(len(found.scores)), rows[is_covered]))


def _merged(found: _Found) -> ImageDetections:
    candidates = join_sources([(found.boxes, found.scores, found.class_ids - FIRST_CLASS_ID)])
    kept = found.rows(merge(candidates, [Source()], MERGING).rows)
    boxes, scores, class_ids, masks, keypoints, keypoint_scores, *_ = kept
    return ImageDetections(boxes, scores, class_ids, masks, keypoints, keypoint_scores)
