"""Describes a backbone before it is built: a graph of stock layers, and the source of its maps and weights.

Each family's module (``mobilenet``, ``resnet``, ...) returns a ``Network``; ``detzoo.features.rewrite`` turns it into a
Keras model with the configuration's hyperparameters, and ``detzoo.features.pretrained`` loads its weights.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

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


@dataclasses.dataclass(frozen=True)
class Application:
    """The network of ``keras.applications`` that provides a backbone's ImageNet weights."""

    # Function of ``weights`` ("imagenet" or None) that builds the model without its classifier.
    build: Callable[..., keras.Model]
    # True if the weights expect channels in BGR order, as Caffe's did; the first kernel is reversed.
    expects_bgr: bool = False
    # The same network with its classifier, if the backbone takes weights from the classifier, too.
    with_classifier: Application | None = None
    # Function that changes the weights (layer's name -> variable's name -> value) in place into those of our layers.
    convert: Callable[[dict[str, dict[str, np.ndarray]]], None] = lambda weights: None


@dataclasses.dataclass(frozen=True)
class Network:
    """A classification network without its classifier."""

    graph: keras.Model  # model of stock Keras layers, each called once. Its weights have no values, so it is never run.
    # Level to the name of the layer in ``graph`` whose output is the map of stride 2**level.
    endpoints: Mapping[int, str]
    hyperparams: ConvHyperparams  # hyperparameters of the family, if the configuration does not override them
    two_stage_hyperparams: ConvHyperparams | None = None  # those in two-stage detectors; None for the same
    application: Application | None = None  # twin of the network in ``keras.applications``, or None
    keeps_padding: bool = False  # pads as the graph does, instead of "same" everywhere; its strides cannot change
    explicit_padding: bool = False  # pads strided convolutions by the kernel's reach, independent of the map's size
    # Function of a convolution's name and its channels; returns the number of channels to build.
    filters: Callable[[str, int], int] = lambda name, filters: filters
    # True if the activations of the graph stay and its biases are not regularized.
    keeps_activations: bool = False


def symbolic(build: Callable[[], Built]) -> Built:
    """Returns what ``build`` returns, without values for its weights: fast, and without memory.

    ``build`` runs in a separate thread. Keras keeps the list of uninitialized variables, and the counters of automatic
    layer names, per thread; both end with the thread.
    """

    def build_without_values() -> Built:
        with keras.StatelessScope(initialize_variables=False):
            return build()

    with concurrent.futures.ThreadPoolExecutor(max_workers=1) as executor:
        return executor.submit(build_without_values).result()


def producer_of(model: keras.Model, tensor: Any) -> keras.layers.Layer:
    """Returns the layer of a functional model whose output is ``tensor``."""
    return next(layer for layer in model.layers if layer.output is tensor)


def stable_names(graph: keras.Model) -> dict[str, str]:
    """Returns the name of each layer of ``graph`` -> its name in detzoo.

    A chosen name stays. An automatic name (``conv2d_95``) depends on all layers that the process has built, so it is
    replaced by the layer's number among the layers of its kind in the order of creation (``conv_1``).
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
