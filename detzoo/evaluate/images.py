"""One image with ground truth and detections, in pixels of the original image (between detector and metrics)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from detzoo.contracts import PADDING_CLASS, Batch, Detections, Groundtruth
from detzoo.evaluate.masks import PastedMasks, Rle, encode_mask, mask_area, restore_masks
from detzoo.ops.numpy_boxes import areas


class EvaluatedImage(NamedTuple):
    """Ground truth (G objects) and detections (D) of one image, boxes [ymin, xmin, ymax, xmax]."""

    image_id: str
    shape: tuple[int, int]  # (height, width) of the original image
    gt_boxes_px: np.ndarray  # float32 [G, 4]
    gt_classes: np.ndarray  # int32 [G], 0-based
    gt_is_crowd: np.ndarray  # bool [G]
    gt_is_difficult: np.ndarray  # bool [G]
    gt_area_px: np.ndarray  # float32 [G]; that of the mask or box if the record has none
    boxes_px: np.ndarray  # float32 [D, 4], best first
    scores: np.ndarray  # float32 [D]
    classes: np.ndarray  # int32 [D], 0-based
    gt_masks: list[Rle] | None = None  # G masks; None if masks are not measured
    masks: list[Rle] | None = None  # D masks
    gt_keypoints: np.ndarray | None = (
        None  # float32 [G, T, 3] of x, y in pixels and visibility 0, 1, 2; None if not read
    )
    keypoints: np.ndarray | None = None  # float32 [D, T, 3] of x, y in pixels and score; None if not predicted
    verified_classes: np.ndarray | None = None  # int [V], 0-based, labelled as present or absent; None for all


def numeric_image_ids(images: list[EvaluatedImage]) -> list[int]:
    """Returns COCO's numbers of the images: the ids if these are distinct numbers, else 1, 2, 3, ...

    COCO's records have the number as ``image/source_id``; other data sets have names or nothing.
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
    """Converts a batch and its detections to pixels of the original images, without padding rows.

    Boxes of the batch are fractions of the padded input, those of the detections fractions of the true image. With
    ``unlabeled_are_complete`` all classes are verified in an image without image-level labels.
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
                gt_keypoints=_gt_keypoints(groundtruth, row, real, padded_shape / true_shapes[row] * original),
                keypoints=_keypoints(detections, row, detected, original),
                verified_classes=_verified(batch.labeled_classes, row, unlabeled_are_complete),
            )
        )
    return images


def _gt_keypoints(groundtruth: Groundtruth, row: int, real: np.ndarray, scale: np.ndarray) -> np.ndarray | None:
    if not groundtruth.keypoints_norm.size:
        return None
    points = groundtruth.keypoints_norm[row][real] * scale
    return np.concatenate([points[..., ::-1], groundtruth.keypoint_visibility[row][real][..., np.newaxis]], axis=-1)


def _keypoints(detections: Detections, row: int, count: int, shape: np.ndarray) -> np.ndarray | None:
    if isinstance(detections.keypoints_norm, tuple) or not np.shape(detections.keypoints_norm)[2]:
        return None
    points = np.asarray(detections.keypoints_norm[row])[:count] * shape
    scores = np.asarray(detections.keypoint_scores[row])[:count]
    return np.concatenate([points[..., ::-1], scores[..., np.newaxis]], axis=-1)


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _verified(labeled_classes: Any, row: int, unlabeled_are_complete: bool) -> np.ndarray | None:
    """Returns the classes that image-level labels verify; None for all, also if no labels are read."""
    if isinstance(labeled_classes, tuple):
        return None
    labeled = np.flatnonzero(np.asarray(labeled_classes)[row])
    return None if unlabeled_are_complete and not len(labeled) else labeled


def _areas(recorded_px: np.ndarray, boxes_px: np.ndarray, masks: list[Rle] | None) -> np.ndarray:
    """Returns the recorded areas, with areas of masks or boxes for missing ones."""
    measured = areas(boxes_px) if masks is None else np.array([mask_area(mask) for mask in masks], np.float32)
    return np.where(recorded_px > 0, recorded_px, measured)
