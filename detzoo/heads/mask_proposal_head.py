"""The heads of a mask proposal network: an objectness score at every location of a pyramid, and masks at some of them.

A k x k convolution over every level, then two 1 x 1 layers beside each other: one number for the score, and the cells
of a mask. The layers are shared over the levels; each k has its own. Scores are wanted everywhere and masks at the best
locations only, so the layer of the masks is a network of its own, which reads the features of chosen locations.

References:
    Lin et al., arXiv:1612.03144, section 6 and appendix A (5 x 5 and 7 x 7 with 512 outputs, masks of 14 x 14).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import keras

from detzoo.contracts import ConvHyperparams, Tensor
from detzoo.heads.dense_head import flatten_map, join_levels
from detzoo.layers.conv import convolution, needs_bias, normalize_and_activate


class SlidingHeads(NamedTuple):
    """What the heads compute at every location, in the order of ``ops.sliding_windows``: head, level, row, column."""

    features: list[Tensor]  # [B, H_l, W_l, depth] of each head and level, what masks are predicted from
    score_logits: Tensor  # float32 [B, A, 1]


def sliding_heads(
    maps: Mapping[int, Tensor], kernel_sizes: Sequence[int], depth: int, hyperparams: ConvHyperparams
) -> SlidingHeads:
    """Scores from every level.

    Args:
        maps: Level to [B, H_l, W_l, C], all with the same C.
        kernel_sizes: k of each head.
        depth: Channels of its k x k convolution.
        hyperparams: Of all layers; normalisation and activation follow the k x k.
    """
    features: list[Tensor] = []
    scores: list[Tensor] = []
    for kernel_size in kernel_sizes:
        conv = convolution(depth, kernel_size, hyperparams, f"conv_{kernel_size}", use_bias=needs_bias(hyperparams))
        score = convolution(1, 1, hyperparams, f"score_{kernel_size}")
        for level, x in sorted(maps.items()):
            name = f"conv_{kernel_size}_level_{level}"
            seen = normalize_and_activate(conv(x), hyperparams, name)
            features.append(seen)
            scores.append(flatten_map(score(seen), 1, f"score_{kernel_size}_{level}"))
    return SlidingHeads(features, join_levels(scores, "score_logits"))


def mask_network(kernel_sizes: Sequence[int], depth: int, mask_size: int, hyperparams: ConvHyperparams) -> keras.Model:
    """The masks of chosen locations, by every head.

    Args:
        kernel_sizes: k of each head.
        depth: Channels of its features.
        mask_size: Side of a mask, cells.
        hyperparams: Initializer and regularizer.

    Returns:
        A model from features [B, R, depth] to logits float32 [B, R, mask_size, mask_size, heads]: a location's own are
        those of the head that its features are of.
    """
    features = keras.Input((None, depth), name="features")
    cells = keras.layers.Reshape((-1, 1, depth), name="locations")(features)
    layers = [convolution(mask_size**2, 1, hyperparams, f"mask_{kernel_size}") for kernel_size in kernel_sizes]
    shape = (-1, mask_size, mask_size, 1)
    logits = [
        keras.layers.Reshape(shape, name=f"{layer.name}_cells", dtype="float32")(layer(cells)) for layer in layers
    ]
    joined = logits[0] if len(logits) == 1 else keras.layers.Concatenate(name="masks", dtype="float32")(logits)
    return keras.Model(features, joined, name="mask_network")
