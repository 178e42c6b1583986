"""Writes a frozen graph as a SavedModel with the Object Detection API's signature.

What it writes loads in a process that knows TensorFlow alone; both ways of calling it that the original API's users
have in their code work: ``loaded(images)`` and ``loaded.signatures["serving_default"](input_tensor=images)``. A
detector that classifies given regions takes them as ``loaded(images, proposals)``, or by the name ``proposals``.
"""

from __future__ import annotations

import contextlib
import logging
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from detzoo.contracts import Tensor
from detzoo.serving.frozen import FrozenGraph

SIGNATURE = "serving_default"

# Filters from this size on are variables, smaller ones constants of the graph. A constant is a little faster (its
# layout for the kernel is made once) but the runtime holds four to five copies of it. Memory above the import of
# TensorFlow: SSD MobileNet v2 300 takes 117 MiB so, 179 MiB with 500 kB; ResNet-50 at 640 x 640 takes 1.87 GB with
# constants only, 257 MB with variables. Latency of MobileNet v2 alone: 19.4 ms so, 17.7 ms with 500 kB, 16.1 ms with
# constants only.
MIN_VARIABLE_BYTES = 40_000


def write_saved_model(frozen: FrozenGraph, input_specs: Sequence[tf.TensorSpec], folder: str | pathlib.Path) -> None:
    """Writes ``folder``/saved_model.pb and what belongs to it.

    Args:
        frozen: the graph.
        input_specs: shape, type and name of each of its inputs.
        folder: created where it does not exist.
    """

    filters, graph_def = _take_out_filters(frozen)
    names = list(filters)
    variables = [tf.Variable(filters[name], trainable=False, name=name) for name in names]

    def detect(*inputs: Tensor) -> dict[str, Tensor]:
        given = {f"{name}:0": variable.read_value() for name, variable in zip(names, variables)}
        tensors = tf.graph_util.import_graph_def(
            graph_def,
            input_map={**dict(zip(frozen.input_names, inputs, strict=True)), **given},
            return_elements=list(frozen.output_names.values()),
            name="",
        )
        return dict(zip(frozen.output_names, tensors))

    module: Any = tf.Module(name="detector")
    module.filters = variables
    # As an attribute of that name, the function is what a call of the loaded object runs.
    module.__call__ = tf.function(detect, input_signature=list(input_specs))
    options = tf.saved_model.SaveOptions(save_debug_info=False)
    with quiet_saver():
        tf.saved_model.save(module, str(folder), signatures={SIGNATURE: module.__call__}, options=options)


def _take_out_filters(frozen: FrozenGraph) -> tuple[dict[str, np.ndarray], Any]:
    """The large float constants by node name, and the graph without these nodes."""
    filters: dict[str, np.ndarray] = {}
    graph_def = tf.compat.v1.GraphDef()
    graph_def.versions.CopyFrom(frozen.graph_def.versions)
    graph_def.library.CopyFrom(frozen.graph_def.library)
    for node in frozen.graph_def.node:
        if node.op == "Const" and node.attr["value"].tensor.ByteSize() >= MIN_VARIABLE_BYTES:
            filters[node.name] = tf.make_ndarray(node.attr["value"].tensor)
        else:
            graph_def.node.append(node)
    return filters, graph_def


@contextlib.contextmanager
def quiet_saver() -> Iterator[None]:
    """Without the saver's notes on names that it changes and files that it writes."""
    loggers = [logging.getLogger(name) for name in ("tensorflow", "absl")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)
