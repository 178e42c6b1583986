"""The layout of a checkpoint: what is stored under which key.

A checkpoint is a ``tf.train.Checkpoint``: the files ``ckpt-<step>.index`` and ``ckpt-<step>.data-?????-of-?????``, and
in the same folder the text file ``checkpoint``, which names the newest. Its tensors are

    format                  int32 scalar, the version of this layout, now 1
    step                    int64 scalar, finished training steps
    model/<path>            every variable of the detector, by its Keras path, e.g. model/backbone/stem/kernel
    average/<path>          the moving average of a variable, where ``use_moving_average`` is on
    optimizer/<path>        the optimizer's variables, by their Keras path
    training/next_record    int64 scalar, position in the stream of records that training goes on from
    training/loss_scale     float32 scalar, with float16 only
    training/finite_steps   int64 scalar, with float16 only

As for any ``tf.train.Checkpoint``, "/" in a path is written ".S" and each key ends in "/.ATTRIBUTES/VARIABLE_VALUE";
``tf.train.load_checkpoint(prefix)`` reads every tensor with numpy. Checkpoints without an optimizer (the best one of a
run, an exported one) lack ``optimizer`` and ``training``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import tensorflow as tf

FORMAT_VERSION = 1
MODEL, AVERAGE, OPTIMIZER, TRAINING = "model", "average", "optimizer", "training"
FORMAT, STEP = "format", "step"

_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


def variables_by_path(variables: Iterable[Any]) -> dict[str, tf.Variable]:
    """Keras path -> tf.Variable; a path that occurs again gets "#2", "#3", ... in the order of creation.

    The seeds of random layers are left out: they are no part of what was learned.
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


def make_checkpoint(step: tf.Variable, **sections: Mapping[str, Any]) -> tf.train.Checkpoint:
    """The trackable object of a checkpoint.

    Args:
        step: int64 scalar.
        **sections: ``model``, ``average``, ``optimizer``, ``training``: key -> variable. Empty ones are left out.
    """
    version = tf.Variable(FORMAT_VERSION, dtype=tf.int32, trainable=False, name="format")
    kept = {name: dict(section) for name, section in sections.items() if section}
    return tf.train.Checkpoint(**{FORMAT: version, STEP: step, **kept})


def stored_key(section: str, path: str = "") -> str:
    """The key of a tensor in the files: inverse of ``parse_key``."""
    escaped = path.replace(".", "..").replace("/", ".S")
    return (f"{section}/{escaped}" if path else section) + _SUFFIX


def parse_key(key: str) -> tuple[str, str] | None:
    """(section, path) of a stored tensor, path "" for a scalar of the root; None for TensorFlow's own entries."""
    if not key.endswith(_SUFFIX):
        return None
    section, _, escaped = key.removesuffix(_SUFFIX).partition("/")
    return section, re.sub(r"\.([.S])", lambda match: "/" if match[1] == "S" else ".", escaped)
