"""CenterNet's loss: heatmap of centres, size and offset at the centres (floor 2).

Zhou et al., arXiv:1904.07850, equations 1 to 4.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import tensorflow as tf

from detzoo.contracts import CenterPredictions, CenterTargets, LossTerm, Tensor
from detzoo.losses.classification import ClassificationLoss
from detzoo.losses.localization import LocalizationLoss
from detzoo.ops.peaks import values_at


@dataclasses.dataclass(frozen=True)
class CenterLoss:
    """Sums the losses of centres, sizes and offsets over the objects; several stacks count by their mean."""

    heatmap: ClassificationLoss
    localization: LocalizationLoss
    center_weight: float = 1.0
    size_weight: float = 0.1  # section 3: lambda_size
    offset_weight: float = 1.0  # section 3: lambda_off

    def __call__(self, predictions: CenterPredictions, targets: CenterTargets) -> dict[str, LossTerm]:
        """Returns the terms "object_center", "box/scale" and "box/offset", normalised by the number of objects."""
        num_objects = tf.math.count_nonzero(targets.weights, dtype=tf.float32)

        def at_centers(head: str, expected: Tensor) -> Tensor:
            def loss(predicted: Tensor) -> Tensor:
                values = values_at(predicted, targets.cells)
                return self.localization(values, expected, ()) * targets.weights

            return mean_over_stacks([loss(x) for x in predictions.maps[head]])

        centers = mean_over_stacks(
            [
                self.heatmap(x, targets.heatmap) * targets.heatmap_weights[..., 0]
                for x in predictions.maps["object_center"]
            ]
        )
        totals = {
            "object_center": self.center_weight * centers,
            "box/scale": self.size_weight * at_centers("box/scale", targets.sizes),
            "box/offset": self.offset_weight * at_centers("box/offset", targets.offsets),
        }
        return {name: LossTerm(total, num_objects) for name, total in totals.items()}


def mean_over_stacks(losses: Sequence[Tensor]) -> Tensor:
    """Returns the mean over the stacks of the summed losses."""
    return tf.add_n([tf.reduce_sum(loss) for loss in losses]) / len(losses)
