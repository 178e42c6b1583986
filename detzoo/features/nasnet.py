"""NASNet-A and PNASNet-5: searched cells, stacked, each of which reads the outputs of the two cells before it.

Faster R-CNN crops the concatenated outputs of the last two cells of stride 16. Cells after the crop read its halves.
Differs from the papers and the Object Detection API: training drops no paths and has no auxiliary classifier, because
both regularize a training from scratch on ImageNet.

References:
    Zoph et al., arXiv:1707.07012, figures 2 and 4, appendix A.4 (6 @ 4032). Liu et al., arXiv:1712.00559, figure 1.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import keras

from detzoo.contracts import BatchNormHyperparams, ConvHyperparams, Tensor
from detzoo.features.network import Network, symbolic

_BATCH_NORM = BatchNormHyperparams(momentum=0.9997, epsilon=0.001, scale=True)
_STEM_CELLS = 2
_CROPPED, _LAST = "cropped", "final_activation"


class _Step(NamedTuple):
    """One sum of a cell: the operations on two earlier states, 0 for this cell's input and 1 for the previous one's."""

    left: tuple[str, int]
    right: tuple[str, int]


class _Cell(NamedTuple):
    """A cell: its sums, which become the states 2 to 6, and the states whose concatenation is its output."""

    steps: tuple[_Step, ...]
    outputs: tuple[int, ...]


_NASNET_NORMAL = _Cell(
    (
        _Step(("separable_5x5", 0), ("separable_3x3", 1)),
        _Step(("separable_5x5", 1), ("separable_3x3", 1)),
        _Step(("average", 0), ("identity", 1)),
        _Step(("average", 1), ("average", 1)),
        _Step(("separable_3x3", 0), ("identity", 0)),
    ),
    outputs=(1, 2, 3, 4, 5, 6),
)
_NASNET_REDUCTION = _Cell(
    (
        _Step(("separable_5x5", 0), ("separable_7x7", 1)),
        _Step(("max", 0), ("separable_7x7", 1)),
        _Step(("average", 0), ("separable_5x5", 1)),
        _Step(("identity", 3), ("average", 2)),
        _Step(("separable_3x3", 2), ("max", 0)),
    ),
    outputs=(3, 4, 5, 6),
)
_PNASNET = _Cell(
    (
        _Step(("separable_5x5", 1), ("max", 1)),
        _Step(("separable_7x7", 0), ("max", 0)),
        _Step(("separable_5x5", 0), ("separable_3x3", 0)),
        _Step(("separable_3x3", 4), ("max", 0)),
        _Step(("separable_3x3", 1), ("identity", 0)),
    ),
    outputs=(2, 3, 4, 5, 6),
)


class Size(NamedTuple):
    """Size of a network: its first convolution, the cells of each of three stages, the channels of the first stage."""

    stem_filters: int
    cells_per_stage: int
    filters: int


NASNET_LARGE = Size(stem_filters=96, cells_per_stage=6, filters=168)  # 6 @ 4032
PNASNET_LARGE = Size(stem_filters=96, cells_per_stage=4, filters=216)


class _Map(NamedTuple):
    """A map and its stride in pixels."""

    x: Tensor
    stride: int


@keras.saving.register_keras_serializable(package="detzoo")
class ChannelSlice(keras.layers.Layer):
    """The channels from ``start`` to before ``stop`` of [..., C].

    Args:
        start: First channel.
        stop: Channel after the last one.
        **kwargs: Arguments of ``keras.layers.Layer``.
    """

    def __init__(self, start: int, stop: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.start = start
        self.stop = stop

    def call(self, inputs: Tensor) -> Tensor:
        """Slices ``inputs``."""
        return inputs[..., self.start : self.stop]

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the shape with the number of chosen channels."""
        return (*input_shape[:-1], self.stop - self.start)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild this layer."""
        return {**super().get_config(), "start": self.start, "stop": self.stop}


def nasnet(size: Size = NASNET_LARGE) -> Network:
    """Describes NASNet-A, endpoints 4 (of the last two cells of stride 16) and 5."""
    return _network(functools.partial(_graph, size, _NASNET_NORMAL, _NASNET_REDUCTION), l2_weight=0.00005)


def pnasnet(size: Size = PNASNET_LARGE) -> Network:
    """Describes PNASNet-5, endpoints 4 (of the last two cells of stride 16) and 5."""
    return _network(functools.partial(_graph, size, _PNASNET, None), l2_weight=0.00004)


def _network(graph: Any, l2_weight: float) -> Network:
    return Network(
        graph=symbolic(graph),
        endpoints={4: _CROPPED, 5: _LAST},
        hyperparams=ConvHyperparams(
            kernel_initializer=functools.partial(keras.initializers.VarianceScaling, scale=2.0, mode="fan_out"),
            l2_weight=l2_weight / 2,
            regularize_depthwise=True,
            activation="relu",
            batch_norm=_BATCH_NORM,
        ),
        keeps_padding=True,
    )


def _graph(size: Size, normal: _Cell, reduction: _Cell | None) -> keras.Model:
    """Builds the graph. Without a reduction cell, the first cell of a stage has stride 2."""
    image = keras.Input((None, None, 3), name="image")
    x = keras.layers.Conv2D(size.stem_filters, 3, strides=2, use_bias=False, name="conv0")(image)
    current = _Map(keras.layers.BatchNormalization(name="conv0_bn")(x), 2)
    previous: _Map | None = None
    for number in range(_STEM_CELLS):
        filters = size.filters // 2 ** (_STEM_CELLS - number)
        previous, current = current, _cell(f"cell_stem_{number}", reduction or normal, previous, current, filters, 2)
    filters = size.filters
    for number in range(3 * size.cells_per_stage):
        stage, place = divmod(number, size.cells_per_stage)
        before, is_reduced = previous, bool(stage) and place == 0
        if is_reduced:
            filters *= 2
        if is_reduced and stage == 2:
            before, current = _halves_of_crop(before or current, current)
        if is_reduced and reduction:
            name = f"reduction_cell_{stage - 1}"
            previous, current = current, _cell(name, reduction, before, current, filters, 2)
        stride = 2 if is_reduced and not reduction else 1
        # The normal cell after a reduction skips it: its previous cell is that of the reduction.
        previous, current = current, _cell(f"cell_{number}", normal, before, current, filters, stride)
    return keras.Model(image, keras.layers.Activation("relu", name=_LAST)(current.x))


def _halves_of_crop(previous: _Map, current: _Map) -> tuple[_Map, _Map]:
    """Concatenates two maps of equal size to the one that regions are cropped from, and returns its halves."""
    both = keras.layers.Concatenate(name=_CROPPED)([previous.x, current.x])
    border = previous.x.shape[-1]
    first = ChannelSlice(0, border, name="cropped_previous")(both)
    second = ChannelSlice(border, both.shape[-1], name="cropped_current")(both)
    return previous._replace(x=first), current._replace(x=second)


def _cell(name: str, cell: _Cell, previous: _Map | None, current: _Map, filters: int, stride: int) -> _Map:
    states = [
        _convolved(_relu(current.x, f"{name}_relu"), filters, f"{name}_1x1", f"{name}_beginning_bn"),
        _matched(name, previous, current, filters),
    ]
    for number, step in enumerate(cell.steps):
        prefix = f"{name}_comb_iter_{number}"
        branches = [
            _operation(f"{prefix}_{side}", operation, states[state], filters, stride if state < 2 else 1)
            for side, (operation, state) in zip(_Step._fields, step, strict=True)
        ]
        states.append(keras.layers.Add(name=f"{prefix}_combine")(branches))
    output = keras.layers.Concatenate(name=name)([states[number] for number in cell.outputs])
    return _Map(output, current.stride * stride)


def _matched(name: str, previous: _Map | None, current: _Map, filters: int) -> Tensor:
    """Returns the previous map with the size of the current one and ``filters`` channels."""
    if previous is None:
        return current.x
    if previous.stride != current.stride:
        return _halved(name, _relu(previous.x, f"{name}_prev_relu"), filters)
    if previous.x.shape[-1] == filters:
        return previous.x
    return _convolved(_relu(previous.x, f"{name}_prev_relu"), filters, f"{name}_prev_1x1", f"{name}_prev_bn")


def _halved(name: str, x: Tensor, filters: int) -> Tensor:
    """Halves a map by two 1 x 1 with stride 2, of which one reads the cells that the other steps over."""
    shifted = keras.layers.ZeroPadding2D(((0, 1), (0, 1)), name=f"{name}_path2_pad")(x)
    shifted = keras.layers.Cropping2D(((1, 0), (1, 0)), name=f"{name}_path2_shift")(shifted)
    widths = {"path1": filters // 2, "path2": filters - filters // 2}
    paths = []
    for (path, width), source in zip(widths.items(), (x, shifted), strict=True):
        chosen = keras.layers.AveragePooling2D(1, strides=2, name=f"{name}_{path}_pool")(source)
        paths.append(keras.layers.Conv2D(width, 1, use_bias=False, name=f"{name}_{path}_conv")(chosen))
    both = keras.layers.Concatenate(name=f"{name}_paths")(paths)
    return keras.layers.BatchNormalization(name=f"{name}_final_path_bn")(both)


def _operation(name: str, operation: str, x: Tensor, filters: int, stride: int) -> Tensor:
    if operation.startswith("separable"):
        size = operation.removeprefix("separable_")
        for number in (1, 2):
            layer = keras.layers.SeparableConv2D(
                filters,
                int(size[0]),
                strides=stride if number == 1 else 1,
                padding="same",
                use_bias=False,
                name=f"{name}_separable_{size}_{number}",
            )
            x = layer(_relu(x, f"{name}_relu_{number}"))
            x = keras.layers.BatchNormalization(name=f"{name}_bn_sep_{size}_{number}")(x)
        return x
    if operation == "identity":
        if stride == 1 and x.shape[-1] == filters:
            return x
        return _convolved(_relu(x, f"{name}_relu"), filters, f"{name}_1x1", f"{name}_bn_1", stride)
    pool = {"average": keras.layers.AveragePooling2D, "max": keras.layers.MaxPooling2D}[operation]
    x = pool(3, strides=stride, padding="same", name=f"{name}_pool")(x)
    return x if x.shape[-1] == filters else _convolved(x, filters, f"{name}_1x1", f"{name}_bn_1")


def _convolved(x: Tensor, filters: int, name: str, norm_name: str, stride: int = 1) -> Tensor:
    x = keras.layers.Conv2D(filters, 1, strides=stride, use_bias=False, name=name)(x)
    return keras.layers.BatchNormalization(name=norm_name)(x)


def _relu(x: Tensor, name: str) -> Tensor:
    return keras.layers.Activation("relu", name=name)(x)
