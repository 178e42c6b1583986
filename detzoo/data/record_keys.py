"""The keys of a tf.Example: type, scalar or list, and accepted numbers, as the Object Detection API defines them.

One table for all that write or read records: ``datasets.record_writer`` (writer), ``decode`` (input of training) and
``datasets.record_check`` (``dataset inspect``). This module imports no TensorFlow.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

BYTES, FLOAT, INT64 = "bytes_list", "float_list", "int64_list"
SIDES = ("ymin", "xmin", "ymax", "xmax")
OBJECT = "image/object"
CONTEXT_FEATURES, CONTEXT_LENGTH = "image/context_features", "image/context_feature_length"

# Coordinates may pass the image by this much (float32 rounding of exact values) without counting as a data issue.
CLIP_TOLERANCE = 1e-4


class Key(NamedTuple):
    """One key. If a decoded key has another kind, or a scalar has several values, TensorFlow refuses the record."""

    kind: str  # field of tf.train.Feature
    is_list: bool = True  # one value per object (image/object) or per class of the image (image/class)
    is_decoded: bool = True  # parsed for every detector
    lowest: float = -math.inf
    highest: float = math.inf

    def accepts(self, values: Any) -> Any:
        """Returns bool of the shape of ``values`` (a tensor or an array): finite and within the limits."""
        return (values >= self.lowest) & (values <= self.highest)  # comparisons with NaN are false


KEYS = {
    "image/encoded": Key(BYTES, is_list=False),
    "image/source_id": Key(BYTES, is_list=False),
    "image/height": Key(INT64, is_list=False),
    "image/width": Key(INT64, is_list=False),
    "image/format": Key(BYTES, is_list=False, is_decoded=False),
    "image/filename": Key(BYTES, is_list=False, is_decoded=False),
    "image/key/sha256": Key(BYTES, is_list=False, is_decoded=False),
    # The memory of Context R-CNN: all features in a row, and the number of values of each.
    CONTEXT_FEATURES: Key(FLOAT, is_decoded=False),
    CONTEXT_LENGTH: Key(INT64, is_list=False, is_decoded=False),
    "image/class/text": Key(BYTES, is_decoded=False),
    "image/class/label": Key(INT64, is_decoded=False),
    "image/class/synset": Key(BYTES, is_decoded=False),
    **{f"{OBJECT}/bbox/{side}": Key(FLOAT) for side in SIDES},
    f"{OBJECT}/class/text": Key(BYTES),
    f"{OBJECT}/class/label": Key(INT64, lowest=1, highest=2**31 - 1),
    # A loss is a sum of products with weights: above this it overflows float16, and soon float32.
    f"{OBJECT}/weight": Key(FLOAT, lowest=0.0, highest=1e4),
    f"{OBJECT}/area": Key(FLOAT, lowest=0.0, highest=3.4028234663852886e38),  # the largest float32
    f"{OBJECT}/is_crowd": Key(INT64),
    f"{OBJECT}/group_of": Key(INT64),
    f"{OBJECT}/difficult": Key(INT64),
    f"{OBJECT}/truncated": Key(INT64, is_decoded=False),
    f"{OBJECT}/view": Key(BYTES, is_decoded=False),
    # Of all objects in a row, each with the same number of keypoints.
    f"{OBJECT}/keypoint/x": Key(FLOAT, is_decoded=False),
    f"{OBJECT}/keypoint/y": Key(FLOAT, is_decoded=False),
    f"{OBJECT}/keypoint/visibility": Key(INT64, is_decoded=False),  # 0 not labelled, 1 hidden, 2 visible
    f"{OBJECT}/keypoint/text": Key(BYTES, is_decoded=False),
    f"{OBJECT}/keypoint/num": Key(INT64, is_decoded=False),  # number of labelled keypoints of each object
    f"{OBJECT}/mask": Key(BYTES, is_decoded=False),  # PNG; older records have floats, one per pixel
}
