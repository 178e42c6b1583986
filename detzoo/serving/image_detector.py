"""The interface of exported models: one image in, its detections out."""

from __future__ import annotations

import collections
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

NEEDED_OUTPUTS = ("detection_boxes", "detection_scores", "detection_classes")
MASKS_OUTPUT = "detection_masks"
OPTIONAL_OUTPUTS = (MASKS_OUTPUT, "detection_keypoints", "detection_keypoint_scores")
FIRST_CLASS_ID = 1  # ids of exported models start at 1: 0 is the background of the Object Detection API


class ImageDetections(NamedTuple):
    """The detections of one image, best first, D of them."""

    boxes_norm: np.ndarray  # float32 [D, 4], fractions of the image
    scores: np.ndarray  # float32 [D]
    class_ids: np.ndarray  # int32 [D], from 1
    masks: np.ndarray | None = None  # float32 [D, h, w] in [0, 1], stretched over each box; None without a mask head
    # float32 [D, T, 2], (y, x) in fractions of the image; None if not predicted
    keypoints_norm: np.ndarray | None = None
    keypoint_scores: np.ndarray | None = None  # float32 [D, T]; None if not predicted

    def rows(self, chosen: np.ndarray) -> ImageDetections:
        """Returns the chosen detections: by their numbers, in that order, or by bool [D]."""
        kept: Any = [None if values is None else values[chosen] for values in self]
        return ImageDetections(*kept)


class ImageDetector:
    """Callable from an image uint8 [H, W, 3], RGB, to ``ImageDetections``.

    Attributes:
        has_masks: The detections have masks.
        wants_proposals: The call takes the regions to classify, float32 [R, 4] in fractions of the image, as well.
        wants_context: The call takes the memory of a Context R-CNN, float32 [n, F], as well; it is empty by default.
        keypoint_edges: Pairs of numbers of keypoints that pictures connect by lines; () if not known.
    """

    has_masks: bool = False
    wants_proposals: bool = False
    wants_context: bool = False
    keypoint_edges: tuple[tuple[int, int], ...] = ()

    def __call__(self, image: np.ndarray, *proposals_norm: Any) -> ImageDetections:
        """Returns the detections of one image."""
        raise NotImplementedError("each exported model defines its call")

    def detect_all(self, images: Sequence[np.ndarray], proposals_norm: Sequence[Any] = ()) -> list[ImageDetections]:
        """Returns the detections of each image; models that take batches run images of one shape together.

        Args:
            images: uint8 [H, W, 3] each, RGB.
            proposals_norm: Regions of each image, for a model with ``wants_proposals``.
        """
        given: list[tuple[Any, ...]] = [(regions,) for regions in proposals_norm] or [()] * len(images)
        return [self(image, *regions) for image, regions in zip(images, given)]


def detect_in_groups(keys: Sequence[Hashable], run: Callable[[list[int]], Mapping[str, Any]]) -> list[ImageDetections]:
    """Returns the detections of each image, of which those of one key, such as their shape, run together.

    Args:
        keys: Key of each image.
        run: Function from rows of images to the outputs of a signature.
    """
    rows: dict[Hashable, list[int]] = collections.defaultdict(list)
    for row, key in enumerate(keys):
        rows[key].append(row)
    found = {row: each for group in rows.values() for row, each in zip(group, split_outputs(run(group)))}
    return [found[row] for row in range(len(keys))]


def split_outputs(outputs: Mapping[str, Any]) -> list[ImageDetections]:
    """Returns the detections of each image of a signature's outputs."""
    arrays = {name: np.asarray(outputs[name]) for name in (*NEEDED_OUTPUTS, *OPTIONAL_OUTPUTS) if name in outputs}
    boxes, scores, classes = (arrays[name] for name in NEEDED_OUTPUTS)
    counts = np.asarray(outputs["num_detections"]) if "num_detections" in outputs else [scores.shape[1]] * len(scores)
    optional = [arrays.get(name) for name in OPTIONAL_OUTPUTS]
    return [
        ImageDetections(
            boxes[row, :count],
            scores[row, :count],
            np.rint(classes[row, :count]).astype(np.int32),
            *(None if values is None else values[row, :count] for values in optional),
        )
        for row, count in enumerate(map(int, counts))
    ]
