"""Adapter of exported models for evaluation: batches of images in, detections padded to one length out.

Exported models resize images, so the batches must hold original images (identity resizer).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from detzoo.contracts import Detections, Tensor
from detzoo.layers.resample import spatial_shape
from detzoo.ops import boxes
from detzoo.postprocess.dense_detections import image_windows
from detzoo.serving.image_detector import ImageDetections, ImageDetector
from detzoo.serving.served import FIRST_CLASS_ID


class OneByOne:
    """Detector on batches that calls an exported model per image, outside of TensorFlow's graph.

    Args:
        detect: Exported model.
        proposes_only: The detections are class-agnostic proposals.
    """

    input_shape_px = ()  # images are of any size, each is resized by the model

    def __init__(
        self,
        detect: ImageDetector,
        proposes_only: bool = False,
    ) -> None:
        self._detect = detect
        self.wants_proposals = detect.wants_proposals
        self.wants_context = detect.wants_context
        self.proposes_only = proposes_only
        self.proposes_masks = proposes_only and detect.has_masks

    def preprocess(self, images: Tensor) -> Tensor:
        """Returns the images unchanged."""
        return images

    def forward(self, inputs: Tensor, true_shapes: Tensor, **context: Any) -> tuple[Tensor, ...]:
        """Returns boxes [B, M, 4], scores and ids [B, M], count [B], masks [B, M, h, w], keypoints [B, M, T, 3]."""
        dtypes = (tf.float32, tf.float32, tf.int32, tf.int32, tf.float32, tf.float32)
        regions: list[Tensor] = []
        if self.wants_proposals:
            proposals = context["proposals"]
            windows = image_windows(true_shapes, spatial_shape(inputs))[:, tf.newaxis]
            regions = [boxes.change_coordinate_frame(proposals.boxes_norm, windows), proposals.num_valid]
        elif self.wants_context and "context" in context:
            regions = list(context["context"])
        return tuple(tf.numpy_function(self._run, [inputs, true_shapes, *regions], dtypes))

    def postprocess(self, predictions: tuple[Tensor, ...], true_shapes: Tensor, padded_shape: Any) -> Detections:
        """Returns the detections; fields that exported models lack are empty."""
        del true_shapes, padded_shape
        boxes_norm, scores, class_ids, count, masks, keypoints = predictions
        nothing = tf.zeros([0])
        detections = Detections(
            boxes_norm=tf.ensure_shape(boxes_norm, [None, None, 4]),
            scores=tf.ensure_shape(scores, [None, None]),
            classes=tf.ensure_shape(class_ids, [None, None]) - FIRST_CLASS_ID,
            num_valid=tf.ensure_shape(count, [None]),
            multiclass_scores=nothing,
            anchor_indices=nothing,
            raw_boxes_norm=nothing,
            raw_scores=nothing,
        )
        if self._detect.has_masks:
            detections = detections._replace(masks=masks)
        return detections._replace(keypoints_norm=keypoints[..., :2], keypoint_scores=keypoints[..., 2])

    def _run(self, images: np.ndarray, true_shapes: np.ndarray, *regions: np.ndarray) -> tuple[np.ndarray, ...]:
        pixels = [
            np.rint(image[:height, :width]).astype(np.uint8) for image, (height, width) in zip(images, true_shapes)
        ]
        of_image = [(rows[:number],) for rows, number in zip(*regions)] if regions else [()] * len(pixels)
        found = [self._detect(image, *given) for image, given in zip(pixels, of_image)]
        length = max(len(detections.scores) for detections in found)
        masks = [np.zeros([0, 0, 0]) if each.masks is None else each.masks for each in found]
        keypoints = [_keypoints(each) for each in found]
        columns = ([each.boxes_norm for each in found], [each.scores for each in found], [d.class_ids for d in found])
        boxes_norm, scores, class_ids = (np.stack([_pad(rows, length) for rows in column]) for column in columns)
        padded_masks = np.stack([_pad(rows, length) for rows in masks])
        padded_keypoints = np.stack([_pad(rows, length) for rows in keypoints])
        count = np.array([len(detections.scores) for detections in found], np.int32)
        return (
            boxes_norm.astype(np.float32),
            scores.astype(np.float32),
            class_ids.astype(np.int32),
            count,
            padded_masks.astype(np.float32),
            padded_keypoints.astype(np.float32),
        )


def _keypoints(found: ImageDetections) -> np.ndarray:
    """Returns y, x and score of the keypoints [D, T, 3], with T = 0 if there are none."""
    if found.keypoints_norm is None or found.keypoint_scores is None:
        return np.zeros([len(found.scores), 0, 3])
    return np.concatenate([found.keypoints_norm, found.keypoint_scores[..., np.newaxis]], axis=-1)


def _pad(rows: np.ndarray, length: int) -> np.ndarray:
    return np.pad(rows, [(0, length - len(rows))] + [(0, 0)] * (rows.ndim - 1))
