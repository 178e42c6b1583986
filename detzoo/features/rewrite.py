"""Rebuilds a network's graph with other batch normalisation, initializers, regularizers, widths and output stride.

``_Rewriter`` goes through the layers of a ``Network`` (usually of ``keras.applications``) and calls a new layer of the
same name for each layer before a requested map. The output stride is a transformation of this graph: a stride that
would exceed it becomes 1, and all layers behind are dilated by it.

Every layer pads to "same": the map of level l has ceil(size / 2**l) cells in both directions, so that maps of
neighbouring levels align. Differs from ``keras.applications``: Inception's "valid" paddings, and the explicit paddings
of MobileNets, EfficientNets and of ResNet's max pooling, which are the same for some sizes (even, and odd).
``Network.keeps_padding`` keeps the paddings of the graph.

References:
    Huang et al., arXiv:1611.10012, section 3.2.2 (output stride 16 and 8 by stride 1 and atrous convolution).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import keras

from detzoo.contracts import ConvHyperparams, Tensor
from detzoo.features.grouped_convolution import GroupedConv2D
from detzoo.features.network import NATIVE_OUTPUT_STRIDE, Network, producer_of, stable_names
from detzoo.layers.activation import swish
from detzoo.layers.conv import kernel_regularizer, pad_explicitly
from detzoo.layers.normalization import batch_norm_from

MODEL_NAME = "backbone"
REGION_MODEL_NAME = "box_backbone"
ACTIVATION_SUFFIX = "_activation"  # name of an activation that the graph has inside a convolution
MIN_UNSTRIDED_POOL = 3  # SSD, section 3: pool5 goes from 2 x 2 with stride 2 to 3 x 3 with stride 1

# The kernels of each kind of convolution, by the prefix of their arguments in Keras.
_KERNELS = {
    "Conv2D": ("kernel",),
    "DepthwiseConv2D": ("depthwise",),
    "SeparableConv2D": ("depthwise", "pointwise"),
}
# Layers without a counterpart: explicit paddings, EfficientNet's normalisation of pixels, the shape of its gates.
_PADDING = "ZeroPadding2D"
_SKIPPED = (_PADDING, "Rescaling", "Normalization", "Reshape")


class RegionStride(enum.Enum):
    """Treatment of the strides of the layers after a crop."""

    STRIDED = "strided"  # the strides of the classification network
    DENSE = "dense"  # stride 1
    DILATED = "dilated"  # stride 1, and dilation of the layers behind


class _State(NamedTuple):
    """Properties of a tensor of the new model that depend on the path to it."""

    stride: int = 1  # pixels of the input between two neighbouring locations
    dilation: int = 1  # product of the strides that became 1 before this tensor


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
        levels: Levels of the requested endpoints in the unchanged network (output stride 32).
        image_shape: (height, width) in pixels, None for sizes that change from image to image.
        hyperparams: Hyperparameters of all convolutions. Batch normalisation applies to the normalised convolutions of
            the network, and to all of VGG, which has none.
        output_stride: Largest number of pixels between two locations of any map.
        explicit_padding: Pads strided convolutions by the reach of their kernel, independent of the map's size.

    Returns:
        A functional model ``backbone``, its variables ``backbone/<layer>/<variable>``: normalised image
        [B, H, W, 3] -> dict of level to map [B, H_l, W_l, channels], in ascending order. With a smaller output
        stride a map is at the level of its true stride; of two maps at one level, the deeper is kept.

    Raises:
        KeyError: The network has no endpoint for a level.
    """
    endpoints = {level: network.endpoints[level] for level in sorted(levels)}
    image = keras.Input((*image_shape, 3), name="image")
    rewriter = _Rewriter(network, hyperparams, output_stride, explicit_padding or network.explicit_padding)
    with keras.name_scope(MODEL_NAME):
        outputs = rewriter.run(network.graph.inputs[0], image, endpoints, _State())
    maps = {rewriter.state_of(tensor).stride.bit_length() - 1: tensor for tensor in outputs.values()}
    return keras.Model(image, maps, name=MODEL_NAME)


