"""The head of a region proposal network: objectness and box of every anchor, from each map of a pyramid.

A k x k convolution, then two parallel 1 x 1 layers. The levels of a pyramid share all three, or the convolution, or
nothing. The order of the outputs is that of ``detzoo.heads.dense_head``.

References:
    Ren et al., arXiv:1506.01497, section 3.1. Lin et al., arXiv:1612.03144, section 4.1 (shared over the levels) and
    table 1 (the gain of sharing).
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Mapping, Sequence

import keras

from detzoo.contracts import ConvHyperparams, Tensor
from detzoo.heads.dense_head import BOX_CODE_SIZE, DenseOutputs, flatten_map, join_levels
from detzoo.layers.conv import convolution, needs_bias, normalize_and_activate

OBJECTNESS_COLUMNS = 2  # background, object
# Differs from arXiv:1506.01497, which has ReLU: the Object Detection API uses ReLU6 under every configuration.
ACTIVATION = "relu6"


class Sharing(enum.Enum):
    """The layers that the levels of a pyramid share."""

    CONVOLUTION = "convolution"  # the k x k; the Object Detection API
    ALL = "all"  # the paper
    NONE = "none"  # an ablation of the paper


def proposal_head(
    maps: Mapping[int, Tensor],
    num_anchors_per_location: Sequence[int],
    depth: int,
    hyperparams: ConvHyperparams,
    kernel_size: int = 3,
    dilation: int = 1,
    sharing: Sharing = Sharing.CONVOLUTION,
) -> DenseOutputs:
    """Predicts from every level, with equal channels if any layer is shared.

    ``depth`` are the channels of the k x k convolution, ``dilation`` is the spacing of its taps. Anchors per location
    are given in ascending order of level.

    Returns:
        ``box_deltas`` [B, A, 4], and ``class_logits`` [B, A, 2], background first.
    """
    hyperparams = dataclasses.replace(hyperparams, activation=ACTIVATION)
    use_bias = needs_bias(hyperparams)
    is_shared = {"conv": sharing is not Sharing.NONE, "predictor": sharing is Sharing.ALL}
    shared: dict[str, keras.layers.Layer] = {}

    def layer(kind: str, name: str, level: int, build: Callable[[str], keras.layers.Layer]) -> keras.layers.Layer:
        """Returns the shared layer of all levels, or a new one for this level."""
        if not is_shared[kind] and len(maps) > 1:
            return build(f"{name}_{level}")
        if name not in shared:
            shared[name] = build(name)
        return shared[name]

    boxes: list[Tensor] = []
    logits: list[Tensor] = []
    for (level, x), num_anchors in zip(sorted(maps.items()), num_anchors_per_location, strict=True):
        conv = layer(
            "conv",
            "conv",
            level,
            lambda name: convolution(depth, kernel_size, hyperparams, name, use_bias=use_bias, dilation_rate=dilation),
        )
        x = normalize_and_activate(conv(x), hyperparams, f"conv_level_{level}")
        for name, columns, outputs in (
            ("box_predictor", BOX_CODE_SIZE, boxes),
            ("objectness_predictor", OBJECTNESS_COLUMNS, logits),
        ):
            filters = num_anchors * columns
            predict = layer("predictor", name, level, lambda name: convolution(filters, 1, hyperparams, name))  # noqa: B023
            outputs.append(flatten_map(predict(x), columns, f"{name}_{level}"))
    return DenseOutputs(join_levels(boxes, "box_deltas"), join_levels(logits, "class_logits"))
