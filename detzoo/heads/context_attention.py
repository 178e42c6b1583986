"""The context of Context R-CNN: features of regions attend to a memory of boxes in other images of the camera.

regions [B * R, h, w, C] -> mean of the cells -> attention to the memory [B, N, F] -> added to every cell

Differs from section 4.3 of the paper as the Object Detection API does: values are scaled to length 1 as keys are, all
projections end in a ReLU6, and the graphs of TensorFlow 1 add the means themselves to the regions, too.

References:
    Beery et al., arXiv:1912.03538, section 4.3 and figure 4.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import keras

from detzoo.contracts import BatchNormHyperparams, Tensor
from detzoo.layers.attention import AddToRegions, MemoryAttention, RegionMeans
from detzoo.layers.normalization import batch_norm_from

_BATCH_NORM = BatchNormHyperparams(momentum=0.97, epsilon=0.001, scale=True)  # the Object Detection API's


class Memory(NamedTuple):
    """The inputs of the attention for B images."""

    features: Tensor  # float32 [B, N, F], padded with anything
    num_features: Tensor  # int32 [B]
    num_regions: Tensor  # int32 [B], regions before the padding


@dataclasses.dataclass(frozen=True)
class AttentionParts:
    """The parts of the attention."""

    depth: int  # channels of queries, keys and values
    temperature: float  # divisor of the cosines
    attends_to_memory: bool = True  # attend to the memory
    attends_to_image: bool = False  # attend to the other regions of the image
    in_sequence: bool = False  # attend to the memory with what attention to the image gave
    num_heads: int = 1  # attentions to the memory per layer
    num_layers: int = 1  # layers of attention to the memory
    adds_means: bool = True  # add the means of the regions, as the graphs of TensorFlow 1 do


def context_attention(regions: Tensor, memory: Memory, parts: AttentionParts) -> Tensor:
    """Adds the context to regions [B * R, h, w, C]; the layers are called ``attention_*``."""
    means = RegionMeans(name="attention_means")([regions, memory.features])
    context = of_image = None
    if parts.attends_to_image:
        of_image = _attend(means, Memory(means, memory.num_regions, memory.num_regions), parts, "attention_image")
        context = of_image
    if parts.attends_to_memory:
        x = means
        if of_image is not None and parts.in_sequence:
            x = keras.layers.Average(name="attention_image_and_means")([of_image, means])
        start = x
        for layer in range(parts.num_layers):
            names = [f"attention_head_{head}_layer_{layer}" for head in range(parts.num_heads)]
            heads = [_attend(x, memory, parts, name) for name in names]
            found = heads[0] if len(heads) == 1 else keras.layers.Average(name=f"attention_layer_{layer}")(heads)
            x = keras.layers.Add(name=f"attention_layer_{layer}_sum")([x, found])
        if parts.adds_means:
            x = keras.layers.Add(name="attention_and_means")([x, start])
        else:
            x = keras.layers.Subtract(name="attention_alone")([x, start])
        both = of_image is not None and not parts.in_sequence
        context = keras.layers.Add(name="attention_to_both")([of_image, x]) if both else x
    if context is None:
        raise ValueError("the attention is to the memory, to the image, or to both")
    return AddToRegions(name="attention_regions")([regions, context])


def _attend(x: Tensor, memory: Memory, parts: AttentionParts, name: str) -> Tensor:
    """Attends with vectors [B, R, C] to a memory; returns [B, R, C]."""
    queries = _project(x, parts.depth, f"{name}_query")
    keys, values = (_project(memory.features, parts.depth, f"{name}_{part}") for part in ("key", "value"))
    weighted = MemoryAttention(parts.temperature, name=name)(
        [queries, keys, values, memory.num_regions, memory.num_features]
    )
    return _project(weighted, x.shape[-1], f"{name}_output")


def _project(x: Tensor, depth: int, name: str) -> Tensor:
    x = keras.layers.Dense(depth, use_bias=False, name=name)(x)
    x = batch_norm_from(_BATCH_NORM, name=f"{name}_batch_norm")(x)
    return keras.layers.Activation("relu6", name=f"{name}_activation")(x)