def build_region_model(
    network: Network,
    levels: tuple[int, int],
    input_shape: tuple[int | None, int | None, int],
    hyperparams: ConvHyperparams,
    stride: RegionStride,
    keeps_padding: bool = False,
) -> keras.Model:
    """Builds the part of a network between two of its maps, to run on regions that are cropped from the first.

    ``keeps_padding`` pads strided layers as the network does, instead of to "same".

    Returns:
        A functional model ``box_backbone`` of [N, h, w, C] -> [N, h', w', C'], its variables under ``box_backbone/``.
    """
    cropped = network.graph.get_layer(network.endpoints[levels[0]]).output
    region = keras.Input(input_shape, name="region")
    output_stride = NATIVE_OUTPUT_STRIDE if stride is RegionStride.STRIDED else 1
    dilates = stride is RegionStride.DILATED
    rewriter = _Rewriter(network, hyperparams, output_stride, network.explicit_padding, dilates, keeps_padding)
    with keras.name_scope(REGION_MODEL_NAME):
        outputs = rewriter.run(cropped, region, {levels[1]: network.endpoints[levels[1]]}, _State())
    return keras.Model(region, outputs[levels[1]], name=REGION_MODEL_NAME)


def entry_stride(network: Network, level: int) -> int:
    """Returns the stride of the layers that read a map if all of them read single cells, else 1.

    Cells that such layers (ResNet's strided 1 x 1 convolutions) step over need not be cropped at all.
    """
    tensor = network.graph.get_layer(network.endpoints[level]).output
    strides = {
        layer.strides[0] if isinstance(layer, keras.layers.Conv2D) and layer.kernel_size == (1, 1) else 1
        for layer in network.graph.layers
        if not isinstance(layer, keras.layers.InputLayer) and any(x is tensor for x in keras.tree.flatten(layer.input))
    }
    return strides.pop() if len(strides) == 1 else 1


