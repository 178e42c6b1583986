"""Names the end of the extractor in the graph, so that a benchmark can measure the stages (floor 1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from detzoo.contracts import Tensor

FEATURES = "stage_features_"  # prefix of the level of a map that heads read


class StageEnd(keras.layers.Layer):
    """The identity, as an operation with the layer's name.

    Args:
        **kwargs: Arguments of ``keras.layers.Layer``.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)

    def call(self, inputs: Tensor) -> Tensor:
        """Returns the same values, shape and type."""
        return tf.identity(inputs, name=self.name)

    def compute_output_spec(self, inputs: Tensor) -> keras.KerasTensor:
        """Returns shape and type of the input, without autocasting."""
        return keras.KerasTensor(inputs.shape, inputs.dtype)


def end_of_extractor(maps: Mapping[int, Tensor]) -> dict[int, Tensor]:
    """Names the maps, level to [B, H_l, W_l, C_l], in the graph. Returns them in ascending order of level."""
    return {level: StageEnd(name=f"{FEATURES}{level}")(x) for level, x in sorted(maps.items())}
