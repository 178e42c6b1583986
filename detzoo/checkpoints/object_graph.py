"""The graph of objects that a ``tf.train.Checkpoint`` stores with its tensors.

Every node is an object of the saving program. Its children have the names of the object's attributes (or the indices of
a list), and a variable is a node with a tensor. A variable is found by the names on the path to it, because the key of
its tensor depends on other saved objects.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping

from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import trackable_object_graph_pb2

GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
ROOT = 0
SLASH = ".S"  # "/" inside a name, as in the keys of tensors
_VALUE = "VARIABLE_VALUE"
# tf.keras numbers the layers with weights; in a list of layers the name is the index.
_NUMBERED = (re.compile(r"layer_with_weights-(\d+)"), re.compile(r"(\d+)"))


@dataclasses.dataclass(frozen=True)
class _Node:
    children: Mapping[str, int]
    key: str  # of its tensor, "" without one


class ObjectGraph:
    """Nodes by number; number 0 is the root."""

    def __init__(self, serialized: bytes) -> None:
        """Reads the tensor that checkpoints store under ``GRAPH_KEY``.

        Raises:
            ValueError: The tensor is no graph.
        """
        message = trackable_object_graph_pb2.TrackableObjectGraph()
        try:
            message.ParseFromString(serialized)
        except DecodeError:
            raise ValueError("its graph of objects cannot be read") from None
        self._nodes = [
            _Node(
                {child.local_name: child.node_id for child in node.children},
                next((attribute.checkpoint_key for attribute in node.attributes if attribute.name == _VALUE), ""),
            )
            for node in message.nodes
        ]

    def find(self, walk: str, start: int = ROOT) -> int | None:
        """Returns the node at a path of names joined by "/", None if there is none; "" is the start itself.

        "/" inside a name is written as ``SLASH``.
        """
        node: int | None = start
        for name in filter(None, walk.split("/")):
            node = self._nodes[node].children.get(name.replace(SLASH, "/")) if node is not None else None
        return node

    def children(self, node: int) -> Mapping[str, int]:
        """Returns name -> child."""
        return self._nodes[node].children

    def key(self, node: int) -> str:
        """Returns the key of a variable's tensor, "" for another object."""
        return self._nodes[node].key

    def variables(self, node: int) -> dict[str, str]:
        """Returns name -> key of the variables that are children of a node, such as a layer's weights."""
        children = self._nodes[node].children.items()
        return {name: self._nodes[child].key for name, child in children if self._nodes[child].key}

    def layers(self, node: int) -> list[dict[str, str]]:
        """Returns the variables of each layer of a model or list, in order, or those of the node itself, if any."""
        if self.variables(node):
            return [self.variables(node)]
        children = self._nodes[node].children.items()
        for pattern in _NUMBERED:
            matches = ((pattern.fullmatch(name), child) for name, child in children)
            numbered = {int(match[1]): self.variables(child) for match, child in matches if match}
            if numbered:
                return [numbered[number] for number in sorted(numbered) if numbered[number]]
        return []

    def keys_below(self, node: int) -> Iterator[str]:
        """Yields the keys of all variables below a node, each once, depth first."""
        seen, waiting = {node}, [node]
        while waiting:
            here = self._nodes[waiting.pop()]
            if here.key:
                yield here.key
            new = [child for child in here.children.values() if child not in seen]
            seen.update(new)
            waiting.extend(reversed(new))
