"""CenterNet's loss of keypoints: heatmap, offset and regression (floor 2).

Zhou et al., arXiv:1904.07850, section 4 ("human pose estimation").
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from detzoo.contracts import CenterPredictions, KeypointTargets, KeypointTask, LossTerm, Tensor, Vectors
from detzoo.losses.center_loss import mean_over_stacks
from detzoo.losses.classification import PenaltyReducedFocal
from detzoo.losses.localization import LocalizationLoss


@dataclasses.dataclass(frozen=True)
class KeypointLoss:
    """Sums the losses of a task over the labelled keypoints; several stacks count by their mean."""

    task: KeypointTask
    heatmap: PenaltyReducedFocal
    localization: LocalizationLoss
    heatmap_weight: float = 1.0
    offset_weight: float = 1.0
    regression_weight: float = 1.0

    def __call__(self, predictions: CenterPredictions, targets: KeypointTargets) -> dict[str, LossTerm]:
        """Returns the terms of the three heads, by their names."""
        heads = {kind: self.task.head(kind) for kind in ("heatmap", "offset", "regression")}
        maps = predictions.maps
        heatmap = mean_over_stacks(
            [self.heatmap.values(x, targets.heatmap) * targets.heatmap_weights for x in maps[heads["heatmap"]]]
        )
        terms = {heads["heatmap"]: LossTerm(self.heatmap_weight * heatmap, targets.num_keypoints)}
        for kind, weight, vectors in (
            ("offset", self.offset_weight, targets.offsets),
            ("regression", self.regression_weight, targets.regression),
        ):
            total = mean_over_stacks([self._of_vectors(x, vectors) for x in maps[heads[kind]]])
            terms[heads[kind]] = LossTerm(weight * total, tf.reduce_sum(vectors.weights))
        return terms

    def _of_vectors(self, predicted: Tensor, vectors: Vectors) -> Tensor:
        num_pairs = predicted.shape[-1] // 2  # 1 or P
        pairs = tf.reshape(predicted, [tf.shape(predicted)[0], -1, 2])
        rows = vectors.cells if num_pairs == 1 else vectors.cells * num_pairs + vectors.keypoints
        return self.localization(tf.gather(pairs, rows, batch_dims=1), vectors.values, ()) * vectors.weights
