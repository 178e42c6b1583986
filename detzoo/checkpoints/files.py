"""Finds and opens checkpoints, with a helpful message if that fails."""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import os
import pathlib
import re
from typing import Any

import numpy as np
import tensorflow as tf

from detzoo.checkpoints import tensorflow1, zoo
from detzoo.checkpoints.frozen_graph import GRAPH_ENDING, SAVED_MODEL_FILE, Constants
from detzoo.checkpoints.layout import AVERAGE, FORMAT, FORMAT_VERSION, MODEL, STEP, parse_key, stored_key
from detzoo.checkpoints.object_graph import GRAPH_KEY
from detzoo.errors import CheckpointError
from detzoo.folders import FROZEN_GRAPH_FILE

ACCEPTED = (
    "accepted: the model_dir of a `detzoo train` run, a folder with a checkpoint in it (such as its best/, or the "
    "checkpoint/ of an archive of the detection zoo), a prefix such as model_dir/ckpt-1000 or model.ckpt, "
    "a frozen_inference_graph.pb, or zoo://NAME (`detzoo weights list`)"
)
BEST_FOLDER, BEST_RECORD = "best", "best.json"  # in a run's model_dir, and in that folder: step, metric, value
EXPORTED_FOLDER = "checkpoint"  # of an export, next to its SavedModel
_IN_SAVED_MODEL = "variables"  # name of a SavedModel's checkpoint
_KERAS_FILE = re.compile(r"\.(h5|hdf5|keras)$")
# TensorFlow's reader translates the status codes of a damaged file into these.
_READ_ERRORS = (tf.errors.OpError, RuntimeError, ValueError, LookupError)
_FILE_ENDING = re.compile(r"(\.index|\.meta|\.data-\d{5}-of-\d{5})$")
# Attributes of the Object Detection API's object-based checkpoints, below the root or below "model".
_OBJECT_DETECTION_API_MARKS = ("_feature_extractor", "_box_predictor", "_first_stage_box_predictor")

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class StoredTensors:
    """The opened files of any checkpoint."""

    prefix: str  # path without ``.index``
    shapes: dict[str, tuple[int, ...]]  # key -> shape of each tensor
    reader: Any = dataclasses.field(repr=False)

    def read(self, key: str) -> Any:
        """Returns one tensor: a numpy array, or bytes for a string.

        Raises:
            CheckpointError: The data file is damaged.
        """
        try:
            return self.reader.get_tensor(key)
        except _READ_ERRORS as problem:
            raise CheckpointError(_damaged(self.prefix, problem)) from None


@dataclasses.dataclass(frozen=True)
class StoredCheckpoint:
    """An opened checkpoint of detzoo."""

    prefix: str  # path without ``.index``
    step: int  # number of finished training steps
    shapes: dict[str, dict[str, tuple[int, ...]]]  # section -> path -> shape of each tensor
    tensors: StoredTensors = dataclasses.field(repr=False)

    def paths(self, section: str) -> dict[str, tuple[int, ...]]:
        """Returns path -> shape of a section; {} if the checkpoint does not have it."""
        return self.shapes.get(section, {})

    def read(self, section: str, path: str) -> np.ndarray:
        """Returns one tensor.

        Raises:
            CheckpointError: The data file is damaged.
        """
        return self.tensors.read(stored_key(section, path))

    def read_weights(self, path: str, prefer_average: bool) -> np.ndarray:
        """Returns a variable of the model, or its moving average if it is preferred and stored."""
        use_average = prefer_average and path in self.paths(AVERAGE)
        return self.read(AVERAGE if use_average else MODEL, path)


