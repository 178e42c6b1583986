"""A TFLite model of `detzoo export --format tflite`, called with one image of any size.

image -> resize -> LiteRT interpreter -> detections
"""

from __future__ import annotations

import os
import pathlib
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from detzoo.data.resize import FixedShapeResizer
from detzoo.errors import UsageError
from detzoo.serving.frozen import quiet_conversion
from detzoo.serving.image_detector import ImageDetections, ImageDetector
from detzoo.serving.served import FIRST_CLASS_ID

SUFFIX = ".tflite"
OUTPUTS = ("detection_boxes", "detection_classes", "detection_scores", "num_detections")


class TfliteDetector(ImageDetector):
    """Loaded TFLite model.

    Args:
        model: Path of the file, or its content.
        resizer: Function from an image [H, W, 3] to (padded float32 image, true shape int32 [2]) of the model's
            config; None stretches images to the input size.
        num_threads: Threads of the interpreter; None for one per CPU.

    Raises:
        UsageError: The file does not exist, or is no detector exported by detzoo.
    """

    def __init__(
        self,
        model: str | pathlib.Path | bytes,
        resizer: Callable[[Any], tuple[Any, Any]] | None = None,
        num_threads: int | None = None,
    ) -> None:
        self._interpreter = open_interpreter(model, num_threads or os.cpu_count() or 1)
        self.folder = pathlib.Path("" if isinstance(model, bytes) else model)  # next to the label map
        [self._input], self._outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        if tuple(output["name"] for output in self._outputs) != OUTPUTS:
            names = ", ".join(output["name"] for output in self._outputs)
            raise UsageError(
                f"{model!s} is not a TFLite model of `detzoo export --format tflite`: "
                f"its outputs are {names} instead of {', '.join(OUTPUTS)}"
            )
        _, height, width, _ = (int(size) for size in self._input["shape"])
        self.input_shape_px = height, width
        self._resizer = resizer or FixedShapeResizer(height=height, width=width)

    @property
    def dtype(self) -> Any:
        """Type of the input, uint8 or float32; the range is 0..255 for both."""
        return self._input["dtype"]

    def __call__(self, image: np.ndarray) -> ImageDetections:
        """Returns the detections of one image.

        Args:
            image: uint8 [H, W, 3], RGB.
        """
        padded, true_shape = (tensor.numpy() for tensor in self._resizer(tf.constant(image)))
        boxes, classes, scores, count = self.outputs(padded[np.newaxis])
        found = int(count[0])
        # Fractions of the padded input become fractions of the image; boxes in the padding have no area then.
        boxes_norm = boxes[0, :found] * np.tile(np.array(self.input_shape_px) / true_shape, 2)
        boxes_norm = np.clip(boxes_norm, 0.0, 1.0).astype(np.float32)
        has_area = np.all(boxes_norm[:, 2:] > boxes_norm[:, :2], axis=1)
        class_ids = classes[0, :found].astype(np.int32) + FIRST_CLASS_ID
        return ImageDetections(boxes_norm[has_area], scores[0, :found][has_area], class_ids[has_area])

    def outputs(self, images: np.ndarray) -> list[np.ndarray]:
        """Returns boxes [1, M, 4], classes from 0 [1, M], scores [1, M] and count [1] of an image [1, H, W, 3]."""
        if self.dtype == np.uint8:
            images = np.clip(np.rint(images), 0, 255)
        self._interpreter.set_tensor(self._input["index"], images.astype(self.dtype))
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(output["index"]) for output in self._outputs]


def open_interpreter(model: str | pathlib.Path | bytes, num_threads: int) -> Any:
    """Returns TensorFlow's LiteRT interpreter of a file or its content, without its messages.

    Raises:
        UsageError: The file does not exist, or is no TFLite model.
    """
    if not isinstance(model, bytes):
        if not pathlib.Path(model).is_file():
            raise UsageError(f"there is no TFLite model {model}; `detzoo export --format tflite` makes one")
        model = pathlib.Path(model).read_bytes()
    try:
        # It warns that the successor is the package ai_edge_litert, which runs the same files.
        with warnings.catch_warnings(), quiet_conversion():
            warnings.simplefilter("ignore")
            interpreter = tf.lite.Interpreter(model_content=model, num_threads=num_threads)
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as problem:
        reason = str(problem).strip().splitlines()[0][:200]
        raise UsageError(f"the TFLite model cannot be loaded: {reason}") from problem
    return interpreter


def is_tflite(path: str | pathlib.Path) -> bool:
    """Returns whether a path has the suffix of a TFLite model."""
    return str(path).endswith(SUFFIX)
