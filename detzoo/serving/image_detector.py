"""The interface of exported models: one image in, its detections out."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class ImageDetections(NamedTuple):
    """The detections of one image, best first, D of them."""

    boxes_norm: np.ndarray  # float32 [D, 4], fractions of the image
    scores: np.ndarray  # float32 [D]
    class_ids: np.ndarray  # int32 [D], from 1
    masks: np.ndarray | None = None  # float32 [D, h, w] in [0, 1], stretched over each box; None without a mask head


class ImageDetector:
    """Callable from an image uint8 [H, W, 3], RGB, to ``ImageDetections``.

    Attributes:
        has_masks: The detections have masks.
        wants_proposals: The call takes the regions to classify, float32 [R, 4] in fractions of the image, as well.
    """

    has_masks: bool = False
    wants_proposals: bool = False

    def __call__(self, image: np.ndarray, *proposals_norm: Any) -> ImageDetections:
        """Returns the detections of one image."""
        raise NotImplementedError("each exported model defines its call")
