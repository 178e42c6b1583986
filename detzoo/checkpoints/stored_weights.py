"""Finds the weights of a detector in a checkpoint of detzoo or of the Object Detection API, by the detector's paths."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from detzoo.checkpoints import object_detection_api as api
from detzoo.checkpoints.files import (
    StoredCheckpoint,
    StoredTensors,
    foreign,
    is_own,
    open_tensors,
    own_checkpoint,
)
from detzoo.checkpoints.layout import MODEL, parse_key
from detzoo.checkpoints.object_graph import GRAPH_KEY, ObjectGraph
from detzoo.errors import CheckpointError

CLASSIFICATION = "classification"  # fine_tune_checkpoint_type of a classification network


@dataclasses.dataclass(frozen=True)
class StoredWeights:
    """The weights of a checkpoint, by the paths of a detector.

    Attributes:
        prefix: Path of the checkpoint without ``.index``.
        step: Number of finished training steps, 0 if it is not stored.
        kind: Description of the stored model.
        shapes: Path -> stored shape of each variable of the detector in the checkpoint.
        unused: Names of the stored detector's variables that this detector does not have.
        leftovers: Names of stored layers that no detector uses, such as the classifier of a backbone.
        names: Path -> name in the file, for checkpoints of the Object Detection API.
        read: Returns the value of a path of ``shapes``; raises CheckpointError for a damaged data file.
    """

    prefix: str
    step: int
    kind: str
    shapes: dict[str, tuple[int, ...]]
    unused: list[str]
    leftovers: list[str]
    names: dict[str, str]
    read: Callable[[str], np.ndarray] = dataclasses.field(repr=False)

    @property
    def is_own(self) -> bool:
        """True for a checkpoint of detzoo."""
        return not self.names

    def describe(self, path: str) -> str:
        """Returns a path of the detector, with the name in the file if it differs."""
        return f"{path} ({self.names[path]})" if path in self.names else path


def find_weights(
    path: str | pathlib.Path, paths: Sequence[str], prefer_average: bool = True, checkpoint_type: str = "full"
) -> StoredWeights:
    """Opens a checkpoint of detzoo, or an object-based one of the Object Detection API, and finds a detector in it.

    Args:
        path: Path of a folder, a prefix, or one of a checkpoint's files.
        paths: Paths of all variables of the detector, in the order of creation.
        prefer_average: Uses the moving average of a variable, if stored.
        checkpoint_type: ``fine_tune_checkpoint_type``; "classification" accepts a classification network, too.

    Raises:
        CheckpointError: The checkpoint is missing, damaged, of TensorFlow 1, or not of a detector.
    """
    tensors = open_tensors(path)
    if is_own(tensors):
        return own_weights(own_checkpoint(tensors), paths, prefer_average)
    if GRAPH_KEY not in tensors.shapes:
        raise CheckpointError(foreign(tensors))
    try:
        graph = ObjectGraph(tensors.read(GRAPH_KEY))
    except ValueError as problem:
        raise CheckpointError(f"{tensors.prefix}: {problem}; the file is damaged") from None
    if api.is_detector(graph):
        match = api.match_detector(graph, paths)
        kind = f"{api.describe(graph)} of the Object Detection API"
    else:
        match = _match_classifier(tensors, graph, paths, checkpoint_type)
        kind = "a classification network"
    step_key = api.step_key(graph)
    return StoredWeights(
        prefix=tensors.prefix,
        step=int(tensors.read(step_key)) if step_key else 0,
        kind=kind,
        shapes={path: tensors.shapes[key] for path, key in match.keys.items()},
        unused=[_readable(key) for key in match.unused],
        leftovers=[_readable(key) for key in match.leftovers],
        names={path: _readable(key) for path, key in match.keys.items()},
        read=lambda path: tensors.read(match.keys[path]),
    )


def own_weights(stored: StoredCheckpoint, paths: Sequence[str], prefer_average: bool) -> StoredWeights:
    """Finds the weights of a detector in a checkpoint of detzoo; arguments as for ``find_weights``."""
    shapes, known = stored.paths(MODEL), set(paths)
    return StoredWeights(
        prefix=stored.prefix,
        step=stored.step,
        kind="a detector of detzoo",
        shapes={path: shapes[path] for path in paths if path in shapes},
        unused=[path for path in shapes if path not in known],
        leftovers=[],
        names={},
        read=lambda path: stored.read_weights(path, prefer_average),
    )


def _match_classifier(tensors: StoredTensors, graph: ObjectGraph, paths: Sequence[str], checkpoint_type: str) -> Any:
    node = api.find_classifier(graph)
    if node is None:
        raise CheckpointError(foreign(tensors))
    if checkpoint_type != CLASSIFICATION:
        raise CheckpointError(
            f"{tensors.prefix} holds a classification network, no detector: it can start a training with "
            f"train_config.fine_tune_checkpoint_type: '{CLASSIFICATION}' (found: '{checkpoint_type}')"
        )
    return api.match_classifier(graph, node, paths)


def _readable(key: str) -> str:
    """Returns a key without the common suffix."""
    parsed = parse_key(key)
    return "/".join(filter(None, parsed)) if parsed is not None else key
