"""Finds the weights of a detector in a checkpoint of detzoo or of the Object Detection API, by the detector's paths.

The API's checkpoints are those of TensorFlow 2 (``object_detection_api``) and of TensorFlow 1 (``tensorflow1``).
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from detzoo.checkpoints import object_detection_api as api
from detzoo.checkpoints import tensorflow1
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

# Of Inception v2's first layer, in checkpoints of version 0.1 and now.
FIRST_BIAS, FIRST_BETA = "backbone/conv_1a_separable/bias", "backbone/conv_1a_batch_norm/beta"
_INCEPTION_V2_EPSILON = 0.001
CLASSIFICATION = "classification"  # fine_tune_checkpoint_type of a classification network


@dataclasses.dataclass(frozen=True)
class StoredWeights:
    """The weights of a checkpoint, by the paths of a detector."""

    prefix: str  # path of the checkpoint without ``.index``
    step: int  # number of finished training steps, 0 if it is not stored
    kind: str  # description of the stored model
    shapes: dict[str, tuple[int, ...]]  # path -> stored shape of each variable of the detector in the checkpoint
    unused: list[str]  # names of the stored detector's variables that this detector does not have
    # Names of stored variables that no detector needs, such as a classifier's last layers -> reason.
    leftovers: dict[str, str]
    names: dict[str, str]  # path -> name in the file, for checkpoints of the Object Detection API
    # Returns the value of a path of ``shapes``; raises CheckpointError for a damaged data file.
    read: Callable[[str], np.ndarray] = dataclasses.field(repr=False)
    part_depth: int = 1  # number of components of a name in the file that are the part of the model
    is_own: bool = False  # True for a checkpoint of detzoo

    def describe(self, path: str) -> str:
        """Returns a path of the detector, with the name in the file if it differs."""
        return f"{path} ({self.names[path]})" if path in self.names else path


def find_weights(
    path: str | pathlib.Path,
    paths: Sequence[str],
    prefer_average: bool = True,
    checkpoint_type: str = "full",
    tf1_averages: bool = False,
) -> StoredWeights:
    """Opens a checkpoint of detzoo or of the Object Detection API, and finds a detector in it.

    Args:
        path: Path of a folder, a prefix, or one of a checkpoint's files.
        paths: Paths of all variables of the detector, in the order of creation.
        prefer_average: Uses the moving average of a variable in a checkpoint of detzoo, if stored.
        checkpoint_type: ``fine_tune_checkpoint_type``; "classification" accepts a classification network, too.
        tf1_averages: Uses the moving averages in a checkpoint of TensorFlow 1 (``eval_config.use_moving_averages``).

    Raises:
        CheckpointError: The checkpoint is missing, damaged, or not of a detector.
    """
    tensors = open_tensors(path)
    if is_own(tensors):
        return own_weights(own_checkpoint(tensors), paths, prefer_average)
    if GRAPH_KEY not in tensors.shapes:
        return _tensorflow1_weights(tensors, paths, checkpoint_type, tf1_averages)
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
        leftovers={
            _readable(key): "the state of a random generator" if "_rng/" in key else "a classifier's last layers"
            for key in match.leftovers
        },
        names={path: _readable(key) for path, key in match.keys.items()},
        read=lambda path: tensors.read(match.keys[path]),
        part_depth=2,  # the first is "model"
    )


def _tensorflow1_weights(
    tensors: StoredTensors, paths: Sequence[str], checkpoint_type: str, use_averages: bool
) -> StoredWeights:
    names = sorted(tensors.shapes)
    if not tensorflow1.is_detector(names):
        if not tensorflow1.is_classifier(names):
            raise CheckpointError(foreign(tensors))
        _require_classification(tensors.prefix, checkpoint_type)
    averages = [] if use_averages else tensorflow1.only_averages(names)
    if averages:
        raise CheckpointError(
            f"{tensors.prefix} has {len(averages)} moving averages without their variables, such as {averages[0]}: set "
            "eval_config.use_moving_averages: true to evaluate or export them; an export can start a training"
        )
    match = tensorflow1.match_detector(names, paths, use_averages)
    shapes = {path: tensors.shapes[match.keys[path]] for path in paths if path in match.keys}
    return StoredWeights(
        prefix=tensors.prefix,
        step=int(tensors.read(tensorflow1.STEP)) if tensorflow1.STEP in tensors.shapes else 0,
        kind=tensorflow1.describe(names),
        shapes=shapes,
        unused=match.unused,
        leftovers=match.leftovers,
        names=match.keys,
        read=lambda path: tensors.read(match.keys[path]),
    )


def own_weights(stored: StoredCheckpoint, paths: Sequence[str], prefer_average: bool) -> StoredWeights:
    """Finds the weights of a detector in a checkpoint of detzoo; arguments as for ``find_weights``."""
    shapes, known = stored.paths(MODEL), set(paths)
    added = {}
    if FIRST_BIAS in shapes and FIRST_BETA in known:
        added = _earlier_inception_v2(shapes, known, stored.read_weights(FIRST_BIAS, prefer_average))
        shapes = {name: shape for name, shape in shapes.items() if name != FIRST_BIAS}
        shapes |= {path: value.shape for path, value in added.items()}
    return StoredWeights(
        prefix=stored.prefix,
        step=stored.step,
        kind="a detector of detzoo",
        shapes={path: shapes[path] for path in paths if path in shapes},
        unused=[path for path in shapes if path not in known],
        leftovers={},
        names={},
        read=lambda path: added[path] if path in added else stored.read_weights(path, prefer_average),
        is_own=True,
    )


def _earlier_inception_v2(
    shapes: Mapping[str, tuple[int, ...]], known: set[str], bias: np.ndarray
) -> dict[str, np.ndarray]:
    """Returns the normalization variables of an Inception v2 that checkpoints of version 0.1 do not have, by path.

    The first layer had a bias instead of a normalization, and no normalization had a gamma. Inference is equal.
    """
    layer = FIRST_BETA.removesuffix("beta")
    added = {
        FIRST_BETA: bias,
        f"{layer}moving_mean": np.zeros_like(bias),
        f"{layer}moving_variance": np.full_like(bias, 1.0 - _INCEPTION_V2_EPSILON),
    }
    for path in known - set(shapes):
        layer, found, _ = path.partition("_batch_norm/gamma")
        if found and layer.startswith(("backbone/", "box_backbone/")):
            added[path] = np.ones(shapes.get(f"{layer}_batch_norm/beta", bias.shape), np.float32)
    return added


def _match_classifier(tensors: StoredTensors, graph: ObjectGraph, paths: Sequence[str], checkpoint_type: str) -> Any:
    node = api.find_classifier(graph)
    if node is None:
        raise CheckpointError(foreign(tensors))
    _require_classification(tensors.prefix, checkpoint_type)
    return api.match_classifier(graph, node, paths)


def _require_classification(prefix: str, checkpoint_type: str) -> None:
    if checkpoint_type != CLASSIFICATION:
        raise CheckpointError(
            f"{prefix} holds a classification network, no detector: it can start a training with "
            f"train_config.fine_tune_checkpoint_type: '{CLASSIFICATION}' (found: '{checkpoint_type}')"
        )


def _readable(key: str) -> str:
    """Returns a key without the common suffix."""
    parsed = parse_key(key)
    return "/".join(filter(None, parsed)) if parsed is not None else key
