"""The graph of objects that a ``tf.train.Checkpoint`` stores beside its tensors, and how to walk it.

Every node is an object of the program that saved; its children have the names of that object's attributes (or the
places in a list); a variable is a node with a tensor. A variable is found by the names on the way to it, whatever key
its tensor has in the file: the keys depend on what else was saved.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping

from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import trackable_object_graph_pb2

GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
ROOT = 0
_VALUE = "VARIABLE_VALUE"
# tf.keras numbers the layers that have weights; in a list of layers the name is the place.
_NUMBERED = (re.compile(r"layer_with_weights-(\d+)"), re.compile(r"(\d+)"))


@dataclasses.dataclass(frozen=True)
class _Node:
    children: Mapping[str, int]
    key: str  # of its tensor, "" where it has none


class ObjectGraph:
    """Nodes by number; number 0 is the root."""

    def __init__(self, serialized: bytes) -> None:
        """Reads the tensor that checkpoints store under ``GRAPH_KEY``.

        Raises:
            ValueError: it is not a graph.
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
        """The node at the end of names joined by "/", None where the way breaks off; "" is the start itself."""
        node: int | None = start
        for name in filter(None, walk.split("/")):
            node = self._nodes[node].children.get(name) if node is not None else None
        return node

    def children(self, node: int) -> Mapping[str, int]:
        """Name -> node."""
        return self._nodes[node].children

    def key(self, node: int) -> str:
        """The key of a variable's tensor, "" for another object."""
        return self._nodes[node].key

    def variables(self, node: int) -> dict[str, str]:
        """Name -> key of the variables right below a node: for a layer, its weights."""
        children = self._nodes[node].children.items()
        return {name: self._nodes[child].key for name, child in children if self._nodes[child].key}

    def layers(self, node: int) -> list[dict[str, str]]:
        """The variables of each layer of a model or a list that has any, in its order; the node itself if it has."""
        if self.variables(node):
            return [self.variables(node)]
        for pattern in _NUMBERED:
            numbered = {}
            for name, child in self._nodes[node].children.items():
                match = pattern.fullmatch(name)
                if match:
                    numbered[int(match[1])] = self.variables(child)
            if numbered:
                return [numbered[number] for number in sorted(numbered) if numbered[number]]
        return []

    def keys_below(self, node: int) -> Iterator[str]:
        """The keys of all variables that can be reached from a node, each once, in the order of the walk."""
        seen, waiting = {node}, [node]
        while waiting:
            here = self._nodes[waiting.pop()]
            if here.key:
                yield here.key
            new = [child for child in here.children.values() if child not in seen]
            seen.update(new)
            waiting.extend(reversed(new))
