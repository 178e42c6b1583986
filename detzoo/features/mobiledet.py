"""MobileDet: backbones that were searched for detection on one kind of processor each (CPU, DSP, EdgeTPU, GPU).

References:
    Xiong et al., "MobileDets: Searching for object detection architectures for mobile accelerators", arXiv:2004.14525,
    figure 8 (the architectures), section 3.2 (fused and Tucker convolutions). The hyperparameters are the Object
    Detection API's, which no configuration overrides.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras

from detzoo.contracts import BatchNormHyperparams, ConvHyperparams, Tensor
from detzoo.features.inverted_bottleneck import Bottleneck, Squeeze, Tucker, bottleneck, convolve, half_up, tucker
from detzoo.features.network import Network, symbolic
from detzoo.layers.activation import hard_swish

_TRUNCATED_DEVIATION = 0.87962566103423978  # of a standard normal variable, cut off at 2


@keras.saving.register_keras_serializable(package="detzoo")
class HeNormalDepthwise(keras.initializers.Initializer):
    """He's initializer for depthwise kernels [h, w, C, 1], each of whose outputs reads h * w values."""

    def __call__(self, shape: tuple[int, ...], dtype: Any = None, **kwargs: Any) -> Tensor:
        """Returns values of variance 2 / (h * w), cut off at two deviations."""
        stddev = math.sqrt(2.0 / (shape[0] * shape[1])) / _TRUNCATED_DEVIATION
        return keras.initializers.TruncatedNormal(stddev=stddev)(shape, dtype=dtype)


HYPERPARAMS = ConvHyperparams(
    kernel_initializer=keras.initializers.HeNormal,
    l2_weight=0.00002,
    regularize_depthwise=True,
    activation="relu6",
    batch_norm=BatchNormHyperparams(momentum=0.99, epsilon=0.01, scale=True),
    depthwise_initializer=HeNormalDepthwise,
)
ENDPOINTS = {level: f"c{level}" for level in (2, 3, 4, 5)}

_Block = Bottleneck | Tucker
_SE = Squeeze(lambda channels: half_up(channels / 4), hard_swish, "sigmoid")
_ibn = functools.partial(Bottleneck, activation="relu6")
_ibn_cpu = functools.partial(Bottleneck, activation=hard_swish, squeeze=_SE)
_fused = functools.partial(Bottleneck, activation="relu6", is_fused=True)


def _first(
    build: Callable[..., Bottleneck], filters: int, expansion: int, kernel_size: int = 3, strides: int = 2
) -> Bottleneck:
    """Returns the first block of a stage, which has no shortcut."""
    return build(filters, expansion, kernel_size, strides, has_shortcut=False)