def latest_prefix(path: str | pathlib.Path) -> str:
    """Returns the prefix of the checkpoint of a folder (its newest), a prefix, a file of it, or an archive zoo://NAME.

    A frozen graph or a SavedModel of TensorFlow 1 is returned as the path of its .pb file.

    Raises:
        CheckpointError: There is no checkpoint; the message describes the content of the folder.
    """
    text = zoo.local(path)
    if not text:
        raise CheckpointError(f"the path of the checkpoint is empty; {ACCEPTED}")
    if tf.io.gfile.isdir(text):
        found = _newest_in(text) or _newest_in(f"{text.rstrip('/')}/{EXPORTED_FOLDER}")
        if found is not None:
            return found
        if tf.io.gfile.exists(f"{text}/{FROZEN_GRAPH_FILE}"):
            return f"{text}/{FROZEN_GRAPH_FILE}"
        for folder in (text, os.path.dirname(text.rstrip("/"))):
            if in_saved_model := _in_saved_model(text, folder):
                return in_saved_model
        if data := sorted(tf.io.gfile.glob(f"{text}/*.data-*")):
            raise CheckpointError(_no_index(_FILE_ENDING.sub("", data[-1])))
        raise CheckpointError(f"the folder {text} holds no checkpoint{_contents(text)}; {ACCEPTED}")
    if text.endswith(GRAPH_ENDING) and tf.io.gfile.exists(text):
        is_saved_model = os.path.basename(text) == SAVED_MODEL_FILE
        return _in_saved_model(text, os.path.dirname(text)) if is_saved_model else text
    prefix = _FILE_ENDING.sub("", text)
    if tf.io.gfile.exists(prefix + ".index"):
        return _in_saved_model(text, os.path.dirname(os.path.dirname(text))) or prefix
    if tf.io.gfile.glob(f"{prefix}.data-*"):
        raise CheckpointError(_no_index(prefix))
    if _KERAS_FILE.search(text) and tf.io.gfile.exists(text):
        raise CheckpointError(f"{text} is a file of Keras, not a checkpoint; {ACCEPTED}")
    raise CheckpointError(f"there is no checkpoint at {text}{_near(prefix)}; {ACCEPTED}")


def best_instead(path: str | pathlib.Path, step: int, flag: str) -> str:
    """Describes the best checkpoint of a run; "" if it is the used one, or none was recorded.

    Args:
        path: Folder of the run, or the prefix of one of its checkpoints, which may no longer exist.
        step: Step of the used checkpoint.
        flag: Flag that names a checkpoint, such as "--checkpoint_dir".
    """
    if zoo.name_in(str(path)) is not None:
        return ""
    folder = str(path) if tf.io.gfile.isdir(str(path)) else os.path.dirname(str(path))
    best = os.path.join(folder, BEST_FOLDER)
    try:
        with tf.io.gfile.GFile(os.path.join(best, BEST_RECORD)) as file:
            record = json.loads(file.read())
        best_step, metric, value = int(record["step"]), str(record["metric"]).rpartition("/")[2], float(record["value"])
    except (tf.errors.OpError, LookupError, TypeError, ValueError):
        return ""
    if best_step == step or not _newest_in(best):
        return ""
    return f"best is step {best_step}, {metric} {value:.2f}: {flag} {best}"


def open_tensors(path: str | pathlib.Path) -> StoredTensors:
    """Opens the files of any TensorFlow checkpoint.

    Args:
        path: Path of a folder, a prefix, or one of a checkpoint's files.

    Raises:
        CheckpointError: The checkpoint is missing or damaged.
    """
    prefix = latest_prefix(path)
    if prefix.endswith(GRAPH_ENDING):
        return _tensors(prefix, Constants(prefix))
    if not tf.io.gfile.glob(f"{prefix}.data-*"):
        raise CheckpointError(
            f"the checkpoint {prefix} has an index but no data: {prefix}.data-00000-of-00001 is missing. Copy it into "
            "the folder of the index; it holds the weights"
        )
    try:
        return _tensors(prefix, tf.train.load_checkpoint(prefix))
    except _READ_ERRORS as problem:
        raise CheckpointError(_damaged(prefix, problem)) from None


def _tensors(prefix: str, reader: Any) -> StoredTensors:
    shapes = {key: tuple(shape) for key, shape in reader.get_variable_to_shape_map().items()}
    return StoredTensors(prefix, shapes, reader)


def open_checkpoint(path: str | pathlib.Path) -> StoredCheckpoint:
    """Opens a checkpoint of detzoo.

    Args:
        path: Path of a folder, a prefix, or one of a checkpoint's files.

    Raises:
        CheckpointError: The checkpoint is missing, damaged, or of another program.
    """
    tensors = open_tensors(path)
    if not is_own(tensors):
        raise CheckpointError(foreign(tensors))
    return own_checkpoint(tensors)


