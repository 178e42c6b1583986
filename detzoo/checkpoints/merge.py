"""Merges two checkpoints with a common backbone into a checkpoint of the model with the parts of both."""

from __future__ import annotations

import pathlib
from collections.abc import Collection, Mapping

import numpy as np
import tensorflow as tf

from detzoo.checkpoints.files import open_checkpoint
from detzoo.checkpoints.layout import MODEL, make_checkpoint
from detzoo.checkpoints.restore import part_of
from detzoo.errors import CheckpointError

_SHOWN = 3  # examples of variables named in a message


def merge_checkpoints(
    first: str | pathlib.Path, second: str | pathlib.Path, shared_parts: Collection[str]
) -> dict[str, np.ndarray]:
    """Returns path -> value of the variables of both, or of their moving averages, if stored.

    Args:
        first: Path of a checkpoint, as in ``restore_for_inference``.
        second: Path of the other.
        shared_parts: Parts of the model (first component of a variable's path) that both have, with equal values.

    Raises:
        CheckpointError: One cannot be read, the shared parts differ, or other parts overlap.
    """
    weights = []
    for path in (first, second):
        stored = open_checkpoint(path)
        weights.append({name: stored.read_weights(name, prefer_average=True) for name in stored.paths(MODEL)})
    one, two = weights
    shared = [name for name in {**one, **two} if part_of(name) in shared_parts]
    different = [n for n in shared if n not in one or n not in two or not np.array_equal(one[n], two[n])]
    if different:
        raise CheckpointError(
            f"{first} and {second} do not share their {' and '.join(shared_parts)}: {len(different)} of {len(shared)} "
            f"variables differ, such as {', '.join(different[:_SHOWN])}. The later ones must be trained with these "
            "frozen, from the same weights"
        )
    twice = [name for name in one if name in two and name not in shared]
    if twice:
        raise CheckpointError(f"both {first} and {second} have {', '.join(twice[:_SHOWN])}: which one to take?")
    return {**one, **two}


def save_weights(folder: str | pathlib.Path, step: int, weights: Mapping[str, np.ndarray]) -> str:
    """Writes ``ckpt-<step>`` without an optimizer, for ``evaluate`` and ``export``. Returns its prefix.

    Args:
        folder: Folder, whose file ``checkpoint`` will name the new checkpoint.
        step: Number of training steps behind the weights.
        weights: Path -> value of every variable of a model.
    """
    steps = tf.Variable(step, dtype=tf.int64, trainable=False)
    variables = {path: tf.Variable(value, trainable=False) for path, value in weights.items()}
    manager = tf.train.CheckpointManager(make_checkpoint(steps, model=variables), str(folder), max_to_keep=None)
    return manager.save(checkpoint_number=step)
