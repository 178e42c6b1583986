"""Finding and opening checkpoints, with a message that helps where that fails."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from typing import Any

import numpy as np
import tensorflow as tf

from detzoo.checkpoints.layout import AVERAGE, FORMAT, FORMAT_VERSION, MODEL, STEP, parse_key, stored_key
from detzoo.errors import CheckpointError

ACCEPTED = (
    "accepted: the model_dir of a `detzoo train` run, a folder with a checkpoint in it (such as its best/), or a "
    "prefix such as model_dir/ckpt-1000"
)
# TensorFlow's reader translates the status codes of a damaged file into these.
_READ_ERRORS = (tf.errors.OpError, RuntimeError, ValueError, LookupError)
_FILE_ENDING = re.compile(r"(\.index|\.data-\d{5}-of-\d{5})$")
# Attributes of the Object Detection API's object-based checkpoints, below the root or below "model".
_OBJECT_DETECTION_API_MARKS = (
    "_feature_extractor",
    "_box_predictor",
    "FeatureExtractor/",
    "_first_stage_box_predictor",
)


@dataclasses.dataclass(frozen=True)
class StoredCheckpoint:
    """An opened checkpoint of detzoo.

    Attributes:
        prefix: Path without ``.index``.
        step: Training steps it had.
        shapes: section -> path -> shape of each tensor.
    """

    prefix: str
    step: int
    shapes: dict[str, dict[str, tuple[int, ...]]]
    reader: Any = dataclasses.field(repr=False)

    def paths(self, section: str) -> dict[str, tuple[int, ...]]:
        """path -> shape of a section; empty where the checkpoint lacks it."""
        return self.shapes.get(section, {})

    def read(self, section: str, path: str) -> np.ndarray:
        """One tensor.

        Raises:
            CheckpointError: the data file is damaged.
        """
        try:
            return self.reader.get_tensor(stored_key(section, path))
        except _READ_ERRORS as problem:
            raise CheckpointError(_damaged(self.prefix, problem)) from None

    def read_weights(self, path: str, prefer_average: bool) -> np.ndarray:
        """A variable of the model: its moving average if that is wanted and stored."""
        use_average = prefer_average and path in self.paths(AVERAGE)
        return self.read(AVERAGE if use_average else MODEL, path)


def latest_prefix(path: str | pathlib.Path) -> str:
    """The prefix that a folder, a prefix or one of a checkpoint's files means; for a folder its newest checkpoint.

    Raises:
        CheckpointError: there is none, with what is there instead.
    """
    text = str(path)
    if not text:
        raise CheckpointError(f"the path of the checkpoint is empty; {ACCEPTED}")
    if tf.io.gfile.isdir(text):
        found = tf.train.latest_checkpoint(text) or _newest_complete(text)
        if found is None:
            raise CheckpointError(f"the folder {text} holds no checkpoint{_contents(text)}; {ACCEPTED}")
        return found
    prefix = _FILE_ENDING.sub("", text)
    if tf.io.gfile.exists(prefix + ".index"):
        return prefix
    raise CheckpointError(f"there is no checkpoint at {text}{_near(prefix)}; {ACCEPTED}")


def open_checkpoint(path: str | pathlib.Path) -> StoredCheckpoint:
    """Opens a checkpoint of detzoo.

    Args:
        path: A folder, a prefix, or one of a checkpoint's files.

    Raises:
        CheckpointError: missing, damaged, or made by something else.
    """
    prefix = latest_prefix(path)
    try:
        reader = tf.train.load_checkpoint(prefix)
        shape_by_key = reader.get_variable_to_shape_map()
    except _READ_ERRORS as problem:
        raise CheckpointError(_damaged(prefix, problem)) from None
    shapes: dict[str, dict[str, tuple[int, ...]]] = {}
    for key, shape in shape_by_key.items():
        parsed = parse_key(key)
        if parsed is not None:
            shapes.setdefault(parsed[0], {})[parsed[1]] = tuple(shape)
    if FORMAT not in shapes or MODEL not in shapes:
        raise CheckpointError(_foreign(prefix, list(shape_by_key)))
    stored = StoredCheckpoint(prefix, 0, shapes, reader)
    version = int(stored.read(FORMAT, ""))
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{prefix} has format {version}, this detzoo reads up to {FORMAT_VERSION}: it was made by a newer version"
        )
    return dataclasses.replace(stored, step=int(stored.read(STEP, "")))


def _newest_complete(folder: str) -> str | None:
    """The checkpoint with the highest number in a folder whose ``checkpoint`` file is lost."""
    numbered = []
    for name in tf.io.gfile.listdir(folder):
        match = re.fullmatch(r"(.+-(\d+))\.index", name)
        if match:
            numbered.append((int(match[2]), f"{folder.rstrip('/')}/{match[1]}"))
    return max(numbered)[1] if numbered else None


def _damaged(prefix: str, problem: Exception) -> str:
    reason = str(problem).strip().splitlines()[0][:200]
    return (
        f"the checkpoint {prefix} is damaged or incomplete: {reason}. Delete its files, or name another checkpoint; "
        f"{ACCEPTED}"
    )


def _foreign(prefix: str, keys: list[str]) -> str:
    if any(mark in key for key in keys for mark in _OBJECT_DETECTION_API_MARKS):
        return (
            f"{prefix} is a checkpoint of the TensorFlow Object Detection API; this version reads checkpoints of "
            f"`detzoo train` only. To start from ImageNet, set pretrained_weights in the feature extractor; {ACCEPTED}"
        )
    examples = ", ".join(sorted(keys)[:3])
    return f"{prefix} was not made by `detzoo train`: its first tensors are {examples}; {ACCEPTED}"


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
