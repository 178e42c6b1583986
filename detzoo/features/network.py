"""What a backbone is before it is built: a graph of stock layers to read, and where its maps and weights come from.

Each family's module (``mobilenet``, ``resnet``, ...) returns a ``Network``; ``detzoo.features.rewrite`` turns it into a
Keras model with the configuration's hyperparameters, and ``detzoo.features.pretrained`` fills it.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import TypeVar

import keras
import numpy as np

from detzoo.contracts import ConvHyperparams

NATIVE_OUTPUT_STRIDE = 32  # of every classification network here

Built = TypeVar("Built")

_AUTOMATIC_NAME = re.compile(r"(?P<stem>conv2d|batch_normalization|activation|concatenate)(_(?P<number>\d+))?")
_STABLE_STEMS = {
    "conv2d": "conv",
    "batch_normalization": "batch_norm",
    "activation": "activation",
    "concatenate": "concatenate",
}


def keep_weights(weights: dict[str, dict[str, np.ndarray]]) -> None:
    """Leaves weights as they are."""


@dataclasses.dataclass(frozen=True)
class Application:
    """The network as ``keras.applications`` has it: the source of its ImageNet weights.

    Attributes:
        build: called with ``weights="imagenet"`` or ``weights=None``, gives the model without its classifier.
        expects_bgr: its weights want the channels in BGR order, as Caffe's did; the first kernel is turned for RGB.
        with_classifier: The same network with its classifier, if the backbone takes weights from the classifier, too.
        convert: Changes the weights (layer's name -> variable's name -> value) in place into those of our layers.
    """

    build: Callable[..., keras.Model]
    expects_bgr: bool = False
    with_classifier: Application | None = None
    convert: Callable[[dict[str, dict[str, np.ndarray]]], None] = keep_weights


def keep_filters(name: str, filters: int, multiplied_inputs: float) -> int:
    """The rule of a network without widths to scale: every convolution keeps its own number of channels."""
    del name, multiplied_inputs
    return filters


@dataclasses.dataclass(frozen=True)
class Network:
    """A classification network without its classifier.

    Attributes:
        graph: stock Keras layers, each called once. It is read, never run: its weights have no values.
        endpoints: level to the name of the layer in ``graph`` whose output is the map of stride 2**level.
        hyperparams: the family's own, used where the configuration does not override them.
        application: its twin in ``keras.applications``; None where there is none.
        explicit_padding: strided convolutions pad by the kernel's reach, whatever the size of the map.
        filters: (layer's name, its channels, factor by which its input was widened) to the channels to build.
        dropped_adds: names of additions that are left out; their last input takes their place.
    """

    graph: keras.Model
    endpoints: Mapping[int, str]
    hyperparams: ConvHyperparams
    application: Application | None = None
    explicit_padding: bool = False
    filters: Callable[[str, int, float], int] = keep_filters
    dropped_adds: frozenset[str] = frozenset()


def symbolic(build: Callable[[], Built]) -> Built:
    """Calls ``build`` so that no weight gets a value: fast, and without memory.

    It runs in a thread of its own: Keras keeps the list of variables that still want a value, and the counters behind
    automatic layer names, for each thread; here both vanish with it.
    """

    def build_without_values() -> Built:
        with keras.StatelessScope(initialize_variables=False):
            return build()

    with concurrent.futures.ThreadPoolExecutor(max_workers=1) as executor:
        return executor.submit(build_without_values).result()


def stable_names(graph: keras.Model) -> dict[str, str]:
    """Name of each layer of ``graph`` to the name that detzoo gives it.

    A chosen name stays. An automatic one (``conv2d_95``), which depends on what else the process has built, becomes
    the layer's number among those of its kind in the order of creation (``conv_1``).
    """
    automatic: dict[str, list[tuple[int, str]]] = {}
    names = {}
    for layer in graph.layers:
        match = _AUTOMATIC_NAME.fullmatch(layer.name)
        if match is None:
            names[layer.name] = layer.name
        else:
            automatic.setdefault(match["stem"], []).append((int(match["number"] or 0), layer.name))
    for stem, numbered in automatic.items():
        for position, (_, name) in enumerate(sorted(numbered)):
            names[name] = f"{_STABLE_STEMS[stem]}_{position}"
    return names