def is_own(tensors: StoredTensors) -> bool:
    """Returns True for a checkpoint of `detzoo train` or `detzoo export`."""
    return {FORMAT, MODEL} <= {parsed[0] for parsed in map(parse_key, tensors.shapes) if parsed is not None}


def own_checkpoint(tensors: StoredTensors) -> StoredCheckpoint:
    """Groups the tensors of a detzoo checkpoint by section.

    Raises:
        CheckpointError: The checkpoint is damaged, or of a newer version.
    """
    shapes: dict[str, dict[str, tuple[int, ...]]] = {}
    for key, shape in tensors.shapes.items():
        parsed = parse_key(key)
        if parsed is not None:
            shapes.setdefault(parsed[0], {})[parsed[1]] = shape
    stored = StoredCheckpoint(tensors.prefix, 0, shapes, tensors)
    version = int(stored.read(FORMAT, ""))
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{tensors.prefix} has format {version}, this detzoo reads up to {FORMAT_VERSION}: it was made by a newer "
            "version"
        )
    return dataclasses.replace(stored, step=int(stored.read(STEP, "")))


def foreign(tensors: StoredTensors) -> str:
    """Describes a checkpoint of another program, and its possible uses."""
    prefix, keys = tensors.prefix, sorted(tensors.shapes)
    if GRAPH_KEY not in tensors.shapes:
        if tensorflow1.is_detector(keys) or tensorflow1.is_classifier(keys):
            return (
                f"{prefix} is {tensorflow1.describe(keys)}, which cannot be resumed: name it in "
                "train_config.fine_tune_checkpoint, and train into another --model_dir"
            )
        return f"{prefix} is no checkpoint of a detector: its first tensors are {', '.join(keys[:3])}; {ACCEPTED}"
    if any(mark in key for key in keys for mark in _OBJECT_DETECTION_API_MARKS):
        return (
            f"{prefix} is a checkpoint of the TensorFlow Object Detection API, which cannot be resumed: name it in "
            "train_config.fine_tune_checkpoint, and train into another --model_dir"
        )
    return f"{prefix} was not made by `detzoo train`: its first tensors are {', '.join(keys[:3])}; {ACCEPTED}"


def numbered_prefixes(folder: str | pathlib.Path) -> list[str]:
    """Returns the prefixes of the checkpoints ``<name>-<number>`` in a folder, the highest number first.

    Some may be incomplete.
    """
    folder = str(folder).rstrip("/")
    if not tf.io.gfile.isdir(folder):
        return []
    stems = {_FILE_ENDING.sub("", name) for name in tf.io.gfile.listdir(folder) if _FILE_ENDING.search(name)}
    numbered = [(int(match[1]), stem) for stem in stems if (match := re.fullmatch(r".+-(\d+)", stem))]
    return [f"{folder}/{stem}" for _, stem in sorted(numbered, reverse=True)]


def indexed_prefixes(folder: str | pathlib.Path) -> list[str]:
    """Returns the prefixes in the file ``checkpoint`` of a folder, the newest last; [] if it cannot be read."""
    try:
        state = tf.train.get_checkpoint_state(str(folder))
    except _READ_ERRORS:  # UnicodeDecodeError is a ValueError
        return []
    if state is None or not state.model_checkpoint_path:
        return []
    others = [path for path in state.all_model_checkpoint_paths if path != state.model_checkpoint_path]
    return [*others, state.model_checkpoint_path]


def why_incomplete(prefix: str) -> str | None:
    """Returns the reason why a checkpoint is incomplete, or None. Checksums are not compared."""
    try:
        tensors = open_tensors(prefix)
        data = tf.io.gfile.glob(f"{prefix}.data-*")
        expected = int(data[0].rpartition("-of-")[2])
        if len(data) != expected:
            return _damaged(prefix, f"{len(data)} of its {expected} data files are there")
        types = tensors.reader.get_variable_to_dtype_map()
        needed = sum(
            types[key].size * int(np.prod(shape)) for key, shape in tensors.shapes.items() if types[key] != tf.string
        )
        size = sum(tf.io.gfile.stat(file).length for file in data)
        if size < needed:
            return _damaged(prefix, f"its data have {size:,} bytes, not {needed:,} or more")
        for key in tensors.shapes:
            if types[key] == tf.string:  # the index has no sizes of strings; the graph of objects is at the end
                tensors.read(key)
    except CheckpointError as problem:
        return str(problem)
    except _READ_ERRORS as problem:
        return _damaged(prefix, problem)
    return None


