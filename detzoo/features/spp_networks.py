"""The networks of SPP-net's table 1: ZF-5, Convnet*-5, Overfeat-5 and Overfeat-7 (floor 2).

He et al., arXiv:1406.4729, section 3.1.1. Convolutions and poolings here, then a pyramid (``spp_layers``), then two
fully connected layers. A row of ``SPP_NETWORKS`` reads like a row of the table.

Their strides (16, and Overfeat's 12) are no levels of a feature pyramid. What a detector needs to find a window on the
map is ``stride_px`` and ``offset_px``.

Paddings are the table's by default, "adjusted to produce the expected output feature map size": at 224 x 224 pixels
the maps have 55, 27, 13, 13 and 13 cells a side (Overfeat: 36 and 18). ``Padding.CENTERED`` is what the paper's
appendix A uses to find windows on a map: floor(p / 2) cells on all sides of a layer of filter size p, so that cell i of
a map looks at the image around pixel stride x i. Weights fit both.

| table 1 | here |
|---|---|
| ZF-5, map size 27 of conv2 | before its pooling; the 55 of conv1 is after its pooling, as the paper counts |
| LRN | ``LocalResponseNormalization`` with AlexNet's constants, which the table does not give |
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras

from detzoo.contracts import Tensor
from detzoo.features.spp_layers import LocalResponseNormalization

BACKBONE, BOX_BACKBONE = "backbone", "box_backbone"  # first components of the variables' paths
BASELINE_BINS = (6,)  # "no SPP": the last pooling makes 6 x 6, section 3.1.1
_FIRST_STDDEV = 0.01  # of Caffe's and cuda-convnet's AlexNet: pixels are up to 255


class Padding(enum.Enum):
    """Cells around the input of each layer."""

    TABLE_1 = "table_1"
    CENTERED = "centered"


class Window(NamedTuple):
    """How a convolution or a pooling slides: cells, in both directions alike."""

    size: int
    stride: int = 1
    before: int = 0  # padding at the top and at the left
    after: int = 0  # padding at the bottom and at the right


class Conv(NamedTuple):
    """A convolution with ReLU."""

    filters: int
    window: Window


class Pool(NamedTuple):
    """Max pooling."""

    window: Window


class Lrn(NamedTuple):
    """Local response normalisation."""


Step = Conv | Pool | Lrn
Stage = tuple[Step, ...]  # a column of table 1: one convolution and what follows it

_3X3 = Window(3, 1, 1, 1)
_HALVE = Pool(Window(3, 2))

_ZF: tuple[Stage, ...] = (
    (Conv(96, Window(7, 2, 1, 1)), Lrn(), Pool(Window(3, 2, 0, 1))),
    (Conv(256, Window(5, 2, 1, 1)), Lrn(), _HALVE),
    (Conv(384, _3X3),),
    (Conv(384, _3X3),),
    (Conv(256, _3X3),),
)
_CONVNET: tuple[Stage, ...] = (
    (Conv(96, Window(11, 4, 1, 2)), Lrn()),
    (Conv(256, Window(5, 1, 2, 2)), Lrn(), _HALVE),
    (Conv(384, _3X3), _HALVE),
    (Conv(384, _3X3),),
    (Conv(256, _3X3),),
)
_OVERFEAT: tuple[Stage, ...] = (
    (Conv(96, Window(7, 2, 1, 1)), Pool(Window(3, 3)), Lrn()),
    (Conv(256, Window(5, 1, 2, 2)), Pool(Window(2, 2))),
    *((Conv(512, _3X3),) for _ in range(5)),
)

SPP_NETWORKS: dict[str, tuple[Stage, ...]] = {
    "zf_5": _ZF,
    "convnet_5": _CONVNET,
    "overfeat_5": _OVERFEAT[:5],
    "overfeat_7": _OVERFEAT,
}


class FullyConnected(NamedTuple):
    """The two fully connected layers, after ReLU and dropout, each [B, depth]."""

    fc6: Tensor
    fc7: Tensor


def build_conv_layers(
    images: Tensor,
    network: str,
    depth_multiplier: float = 1.0,
    weight_decay: float = 0.0,
    padding: Padding = Padding.TABLE_1,
) -> Tensor:
    """The convolutional layers; their variables' paths are ``backbone/conv1/kernel`` and so on.

    Differs from arXiv:1406.4729 (whose networks start from Gaussians of deviation 0.01): all layers but the first start
    with He et al.'s initializer, arXiv:1502.01852, so that narrow ones, too, hand on what they see.

    Args:
        images: normalised images [B, H, W, 3], a Keras tensor; H and W known or not, at least ``min_size_px``.
        network: key of ``SPP_NETWORKS``.
        depth_multiplier: factor of the channels, above 0.
        weight_decay: weight w of w * sum(x**2) / 2 of each kernel.
        padding: around the input of each layer.

    Returns:
        The last convolution's map [B, h, w, C], see ``map_size``.
    """
    x = images
    with keras.name_scope(BACKBONE):
        for number, stage in enumerate(SPP_NETWORKS[network], start=1):
            for step in stage:
                x = _apply(step, x, number, depth_multiplier, weight_decay, padding)
    return x


def build_fully_connected(
    pooled: Tensor, depth: int = 4096, dropout_rate: float = 0.5, weight_decay: float = 0.0
) -> FullyConnected:
    """fc6 and fc7 with ReLU and dropout; their variables' paths are ``box_backbone/fc6/kernel`` and so on.

    Args:
        pooled: [B, F], the pyramid's vectors.
        depth: units of both.
        dropout_rate: share of their outputs that training drops.
        weight_decay: weight w of w * sum(x**2) / 2 of each kernel.
    """
    outputs, x = [], pooled
    with keras.name_scope(BOX_BACKBONE):
        for name in FullyConnected._fields:
            x = keras.layers.Dense(
                depth,
                activation="relu",
                kernel_initializer=keras.initializers.HeNormal(),
                kernel_regularizer=_weight_decay(weight_decay),
                name=name,
            )(x)
            if dropout_rate:
                x = keras.layers.Dropout(dropout_rate, name=f"{name}_dropout")(x)
            outputs.append(x)
    return FullyConnected(*outputs)


def stride_px(network: str) -> int:
    """Pixels of the image between neighbouring cells of the last map: 16, Overfeat's 12."""
    stride = 1
    for window in _windows(network, Padding.TABLE_1):
        stride *= window.stride
    return stride