class _Rewriter:
    """One pass over a graph."""

    def __init__(
        self,
        network: Network,
        hyperparams: ConvHyperparams,
        output_stride: int,
        explicit_padding: bool,
        dilates: bool = True,  # if True, a stride that becomes 1 dilates the layers behind
        keeps_padding: bool = False,  # if True, strided layers are padded as in the graph
    ) -> None:
        self._network = network
        self._hyperparams = hyperparams
        self._output_stride = output_stride
        self._explicit_padding = explicit_padding
        self._dilates = dilates
        self._keeps_padding = keeps_padding
        self._names = stable_names(network.graph)
        self._normalized = {
            producer_of(network.graph, layer.input).name
            for layer in network.graph.layers
            if isinstance(layer, keras.layers.BatchNormalization)
        }
        self._states: dict[int, _State] = {}  # by the id of a tensor of the new model

    def run(self, source: Tensor, replacement: Tensor, endpoints: Mapping[int, str], state: _State) -> dict[int, Any]:
        """Builds the layers from a tensor of the graph to endpoints (level to a layer's name). Returns level -> map.

        ``replacement`` is the input of the new model in the place of ``source``; ``state`` has its properties.
        """
        graph = self._network.graph
        outputs = {level: graph.get_layer(name).output for level, name in endpoints.items()}
        between = {layer.name for layer in keras.Model(source, outputs).layers}
        rebuilt = {id(source): replacement}
        self._states[id(replacement)] = state
        for layer in graph.layers:
            if layer.name in between and not isinstance(layer, keras.layers.InputLayer):
                inputs = keras.tree.map_structure(lambda x: rebuilt[id(x)], layer.input)
                rebuilt[id(layer.output)] = self._rebuild(layer, inputs)
        return {level: rebuilt[id(output)] for level, output in outputs.items()}

    def state_of(self, tensor: Tensor) -> _State:
        """Returns the properties of a tensor of the new model."""
        return self._states[id(tensor)]

    def _rebuild(self, layer: Any, inputs: Any) -> Tensor:
        """Calls the new layer and returns its output, whose properties derive from the last of several inputs."""
        tensors = inputs if isinstance(inputs, (list, tuple)) else [inputs]
        state = self._states[id(tensors[-1])]
        kind = type(layer).__name__
        if kind in _SKIPPED and not (kind == _PADDING and self._network.keeps_padding):
            output = inputs
        elif kind in _KERNELS:
            output, state = self._convolution(layer, inputs, state)
        elif kind in ("MaxPooling2D", "AveragePooling2D"):
            stride, state = self._step(layer, state)
            unstrided = stride != layer.strides[0]
            size = layer.pool_size[0]  # a pool of one cell chooses every other cell
            size = max(size, MIN_UNSTRIDED_POOL) if unstrided and size > 1 else size
            output = self._like(layer, pool_size=size, strides=stride, padding=self._padding(layer, stride))(inputs)
        elif kind == "BatchNormalization":
            batch_norm = self._hyperparams.batch_norm
            output = inputs if batch_norm is None else batch_norm_from(batch_norm, self._names[layer.name])(inputs)
        elif kind in ("ReLU", "Activation") and not self._network.keeps_activations:
            behind_sum = isinstance(producer_of(self._network.graph, layer.input), keras.layers.Add)
            output = self._activate(inputs, self._names[layer.name], behind_sum)
        elif kind == "GlobalAveragePooling2D":
            output = self._like(layer, keepdims=True)(inputs)  # a map of one cell, so that no Reshape is needed
        elif kind == "CustomScaleLayer":  # Inception-ResNet's shortcut + scale * residual
            name = self._names[producer_of(self._network.graph, layer.input[1]).name]
            scaled = keras.layers.Rescaling(layer.scale, name=f"{name}_scale")(tensors[1])
            output = keras.layers.Add(name=f"{name}_add")([tensors[0], scaled])
        else:
            output = self._like(layer)(inputs)
        self._states[id(output)] = state
        return output

    def _like(self, layer: keras.layers.Layer, **changes: Any) -> keras.layers.Layer:
        """Builds a layer like ``layer``, with its stable name and other arguments."""
        config = {**layer.get_config(), "name": self._names[layer.name], **changes}
        del config["dtype"]  # the dtype policy of the process holds
        return type(layer)(**config)

    def _step(self, layer: Any, state: _State) -> tuple[int, _State]:
        """Returns the stride to build ``layer`` with, and the properties of its output."""
        stride = layer.strides[0] if isinstance(layer.strides, tuple) else layer.strides
        if stride > 1 and state.stride * stride > self._output_stride:
            return 1, state._replace(dilation=state.dilation * stride if self._dilates else state.dilation)
        return stride, state._replace(stride=state.stride * stride)

    def _padding(self, layer: Any, stride: int) -> str:
        keeps_padding = self._network.keeps_padding or (self._keeps_padding and stride > 1)
        return layer.padding if keeps_padding else "same"

    def _convolution(self, layer: Any, x: Tensor, before: _State) -> tuple[Tensor, _State]:
        hyperparams, name, kind = self._hyperparams, self._names[layer.name], type(layer).__name__
        stride, state = self._step(layer, before)
        arguments: dict[str, Any] = {
            "strides": stride,
            "dilation_rate": layer.dilation_rate[0] * before.dilation,
            "padding": self._padding(layer, stride),
            "activation": None,
        }
        for kernel in _KERNELS[kind]:
            is_regularized = kind != "DepthwiseConv2D" or hyperparams.regularize_depthwise
            of_depthwise = kernel == "depthwise" and hyperparams.depthwise_initializer
            arguments[f"{kernel}_initializer"] = (of_depthwise or hyperparams.kernel_initializer)()
            arguments[f"{kernel}_regularizer"] = kernel_regularizer(hyperparams) if is_regularized else None
        if kind == "Conv2D":
            arguments["filters"] = self._network.filters(layer.name, layer.filters)
            if layer.groups > 1:
                del arguments["padding"], arguments["activation"]
                grouped = GroupedConv2D(kernel_size=layer.kernel_size[0], groups=layer.groups, name=name, **arguments)
                return grouped(x), state
        has_activation = layer.activation is not keras.activations.linear
        if has_activation and self._normalized:
            return self._gate(layer, arguments)(x), state
        batch_norm = hyperparams.batch_norm if has_activation else None
        if layer.name in self._normalized:  # ResNet's biases in keras.applications have no effect
            use_bias = hyperparams.batch_norm is None or (hyperparams.force_use_bias and layer.use_bias)
        else:
            use_bias = layer.use_bias and batch_norm is None
        if self._explicit_padding and stride > 1 and layer.kernel_size[0] > 1 and kind != "SeparableConv2D":
            x = pad_explicitly(x, layer.kernel_size[0], name)
            arguments["padding"] = "valid"
        x = self._like(layer, use_bias=use_bias, **arguments)(x)
        if batch_norm is not None:
            x = batch_norm_from(batch_norm, name=f"{name}_bn")(x)
        return self._activate(x, f"{name}{ACTIVATION_SUFFIX}") if has_activation else x, state

    def _gate(self, layer: Any, arguments: dict[str, Any]) -> keras.layers.Layer:
        """Builds one of the two 1 x 1 of squeeze and excitation: with a bias and an activation, not normalised.

        In a normalised network no other convolution has its activation inside.
        """
        activation = swish if layer.activation is keras.activations.silu else layer.activation
        bias_regularizer = None if self._network.keeps_activations else kernel_regularizer(self._hyperparams)
        return self._like(layer, **{**arguments, "activation": activation, "bias_regularizer": bias_regularizer})

    def _activate(self, x: Tensor, name: str, behind_sum: bool = False) -> Tensor:
        activation = (self._hyperparams.sum_activation if behind_sum else None) or self._hyperparams.activation
        return x if activation is None else keras.layers.Activation(activation, name=name)(x)
