"""A network's graph, built anew: other batch norm, initializers, regularizers, activation, widths and output stride.

Reads a ``Network`` (usually one of ``keras.applications``) layer by layer and wires a layer of the same name for each
that lies before a wanted map, so that nothing behind the last map is built. The output stride is a transformation of
this walk: a stride that would go past it becomes 1, and all that follows is dilated by it.

Every layer pads to "same": the map of level l is ceil(size / 2**l) in both directions, so that maps of neighbouring
levels align. Differs from ``keras.applications``: Inception's "valid" paddings, and the explicit ones of MobileNets,
EfficientNets and of ResNet's max pooling, which are the same for some sizes (even, and odd).

References:
    Huang et al., arXiv:1611.10012, section 3.2.2 (output stride 16 and 8 by stride 1 and atrous convolution).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import keras

from detzoo.contracts import ConvHyperparams, Tensor
from detzoo.features.grouped_convolution import GroupedConv2D
from detzoo.features.network import NATIVE_OUTPUT_STRIDE, Network, stable_names
from detzoo.layers.activation import swish
from detzoo.layers.conv import kernel_regularizer, pad_explicitly
from detzoo.layers.normalization import batch_norm_from

MODEL_NAME = "backbone"
REGION_MODEL_NAME = "box_backbone"
ACTIVATION_SUFFIX = "_activation"  # of the activation that a convolution of the graph has inside
MIN_UNSTRIDED_POOL = 3  # SSD, section 3: pool5 goes from 2 x 2 with stride 2 to 3 x 3 with stride 1


class RegionStride(enum.Enum):
    """What the layers after a crop do with the strides that they have in classification."""

    STRIDED = "strided"  # keep them
    DENSE = "dense"  # stride 1
    DILATED = "dilated"  # stride 1, and dilation in what follows


class _Traced(NamedTuple):
    """A tensor of the new model, with what the walk knows of it."""

    tensor: Tensor
    stride: int  # pixels of the image between two neighbouring locations
    dilation: int  # strides that became 1 on the way here, multiplied
    widening: float  # channels built per channel of the graph


def build_extractor_model(
    network: Network,
    levels: Iterable[int],
    image_shape: tuple[int | None, int | None],
    hyperparams: ConvHyperparams,
    output_stride: int,
    explicit_padding: bool = False,
) -> keras.Model:
    """Builds the part of a network that computes some of its maps.

    Args:
        network: The graph and its endpoints.
        levels: Which endpoints, by their level in the network as it is (output stride 32).
        image_shape: (height, width) in pixels, None where it changes from image to image.
        hyperparams: Of all convolutions; normalisation applies where the network has one (and to VGG, which has none).
        output_stride: The most pixels between two locations of any map.
        explicit_padding: Strided convolutions pad by the reach of their kernel, whatever the size of the map.

    Returns:
        A functional model ``backbone``, its variables ``backbone/<layer>/<variable>``: normalised image
        [B, H, W, 3] -> dict of level to map [B, H_l, W_l, channels], in ascending order. With a smaller output
        stride a map is at the level of its true stride; where two fall on one level, the deeper is kept.

    Raises:
        KeyError: A level that the network has no endpoint for.
    """
    image = keras.Input((*image_shape, 3), name="image")
    endpoints = {level: network.endpoints[level] for level in sorted(levels)}
    rewriter = _Rewriter(network, hyperparams, output_stride, explicit_padding or network.explicit_padding)
    with keras.name_scope(MODEL_NAME):
        traced = rewriter.run(image, endpoints)
    maps = {endpoint.stride.bit_length() - 1: endpoint.tensor for endpoint in traced.values()}
    return keras.Model(image, maps, name=MODEL_NAME)


def build_region_model(
    network: Network,
    levels: tuple[int, int],
    input_shape: tuple[int | None, int | None, int],
    hyperparams: ConvHyperparams,
    stride: RegionStride,
) -> keras.Model:
    """Builds the part of a network between two of its maps, to run on regions that were cropped from the first.

    Args:
        network: The graph and its endpoints.
        levels: The map that is cropped, and the last map.
        input_shape: (height, width, channels) of what comes in; channels as the first map was built.
        hyperparams: As for ``build_extractor_model``.
        stride: What becomes of the strides on the way.

    Returns:
        A functional model ``box_backbone`` of [N, h, w, C] -> [N, h', w', C'], its variables under ``box_backbone/``.
    """
    first, last = (network.endpoints[level] for level in levels)
    region = keras.Input(input_shape, name="region")
    output_stride = NATIVE_OUTPUT_STRIDE if stride is RegionStride.STRIDED else 1
    rewriter = _Rewriter(network, hyperparams, output_stride, network.explicit_padding)
    rewriter.dilates = stride is RegionStride.DILATED
    widening = input_shape[-1] / network.graph.get_layer(first).output.shape[-1]
    with keras.name_scope(REGION_MODEL_NAME):
        traced = rewriter.run(region, {levels[1]: last}, start=first, widening=widening)
    return keras.Model(region, traced[levels[1]].tensor, name=REGION_MODEL_NAME)


def entry_stride(network: Network, level: int) -> int:
    """The stride with which the layers after a map read it, where all of them read single cells; else 1.

    Cells that such layers (ResNet's strided 1 x 1 convolutions) step over need not be cropped at all.
    """
    tensor = id(network.graph.get_layer(network.endpoints[level]).output)
    readers = [
        layer
        for layer in network.graph.layers
        if not isinstance(layer, keras.layers.InputLayer) and any(id(x) == tensor for x in _inputs(layer))
    ]
    strides = {
        layer.strides[0] if isinstance(layer, keras.layers.Conv2D) and layer.kernel_size == (1, 1) else 1
        for layer in readers
    }
    return strides.pop() if len(strides) == 1 else 1


class _Rewriter:
    """One walk over a graph, in topological order."""

    def __init__(
        self, network: Network, hyperparams: ConvHyperparams, output_stride: int, explicit_padding: bool
    ) -> None:
        self._network = network
        self._hyperparams = hyperparams
        self._output_stride = output_stride
        self._explicit_padding = explicit_padding
        self.dilates = True  # whether a stride that is left out dilates what follows
        self._names = stable_names(network.graph)
        self._layer_of = {id(layer.output): layer for layer in network.graph.layers}
        self._normalized = {
            self._layer_of[id(layer.input)].name
            for layer in network.graph.layers
            if isinstance(layer, keras.layers.BatchNormalization)
        }
        self._builders: dict[str, Callable[..., _Traced]] = {
            "Conv2D": self._convolution,
            "DepthwiseConv2D": self._depthwise,
            "SeparableConv2D": self._separable,
            "BatchNormalization": self._batch_norm,
            "ReLU": self._activation,
            "Activation": self._activation,
            "ZeroPadding2D": lambda layer, x: x,
            "MaxPooling2D": self._pooling,
            "AveragePooling2D": self._pooling,
            "Add": self._add,
            "CustomScaleLayer": self._add_scaled,
            "Concatenate": self._concatenate,
            # EfficientNet: its normalisation of the pixels, its gates, its stochastic depth.
            "Rescaling": lambda layer, x: x,
            "Normalization": lambda layer, x: x,
            "GlobalAveragePooling2D": self._squeeze,
            "Reshape": lambda layer, x: x,
            "Multiply": self._multiply,
            "Dropout": self._dropout,
        }

    def run(
        self, image: Tensor, endpoints: Mapping[int, str], start: str | None = None, widening: float = 1.0
    ) -> dict[int, _Traced]:
        """Wires everything that ``endpoints`` depend on; returns level to the endpoint's tensor.

        Args:
            image: What the graph starts from.
            endpoints: Level to the name of a layer.
            start: Name of the layer in whose output's place ``image`` stands; None for the graph's input.
            widening: Channels of ``image`` per channel of what it stands for.
        """
        graph = self._network.graph
        source = graph.inputs[0] if start is None else graph.get_layer(start).output
        needed = self._needed((graph.get_layer(name) for name in endpoints.values()), self._layer_of.get(id(source)))
        traced = {id(source): _Traced(image, stride=1, dilation=1, widening=widening)}
        for layer in graph.layers:
            if layer.name in needed and not isinstance(layer, keras.layers.InputLayer):
                inputs = [traced[id(tensor)] for tensor in _inputs(layer)]
                traced[id(layer.output)] = self._builders[type(layer).__name__](layer, *inputs)
        return {level: traced[id(graph.get_layer(name).output)] for level, name in endpoints.items()}

    def _needed(self, layers: Iterable[keras.layers.Layer], start: keras.layers.Layer | None) -> set[str]:
        """Names of the given layers and of all that come before them, down to ``start``, which is not among them."""
        needed: set[str] = set()
        waiting = list(layers)
        while waiting:
            layer = waiting.pop()
            if layer is not start and layer.name not in needed:
                needed.add(layer.name)
                if not isinstance(layer, keras.layers.InputLayer):
                    waiting.extend(self._layer_of[id(tensor)] for tensor in _inputs(layer))
        return needed

    def _step(self, layer: Any, x: _Traced) -> tuple[int, _Traced]:
        """The stride to build ``layer`` with, and ``x`` with the stride and dilation of what comes out."""
        stride = layer.strides[0] if isinstance(layer.strides, tuple) else layer.strides
        if stride > 1 and x.stride * stride > self._output_stride:
            return 1, x._replace(dilation=x.dilation * stride if self.dilates else x.dilation)
        return stride, x._replace(stride=x.stride * stride)

    def _padding(self, layer: Any, x: _Traced, stride: int) -> tuple[Tensor, str]:
        """The input of a convolution, padded where the network does it explicitly, and Keras's word for the rest."""
        if not self._explicit_padding or stride == 1 or layer.kernel_size[0] == 1:
            return x.tensor, "same"
        return pad_explicitly(x.tensor, layer.kernel_size[0], 1, self._names[layer.name]), "valid"

    def _convolution(self, layer: keras.layers.Conv2D, x: _Traced) -> _Traced:
        name = self._names[layer.name]
        stride, after = self._step(layer, x)
        padded, padding = self._padding(layer, x, stride)
        filters = self._network.filters(layer.name, layer.filters, x.widening)
        arguments = {
            "filters": filters,
            "strides": stride,
            "dilation_rate": layer.dilation_rate[0] * x.dilation,
            "kernel_initializer": self._hyperparams.kernel_initializer(),
            "kernel_regularizer": kernel_regularizer(self._hyperparams),
            "name": name,
        }
        after = after._replace(widening=filters / layer.filters)
        if layer.groups > 1:
            grouped = GroupedConv2D(kernel_size=layer.kernel_size[0], groups=layer.groups, **arguments)
            return after._replace(tensor=grouped(x.tensor))
        has_activation = layer.activation is not keras.activations.linear
        if has_activation and self._normalized:
            return after._replace(tensor=self._gate(layer, arguments)(x.tensor))
        batch_norm = self._hyperparams.batch_norm if has_activation else None
        use_bias = self._needs_bias(layer) and batch_norm is None
        arguments |= {"kernel_size": layer.kernel_size, "padding": padding, "use_bias": use_bias}
        tensor = keras.layers.Conv2D(**arguments)(padded)
        if batch_norm is not None:
            tensor = batch_norm_from(batch_norm, name=f"{name}_bn")(tensor)
        return after._replace(tensor=self._activate(tensor, f"{name}{ACTIVATION_SUFFIX}") if has_activation else tensor)

    def _gate(self, layer: keras.layers.Conv2D, arguments: dict[str, Any]) -> keras.layers.Conv2D:
        """One of the two 1 x 1 of squeeze and excitation: with a bias and an activation of its own, not normalised.

        In a normalised network no other convolution has its activation inside.
        """
        arguments = arguments | {"bias_regularizer": kernel_regularizer(self._hyperparams)}
        activation = swish if layer.activation is keras.activations.silu else layer.activation
        return keras.layers.Conv2D(kernel_size=1, activation=activation, **arguments)

    def _depthwise(self, layer: keras.layers.DepthwiseConv2D, x: _Traced) -> _Traced:
        stride, after = self._step(layer, x)
        padded, padding = self._padding(layer, x, stride)
        regularizer = kernel_regularizer(self._hyperparams) if self._hyperparams.regularize_depthwise else None
        depthwise = keras.layers.DepthwiseConv2D(
            layer.kernel_size,
            strides=stride,
            padding=padding,
            dilation_rate=x.dilation,
            use_bias=self._needs_bias(layer),
            depthwise_initializer=self._hyperparams.kernel_initializer(),
            depthwise_regularizer=regularizer,
            name=self._names[layer.name],
        )
        return after._replace(tensor=depthwise(padded))

    def _separable(self, layer: keras.layers.SeparableConv2D, x: _Traced) -> _Traced:
        stride, after = self._step(layer, x)
        separable = keras.layers.SeparableConv2D(
            layer.filters,
            layer.kernel_size,
            strides=stride,
            padding="same",
            dilation_rate=x.dilation,
            depth_multiplier=layer.depth_multiplier,
            use_bias=self._needs_bias(layer),
            depthwise_initializer=self._hyperparams.kernel_initializer(),
            depthwise_regularizer=kernel_regularizer(self._hyperparams),
            pointwise_initializer=self._hyperparams.kernel_initializer(),
            pointwise_regularizer=kernel_regularizer(self._hyperparams),
            name=self._names[layer.name],
        )
        return after._replace(tensor=separable(x.tensor))

    def _needs_bias(self, layer: Any) -> bool:
        """Not where a normalisation follows (ResNet's biases in ``keras.applications`` have no effect)."""
        if layer.name in self._normalized:
            return self._hyperparams.batch_norm is None
        return bool(layer.use_bias)

    def _batch_norm(self, layer: keras.layers.Layer, x: _Traced) -> _Traced:
        if self._hyperparams.batch_norm is None:
            return x
        return x._replace(tensor=batch_norm_from(self._hyperparams.batch_norm, self._names[layer.name])(x.tensor))

    def _activation(self, layer: keras.layers.Layer, x: _Traced) -> _Traced:
        return x._replace(tensor=self._activate(x.tensor, self._names[layer.name]))

    def _activate(self, tensor: Tensor, name: str) -> Tensor:
        if self._hyperparams.activation is None:
            return tensor
        return keras.layers.Activation(self._hyperparams.activation, name=name)(tensor)

    def _pooling(self, layer: Any, x: _Traced) -> _Traced:
        stride, after = self._step(layer, x)
        was_strided = stride != layer.strides[0]
        size = max(layer.pool_size[0], MIN_UNSTRIDED_POOL) if was_strided else layer.pool_size[0]
        pool = type(layer)(size, strides=stride, padding="same", name=self._names[layer.name])
        return after._replace(tensor=pool(x.tensor))

    def _squeeze(self, layer: keras.layers.Layer, x: _Traced) -> _Traced:
        """The mean over a map, which stays a map: of one cell."""
        pool = keras.layers.GlobalAveragePooling2D(keepdims=True, name=self._names[layer.name])
        return x._replace(tensor=pool(x.tensor))

    def _multiply(self, layer: keras.layers.Layer, x: _Traced, gate: _Traced) -> _Traced:
        return x._replace(tensor=keras.layers.Multiply(name=self._names[layer.name])([x.tensor, gate.tensor]))

    def _dropout(self, layer: keras.layers.Dropout, x: _Traced) -> _Traced:
        dropout = keras.layers.Dropout(layer.rate, noise_shape=layer.noise_shape, name=self._names[layer.name])
        return x._replace(tensor=dropout(x.tensor))

    def _add(self, layer: keras.layers.Layer, *terms: _Traced) -> _Traced:
        if layer.name in self._network.dropped_adds:
            return terms[-1]
        name = self._names[layer.name]
        return terms[-1]._replace(tensor=keras.layers.Add(name=name)([term.tensor for term in terms]))

    def _add_scaled(self, layer: Any, shortcut: _Traced, residual: _Traced) -> _Traced:
        """Inception-ResNet's ``shortcut + scale * residual``, in stock layers."""
        name = self._names[self._layer_of[id(_inputs(layer)[1])].name]
        scaled = keras.layers.Rescaling(layer.scale, name=f"{name}_scale")(residual.tensor)
        return residual._replace(tensor=keras.layers.Add(name=f"{name}_add")([shortcut.tensor, scaled]))

    def _concatenate(self, layer: keras.layers.Layer, *parts: _Traced) -> _Traced:
        concatenation = keras.layers.Concatenate(name=self._names[layer.name])
        return parts[-1]._replace(tensor=concatenation([part.tensor for part in parts]))


def _inputs(layer: keras.layers.Layer) -> list[Tensor]:
    return list(layer.input) if isinstance(layer.input, (list, tuple)) else [layer.input]
