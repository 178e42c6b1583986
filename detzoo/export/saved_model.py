"""Writes a frozen graph as a SavedModel with the Object Detection API's signature.

The SavedModel loads in a process that has TensorFlow alone. Both calls that the original API's users have in their code
work: ``loaded(images)`` and ``loaded.signatures["serving_default"](input_tensor=images)``. A detector that classifies
given regions takes them as ``loaded(images, proposals)``, or by the name ``proposals``.
"""

from __future__ import annotations

import contextlib
import logging
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from detzoo.contracts import Tensor
from detzoo.serving.frozen import FrozenGraph, node_of, outputs_of, take_out_constants
from detzoo.serving.saved_detector import SIGNATURE


def write_saved_model(frozen: FrozenGraph, input_specs: Sequence[tf.TensorSpec], folder: str | pathlib.Path) -> None:
    """Writes ``folder``/saved_model.pb and its variables; ``input_specs`` are shape, type and name of each input."""
    graph, constants = take_out_constants(frozen)
    # Each constant is released once it is a variable, because large ones exist in several copies during an export.
    filters = {name: tf.Variable(constants.pop(name), trainable=False, name=node_of(name)) for name in list(constants)}

    def detect(*inputs: Tensor) -> dict[str, Tensor]:
        return outputs_of(graph, inputs, filters)

    module: Any = tf.Module(name="detector")
    module.filters = list(filters.values())
    # A call of the loaded object runs the attribute of this name.
    module.__call__ = tf.function(detect, input_signature=list(input_specs), autograph=False)
    options = tf.saved_model.SaveOptions(save_debug_info=False)
    with quiet_saver():
        tf.saved_model.save(module, str(folder), signatures={SIGNATURE: module.__call__}, options=options)


@contextlib.contextmanager
def quiet_saver() -> Iterator[None]:
    """Suppresses the saver's messages about changed names and written files."""
    loggers = [logging.getLogger(name) for name in ("tensorflow", "absl")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)
