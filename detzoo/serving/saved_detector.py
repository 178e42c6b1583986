"""A SavedModel with the Object Detection API's signature, called with one image of any size.

Exports of detzoo and of the Object Detection API both work; the inputs are read from the signature.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from detzoo.checkpoints import zoo
from detzoo.config.label_map import LabelMap, load_label_map
from detzoo.errors import UsageError
from detzoo.folders import EXPORT_RECORD, LABEL_MAP_FILE
from detzoo.serving.given_regions import CONTEXT_NAMES, SIDE_INPUTS, GivenRegions, inputs_of, with_context
from detzoo.serving.given_regions import INPUT_NAME as REGIONS_NAME
from detzoo.serving.image_detector import (
    MASKS_OUTPUT,
    NEEDED_OUTPUTS,
    ImageDetections,
    ImageDetector,
    rows_by_key,
    split_outputs,
)
from detzoo.serving.served import CLASS_SCORES

SIGNATURE = "serving_default"


class SavedDetector(ImageDetector):
    """Loaded SavedModel.

    Args:
        path: Folder with saved_model.pb, or output_directory of an export.
        needs_boxes: Refuse a classifier of images, which has outputs but no detections.

    Raises:
        UsageError: The SavedModel does not exist, or is no detector.
    """

    def __init__(self, path: str | pathlib.Path, needs_boxes: bool = True) -> None:
        self.folder = find_saved_model(path)
        try:
            loaded = tf.saved_model.load(str(self.folder))
        except Exception as problem:  # TensorFlow raises exceptions of many kinds
            reason = str(problem).strip().splitlines()[0][:200]
            raise UsageError(f"the SavedModel {self.folder} cannot be loaded: {reason}") from problem
        self._loaded = loaded  # keeps the variables alive
        self._function = _detection_signature(loaded, self.folder, needs_boxes)
        self.has_masks = MASKS_OUTPUT in self._function.structured_outputs
        specs = dict(self._function.structured_input_signature[1])
        self.wants_proposals = specs.pop(REGIONS_NAME, None) is not None and bool(specs)
        self.context_spec, _ = (specs.pop(name, None) for name in CONTEXT_NAMES)
        self.wants_context = self.context_spec is not None
        [(self._input_name, self._spec)] = specs.items()
        self._is_example = _input_type(self.folder) == "tf_example"

    def __call__(self, image: np.ndarray, proposals_norm: np.ndarray | None = None) -> ImageDetections:
        """Returns the detections of one image.

        Args:
            image: uint8 [H, W, 3], RGB.
            proposals_norm: float32 [R, 4], fractions of the image, for a model with ``wants_proposals``; the memory
                float32 [n, F] for one with ``wants_context``, None for an empty one.

        Raises:
            UsageError: The model needs proposals and there are none.
        """
        given = self.as_input(image)
        if self.wants_proposals:
            if proposals_norm is None:
                raise UsageError(
                    f"the SavedModel {self.folder} classifies given regions, so it needs the proposals of each image"
                )
            given = GivenRegions(given, tf.constant(proposals_norm[np.newaxis], tf.float32))
        if self.wants_context:
            given = with_context(given, self.context_spec, proposals_norm)
        [detections] = split_outputs(self.outputs(given))
        return detections

    def detect_all(self, images: Sequence[np.ndarray], proposals_norm: Sequence[Any] = ()) -> list[ImageDetections]:
        """See ``ImageDetector``. Models of the Object Detection API take a single image per call."""
        if self.wants_proposals or self._spec.shape[0] is not None:
            return super().detect_all(images, proposals_norm)
        found: dict[int, ImageDetections] = {}
        for rows in rows_by_key([image.shape for image in images]):
            found.update(zip(rows, split_outputs(self.outputs(self.as_batch([images[row] for row in rows])))))
        return [found[row] for row in range(len(images))]

    def outputs(self, given: Any) -> dict[str, Any]:
        """Returns all outputs for an input of the signature; ``GivenRegions`` for a model with ``wants_proposals``."""
        if self.wants_context and len(inputs_of(given)) == 1:
            given = with_context(given, self.context_spec)
        sides = CONTEXT_NAMES if self.wants_context else (REGIONS_NAME,)
        return self._function(**dict(zip((self._input_name, *sides), inputs_of(given))))

    def as_input(self, image: np.ndarray, batch_size: int = 1) -> Any:
        """Makes a batch of ``batch_size`` copies of an image uint8 [H, W, 3], in the type of the signature's input."""
        return self.as_batch([image] * batch_size)

    def as_batch(self, images: Sequence[np.ndarray]) -> Any:
        """Converts images uint8 [H, W, 3] of one size to the type of the signature's input."""
        if self._spec.dtype != tf.string:
            return tf.cast(np.stack(images), self._spec.dtype)
        return tf.constant([self._encode(image) for image in images])

    def _encode(self, image: np.ndarray) -> bytes:
        encoded = tf.io.encode_png(image, compression=1).numpy()
        if not self._is_example:
            return encoded
        feature = {"image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded]))}
        return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()

    @property
    def function(self) -> Any:
        """The signature: concrete function of images (and regions) that returns a dict."""
        return self._function


def find_saved_model(path: str | pathlib.Path) -> pathlib.Path:
    """Returns the folder of saved_model.pb: the path, ``saved_model`` in it, the folder of the given file, or zoo://NAME.

    Raises:
        UsageError: There is none.
    """
    given = pathlib.Path(zoo.local(path, ""))
    if given.name == "saved_model.pb":
        given = given.parent
    for folder in (given, given / "saved_model"):
        if (folder / "saved_model.pb").is_file():
            return folder
    if not given.exists():
        raise UsageError(f"--saved_model {path} does not exist")
    inside = ", ".join(sorted(entry.name for entry in given.iterdir())[:5]) if given.is_dir() else "a file"
    inside = inside or "an empty folder"
    raise UsageError(f"--saved_model {path} has no saved_model.pb ({inside}); `detzoo export` makes one")


def label_map_beside(saved_model: pathlib.Path) -> LabelMap | None:
    """Returns the label map that an export wrote next to or into its SavedModel, or None."""
    for folder in (saved_model.parent, saved_model, saved_model / "assets"):
        if (folder / LABEL_MAP_FILE).is_file():
            return load_label_map(folder / LABEL_MAP_FILE)
    return None


def _detection_signature(loaded: Any, folder: pathlib.Path, needs_boxes: bool) -> Any:
    if SIGNATURE not in loaded.signatures:
        known = ", ".join(loaded.signatures) or "none"
        raise UsageError(f"the SavedModel {folder} has no signature {SIGNATURE} (it has: {known})")
    function = loaded.signatures[SIGNATURE]
    if CLASS_SCORES in function.structured_outputs:
        if needs_boxes:
            raise UsageError(
                f"the SavedModel {folder} is a classifier: it gives {CLASS_SCORES} of images, and no boxes to draw "
                "or to measure; `detzoo evaluate --checkpoint_dir` measures a classifier"
            )
        return function
    missing = [name for name in NEEDED_OUTPUTS if name not in function.structured_outputs]
    inputs = set(function.structured_input_signature[1])
    if missing or len(inputs.difference(SIDE_INPUTS) or inputs) != 1:
        raise UsageError(
            f"the SavedModel {folder} is not a detector: a signature with one input and the outputs "
            f"{', '.join(NEEDED_OUTPUTS)} is needed; it has {', '.join(sorted(function.structured_outputs))}"
        )
    return function


def _input_type(saved_model: pathlib.Path) -> str:
    """Returns the input type that `detzoo export` recorded, or "". A string input may be an image or an example."""
    try:
        return json.loads((saved_model.parent / EXPORT_RECORD).read_text(encoding="utf-8"))["input_type"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
