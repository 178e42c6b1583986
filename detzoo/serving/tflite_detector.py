"""A TFLite model of `detzoo export --format tflite` or of the Object Detection API, called with one image of any size.

image -> resize -> values of the input -> LiteRT interpreter -> detections

Runs without TensorFlow where the package ai-edge-litert (or tflite-runtime) is installed: a serving process takes 90 MB
instead of 822.
"""

from __future__ import annotations

import functools
import importlib
import logging
import os
import pathlib
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

from detzoo.config.label_map import LabelMap, label_map_of_lines, load_label_map
from detzoo.errors import UsageError
from detzoo.folders import LABEL_MAP_FILE
from detzoo.serving.frozen import quiet_conversion
from detzoo.serving.image_detector import FIRST_CLASS_ID, ImageDetections, ImageDetector

SUFFIX = ".tflite"
OUTPUTS = ("detection_boxes", "detection_classes", "detection_scores", "num_detections")
API_OPERATION = "TFLite_Detection_PostProcess"  # of the Object Detection API's models
# Next to a model: the name in the Object Detection API's archives and in tutorials for them, and that of our exports.
LABEL_FILES = ("labelmap.txt", "labels.txt")
# Packages with an interpreter, by preference: LiteRT is the successor of the other two.
_INTERPRETERS = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter", "tensorflow.lite.python.interpreter")
_HALF_RANGE = 127.5  # the Object Detection API's float models take RGB / 127.5 - 1

logger = logging.getLogger(__name__)


class TfliteDetector(ImageDetector):
    """Loaded TFLite model.

    Args:
        model: Path of the file, or its content.
        resizer: Function from an image [H, W, 3] to (padded float32 image, true shape int32 [2]) of the model's
            config, in TensorFlow; None stretches images to the input size.
        num_threads: Threads of the interpreter; None for one per CPU.

    Attributes:
        folder: Path of the file.
        input_shape_px: (height, width) of the input.

    Raises:
        UsageError: The file does not exist, or is no detector of detzoo or of the Object Detection API.
    """

    def __init__(
        self,
        model: str | pathlib.Path | bytes,
        resizer: Callable[[Any], tuple[Any, Any]] | None = None,
        num_threads: int | None = None,
    ) -> None:
        self._interpreter = open_interpreter(model, num_threads or os.cpu_count() or 1)
        self.folder = pathlib.Path("the model" if isinstance(model, bytes) else model)  # next to the label map
        inputs = self._interpreter.get_input_details()
        self._outputs = _ordered_outputs(self._interpreter)
        is_image = len(inputs) == 1 and len(inputs[0]["shape"]) == 4 and inputs[0]["shape"][3] == 3
        if not self._outputs or not is_image or inputs[0]["dtype"] not in (np.uint8, np.int8, np.float32):
            given = ", ".join(f"{each['name']} {list(map(int, each['shape']))}" for each in inputs)
            found = ", ".join(output["name"] for output in self._interpreter.get_output_details())
            raise UsageError(
                f"{self.folder} is no TFLite detector of `detzoo export --format tflite` or of the Object Detection "
                f"API: it has the input {given} and the outputs {found}; needed are one image [1, H, W, 3] and the "
                f"outputs {', '.join(OUTPUTS)}, or those of the operation {API_OPERATION}"
            )
        [self._input] = inputs
        self.input_shape_px = int(self._input["shape"][1]), int(self._input["shape"][2])
        self._is_own = self._outputs[0]["name"] == OUTPUTS[0]
        self._resizer = resizer
        if (wanted := getattr(resizer, "static_shape", self.input_shape_px)) != self.input_shape_px:
            logger.warning(
                "the config resizes images to %s, but %s takes %s: images are stretched to that size",
                *(wanted, self.folder, self.input_shape_px),
            )
            self._resizer = None

    @property
    def dtype(self) -> Any:
        """Type of the input: uint8, int8 or float32."""
        return self._input["dtype"]

    @functools.cached_property
    def label_map(self) -> LabelMap | None:
        """Class names next to the file or in it, None if there are none."""
        beside = self.folder.parent
        if (beside / LABEL_MAP_FILE).is_file():
            return load_label_map(beside / LABEL_MAP_FILE)
        if zipfile.is_zipfile(self.folder):  # files are appended to a model with metadata
            with zipfile.ZipFile(self.folder) as archive:
                for name in archive.namelist():
                    if name.endswith(".txt"):
                        return label_map_of_lines(archive.read(name).decode())
        return next((load_label_map(beside / name) for name in LABEL_FILES if (beside / name).is_file()), None)

    def __call__(self, image: np.ndarray, *proposals_norm: Any) -> ImageDetections:
        """Returns the detections of one image.

        Args:
            image: uint8 [H, W, 3], RGB.
            proposals_norm: Not used.
        """
        padded, true_shape = self._resized(image)
        boxes, classes, scores, count = self.outputs(padded[np.newaxis])
        found = int(count.flat[0])
        # Fractions of the padded input become fractions of the image; boxes in the padding have no area then.
        boxes_norm = boxes[0, :found] * np.tile(np.array(self.input_shape_px) / true_shape, 2)
        boxes_norm = np.clip(boxes_norm, 0.0, 1.0).astype(np.float32)
        has_area = np.all(boxes_norm[:, 2:] > boxes_norm[:, :2], axis=1)
        class_ids = classes[0, :found].astype(np.int32) + FIRST_CLASS_ID
        return ImageDetections(boxes_norm[has_area], scores[0, :found][has_area], class_ids[has_area])

    def _resized(self, image: np.ndarray) -> tuple[np.ndarray, Any]:
        """Returns the image at the size of the input, and the (height, width) of the part that it covers."""
        if self._resizer is None:
            return stretch(image, self.input_shape_px), self.input_shape_px
        import tensorflow as tf

        padded, true_shape = self._resizer(tf.constant(image))
        return padded.numpy(), true_shape.numpy()

    def outputs(self, images: np.ndarray) -> list[np.ndarray]:
        """Returns boxes [1, M, 4], classes from 0 [1, M], scores [1, M] and count [1] of an image [1, H, W, 3].

        Args:
            images: RGB, 0..255, of any type.
        """
        self._interpreter.set_tensor(self._input["index"], self._as_input(images))
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(output["index"]) for output in self._outputs]

    def _as_input(self, images: np.ndarray) -> np.ndarray:
        """Converts pixels to the input's type. 8-bit inputs take bytes as a camera gives them, int8 less 128."""
        if self.dtype == np.float32:
            images = images.astype(np.float32)
            return images if self._is_own else images / _HALF_RANGE - 1.0
        if images.dtype != np.uint8:
            images = np.clip(np.rint(images), 0, 255).astype(np.uint8)
        return images if self.dtype == np.uint8 else (images.astype(np.int16) - 128).astype(np.int8)