# The blocks up to each of the levels 1 to 5.
_STAGES: dict[str, tuple[tuple[_Block, ...], ...]] = {
    "cpu": (
        (_first(_ibn_cpu, 8, 1, strides=1),),
        (_first(_ibn_cpu, 16, 4),),
        (_first(_ibn_cpu, 32, 8), *[_ibn_cpu(32, 4)] * 3),
        (
            _first(_ibn_cpu, 72, 8, 5),
            _ibn_cpu(72, 8),
            _ibn_cpu(72, 4, 5),
            _ibn_cpu(72, 4),
            _first(_ibn_cpu, 72, 8, strides=1),
            *[_ibn_cpu(72, 8)] * 3,
        ),
        (
            _first(_ibn_cpu, 104, 8, 5),
            *[_ibn_cpu(104, 4, 5)] * 2,
            _ibn_cpu(104, 4),
            _first(_ibn_cpu, 144, 8, strides=1),
        ),
    ),
    "dsp": (
        (_first(_ibn, 24, 1, strides=1),),
        (_first(_fused, 32, 4), _fused(32, 4), _ibn(32, 4), Tucker(32, 0.25, 0.75)),
        (_first(_fused, 64, 8), _ibn(64, 4), *[_fused(64, 4)] * 2),
        (
            _first(_fused, 120, 8),
            _ibn(120, 4),
            *[_ibn(120, 8)] * 2,
            _first(_fused, 144, 8, strides=1),
            *[_ibn(144, 8)] * 3,
        ),
        (
            _first(_ibn, 160, 4),
            _ibn(160, 4),
            _fused(160, 4),
            Tucker(160, 0.75, 0.75),
            _first(_ibn, 240, 8, strides=1),
        ),
    ),
    "edgetpu": (
        (Tucker(16, 0.25, 0.75, has_shortcut=False),),
        (_first(_fused, 16, 8), _fused(16, 4), _fused(16, 8), _fused(16, 4)),
        (_first(_fused, 40, 8, 5), *[_fused(40, 4)] * 3),
        (
            _first(_ibn, 72, 8),
            _ibn(72, 8),
            *[_fused(72, 4)] * 2,
            _first(_ibn, 96, 8, 5, strides=1),
            _ibn(96, 8, 5),
            *[_ibn(96, 8)] * 2,
        ),
        (
            _first(_ibn, 120, 8, 5),
            _ibn(120, 8),
            _ibn(120, 4, 5),
            _ibn(120, 8),
            _first(_ibn, 384, 8, 5, strides=1),
        ),
    ),
    "gpu": (
        (Tucker(16, 0.25, 0.25, has_shortcut=False),),
        (_first(_fused, 32, 8), *[Tucker(32, 0.25, 0.25)] * 3),
        (_first(_fused, 64, 8), *[_fused(64, 8)] * 2, _fused(64, 4)),
        (_first(_fused, 128, 8), *[_fused(128, 4)] * 3, _first(_fused, 128, 8, strides=1), *[_fused(128, 8)] * 3),
        (_first(_fused, 128, 4), *[_fused(128, 4)] * 3, _first(_ibn, 384, 8, strides=1)),
    ),
}
_FIRST_FILTERS = {"cpu": 16, "dsp": 32, "edgetpu": 32, "gpu": 32}


def mobiledet(variant: str, depth_multiplier: float = 1.0) -> Network:
    """Describes a MobileDet backbone: endpoints 2 to 5.

    Args:
        variant: "cpu", "dsp", "edgetpu" or "gpu".
        depth_multiplier: Factor of every block's channels, rounded to multiples of 8.
    """
    return Network(
        graph=symbolic(lambda: _graph(variant, depth_multiplier)),
        endpoints=ENDPOINTS,
        hyperparams=HYPERPARAMS,
        keeps_activations=True,
    )


def _graph(variant: str, depth_multiplier: float) -> keras.Model:
    image = keras.Input((None, None, 3))
    activation = hard_swish if variant == "cpu" else "relu6"
    x: Tensor = convolve(image, half_up(_FIRST_FILTERS[variant] * depth_multiplier), 3, "conv", activation, strides=2)
    names = _numbered(block for stage in _STAGES[variant] for block in stage)
    for level, stage in enumerate(_STAGES[variant], start=1):
        for block in stage:
            filters = half_up(block.filters * depth_multiplier)
            build: Callable[..., Tensor] = tucker if isinstance(block, Tucker) else bottleneck
            x = build(x, block._replace(filters=filters), next(names))
        x = keras.layers.Activation("linear", name=f"c{level}")(x)
    return keras.Model(image, x)


def _numbered(blocks: Iterable[_Block]) -> Iterator[str]:
    """Yields the name of each block: its kind, and from the second of a kind on its number."""
    counts: dict[str, int] = {}
    for block in blocks:
        if isinstance(block, Tucker):
            kind = "tucker"
        elif block.is_fused:
            kind = "fused"
        else:
            kind = "ibn" if block.expansion > 1 else "ibn_no_expansion"
        number = counts[kind] = counts.get(kind, -1) + 1
        yield f"{kind}_{number}" if number else kind
