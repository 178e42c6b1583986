"""Instance masks between a detector and an image: stretched over their boxes, cut at one half, run-length encoded.

One source for evaluation and ``detzoo detect``. A run-length encoding (RLE) is COCO's, column by column:
``{"size": [height, width], "counts": text}``, ready for JSON and for pycocotools.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import numpy as np

THRESHOLD = 0.5  # a pixel above it belongs to the object

_MOST_PRODUCTS = 200_000  # of a matrix multiplication that OpenBLAS does not divide among threads

Rle = dict[str, Any]


class PastedMasks(Sequence[np.ndarray]):
    """The masks of D detections on their image, each bool [H, W] and made when it is asked for.

    All at once they would take a byte for each pixel and detection, more than a gigabyte for 100 on a large photo. They
    are pasted from masks float32 [D, h, w] in [0, 1] and boxes float32 [D, 4] in pixels.
    """

    def __init__(self, masks: np.ndarray, boxes_px: np.ndarray, shape: tuple[int, int]) -> None:
        self._masks, self._boxes_px, self._shape = np.asarray(masks, np.float32), boxes_px, shape

    def __len__(self) -> int:
        return len(self._masks)

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...

    @overload
    def __getitem__(self, index: slice) -> PastedMasks: ...

    def __getitem__(self, index: int | slice) -> np.ndarray | PastedMasks:
        if isinstance(index, slice):
            return PastedMasks(self._masks[index], self._boxes_px[index], self._shape)
        return paste_mask(self._masks[index], self._boxes_px[index], self._shape)


def paste_mask(mask: np.ndarray, box_px: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Stretches a mask, float32 [h, w] in [0, 1], over its box and cuts it at one half.

    The first and the last row of the mask lie on the sides of the box, as in ``ops.roi_crop.crop_and_resize``, which
    this inverts; between its values it is bilinear, taken at the centres of the pixels. A box may leave the image.

    Returns:
        bool [H, W], in Fortran order; false outside the box. A box without a pixel's centre leaves nothing.
    """
    height, width = shape
    ymin, xmin, ymax, xmax = (float(side) for side in box_px)
    rows, row_weights = _interpolation(ymin, ymax, height, mask.shape[0])
    columns, column_weights = _interpolation(xmin, xmax, width, mask.shape[1])
    pasted = np.zeros([width, height], bool)  # column by column, as it is encoded
    pasted[columns, rows] = _product(column_weights, mask.T @ row_weights.T) > THRESHOLD
    return pasted.T


def encode_mask(mask: np.ndarray) -> Rle:
    """The RLE of a mask bool or uint8 [H, W] of 0 and 1; fastest in Fortran order."""
    from pycocotools.mask import encode

    rle = encode(np.asfortranarray(mask, np.uint8))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


def mask_area(rle: Rle) -> float:
    """The number of pixels of an RLE."""
    from pycocotools.mask import area

    return float(area(rle))


def restore_masks(
    masks: np.ndarray, true_shape: Sequence[int] | np.ndarray, original_shape: Sequence[int] | np.ndarray
) -> list[np.ndarray]:
    """Returns masks uint8 [N, H, W] of a padded input as they were before the image was resized.

    The pixel of the input is taken that was read from the nearest pixel of the original: exact where the input is not
    smaller than the original. The image covers ``true_shape`` of the input, from the top left corner.
    """
    rows, columns = (_read_nearest(int(true), int(old)) for true, old in zip(true_shape, original_shape))
    return [mask[rows[:, np.newaxis], columns] for mask in masks]


def _interpolation(low: float, high: float, size: int, cells: int) -> tuple[slice, np.ndarray]:
    """The pixels of an axis whose centres lie between low and high, and the weights [pixels, cells] of the cells."""
    first = min(max(int(np.ceil(low - 0.5)), 0), size)
    last = max(min(int(np.ceil(high - 0.5)), size), first)
    # Where there is a pixel between low and high, they differ.
    places = (np.arange(first, last) + 0.5 - low) / ((high - low) or 1.0) * (cells - 1)
    weights = np.maximum(1.0 - np.abs(places[:, np.newaxis] - np.arange(cells)), 0.0)
    return slice(first, last), weights.astype(np.float32)


def _product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """``left @ right`` in blocks of rows that BLAS computes on one thread.

    Waking its other threads takes longer than a whole mask: 8 ms against 0.3 ms for 640 x 480 pixels on two busy cores.
    """
    rows = max(1, _MOST_PRODUCTS // max(right.size, 1))
    padded = np.pad(left, [(0, -len(left) % rows), (0, 0)])
    blocks = np.matmul(padded.reshape(-1, rows, left.shape[1]), right)
    return blocks.reshape(len(padded), right.shape[1])[: len(left)]


def _read_nearest(new_size: int, old_size: int) -> np.ndarray:
    """For each old pixel the new one that the nearest-neighbour resizer filled from the place closest to it."""
    read = np.arange(new_size) * old_size // new_size
    pixels = np.arange(old_size)
    after = np.minimum(np.searchsorted(read, pixels), new_size - 1)
    before = np.maximum(after - 1, 0)
    return np.where(np.abs(read[after] - pixels) < np.abs(read[before] - pixels), after, before)
