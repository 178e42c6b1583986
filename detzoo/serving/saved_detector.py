"""A SavedModel with the Object Detection API's signature, called with one image of any size.

Exports of detzoo and of the Object Detection API both work; the inputs are read from the signature. So do frozen graphs
of TensorFlow 1, whose inputs and outputs are known by their names.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from detzoo.checkpoints import zoo
from detzoo.checkpoints.frozen_graph import GRAPH_ENDING, INSTEAD, read_graph
from detzoo.config.label_map import LabelMap, load_label_map
from detzoo.errors import DetzooError, UsageError
from detzoo.folders import EXPORT_RECORD, FROZEN_GRAPH_FILE, LABEL_MAP_FILE, read_record
from detzoo.serving.frozen import FrozenGraph, node_of
from detzoo.serving.given_regions import CONTEXT_NAMES, SIDE_INPUTS, GivenRegions, inputs_of, with_context
from detzoo.serving.given_regions import INPUT_NAME as REGIONS_NAME
from detzoo.serving.image_detector import (
    MASKS_OUTPUT,
    NEEDED_OUTPUTS,
    ImageDetections,
    ImageDetector,
    detect_in_groups,
    split_outputs,
)
from detzoo.serving.served import CLASS_SCORES

SIGNATURE = "serving_default"
# Outputs of the exporters, of which a graph has some.
_OUTPUT = re.compile(f"(raw_)?detection_[a-z_]+|num_detections|{CLASS_SCORES}")


class SavedDetector(ImageDetector):
    """Loaded SavedModel or frozen graph.

    Args:
        path: Folder with saved_model.pb, output_directory of an export, or frozen_inference_graph.pb.
        needs_boxes: Refuse a classifier of images, which has outputs but no detections.

    Raises:
        UsageError: The SavedModel does not exist, or is no detector.
    """

    def __init__(self, path: str | pathlib.Path, needs_boxes: bool = True) -> None:
        self.folder = find_saved_model(path)  # or the file of a frozen graph
        try:
            if self.folder.is_file():
                self._function = _function_of(read_detector_graph(self.folder))
            else:
                self._loaded = tf.saved_model.load(str(self.folder))  # kept, because it holds the variables
                self._function = _detection_signature(self._loaded, self.folder)
        except DetzooError:
            raise
        except Exception as problem:  # TensorFlow raises exceptions of many kinds
            reason = str(problem).strip().splitlines()[0][:200]
            raise UsageError(f"the SavedModel {self.folder} cannot be loaded: {reason}") from problem
        _check_detector(self._function, self.folder, needs_boxes)
        self.has_masks = MASKS_OUTPUT in self._function.structured_outputs
        specs = dict(self._function.structured_input_signature[1])
        self.wants_proposals = specs.pop(REGIONS_NAME, None) is not None and bool(specs)
        self.context_spec, _ = (specs.pop(name, None) for name in CONTEXT_NAMES)
        self.wants_context = self.context_spec is not None
        [(self._input_name, self._spec)] = specs.items()
        self._is_example = "tf_example" in (_input_type(self.folder), node_of(self._function.inputs[0].name))

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
        shapes = [image.shape for image in images]
        return detect_in_groups(shapes, lambda rows: self.outputs(self.as_batch([images[row] for row in rows])))

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

    The path of a frozen graph, a .pb file of another name, is returned as it is.

    Raises:
        UsageError: There is none.
    """
    given = pathlib.Path(zoo.local(path, ""))
    if given.name == "saved_model.pb":
        given = given.parent
    for folder in (given, given / "saved_model"):
        if (folder / "saved_model.pb").is_file():
            return folder
    for file in (given, given / FROZEN_GRAPH_FILE):
        if file.suffix == GRAPH_ENDING and file.is_file():
            return file
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


def read_detector_graph(path: pathlib.Path) -> FrozenGraph:
    """Returns the frozen graph in a file, with the inputs and outputs of the Object Detection API's exporter.

    Raises:
        CheckpointError: The file is damaged, or no graph.
        UsageError: The graph has no input for images.
    """
    graph_def = read_graph(str(path))
    inputs = [f"{node.name}:0" for node in graph_def.node if node.op == "Placeholder"]
    regions = [name for name in inputs if node_of(name) == REGIONS_NAME]
    images = [name for name in inputs if name not in regions]
    names = [node.name for node in graph_def.node if _OUTPUT.fullmatch(node.name)]
    if len(images) != 1 or not names:
        found, last = ", ".join(map(node_of, images)) or "none", ", ".join(node.name for node in graph_def.node[-3:])
        raise UsageError(
            f"the graph {path} is not a detector: one input and the outputs {', '.join(NEEDED_OUTPUTS)} are needed, "
            f"but it has the inputs {found} and ends with {last}; {INSTEAD}"
        )
    return FrozenGraph(graph_def, images[0], {name: f"{name}:0" for name in sorted(names)}, tuple(regions))


def _function_of(frozen: FrozenGraph) -> Any:
    """Returns a concrete function of a frozen graph, with the nodes' names as the names of its inputs and outputs."""
    graph_def, names = frozen.graph_def, frozen.input_names
    whole = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(graph_def, name=""), [])
    feeds = [whole.graph.get_tensor_by_name(name) for name in names]
    specs = {node_of(tensor.name): tf.TensorSpec.from_tensor(tensor) for tensor in feeds}
    return whole.prune(feeds, frozen.output_names, input_signature=((), specs))


def _detection_signature(loaded: Any, folder: pathlib.Path) -> Any:
    if SIGNATURE not in loaded.signatures:
        known = ", ".join(loaded.signatures) or "none"
        raise UsageError(f"the SavedModel {folder} has no signature {SIGNATURE} (it has: {known})")
    return loaded.signatures[SIGNATURE]


def _check_detector(function: Any, folder: pathlib.Path, needs_boxes: bool) -> None:
    """Checks that a function has the inputs and outputs of a detector."""
    if CLASS_SCORES in function.structured_outputs:
        if needs_boxes:
            raise UsageError(
                f"the SavedModel {folder} is a classifier: it gives {CLASS_SCORES} of images, and no boxes to draw "
                "or to measure; `detzoo evaluate --checkpoint_dir` measures a classifier"
            )
        return
    missing = [name for name in NEEDED_OUTPUTS if name not in function.structured_outputs]
    inputs = set(function.structured_input_signature[1])
    if missing or len(inputs.difference(SIDE_INPUTS) or inputs) != 1:
        raise UsageError(
            f"the SavedModel {folder} is not a detector: a signature with one input and the outputs "
            f"{', '.join(NEEDED_OUTPUTS)} is needed; it has {', '.join(sorted(function.structured_outputs))}"
        )


def _input_type(saved_model: pathlib.Path) -> str:
    """Returns the input type that `detzoo export` recorded, or "". A string input may be an image or an example."""
    return read_record(saved_model.parent / EXPORT_RECORD).get("input_type", "")
