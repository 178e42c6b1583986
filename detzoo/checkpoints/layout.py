"""The layout of a checkpoint: the keys of its tensors.

A checkpoint is a ``tf.train.Checkpoint``: the files ``ckpt-<step>.index`` and ``ckpt-<step>.data-?????-of-?????``, and
in the same folder the text file ``checkpoint`` with the name of the newest. Its tensors are

    format                  int32 scalar, the version of this layout, now 1
    step                    int64 scalar, finished training steps
    model/<path>            every variable of the detector, by its Keras path, e.g. model/backbone/stem/kernel
    average/<path>          the moving average of a variable, with ``use_moving_average`` only
    optimizer/<path>        the optimizer's variables, by their Keras path
    training/next_record    int64 scalar, next position in the stream of records
    training/loss_scale     float32 scalar, with float16 only
    training/finite_steps   int64 scalar, with float16 only

As for any ``tf.train.Checkpoint``, "/" in a path is written ".S" and each key ends in "/.ATTRIBUTES/VARIABLE_VALUE";
``tf.train.load_checkpoint(prefix)`` reads every tensor as numpy. Checkpoints without an optimizer (the best one of a
run, an exported one) have no ``optimizer`` and ``training``.
"""

from __future__ import annotations

import hashlib
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import tensorflow as tf

FORMAT_VERSION = 1
MODEL, AVERAGE, OPTIMIZER, TRAINING = "model", "average", "optimizer", "training"
FORMAT, STEP = "format", "step"

_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


def variables_by_path(variables: Iterable[Any]) -> dict[str, tf.Variable]:
    """Returns Keras path -> tf.Variable; a repeated path gets "#2", "#3", ... in the order of creation.

    The seeds of random layers are excluded, because they are not learned.
    """
    result: dict[str, tf.Variable] = {}
    seen: dict[str, int] = {}
    for variable in variables:
        path = variable.path
        if path.endswith("seed_generator_state"):
            continue
        seen[path] = seen.get(path, 0) + 1
        name = path if seen[path] == 1 else f"{path}#{seen[path]}"
        result[name] = variable.value
    return result


def weights_digest(variables: Iterable[Any]) -> str:
    """Returns a digest of weights, by which an export and the evaluation of its checkpoint recognize each other."""
    digest = hashlib.blake2b(digest_size=16)
    for path, variable in sorted(variables_by_path(variables).items()):
        digest.update(path.encode())
        digest.update(variable.numpy().tobytes())
    return digest.hexdigest()


def make_checkpoint(step: tf.Variable, **sections: Mapping[str, Any]) -> tf.train.Checkpoint:
    """Returns the trackable object of a checkpoint.

    Args:
        step: int64 scalar.
        **sections: Key -> variable of ``model``, ``average``, ``optimizer``, ``training``. Empty ones are omitted.
    """
    version = tf.Variable(FORMAT_VERSION, dtype=tf.int32, trainable=False, name="format")
    kept = {name: dict(section) for name, section in sections.items() if section}
    return tf.train.Checkpoint(**{FORMAT: version, STEP: step, **kept})


def save_weights(detector: Any, folder: str | pathlib.Path, step: int = 0) -> str:
    """Writes the variables of a detector as the only checkpoint of a folder, and returns its prefix."""
    steps = tf.Variable(step, dtype=tf.int64, trainable=False)
    checkpoint = make_checkpoint(steps, model=variables_by_path(detector.variables))
    return tf.train.CheckpointManager(checkpoint, str(folder), max_to_keep=1).save(checkpoint_number=0)


def stored_key(section: str, path: str = "") -> str:
    """Returns the key of a tensor in the files, the inverse of ``parse_key``."""
    escaped = path.replace(".", "..").replace("/", ".S")
    return (f"{section}/{escaped}" if path else section) + _SUFFIX


def parse_key(key: str) -> tuple[str, str] | None:
    """Returns (section, path) of a tensor, with path "" for a scalar of the root; None for entries of TensorFlow."""
    if not key.endswith(_SUFFIX):
        return None
    section, _, escaped = key.removesuffix(_SUFFIX).partition("/")
    return section, re.sub(r"\.([.S])", lambda match: "/" if match[1] == "S" else ".", escaped)