@functools.cache
def _report_skipped(prefix: str, reason: str, used: str) -> None:
    """Warns once per process of a skipped checkpoint."""
    logger.warning("%s is skipped, %s is used instead: %s", prefix, used, reason)


def _newest_in(folder: str) -> str | None:
    """Returns the newest complete checkpoint of a folder, None if the folder or a checkpoint is missing.

    The file ``checkpoint`` is a hint only. If it is damaged or names missing files, the files of the folder decide.

    Raises:
        CheckpointError: Every checkpoint is incomplete.
    """
    skipped: dict[str, str] = {}
    indices = sorted(tf.io.gfile.glob(f"{folder}/*.index"))  # also of names without a number, such as model.ckpt
    plain = [prefix for index in indices if (prefix := index.removesuffix(".index")) != f"{folder}/{_IN_SAVED_MODEL}"]
    named = indexed_prefixes(folder)[-1:]
    for prefix in dict.fromkeys([*named, *numbered_prefixes(folder), *plain]):
        reason = why_incomplete(prefix)
        if reason is not None and prefix in named and not tf.io.gfile.glob(f"{prefix}.*"):
            reason = (
                f"the file {folder}/checkpoint names {prefix}, which does not exist: copy the files of that checkpoint "
                f"into {folder}, or name another checkpoint"
            )
        if reason is None:
            for other, why in skipped.items():
                _report_skipped(other, why, prefix)
            return prefix
        skipped[prefix] = reason
    if skipped:
        raise CheckpointError(next(iter(skipped.values())))
    return None


def _in_saved_model(path: str, folder: str) -> str:
    """Returns the weights of a folder's SavedModel of TensorFlow 1, "" if it has no SavedModel.

    Raises:
        CheckpointError: It is a SavedModel of TensorFlow 2, whose variables have no names.
    """
    graph, variables = f"{folder.rstrip('/')}/{SAVED_MODEL_FILE}", f"{folder.rstrip('/')}/variables/variables"
    if not tf.io.gfile.exists(graph):
        return ""
    if not tf.io.gfile.exists(f"{variables}.index"):
        return graph
    if GRAPH_KEY not in tf.train.load_checkpoint(variables).get_variable_to_shape_map():
        return variables
    exported = os.path.join(os.path.dirname(folder.rstrip("/")), EXPORTED_FOLDER)
    hint = f"; its checkpoint is {exported}" if _newest_in(exported) else ""
    raise CheckpointError(f"{path} is a SavedModel, not a checkpoint{hint}; {ACCEPTED}")


def _no_index(prefix: str) -> str:
    return f"the checkpoint {prefix} has data but no index: {prefix}.index is missing; copy it too"


def _damaged(prefix: str, problem: Exception | str) -> str:
    reason = str(problem).strip().splitlines()[0][:200]
    return f"the checkpoint {prefix} is damaged or incomplete ({reason}): copy its files again, or name another one"


def _contents(folder: str) -> str:
    names = sorted(tf.io.gfile.listdir(folder))
    below = [name for name in names if tf.io.gfile.exists(f"{folder.rstrip('/')}/{name.rstrip('/')}/checkpoint")]
    if below:
        return f", but {' and '.join(name.rstrip('/') + '/' for name in below)} in it does"
    return " (it is empty)" if not names else f" (it has {', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"


def _near(prefix: str) -> str:
    folder = str(pathlib.PurePath(prefix).parent)
    if "://" in prefix or not tf.io.gfile.isdir(folder):
        return "" if "://" in prefix else f" (the folder {folder} does not exist)"
    found = sorted(name.removesuffix(".index") for name in tf.io.gfile.listdir(folder) if name.endswith(".index"))
    return f" ({folder} has {', '.join(found[:5])})" if found else f" ({folder} holds no checkpoint)"
