"""Cuts an exported graph at the ends of its stages and times the parts.

Each part is a function of results of earlier parts. The suppression of proposals belongs to the first stage of a
two-stage detector. The head that draws masks of detections belongs to the network, although it runs after the boxes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from detzoo.benchmark.measures import COUNTED_STAGES, Stages
from detzoo.layers.stage_end import FEATURES
from detzoo.serving.frozen import FrozenGraph, node_of, reach, take_out_constants
from detzoo.serving.given_regions import inputs_of
from detzoo.serving.image_detector import MASKS_OUTPUT
from detzoo.serving.served import NETWORK_INPUT, NETWORK_OUTPUTS, PROPOSALS, REGION_MAP

# The parts in their order; a graph has those whose ends it names.
PREPROCESS, EXTRACTOR, FIRST_STAGE = "preprocess", "extractor", "first_stage"
NETWORK, BOXES, MASKS = "network", "boxes", "masks"
WHOLE = "whole"  # the only part of a graph that names no stages

# XLA's resizing gives other pixels than the kernel's, so XLA does not get the preprocessing.
NEVER_COMPILED = (PREPROCESS,)


class Outputs(NamedTuple):
    """Tensor names in a graph that names its stages."""

    preprocess: str
    network: list[str]  # inputs of post-processing, except the images' sizes
    proposals: list[str]  # the proposals among these, if a second stage follows
    features: list[str]  # inputs of the heads; [] in exports of earlier versions


class Part(NamedTuple):
    """The operations of one stage that no earlier stage has."""

    name: str
    nodes: list[Any]  # tf.compat.v1.NodeDef, in the order of the graph
    inputs: list[str]  # tensor names: outputs of earlier parts, and the graph's inputs
    outputs: list[str]  # tensor names that later parts or the caller read


def find_outputs(frozen: FrozenGraph) -> Outputs | None:
    """Finds the ends of the stages of an exported graph; None if the graph does not name them."""
    by_suffix = {node.name.rsplit("/", 1)[-1]: node.name + ":0" for node in frozen.graph_def.node}

    def named(prefix: str) -> list[str]:
        return [full_name for name, full_name in by_suffix.items() if name.startswith(prefix)]

    ends = [by_suffix[name] for name in NETWORK_OUTPUTS if name in by_suffix]
    proposals = [by_suffix[name] for name in PROPOSALS if name in by_suffix]
    if NETWORK_INPUT not in by_suffix or not ends + proposals:
        return None
    network = ends + proposals + named(REGION_MAP)
    return Outputs(by_suffix[NETWORK_INPUT], network, proposals if ends else [], named(FEATURES))


def split(frozen: FrozenGraph) -> list[Part]:
    """Returns the parts of a graph in their order; one part if the graph does not name its stages."""
    ends = _ends(frozen)
    order = {node.name: node for node in frozen.graph_def.node}
    sources = {name: [node_of(tensor) for tensor in _data_inputs(node)] for name, node in order.items()}
    owner: dict[str, int] = {}
    for number, (_, tensors) in enumerate(ends):
        for name in reach(sources, map(node_of, tensors)):
            owner.setdefault(name, number)
    input_nodes = set(map(node_of, frozen.input_names))
    # Every part that reads a small constant gets a copy, because shapes must be known within a part.
    constants = {name for name, node in order.items() if node.op == "Const"}
    parts: list[Part] = []
    final = set(frozen.output_names.values())
    inputs: list[set[str]] = [set() for _ in ends]
    own: list[set[str]] = [set() for _ in ends]
    for name, number in owner.items():
        if name in input_nodes:
            continue
        own[number].add(name)
        for tensor in _data_inputs(order[name]):
            source = node_of(tensor)
            if source in constants:
                own[number].add(source)
            elif source not in order:
                continue  # a weight
            elif source in input_nodes or owner[source] != number:
                inputs[number].add(tensor)
    for number, (part, _) in enumerate(ends):
        read_later = set().union(final, *inputs[number + 1 :])
        outputs = sorted(tensor for tensor in read_later if owner.get(node_of(tensor)) == number)
        nodes = [node for name, node in order.items() if name in own[number]]
        parts.append(Part(part, nodes, sorted(inputs[number]), [x for x in outputs if node_of(x) not in input_nodes]))
    return [part for part in parts if part.outputs]


def _ends(frozen: FrozenGraph) -> list[tuple[str, list[str]]]:
    outputs = find_outputs(frozen)
    everything = list(frozen.output_names.values())
    if outputs is None:
        return [(WHOLE, everything)]
    boxes = [name for output, name in frozen.output_names.items() if output != MASKS_OUTPUT]
    ends = [(PREPROCESS, [outputs.preprocess])]
    if outputs.features:
        ends.append((EXTRACTOR, outputs.features))
    if outputs.proposals:
        ends.append((FIRST_STAGE, outputs.proposals))
    ends += [(NETWORK, outputs.network), (BOXES, boxes)]
    return [*ends, (MASKS, everything)] if MASKS_OUTPUT in frozen.output_names else ends


def _data_inputs(node: Any) -> list[str]:
    """Returns the tensor names of a node's inputs without control inputs, such as checks that run before it."""
    return [name if ":" in name else f"{name}:0" for name in node.input if not name.startswith("^")]


