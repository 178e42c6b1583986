"""The named parts of a detector (backbone, neck, head, ...), found by the paths of their variables, and the summary."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import keras

from detzoo.errors import UsageError


@dataclasses.dataclass(eq=False)
class Part:
    """Part of a detector: a view of layers, which belong to the detector's networks."""

    name: str  # First component of the paths of the part's variables, e.g. "backbone".
    # Layers with variables, in the order of the graph.
    layers: list[keras.layers.Layer] = dataclasses.field(default_factory=list)
    # Shapes of the tensors that other parts or the detector read; None for an unknown size.
    output_shapes: list[tuple[int | None, ...]] = dataclasses.field(default_factory=list)

    @property
    def variables(self) -> list[Any]:
        """Keras variables of the part, without the states of random layers."""
        found = {id(variable): variable for layer in self.layers for variable in layer.weights}
        return list(found.values())

    @property
    def trainable_variables(self) -> list[Any]:
        """Keras variables that train."""
        return [variable for variable in self.variables if variable.trainable]

    def count_params(self) -> int:
        """Returns the number of parameters."""
        return _count(self.variables)

    @property
    def trainable(self) -> bool:
        """True if a layer of the part trains. Setting it sets every layer; compile the detector again afterwards."""
        return any(layer.trainable for layer in self.layers)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        for layer in self.layers:
            layer.trainable = value


def part(name: str) -> Any:
    """Returns a property of a detector: its part of this name.

    It is no attribute, because Keras and ``tf.train.Checkpoint`` name variables in files by attributes.
    """

    def find(detector: Any) -> Part:
        parts = find_parts(detector)
        if name not in parts:
            raise UsageError(f"{detector.name} has no {name}; its parts: {', '.join(parts)}")
        return parts[name]

    return property(find, doc=f"Part ``{name}``: layers, variables, ``trainable``.")


def find_parts(detector: Any) -> dict[str, Part]:
    """Returns the parts of a detector that have variables, by name, in the order of the graph."""
    parts: dict[str, Part] = {}
    for network in detector.layers:
        for model in _single_graphs(network):
            _add_parts(model, parts)
    return {name: found for name, found in parts.items() if found.layers}


def print_summary(detector: Any, print_fn: Any = None, expand_nested: bool = False) -> None:
    """Prints the parts of a detector, with output shapes and numbers of parameters.

    Args:
        detector: Built detector.
        print_fn: Function of a text; ``print`` if None.
        expand_nested: Print Keras's summary of each network, too.
    """
    rows = [("Part", "Output shape", "Parameters", "Trainable")]
    for found in find_parts(detector).values():
        shape, *others = list(dict.fromkeys(map(str, found.output_shapes))) or [""]
        rows.append((found.name, shape, f"{found.count_params():,}", f"{_count(found.trainable_variables):,}"))
        rows += [("", other, "", "") for other in others]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, tuple("-" * width for width in widths))  # type: ignore[arg-type]
    lines = [f'Model: "{detector.name}" ({type(detector).__name__})']
    for name, shape, *counts in rows:
        cells = [name.ljust(widths[0]), shape.ljust(widths[1]), *map(str.rjust, counts, widths[2:])]
        lines.append("  ".join(cells).rstrip())
    total, trained = _count(detector.weights), _count(detector.trainable_weights)
    lines += [f"Total parameters: {total:,}", f"Trainable: {trained:,}", f"Not trainable: {total - trained:,}"]
    (print_fn or print)("\n".join(lines))
    if expand_nested:
        for network in detector.layers:
            network.summary(print_fn=print_fn, expand_nested=True)


def _add_parts(model: Any, parts: dict[str, Part]) -> None:
    """Adds the layers of one graph to their parts. A layer without variables belongs to the part that it reads."""
    part_of: dict[int, str] = {}
    outputs: list[tuple[Any, str]] = [(tensor, "") for tensor in model.outputs]
    for operation in model.operations:
        inputs = [tensor for node in operation._inbound_nodes for tensor in node.input_tensors]
        inputs = [tensor for tensor in inputs if id(tensor._keras_history.operation) in part_of]
        own = list(_names_of(operation))
        if len(own) > 1:  # its own graph is read instead
            name = ""
        elif own:
            name = own[0]
        else:
            read = part_of[id(inputs[0]._keras_history.operation)] if inputs else ""
            name = (getattr(operation, "path", None) or read).split("/")[0]
        part_of[id(operation)] = name
        outputs += [(tensor, name) for tensor in inputs]
        found = parts.setdefault(name, Part(name))
        if len(own) == 1 and operation not in found.layers:
            found.layers.append(operation)
    for tensor, reader in outputs:
        name = part_of[id(tensor._keras_history.operation)]
        if name != reader:
            parts[name].output_shapes.append(tuple(tensor.shape))


def _names_of(operation: Any) -> Iterator[str]:
    """Yields the names of the parts of an operation's variables."""
    weights = getattr(operation, "weights", ())
    return iter(dict.fromkeys(weight.path.split("/")[0] for weight in weights))


def _single_graphs(model: Any) -> Iterator[Any]:
    """Yields a functional model, and those inside it that hold several parts."""
    yield model
    for operation in model.operations:
        if isinstance(operation, keras.Model) and len(list(_names_of(operation))) > 1:
            yield from _single_graphs(operation)


def _count(variables: list[Any]) -> int:
    return sum(math.prod(variable.shape) for variable in variables)
