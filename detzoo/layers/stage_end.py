"""A name in the graph where the extractor ends and the heads begin: a benchmark measures up to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from detzoo.contracts import Tensor

FEATURES = "stage_features_"  # and a level: the maps that heads read


class StageEnd(keras.layers.Layer):
    """The identity, as an operation of the layer's name.

    Args:
        **kwargs: Arguments of ``keras.layers.Layer``.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)

    def call(self, inputs: Tensor) -> Tensor:
        """The same values, shape and type."""
        return tf.identity(inputs, name=self.name)

    def compute_output_spec(self, inputs: Tensor) -> keras.KerasTensor:
        """Shape and type of the input, which autocasting leaves as it is."""
        return keras.KerasTensor(inputs.shape, inputs.dtype)


def end_of_extractor(maps: Mapping[int, Tensor]) -> dict[int, Tensor]:
    """The maps, level to [B, H_l, W_l, C_l], with their names in the graph, in ascending order of level."""
    return {level: StageEnd(name=f"{FEATURES}{level}")(x) for level, x in sorted(maps.items())}
