"""MnasFPN: four equal cells that were searched for mobile processors, each from four maps to four maps.

A node of a cell reads two maps: it widens each by a 1 x 1 convolution, resizes it, adds both, activates the sum, and
narrows it by a separable convolution. A coarser map is widened before it is doubled, a finer one is halved before it is
widened, so that every convolution runs at the smaller of two sizes ("size-dependent ordering"). Cells have shortcuts.

References:
    Chen et al., "MnasFPN: Learning latency-aware pyramid architecture for object detection on mobile devices",
    arXiv:1912.01106, sections 3.1 (nodes), 3.2 (size-dependent ordering), figure 6 (the cell). The hyperparameters are
    those of the Object Detection API, which no configuration overrides.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import keras

from detzoo.contracts import BatchNormHyperparams, ConvHyperparams, Tensor
from detzoo.layers.conv import conv_block, normalize_and_activate, pad_explicitly, separable_convolution
from detzoo.layers.resample import UpsampleLike

NUM_CELLS = 4
BATCH_NORM = BatchNormHyperparams(momentum=0.99, epsilon=0.01, scale=True)
HYPERPARAMS = ConvHyperparams(
    kernel_initializer=keras.initializers.HeNormal, l2_weight=0.00005, activation=None, batch_norm=BATCH_NORM
)
# He's deviation for a depthwise 3 x 3 kernel; the Object Detection API has it for all kernels of the separable ones.
SEPARABLE_INITIALIZER = functools.partial(keras.initializers.TruncatedNormal, stddev=0.536)
_POOL_SIZE = 3


class _Node(NamedTuple):
    inputs: tuple[int, int]  # of the cell's maps, finest first, and then its nodes
    level: int
    kernel_size: int
    width: int  # channels between the convolutions


_CELL = (
    _Node((1, 2), level=4, kernel_size=3, width=256),
    _Node((0, 4), level=3, kernel_size=3, width=128),
    _Node((5, 4), level=4, kernel_size=3, width=128),
    _Node((4, 3), level=5, kernel_size=5, width=128),
    _Node((4, 3), level=6, kernel_size=3, width=96),
)


class _Map(NamedTuple):
    level: int
    tensor: Tensor


def mnasfpn(
    maps: Mapping[int, Tensor],
    depth: int,
    scaled: Callable[[int], int],
    freeze_batchnorm: bool = False,
    explicit_padding: bool = False,
) -> dict[int, Tensor]:
    """Builds the pyramid.

    Args:
        maps: Level to C_3, C_4 and C_5 of the backbone [B, H_l, W_l, C_l].
        depth: Channels of every map of the pyramid; 48 in the paper.
        scaled: Function from channels of a node in the paper to those to build.
        freeze_batchnorm: Normalizes with the moving statistics, which never move.
        explicit_padding: Pads by the kernel's reach on every side, see ``detzoo.layers.conv.conv_block``.

    Returns:
        Levels 3 to 6 to maps [B, H_l, W_l, depth].
    """
    batch_norm = dataclasses.replace(BATCH_NORM, train=not freeze_batchnorm)
    build = _Builder(dataclasses.replace(HYPERPARAMS, batch_norm=batch_norm), explicit_padding)
    top = max(maps)
    coarse = build.halved(maps[top], 2, f"mnasfpn_{top + 1}")
    plain = dataclasses.replace(build.hyperparams, l2_weight=0.0)
    coarse = conv_block(coarse, depth, 1, plain, f"mnasfpn_{top + 1}")
    pyramid = {**maps, top + 1: coarse}
    for cell in range(NUM_CELLS):
        nodes = [_Map(level, x) for level, x in sorted(pyramid.items())]
        for number, node in enumerate(_CELL):
            name = f"mnasfpn_{cell}_{number}"
            wide = [
                build.resized(nodes[index], scaled(node.width), node.level, pyramid, f"{name}_input_{position}")
                for position, index in enumerate(node.inputs)
            ]
            x = keras.layers.Add(name=f"{name}_sum")(wide)
            x = keras.layers.Activation("relu6", name=f"{name}_activation")(x)
            nodes.append(_Map(node.level, build.narrowed(x, depth, node.kernel_size, name)))
        pyramid = {
            level: _with_shortcut(pyramid[level], x, f"mnasfpn_{cell}_add_{level}")
            for level, x in nodes[-len(pyramid) :]
        }
    return pyramid


class _Builder(NamedTuple):
    hyperparams: ConvHyperparams
    explicit_padding: bool

    def resized(self, source: _Map, width: int, level: int, pyramid: Mapping[int, Tensor], name: str) -> Tensor:
        """Widens a map and resizes it to a level, in the order that computes less."""
        x = source.tensor
        if source.level < level:
            x = self.halved(x, 2 ** (level - source.level), name)
        x = conv_block(x, width, 1, self.hyperparams, name)
        return UpsampleLike(name=f"{name}_upsample")([x, pyramid[level]]) if source.level > level else x

    def halved(self, x: Tensor, strides: int, name: str) -> Tensor:
        x, padding = self._padded(x, _POOL_SIZE, f"{name}_pool")
        return keras.layers.MaxPooling2D(_POOL_SIZE, strides, padding=padding, name=f"{name}_pool")(x)

    def narrowed(self, x: Tensor, depth: int, kernel_size: int, name: str) -> Tensor:
        x, padding = self._padded(x, kernel_size, name)
        hyperparams = dataclasses.replace(self.hyperparams, kernel_initializer=SEPARABLE_INITIALIZER)
        convolution = separable_convolution(
            depth,
            kernel_size,
            hyperparams,
            f"{name}_separable",
            configure_pointwise=True,
            use_bias=False,
            padding=padding,
        )
        return normalize_and_activate(convolution(x), hyperparams, name)

    def _padded(self, x: Tensor, kernel_size: int, name: str) -> tuple[Tensor, str]:
        return (pad_explicitly(x, kernel_size, name), "valid") if self.explicit_padding else (x, "same")


def _with_shortcut(before: Tensor, after: Tensor, name: str) -> Tensor:
    """Adds the map of the same level before the cell, if it has as many channels."""
    return keras.layers.Add(name=name)([after, before]) if before.shape == after.shape else after