def _ordered_outputs(interpreter: Any) -> list[dict[str, Any]]:
    """Returns the details of boxes, classes, scores and count; an empty list if the model has other outputs.

    Converters shuffle the outputs of the Object Detection API's models, so those are found by the operation that they
    come from.
    """
    outputs = {int(output["index"]): output for output in interpreter.get_output_details()}
    if tuple(output["name"] for output in outputs.values()) == OUTPUTS:
        return list(outputs.values())
    for operation in interpreter._get_ops_details():  # there is no public way to list operations
        if operation["op_name"] == API_OPERATION and set(operation["outputs"]) == set(outputs):
            return [outputs[int(index)] for index in operation["outputs"]]
    return []


def stretch(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes an image [H, W, 3] to (height, width) as ``detzoo.data.resize`` does bilinearly, without TensorFlow."""
    if image.shape[:2] == size:
        return image
    (top, bottom, down), (left, right, along) = (
        _samples(given, wanted) for given, wanted in zip(image.shape[:2], size, strict=True)
    )
    along = along[:, np.newaxis]
    upper, lower = (
        rows[:, left] + (rows[:, right] - rows[:, left]) * along
        for rows in (image[top].astype(np.float32), image[bottom].astype(np.float32))
    )
    return upper + (lower - upper) * down[:, np.newaxis, np.newaxis]


def _samples(given: int, wanted: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the two pixels of a side that each of ``wanted`` pixels lies between, and its distance from the first."""
    places = np.arange(wanted, dtype=np.float32) * (np.float32(given) / np.float32(wanted))
    first = places.astype(np.int32)
    return first, np.minimum(first + 1, given - 1), places - first


def open_interpreter(model: str | pathlib.Path | bytes, num_threads: int) -> Any:
    """Returns the LiteRT interpreter of a file or its content, without its messages; on CPUs it runs with XNNPACK.

    Raises:
        UsageError: The file does not exist, or is no TFLite model.
    """
    name = "the TFLite model"
    if not isinstance(model, bytes):
        name = str(model)
        if not pathlib.Path(model).is_file():
            raise UsageError(f"there is no TFLite model {model}; `detzoo export --format tflite` makes one")
        model = pathlib.Path(model).read_bytes()
    try:
        # TensorFlow's interpreter warns that the successor is the package ai_edge_litert, which runs the same files.
        with warnings.catch_warnings(), quiet_conversion():
            warnings.simplefilter("ignore")
            interpreter = _interpreter_class()(model_content=model, num_threads=num_threads)
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as problem:
        reason = str(problem).strip().splitlines()[0][:200]
        raise UsageError(f"{name} cannot be loaded as a TFLite model: {reason}") from problem
    return interpreter


def _interpreter_class() -> Any:
    for name in _INTERPRETERS[:-1]:
        try:
            return importlib.import_module(name).Interpreter
        except ImportError:  # not installed, or built for another NumPy
            continue
    return importlib.import_module(_INTERPRETERS[-1]).Interpreter


def is_tflite(path: str | pathlib.Path) -> bool:
    """Returns True for a path with the suffix of a TFLite model."""
    return str(path).endswith(SUFFIX)
