"""Times a SavedModel, as a whole and by stage: resizing and normalising, network, post-processing."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from detzoo.detectors.frozen import FrozenGraph
from detzoo.detectors.serving import NETWORK_INPUT, NETWORK_OUTPUTS


class Latency(NamedTuple):
    """Milliseconds a call, over all runs."""

    median_ms: float
    p10_ms: float
    p90_ms: float
    mean_ms: float
    num_runs: int


class Stages(NamedTuple):
    """Median milliseconds of each part of a call."""

    preprocess_ms: float
    network_ms: float
    postprocess_ms: float


def time_call(call: Callable[[], Any], warmup: int, runs: int) -> Latency:
    """Times a call that ends when its result is in memory."""
    for _ in range(warmup):
        _wait(call())
    return summarize([_timed(call) for _ in range(runs)])


def time_alternately(calls: Sequence[Callable[[], Any]], warmup: int, runs: int) -> list[Latency]:
    """Times several calls in turn, so that a busy moment of the machine meets them all."""
    for call in calls:
        for _ in range(warmup):
            _wait(call())
    seconds: list[list[float]] = [[] for _ in calls]
    for _ in range(runs):
        for call, found in zip(calls, seconds):
            found.append(_timed(call))
    return [summarize(found) for found in seconds]


def summarize(seconds: Sequence[float]) -> Latency:
    """The statistics of a list of durations."""
    milliseconds = 1000.0 * np.asarray(seconds)
    p10, median, p90 = (float(value) for value in np.percentile(milliseconds, (10, 50, 90)))
    return Latency(median, p10, p90, float(milliseconds.mean()), len(seconds))


def time_stages(frozen: FrozenGraph, given: Any, warmup: int, runs: int) -> Stages | None:
    """Times an exported graph cut behind each stage; None for a graph that does not name its stages.

    Args:
        frozen: of a SavedModel made by `detzoo export`.
        given: input for its signature.
        warmup: runs before the clock starts.
        runs: runs of each cut.
    """
    by_suffix = {node.name.rsplit("/", 1)[-1]: node.name + ":0" for node in frozen.graph_def.node}
    if not {NETWORK_INPUT, *NETWORK_OUTPUTS} <= set(by_suffix):
        return None
    network_outputs = [by_suffix[name] for name in NETWORK_OUTPUTS]
    network = _cut(frozen, {}, given, network_outputs)
    # Post-processing alone, fed with what the network gave: the difference of two long times would drown it in noise.
    # It needs the images' sizes, so it comes with another preprocessing.
    after_network = _cut(frozen, dict(zip(network_outputs, network(given))), given, list(frozen.output_names.values()))
    preprocess = _cut(frozen, {}, given, [by_suffix[NETWORK_INPUT]])
    calls = [functools.partial(function, given) for function in (preprocess, network, after_network)]
    pre_ms, to_outputs_ms, pre_and_post_ms = (one.median_ms for one in time_alternately(calls, warmup, runs))
    return Stages(pre_ms, max(0.0, to_outputs_ms - pre_ms), max(0.0, pre_and_post_ms - pre_ms))


def _cut(frozen: FrozenGraph, known: dict[str, Any], given: Any, wanted: Sequence[str]) -> Any:
    """The part of a graph that the wanted tensors need beside the known ones, as a function of its input."""

    def compute(inputs: Any, *values: Any) -> list[Any]:
        mapped = {frozen.input_name: inputs, **dict(zip(known, values))}
        return tf.graph_util.import_graph_def(frozen.graph_def, input_map=mapped, return_elements=list(wanted), name="")

    values = list(known.values())
    specs = [tf.TensorSpec(value.shape, value.dtype) for value in (given, *values)]
    function = tf.function(compute).get_concrete_function(*specs)
    return lambda inputs: function(inputs, *values)


def _timed(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    _wait(call())
    return time.perf_counter() - started


def _wait(result: Any) -> None:
    """Until every value is there: on a GPU, a call returns before it has finished."""
    for tensor in tf.nest.flatten(result):
        if isinstance(tensor, tf.Tensor) and "GPU" in tensor.device:
            tensor[..., :1].numpy()