class PartFunction:
    """A part as a function of a dict of tensors by name; a part that XLA refuses runs without it.

    ``library`` has the graph's functions; ``weights`` are large constants by tensor name, shared by all parts.
    """

    def __init__(self, part: Part, library: Any, weights: Mapping[str, Any], jit_compile: bool = False) -> None:
        self.part = part
        self.is_compiled = jit_compile
        self.refusal = ""  # why XLA did not compile it
        self._graph_def = tf.compat.v1.GraphDef(library=library)
        for node in part.nodes:
            copied = self._graph_def.node.add()
            copied.CopyFrom(node)
            copied.input[:] = _data_inputs(node)
        read = {name for node in self._graph_def.node for name in node.input}
        self._weights = {name: variable for name, variable in weights.items() if name in read}
        self._function = self._traced(jit_compile)

    def __call__(self, values: dict[str, Any]) -> None:
        """Adds the part's outputs to the values."""
        given = [values[name] for name in self.part.inputs]
        try:
            found = self._function(*given)
        except (tf.errors.OpError, ValueError, TypeError) as problem:
            if not self.is_compiled:
                raise
            self.is_compiled = False
            self.refusal = str(problem).strip().splitlines()[0][:300]
            self._function = self._traced(jit_compile=False)
            found = self._function(*given)
        values.update(zip(self.part.outputs, found))

    def _traced(self, jit_compile: bool) -> Any:
        # Changing dimensions stay undefined, as in the signature of an export; XLA requires all of them.
        return tf.function(
            self._compute, jit_compile=jit_compile or None, reduce_retracing=not jit_compile, autograph=False
        )

    def _compute(self, *given: Any) -> list[Any]:
        mapped = {name: variable.read_value() for name, variable in self._weights.items()}
        mapped.update(zip(self.part.inputs, given))
        return tf.graph_util.import_graph_def(
            self._graph_def, input_map=mapped, return_elements=self.part.outputs, name=""
        )


