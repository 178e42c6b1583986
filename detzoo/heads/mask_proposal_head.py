"""The heads of a mask proposal network: an objectness score at every location of a pyramid, and masks at some of them.

Each head is a k x k convolution over every level, then two parallel 1 x 1 layers: one number for the score, and the
cells of a mask. All levels share the layers of a head. Scores are needed at all locations, masks at the best only, so
the layer of the masks is a separate network that reads the features of chosen locations.

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
    """The outputs of the heads at every location, in the order of ``ops.sliding_windows``: head, level, row, column."""

    features: list[Tensor]  # [B, H_l, W_l, depth] of each head and level, the input of the mask network
    score_logits: Tensor  # float32 [B, A, 1]


def sliding_heads(
    maps: Mapping[int, Tensor], kernel_sizes: Sequence[int], depth: int, hyperparams: ConvHyperparams
) -> SlidingHeads:
    """Predicts scores from every level, [B, H_l, W_l, C] with the same C, by heads of these kernel sizes k.

    Normalisation and activation follow the k x k convolutions, which have ``depth`` channels.
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
    """Builds the network that predicts the masks of chosen locations with every head.

    Returns:
        A model from features [B, R, depth] to logits float32 [B, R, mask_size, mask_size, heads]. Only the logits of
        the head that computed a location's features are valid.
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
