"""Times a SavedModel, as a whole and by stage: resizing and normalising, network, post-processing.

The network of a detector with two stages is timed in parts as well. The suppression of proposals belongs to its first
stage, and the head that draws masks in what was detected belongs to the network, although it runs after the boxes.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from detzoo.detectors.frozen import FrozenGraph
from detzoo.detectors.saved_detector import MASKS_OUTPUT
from detzoo.detectors.serving import NETWORK_INPUT, NETWORK_OUTPUTS, PROPOSALS, REGION_MAP


class Latency(NamedTuple):
    """Milliseconds a call, over all runs."""

    median_ms: float
    p10_ms: float
    p90_ms: float
    mean_ms: float
    num_runs: int


class Stages(NamedTuple):
    """Median milliseconds of each part of a call, and of each part of the network where it has parts."""

    preprocess_ms: float
    network_ms: float
    postprocess_ms: float
    first_stage_ms: float | None = None  # of a detector with two stages: from normalised images to proposals
    second_stage_ms: float | None = None  # from proposals to what is in them
    masks_ms: float | None = None  # of a detector with masks: from boxes to their masks


class Outputs(NamedTuple):
    """Tensor names in a graph that names its stages."""

    preprocess: str
    network: list[str]  # all that post-processing reads, but for the images' sizes
    proposals: list[str]  # those of them that a first stage gives, where a second one follows


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


def find_outputs(frozen: FrozenGraph) -> Outputs | None:
    """Where the stages of an exported graph end; None for a graph that does not say so."""
    by_suffix = {node.name.rsplit("/", 1)[-1]: node.name + ":0" for node in frozen.graph_def.node}
    ends = [by_suffix[name] for name in NETWORK_OUTPUTS if name in by_suffix]
    proposals = [by_suffix[name] for name in PROPOSALS if name in by_suffix]
    maps = [full_name for name, full_name in by_suffix.items() if name.startswith(REGION_MAP)]
    if NETWORK_INPUT not in by_suffix or not ends + proposals:
        return None
    return Outputs(by_suffix[NETWORK_INPUT], ends + proposals + maps, proposals if ends else [])


def time_stages(frozen: FrozenGraph, given: Any, warmup: int, runs: int) -> Stages | None:
    """Times an exported graph cut behind each stage; None for a graph that does not name its stages.

    Args:
        frozen: of a SavedModel made by `detzoo export`.
        given: input for its signature.
        warmup: runs before the clock starts.
        runs: runs of each cut.
    """
    outputs = find_outputs(frozen)
    if outputs is None:
        return None
    network = _cut(frozen, {}, given, outputs.network)
    # Post-processing alone, fed with what the network gave: the difference of two long times would drown it in noise.
    # It needs the images' sizes, which may or may not take a preprocessing to know; asking for its result as well makes
    # sure that there is one to subtract.
    known = dict(zip(outputs.network, network(given)))
    found = [name for output, name in frozen.output_names.items() if output != MASKS_OUTPUT]
    functions = {
        "preprocess": _cut(frozen, {}, given, [outputs.preprocess]),
        "network": network,
        "boxes": _cut(frozen, known, given, [outputs.preprocess, *found]),
    }
    if outputs.proposals:
        functions["proposals"] = _cut(frozen, {}, given, outputs.proposals)
    if MASKS_OUTPUT in frozen.output_names:
        functions["masks"] = _cut(frozen, known, given, [outputs.preprocess, *frozen.output_names.values()])
    calls = [functools.partial(function, given) for function in functions.values()]
    timed = time_alternately(calls, warmup, runs)
    return _stages({name: latency.median_ms for name, latency in zip(functions, timed)})


def _stages(until: dict[str, float]) -> Stages:
    """The parts, from the milliseconds until the end of each: "boxes" and "masks" with another preprocessing."""

    def between(start: str, end: str) -> float | None:
        return max(0.0, until[end] - until[start]) if start in until and end in until else None

    masks_ms = between("boxes", "masks")
    return Stages(
        until["preprocess"],
        (between("preprocess", "network") or 0.0) + (masks_ms or 0.0),
        between("preprocess", "boxes") or 0.0,
        between("preprocess", "proposals"),
        between("proposals", "network"),
        masks_ms,
    )


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
