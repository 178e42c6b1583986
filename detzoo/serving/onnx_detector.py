"""An ONNX model of `detzoo export --format onnx`, called with images of any size, without TensorFlow.

images -> ONNX Runtime (resizing, network and suppression are in the model) -> detections
"""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from detzoo.config.label_map import LabelMap, parse_label_map
from detzoo.config.load import LoadedPipeline, load_text
from detzoo.errors import UsageError
from detzoo.extras import require_package
from detzoo.folders import CONFIG_FILE, LABEL_MAP_FILE
from detzoo.serving.image_detector import MASKS_OUTPUT, ImageDetections, ImageDetector, detect_in_groups

SUFFIX = ".onnx"
OUTPUTS = ("detection_boxes", "detection_scores", "detection_classes", "num_detections")
INPUT_DTYPES = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32}


class OnnxDetector(ImageDetector):
    """Loaded ONNX model.

    Args:
        model: Path of the file, or its content.
        num_threads: Threads that share one operation; None for one per core.

    Attributes:
        folder: Path of the file.

    Raises:
        UsageError: The file does not exist, ONNX Runtime is not installed, or the model has other inputs or outputs.
    """

    def __init__(self, model: str | pathlib.Path | bytes, num_threads: int | None = None) -> None:
        self.folder = pathlib.Path("the model" if isinstance(model, bytes) else model)
        self._session = self._open(model, num_threads)
        self._metadata: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map
        self._names = [output.name for output in self._session.get_outputs()]
        self._input = self._session.get_inputs()[0]
        self._check()
        self.has_masks = MASKS_OUTPUT in self._names

    def __call__(self, image: np.ndarray, *proposals_norm: Any) -> ImageDetections:
        """See ``ImageDetector``."""
        return self.detect_all([image])[0]

    def detect_all(self, images: Sequence[np.ndarray], proposals_norm: Sequence[Any] = ()) -> list[ImageDetections]:
        """See ``ImageDetector``. Images of one shape run together.

        Raises:
            ValueError: The model cannot run on these images.
        """
        shapes = [image.shape for image in images]
        return detect_in_groups(shapes, lambda rows: self.outputs(np.stack([images[row] for row in rows])))

    def outputs(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Returns all outputs by name for images [B, H, W, 3], RGB, 0..255.

        Raises:
            ValueError: The model cannot run on these images.
        """
        images = images.astype(INPUT_DTYPES[self._input.type], copy=False)
        try:
            return dict(zip(self._names, self._session.run(None, {self._input.name: images})))
        except Exception as problem:  # ONNX Runtime raises exceptions of many kinds
            raise ValueError(str(problem).strip().splitlines()[0][:300]) from problem

    @functools.cached_property
    def label_map(self) -> LabelMap | None:
        """Class names in the model, or None."""
        text = self._metadata.get(LABEL_MAP_FILE, "")
        return parse_label_map(text, f"{self.folder} (its {LABEL_MAP_FILE})") if text else None

    @functools.cached_property
    def pipeline(self) -> LoadedPipeline | None:
        """Configuration in the model, or None."""
        text = self._metadata.get(CONFIG_FILE, "")
        return load_text(text, f"{self.folder} (its {CONFIG_FILE})") if text else None

    def _open(self, model: str | pathlib.Path | bytes, num_threads: int | None) -> Any:
        return open_session(model, num_threads)

    def _check(self) -> None:
        """Checks that the model takes images of any size and has the outputs of a detector."""
        inputs = [_describe(each) for each in self._session.get_inputs()]
        shape = self._input.shape
        is_known = self._input.type in INPUT_DTYPES and len(shape) == 4 and shape[3] == 3
        takes_any_size = is_known and not any(isinstance(size, int) for size in shape[:3])
        missing = [name for name in OUTPUTS if name not in self._names]
        if missing or len(inputs) != 1 or not takes_any_size:
            raise UsageError(
                f"{self.folder} is no model of `detzoo export --format onnx`: it has the input {', '.join(inputs)} and "
                f"the outputs {', '.join(self._names)}; needed are one input, uint8 or float [N, H, W, 3] of any size, "
                f"and the outputs {', '.join(OUTPUTS)}"
            )


def _describe(argument: Any) -> str:
    dtype = argument.type.removeprefix("tensor(").removesuffix(")")
    return f"{argument.name} {dtype} [{', '.join(map(str, argument.shape))}]"


def open_session(model: str | pathlib.Path | bytes, num_threads: int | None = None) -> Any:
    """Returns the session of ONNX Runtime, on CPUs, for a file or its content.

    Raises:
        UsageError: The file does not exist, is no ONNX model, or ONNX Runtime is not installed.
    """
    name = "the model" if isinstance(model, bytes) else str(model)
    if not isinstance(model, bytes) and not pathlib.Path(model).is_file():
        raise UsageError(f"there is no ONNX model {model}; `detzoo export --format onnx` makes one")
    onnxruntime = require_package("onnxruntime", "an ONNX model")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # fatal: other messages come as exceptions
    options.intra_op_num_threads = num_threads or 0
    try:
        return onnxruntime.InferenceSession(
            model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"]
        )
    except Exception as problem:  # ONNX Runtime raises exceptions of many kinds
        reason = str(problem).strip().splitlines()[0][:200]
        raise UsageError(f"{name} cannot be loaded as an ONNX model: {reason}") from problem


def is_onnx(path: str | pathlib.Path) -> bool:
    """Returns True for a path with the suffix of an ONNX model."""
    return str(path).endswith(SUFFIX)
