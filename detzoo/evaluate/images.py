"""One image with its truth and its detections, in pixels of the original image (between detector and metrics)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from detzoo.contracts import PADDING_CLASS, Batch, Detections, Groundtruth
from detzoo.data.masks import PastedMasks, Rle, encode_mask, mask_area, restore_masks


class EvaluatedImage(NamedTuple):
    """What the metrics need of one image. G ground-truth objects, D detections, boxes [ymin, xmin, ymax, xmax]."""

    image_id: str
    shape: tuple[int, int]  # (height, width) of the original image
    gt_boxes_px: np.ndarray  # float32 [G, 4]
    gt_classes: np.ndarray  # int32 [G], 0-based
    gt_is_crowd: np.ndarray  # bool [G]
    gt_is_difficult: np.ndarray  # bool [G]
    gt_area_px: np.ndarray  # float32 [G]; of the mask, or else of the box, where the record has none
    boxes_px: np.ndarray  # float32 [D, 4], best first
    scores: np.ndarray  # float32 [D]
    classes: np.ndarray  # int32 [D], 0-based
    gt_masks: list[Rle] | None = None  # G of them; None where masks are not measured
    masks: list[Rle] | None = None  # D of them
    verified_classes: np.ndarray | None = None  # int [V], 0-based: labelled, as there or as not; None for all of them


def numeric_image_ids(images: list[EvaluatedImage]) -> list[int]:
    """Numbers for the images, as COCO wants them: the ids themselves if these are distinct numbers, else 1, 2, 3, ...

    COCO's records have the image's number as ``image/source_id``; other data sets have names or nothing there.
    """
    ids = [image.image_id for image in images]
    if all(name.isascii() and name.isdigit() for name in ids):
        numbers = [int(name) for name in ids]
        if len(set(numbers)) == len(numbers):
            return numbers
    return list(range(1, len(ids) + 1))


def images_of_batch(
    batch: Batch, detections: Detections, with_masks: bool = False, unlabeled_are_complete: bool = True
) -> list[EvaluatedImage]:
    """Bring a batch and what was detected on it to the pixels of the original images; padding rows are dropped.

    Args:
        batch: what the input pipeline delivered (tensors or arrays); boxes are fractions of the padded input.
        detections: the detector's answer for it; boxes are fractions of the true image.
        with_masks: whether the masks of both are there and wanted.
        unlabeled_are_complete: whether an image without labels of its own is one in which every class is verified.

    Returns:
        One entry for each image of the batch.
    """
    padded_shape = np.array(batch.images.shape[1:3], np.float32)
    true_shapes = np.asarray(batch.true_shapes, np.float32)
    original_shapes = np.asarray(batch.original_shapes, np.float32)
    groundtruth = Groundtruth(*(np.asarray(part) for part in batch.groundtruth))
    boxes, scores, classes, num_valid = (np.asarray(part) for part in detections[:4])
    images = []
    for row, image_id in enumerate(np.asarray(batch.image_ids)):
        original = original_shapes[row]
        real = groundtruth.classes[row] != PADDING_CLASS
        gt_boxes_true_norm = groundtruth.boxes_norm[row][real] * np.tile(padded_shape / true_shapes[row], 2)
        gt_boxes_px = np.clip(gt_boxes_true_norm, 0.0, 1.0) * np.tile(original, 2)
        detected = int(num_valid[row])
        boxes_px = boxes[row, :detected] * np.tile(original, 2)
        shape = (int(original[0]), int(original[1]))
        gt_masks, masks = None, None
        if with_masks:
            restored = restore_masks(groundtruth.masks[row][real], true_shapes[row], shape)
            gt_masks = [encode_mask(mask) for mask in restored]
            pasted = PastedMasks(np.asarray(detections.masks[row])[:detected], boxes_px, shape)
            masks = [encode_mask(mask) for mask in pasted]
        images.append(
            EvaluatedImage(
                image_id=_text(image_id),
                shape=shape,
                gt_boxes_px=gt_boxes_px,
                gt_classes=groundtruth.classes[row][real],
                gt_is_crowd=groundtruth.is_crowd[row][real],
                gt_is_difficult=groundtruth.is_difficult[row][real],
                gt_area_px=_areas(groundtruth.area_px[row][real], gt_boxes_px, gt_masks),
                boxes_px=boxes_px,
                scores=scores[row, :detected],
                classes=classes[row, :detected],
                gt_masks=gt_masks,
                masks=masks,
                verified_classes=_verified(batch.labeled_classes, row, unlabeled_are_complete),
            )
        )
    return images


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _verified(labeled_classes: Any, row: int, unlabeled_are_complete: bool) -> np.ndarray | None:
    """Classes that the labels of an image verify; None for all, which is so where no labels are read."""
    if isinstance(labeled_classes, tuple):
        return None
    labeled = np.flatnonzero(np.asarray(labeled_classes)[row])
    return None if unlabeled_are_complete and not len(labeled) else labeled


def _areas(recorded_px: np.ndarray, boxes_px: np.ndarray, masks: list[Rle] | None) -> np.ndarray:
    """The recorded areas; where nothing was recorded that of the mask, or of the box where there is none."""
    if masks is not None:
        measured = np.array([mask_area(mask) for mask in masks], np.float32)
    else:
        measured = np.prod(np.maximum(boxes_px[:, 2:] - boxes_px[:, :2], 0.0), axis=1)
    return np.where(recorded_px > 0, recorded_px, measured)