def offset_px(network: str, padding: Padding = Padding.TABLE_1) -> float:
    """Pixel (counted from 0, at its middle) that cell 0 of the last map looks at the surroundings of.

    Cell i looks at pixel offset + stride x i, in both directions. 0 with ``Padding.CENTERED`` where all filters are
    odd.
    """
    offset, stride = 0.0, 1
    for window in _windows(network, padding):
        offset += stride * ((window.size - 1) / 2 - window.before)
        stride *= window.stride
    return offset


def map_sizes(network: str, image_size_px: int, padding: Padding = Padding.TABLE_1) -> list[int]:
    """Cells along an axis after every convolution and every pooling, in their order, from pixels along it.

    From the first layer on whose filter does not fit, 0.
    """
    sizes, size = [], image_size_px
    for window in _windows(network, padding):
        size = max(0, (size + window.before + window.after - window.size) // window.stride + 1)
        sizes.append(size)
    return sizes


def map_size(network: str, image_size_px: int, padding: Padding = Padding.TABLE_1) -> int:
    """Cells along an axis of the last map, from pixels along it; 0 where the image is too small."""
    return map_sizes(network, image_size_px, padding)[-1]


def min_size_px(network: str, padding: Padding = Padding.TABLE_1) -> int:
    """Pixels along an axis of the smallest image that leaves a cell of the last map."""
    size = 1
    for window in reversed(list(_windows(network, padding))):
        size = max(1, (size - 1) * window.stride + window.size - window.before - window.after)
    return size


def num_channels(network: str, depth_multiplier: float = 1.0) -> int:
    """Channels of the last map."""
    filters = [step.filters for stage in SPP_NETWORKS[network] for step in stage if isinstance(step, Conv)]
    return _scaled(filters[-1], depth_multiplier)


def _windows(network: str, padding: Padding) -> Iterator[Window]:
    """The windows that slide, in their order, with the padding that is asked for."""
    for stage in SPP_NETWORKS[network]:
        for step in stage:
            if not isinstance(step, Lrn):
                yield _padded(step.window, padding)


def _padded(window: Window, padding: Padding) -> Window:
    if padding is Padding.TABLE_1:
        return window
    return window._replace(before=window.size // 2, after=window.size // 2)


def _apply(
    step: Step, x: Tensor, number: int, depth_multiplier: float, weight_decay: float, padding: Padding
) -> Tensor:
    if isinstance(step, Lrn):
        return LocalResponseNormalization(name=f"lrn{number}")(x)
    window = _padded(step.window, padding)
    kind = "conv" if isinstance(step, Conv) else "pool"
    if window.before or window.after:  # zeros are no new maxima: what is pooled is after ReLU
        sides = (window.before, window.after)
        x = keras.layers.ZeroPadding2D((sides, sides), name=f"{kind}{number}_pad")(x)
    if isinstance(step, Pool):
        return keras.layers.MaxPooling2D(window.size, window.stride, name=f"pool{number}")(x)
    return keras.layers.Conv2D(
        _scaled(step.filters, depth_multiplier),
        window.size,
        window.stride,
        activation="relu",
        kernel_initializer=_initializer(number),
        kernel_regularizer=_weight_decay(weight_decay),
        name=f"conv{number}",
    )(x)


def _initializer(number: int) -> keras.initializers.Initializer:
    return keras.initializers.RandomNormal(stddev=_FIRST_STDDEV) if number == 1 else keras.initializers.HeNormal()


def _weight_decay(weight: float) -> Any:
    return keras.regularizers.L2(weight / 2) if weight else None


def _scaled(filters: int, depth_multiplier: float) -> int:
    return max(1, round(filters * depth_multiplier))
