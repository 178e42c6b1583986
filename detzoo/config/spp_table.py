"""The layers of SPP-net's networks and the sizes of their maps, known without building them (no TensorFlow here).

He et al., arXiv:1406.4729, table 1. ``detzoo.features.spp_networks`` wires these layers, and the checks of a config
compute the sizes of maps from them. A row of ``SPP_NETWORKS`` reads like a row of the table.

Paddings are the table's by default, "adjusted to produce the expected output feature map size": at 224 x 224 pixels
the maps have 55, 27, 13, 13 and 13 cells a side (Overfeat: 36 and 18). ``Padding.CENTERED`` is what the paper's
appendix A uses to find windows on a map: floor(p / 2) cells on all sides of a layer of filter size p, so that cell i of
a map looks at the image around pixel stride x i. Weights fit both.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import NamedTuple

BASELINE_BINS = (6,)  # "no SPP": the last pooling makes 6 x 6, section 3.1.1


class Padding(enum.Enum):
    """Cells around the input of each layer."""

    TABLE_1 = "table_1"
    CENTERED = "centered"


class Window(NamedTuple):
    """Size, stride and padding of a convolution or pooling, in cells, equal in both directions."""

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
    """Local response normalization."""


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


def stride_px(network: str) -> int:
    """Returns the pixels of the image between neighboring cells of the last map: 16, Overfeat's 12."""
    stride = 1
    for window in _windows(network, Padding.TABLE_1):
        stride *= window.stride
    return stride


def offset_px(network: str, padding: Padding = Padding.TABLE_1) -> float:
    """Returns the pixel (counted from 0, at its middle) in the center of the field of view of cell 0 of the last map.

    The center of cell i is pixel offset + stride x i, in both directions. The offset is 0 with ``Padding.CENTERED`` if
    all filters are odd.
    """
    offset, stride = 0.0, 1
    for window in _windows(network, padding):
        offset += stride * ((window.size - 1) / 2 - window.before)
        stride *= window.stride
    return offset


def map_sizes(network: str, image_size_px: int, padding: Padding = Padding.TABLE_1) -> list[int]:
    """Returns the cells along an axis after every convolution and pooling, in their order, from pixels along it.

    The numbers are 0 from the first layer on whose filter does not fit.
    """
    sizes, size = [], image_size_px
    for window in _windows(network, padding):
        size = max(0, (size + window.before + window.after - window.size) // window.stride + 1)
        sizes.append(size)
    return sizes


def map_size(network: str, image_size_px: int, padding: Padding = Padding.TABLE_1) -> int:
    """Returns the cells along an axis of the last map, from pixels along it; 0 if the image is too small."""
    return map_sizes(network, image_size_px, padding)[-1]


def min_size_px(network: str, padding: Padding = Padding.TABLE_1, cells: int = 1) -> int:
    """Returns the pixels along an axis of the smallest image whose last map has at least ``cells`` cells."""
    size = cells
    for window in reversed(list(_windows(network, padding))):
        size = max(1, (size - 1) * window.stride + window.size - window.before - window.after)
    return size


def num_channels(network: str, depth_multiplier: float = 1.0) -> int:
    """Returns the channels of the last map."""
    filters = [step.filters for stage in SPP_NETWORKS[network] for step in stage if isinstance(step, Conv)]
    return scaled_channels(filters[-1], depth_multiplier)


def _windows(network: str, padding: Padding) -> Iterator[Window]:
    """Yields the windows of convolutions and poolings, in their order, with the requested padding."""
    for stage in SPP_NETWORKS[network]:
        for step in stage:
            if not isinstance(step, Lrn):
                yield padded(step.window, padding)


def padded(window: Window, padding: Padding) -> Window:
    """Returns the window with the requested padding."""
    if padding is Padding.TABLE_1:
        return window
    return window._replace(before=window.size // 2, after=window.size // 2)


def scaled_channels(filters: int, depth_multiplier: float) -> int:
    """Returns the channels of a convolution in a network of another width, at least 1."""
    return max(1, round(filters * depth_multiplier))
