"""Two checkpoints whose models share a backbone -> one checkpoint of the model that has the parts of both."""

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
    """The variables of both, moving averages where there are any.

    Args:
        first: A checkpoint, as ``restore_for_inference`` takes it.
        second: Another.
        shared_parts: Parts of the model (first component of a variable's path) that both have, with equal values.

    Returns:
        path -> value.

    Raises:
        CheckpointError: One cannot be read, the shared parts are not identical, or the others overlap.
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
    """Writes ``ckpt-<step>`` without an optimizer, what ``evaluate`` and ``export`` read; gives its prefix.

    Args:
        folder: Where; its file ``checkpoint`` will name this one.
        step: Training steps that made the weights.
        weights: path -> value of every variable of a model.
    """
    steps = tf.Variable(step, dtype=tf.int64, trainable=False)
    variables = {path: tf.Variable(value, trainable=False) for path, value in weights.items()}
    manager = tf.train.CheckpointManager(make_checkpoint(steps, model=variables), str(folder), max_to_keep=None)
    return manager.save(checkpoint_number=step)
