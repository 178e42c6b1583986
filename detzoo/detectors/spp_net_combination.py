"""Several SPP-nets as one detector: the union of scored windows, with one suppression.

He et al., arXiv:1406.4729, section 4.4 and table 12: "we first use either model to score all candidate windows on the
test image, then perform non-maximum suppression on the union of the two sets of candidate windows (with their scores)".
A window with a high score in one model suppresses overlapping windows with lower scores in the other.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from detzoo.contracts import Detections, Groundtruth, Proposals, RegionPredictions, Tensor
from detzoo.detectors.base import Detector
from detzoo.detectors.spp_net import SppNet
from detzoo.errors import ConfigError
from detzoo.postprocess.region_detections import is_region


class CombinedSppNets(Detector):
    """Union of SPP-nets, with the suppression of the first.

    Args:
        members: Two or more restored SPP-nets.

    Raises:
        ConfigError: The SPP-nets cannot be combined.
    """

    wants_proposals = True
    trained_in_steps = True

    def __init__(self, members: Sequence[SppNet]) -> None:
        first = members[0]
        if len(members) < 2:
            raise ConfigError("a combination takes two models or more")
        for member in members[1:]:
            if member.num_classes != first.num_classes:
                raise ConfigError(
                    f"models of {first.num_classes} and of {member.num_classes} classes cannot be combined; both must "
                    "be trained for the same classes"
                )
            if member.parts.has_svm != first.parts.has_svm:
                raise ConfigError(
                    "a model with SVMs and one without cannot be combined: their scores cannot be compared"
                )
        super().__init__(first.num_classes, first.input_shape_px, name="combined_spp_nets")
        self.members = list(members)
        self.built = True

    def preprocess(self, images: Tensor) -> Tensor:
        """Returns images as float32; each member normalises them."""
        return tf.cast(images, tf.float32)

    def forward(
        self,
        inputs: Tensor,
        training: bool = False,
        true_shapes: Tensor | None = None,
        groundtruth: Groundtruth | None = None,
        proposals: Proposals | None = None,
    ) -> RegionPredictions:
        """See ``Detector.forward``. The regions of the members follow one another."""
        del training, groundtruth
        parts = [
            member.forward(member.preprocess(inputs), true_shapes=true_shapes, proposals=proposals)
            for member in self.members
        ]
        valid = tf.concat([is_region(part.proposals) for part in parts], axis=1)
        # Rows of regions come before padding.
        order = tf.argsort(tf.cast(~valid, tf.int32), axis=1, stable=True)

        def joined(tensors: Sequence[Tensor]) -> Tensor:
            return tf.gather(tf.concat(tensors, axis=1), order, batch_dims=1)

        regions = Proposals(
            joined([part.proposals.boxes_norm for part in parts]),
            joined([part.proposals.scores for part in parts]),
            tf.reduce_sum(tf.cast(valid, tf.int32), axis=1),
        )
        deltas = joined([_for_each_class(part.box_deltas, self.num_classes) for part in parts])
        return RegionPredictions((), regions, deltas, joined([part.class_logits for part in parts]), parts[0].windows)

    def postprocess(
        self, predictions: RegionPredictions, true_shapes: Tensor, padded_shape: tuple[Tensor | int, Tensor | int]
    ) -> Detections:
        """See ``Detector.postprocess``."""
        return self.members[0].postprocess(predictions, true_shapes, padded_shape)


def _for_each_class(deltas: Tensor, num_classes: int) -> Tensor:
    """Repeats [B, R, 1, 4] of a member without box regression to [B, R, K, 4]."""
    return deltas if deltas.shape[2] == num_classes else tf.repeat(deltas, num_classes, axis=2)