class Chain:
    """A graph as a chain of its parts, which share large constants as variables.

    Attributes:
        light: The graph without its large constants.
        weights: Variables with the values of these constants, by tensor name.
        parts: The parts in their order.
    """

    def __init__(self, frozen: FrozenGraph, jit_compile: bool = False) -> None:
        self.light, constants = take_out_constants(frozen)
        self.weights = {name: tf.Variable(value, trainable=False) for name, value in constants.items()}
        self.parts = split(self.light)
        library = self.light.graph_def.library
        self._functions = [
            PartFunction(part, library, self.weights, jit_compile and part.name not in NEVER_COMPILED)
            for part in self.parts
        ]

    @property
    def compiled(self) -> list[str]:
        """The parts that XLA compiled; valid after the first call."""
        return [function.part.name for function in self._functions if function.is_compiled]

    @property
    def refusal(self) -> str:
        """The reason why XLA did not compile a part, "" if it compiled all."""
        return next((function.refusal for function in self._functions if function.refusal), "")

    def __call__(self, given: Any) -> dict[str, Any]:
        """Returns all outputs."""
        values = dict(zip(self.light.input_names, inputs_of(given)))
        for function in self._functions:
            function(values)
        return {output: values[name] for output, name in self.light.output_names.items()}

    def timed(self, given: Any) -> dict[str, float]:
        """Returns the seconds of each part until its outputs are there."""
        values = dict(zip(self.light.input_names, inputs_of(given)))
        seconds = {}
        for function in self._functions:
            started = time.perf_counter()
            function(values)
            wait(values[name] for name in function.part.outputs)
            seconds[function.part.name] = time.perf_counter() - started
        return seconds


def time_stages(
    chain: Chain, next_input: Callable[[], Any], warmup: int, runs: int, latency_ms: float
) -> Stages | None:
    """Divides the latency among the parts of a graph; None if the graph does not name its stages.

    ``next_input`` returns a different input for each run; ``latency_ms`` is the median of the whole call.
    """
    if chain.parts[0].name == WHOLE:
        return None
    for _ in range(warmup):
        chain.timed(next_input())
    timed = [chain.timed(next_input()) for _ in range(runs)]
    return stages_of({name: 1000.0 * float(np.median([run[name] for run in timed])) for name in timed[0]}, latency_ms)


def stages_of(parts_ms: Mapping[str, float], latency_ms: float) -> Stages:
    """Returns the stages as they are reported, from the time of each part.

    Separate calls of the parts take some tenths of a millisecond longer each, so they only determine how the latency is
    divided.
    """
    one_by_one_ms = sum(parts_ms.values())
    milliseconds = {name: part_ms * latency_ms / one_by_one_ms for name, part_ms in parts_ms.items()}

    def total(*names: str) -> float:
        return sum(milliseconds.get(name, 0.0) for name in names)

    has_two_stages = FIRST_STAGE in milliseconds
    return Stages(
        milliseconds.get(PREPROCESS, 0.0),
        total(EXTRACTOR, FIRST_STAGE, NETWORK, MASKS),
        milliseconds.get(BOXES, 0.0),
        milliseconds.get(EXTRACTOR),
        total(EXTRACTOR, FIRST_STAGE) if has_two_stages else None,
        total(NETWORK) if has_two_stages else None,
        milliseconds.get(MASKS),
        one_by_one_ms,
    )


def multiply_adds_of(counts: Mapping[str, int]) -> dict[str, int | None]:
    """Returns multiply-adds by stage, from those of each part; None for a stage that the graph lacks or does not name.

    One-stage detectors have ``extractor`` and ``heads``, two-stage detectors ``first_stage`` (with the extractor),
    ``second_stage`` and ``masks``. Preprocessing counts to the first of these, post-processing to the last.
    """
    found: dict[str, int | None] = dict.fromkeys(COUNTED_STAGES)
    if WHOLE in counts:
        return found
    start, rest = counts.get(PREPROCESS, 0), counts.get(NETWORK, 0) + counts.get(BOXES, 0)
    if EXTRACTOR in counts:
        found["extractor"] = start + counts[EXTRACTOR]
    if FIRST_STAGE in counts:
        found["first_stage"] = start + counts.get(EXTRACTOR, 0) + counts[FIRST_STAGE]
        found["second_stage"] = rest
    elif EXTRACTOR in counts:
        found["heads"] = rest
    if MASKS in counts:
        found["masks"] = counts[MASKS]
    return found


def wait(tensors: Iterable[Any]) -> None:
    """Waits for values; on a GPU, a call returns before it has finished."""
    for tensor in tensors:
        if isinstance(tensor, tf.Tensor) and "GPU" in tensor.device:
            tf.reshape(tensor, [-1])[:1].numpy()
