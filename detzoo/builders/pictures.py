"""``eval_config`` of a config -> drawn images: detections on the left, ground truth on the right (floor 5).

As in the Object Detection API, TensorBoard shows these pictures of every evaluation. They show the images as the
detector gets them, in the proportions of the originals.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageColor, ImageDraw

from detzoo.config import pb
from detzoo.config.stages import keypoint_edges
from detzoo.contracts import PADDING_CLASS, Batch, Detections
from detzoo.datasets.drawing import draw_detections, printable_name
from detzoo.evaluate.images import EvaluatedImage
from detzoo.evaluate.masks import PastedMasks, restore_masks
from detzoo.folders import make_folder

MAX_SIDE_PX = 640  # of each half; larger images are reduced
GAP_PX = 4  # between the halves
PROPOSAL = "proposal"  # name of class-agnostic detections


class PairDrawer:
    """Drawer of the first images of an evaluation.

    Args:
        config: Options of the drawing; ``config check`` has checked them.
        class_names: Name of each class id (from 1).

    Attributes:
        count: Number of images to draw.
    """

    def __init__(self, config: pb.EvalConfig, class_names: Mapping[int, str]) -> None:
        self._config, self._class_names = config, class_names
        self.count: int = config.num_visualizations if config.retain_original_images else 0

    def __call__(
        self, batch: Batch, detections: Detections, row: int, evaluated: EvaluatedImage, proposes_only: bool = False
    ) -> np.ndarray:
        """Draws one image of a batch twice, with its detections and with its ground truth.

        Args:
            batch: Batch that has the image.
            detections: Detections of the batch.
            row: Row of the image.
            evaluated: Boxes, scores and classes of the image.
            proposes_only: The detections are class-agnostic.

        Returns:
            uint8 [H, W, 3], RGB: the halves next to each other.
        """
        true_shape, shape = np.asarray(batch.true_shapes)[row], _picture_shape(evaluated.shape)
        image = Image.fromarray(_as_bytes(batch.images[row])[: true_shape[0], : true_shape[1]])
        pixels = np.asarray(image.resize(shape[::-1], Image.Resampling.BILINEAR))
        found = self._draw_detections(pixels, detections, row, evaluated, proposes_only)
        truth = self._draw_truth(pixels, batch, row, evaluated)
        gap = np.full([truth.height, GAP_PX, 3], 255, np.uint8)
        return np.concatenate([np.asarray(found), gap, np.asarray(truth)], axis=1)

    def export(self, picture: np.ndarray, number: int, image_id: str) -> None:
        """Writes a picture to ``visualization_export_dir``, if that is set."""
        if self._config.visualization_export_dir:
            folder = make_folder(self._config.visualization_export_dir, "eval_config.visualization_export_dir")
            safe_id = re.sub(r"[^\w.-]+", "_", image_id)[:60]
            suffix = f"-{safe_id}" if self._config.keep_image_id_for_visualization_export else ""
            Image.fromarray(picture).save(folder / f"export-image-{number}{suffix}.png")

    def _draw_detections(
        self, pixels: np.ndarray, detections: Detections, row: int, evaluated: EvaluatedImage, proposes_only: bool
    ) -> Image.Image:
        config, scores = self._config, evaluated.scores
        shown = np.flatnonzero(scores >= config.min_score_threshold)[: config.max_num_boxes_to_visualize or None]
        names = [PROPOSAL if proposes_only else _name(self._class_names, evaluated.classes[index]) for index in shown]
        boxes_norm, masks = _fractions(evaluated.boxes_px[shown], evaluated.shape), None
        if not isinstance(detections.masks, tuple):
            boxes_px, shape = boxes_norm * np.tile(pixels.shape[:2], 2), (pixels.shape[0], pixels.shape[1])
            masks = PastedMasks(np.asarray(detections.masks[row])[shown], boxes_px, shape)
        texts = [
            " ".join(
                [
                    *([] if config.skip_labels else [printable_name(name)]),
                    *([] if config.skip_scores else [f"{100 * float(score):.0f}%"]),
                ]
            )
            for name, score in zip(names, scores[shown])
        ]
        keypoints = None if evaluated.keypoints is None else evaluated.keypoints[shown]
        picture = draw_detections(
            pixels,
            boxes_norm,
            names,
            scores[shown],
            masks,
            texts=texts,
            keypoints=_points(keypoints, evaluated.shape),
            keypoint_edges=keypoint_edges(config),
        )
        if config.visualize_groundtruth_boxes:
            draw, colour = ImageDraw.Draw(picture), ImageColor.getrgb(config.groundtruth_box_visualization_color)[:3]
            sides = np.tile([picture.height - 1, picture.width - 1], 2)
            for ymin, xmin, ymax, xmax in _fractions(evaluated.gt_boxes_px, evaluated.shape) * sides:
                draw.rectangle((xmin, ymin, xmax, ymax), outline=colour)
        return picture

    def _draw_truth(self, pixels: np.ndarray, batch: Batch, row: int, evaluated: EvaluatedImage) -> Image.Image:
        names, masks = [_name(self._class_names, index) for index in evaluated.gt_classes], None
        if batch.groundtruth.masks.shape[-1]:
            masks = restore_masks(_true_masks(batch, row), np.asarray(batch.true_shapes)[row], pixels.shape[:2])
        texts = [f"{name} (crowd)" if crowd else name for name, crowd in zip(names, evaluated.gt_is_crowd)]
        boxes_norm = _fractions(evaluated.gt_boxes_px, evaluated.shape)
        return draw_detections(
            pixels,
            boxes_norm,
            names,
            masks=masks,
            texts=list(map(printable_name, texts)),
            keypoints=_points(evaluated.gt_keypoints, evaluated.shape),
            keypoint_edges=keypoint_edges(self._config),
        )


def draw_training_image(batch: Batch, row: int, class_names: Mapping[int, str]) -> np.ndarray:
    """Draws one image of a training batch, with its padding, its boxes and its masks, uint8 [H, W, 3]."""
    truth, classes = batch.groundtruth, np.asarray(batch.groundtruth.classes[row])
    real = classes != PADDING_CLASS
    boxes_norm, masks = np.asarray(truth.boxes_norm[row])[real], None
    if truth.masks.shape[-1]:
        masks = _true_masks(batch, row)
    names = [_name(class_names, class_index) for class_index in classes[real]]
    return np.asarray(draw_detections(_as_bytes(batch.images[row]), boxes_norm, names, masks=masks))


def _picture_shape(original: tuple[int, int]) -> tuple[int, int]:
    factor = min(1.0, MAX_SIDE_PX / max(original))
    height, width = (max(1, round(side * factor)) for side in original)
    return height, width


def _as_bytes(pixels: Any) -> np.ndarray:
    return np.clip(np.round(np.asarray(pixels)), 0, 255).astype(np.uint8)


def _fractions(boxes_px: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    return np.clip(boxes_px / np.tile(np.array(shape, np.float32), 2), 0.0, 1.0)


def _points(keypoints: np.ndarray | None, shape: tuple[int, int]) -> np.ndarray | None:
    """Converts keypoints [N, T, 3] of x, y in pixels and score (or visibility) to y, x in fractions of the image."""
    return None if keypoints is None else keypoints[..., [1, 0, 2]] / [*shape, 1.0]


def _name(class_names: Mapping[int, str], class_index: int) -> str:
    return class_names.get(int(class_index) + 1, f"id {int(class_index) + 1}")


def _true_masks(batch: Batch, row: int) -> np.ndarray:
    real = np.asarray(batch.groundtruth.classes[row]) != PADDING_CLASS
    return np.asarray(batch.groundtruth.masks[row])[real]
