"""A detector in memory, called with images of any size: the same steps as an export, without writing one.

images -> resize -> preprocess, forward, postprocess -> detections
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from detzoo.errors import UsageError
from detzoo.serving.given_regions import with_context
from detzoo.serving.image_detector import MASKS_OUTPUT, ImageDetections, ImageDetector, detect_in_groups
from detzoo.serving.served import ServingModule


class LiveDetector(ImageDetector):
    """Detector in memory. It uses the weights of the moment, also those that a training changed since.

    Args:
        detector: Built detector.
        resizer: The resizer of its configuration, see ``ServingModule``.

    Raises:
        UsageError: The detector classifies images and finds no boxes.
    """

    def __init__(self, detector: Any, resizer: Any) -> None:
        if detector.classifies_images:
            raise UsageError("this model classifies whole images and finds no boxes")
        serving = ServingModule(detector, resizer)
        self.wants_proposals = detector.wants_proposals
        self._context_spec = serving.input_specs[1] if detector.context_length else None
        image = tf.TensorSpec([None, None, 3], tf.uint8)
        self._resize = tf.function(resizer, input_signature=[image], autograph=False)
        padded = tf.TensorSpec([None, *resizer.static_shape, 3], tf.float32)
        signature = [padded, tf.TensorSpec([None, 2], tf.int32), *serving.input_specs[1:]]
        self._detect = tf.function(serving.detect_resized, input_signature=signature, autograph=False)

    @functools.cached_property
    def has_masks(self) -> bool:  # type: ignore[override]
        """True if the detections have masks."""
        return MASKS_OUTPUT in self._detect.get_concrete_function().structured_outputs

    def __call__(self, image: np.ndarray, *proposals_norm: Any) -> ImageDetections:
        """See ``ImageDetector``."""
        return self.detect_all([image], proposals_norm)[0]

    def detect_all(self, images: Sequence[np.ndarray], proposals_norm: Sequence[Any] = ()) -> list[ImageDetections]:
        """See ``ImageDetector``. Images that the resizer makes equal in shape run together."""
        if self.wants_proposals and not len(proposals_norm):
            raise UsageError("this model classifies given regions, so it needs the proposals of each image")
        resized = [self._resize(image) for image in images]

        def run(rows: list[int]) -> Mapping[str, Any]:
            batch = [tf.stack(tensors) for tensors in zip(*(resized[row] for row in rows))]
            regions = [tf.constant([proposals_norm[row] for row in rows], tf.float32)] if self.wants_proposals else []
            if self._context_spec is not None:  # an empty memory
                _, *regions = with_context(batch[0], self._context_spec)
            return self._detect(*batch, *regions)

        if self.wants_proposals:
            return detect_in_groups(range(len(images)), run)
        # Within a batch with a larger image, an image of free size would have more padding than alone.
        return detect_in_groups([(*padded.shape, *true_shape.numpy()) for padded, true_shape in resized], run)
