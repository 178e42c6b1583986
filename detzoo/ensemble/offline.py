"""Merges finished evaluations image by image: no model runs, so an ensemble of five costs seconds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from detzoo.ensemble.merging import Candidates, Source, merge
from detzoo.ensemble.options import MergeOptions


def merge_images(same_image: Sequence[Any], weights: Sequence[float], options: MergeOptions) -> Any:
    """What several models found in one image, merged.

    Args:
        same_image: the image as each model was evaluated on it: a tuple with boxes_px [D, 4], scores [D], classes [D]
            and masks (D of them, or None), the truth beside them.
        weights: factor of each model's scores.
        options: of the merging.

    Returns:
        The image of the first model with the merged detections; masks where all have them.
    """
    candidates = Candidates(
        np.concatenate([image.boxes_px for image in same_image]),
        np.concatenate([image.scores for image in same_image]),
        np.concatenate([image.classes for image in same_image]),
        np.repeat(np.arange(len(same_image)), [len(image.scores) for image in same_image]),
    )
    merged = merge(candidates, [Source(weight) for weight in weights], options)
    masks = None
    if all(image.masks is not None for image in same_image):
        joined = [mask for image in same_image for mask in image.masks]
        masks = [joined[row] for row in merged.rows]
    first = same_image[0]
    return first._replace(boxes_px=merged.boxes_norm, scores=merged.scores, classes=merged.classes, masks=masks)


def merge_evaluations(
    evaluations: Sequence[Iterable[Any]], weights: Sequence[float], options: MergeOptions
) -> list[Any]:
    """The images of several evaluations, all in one order, merged one by one; see ``merge_images``."""
    return [merge_images(same_image, weights, options) for same_image in zip(*evaluations, strict=True)]
