"""Chooses the anchors that train a proposal network, with their targets (floor 2).

Between the ground truth and the losses of a first stage: the usable anchors are assigned, and a random minibatch of
them trains.

References:
    Ren et al., arXiv:1506.01497, section 3.1.2 (thresholds), 3.1.3 (minibatch of 256, half positive) and 3.3 (anchors
    that cross the border). Lin et al., arXiv:1612.03144, section 4.1 (they are kept).
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from detzoo.contracts import AnchorState, Groundtruth, Targets
from detzoo.ops.sampling import balanced_sample
from detzoo.targets.anchor_targets import AnchorTargets

# Above the rounding of fractions, so that rounding crosses no border.
_BORDER_TOLERANCE = 1e-5


@dataclasses.dataclass(frozen=True)
class ProposalTargets:
    """A sampled minibatch of anchors per image."""

    assign: AnchorTargets  # matching by IoU .7 and .3, with the best anchor of each object by force
    sample_size: int = 256  # number of sampled anchors per image
    positive_fraction: float = 0.5  # largest share of positives in the sample
    # Also trains on anchors that cross the border of the image, but never on anchors outside it.
    keep_crossing: bool = False

    def __call__(
        self,
        anchors_norm: tf.Tensor,
        groundtruth: Groundtruth,
        windows: tf.Tensor,
        seed: tf.Tensor | None = None,
    ) -> Targets:
        """Returns targets with weights of 0 outside the sample. No gradient flows through them.

        ``windows`` float32 [B, 4] are the part of the padded input that each image covers. A seed is an int [2].

        Returns:
            Targets [B, A], with state IGNORE for anchors outside the sample.
        """
        targets = self.assign(anchors_norm, groundtruth, self.usable(anchors_norm, windows))
        positive = (targets.state == AnchorState.POSITIVE) & (targets.class_weights > 0)
        negative = targets.state == AnchorState.NEGATIVE
        sample = balanced_sample(positive, negative, self.sample_size, self.positive_fraction, seed)
        chosen = tf.cast(sample, tf.float32)
        return targets._replace(
            state=tf.where(sample, targets.state, int(AnchorState.IGNORE)),
            class_weights=targets.class_weights * chosen,
            box_weights=targets.box_weights * chosen,
        )

    def usable(self, anchors_norm: tf.Tensor, windows: tf.Tensor) -> tf.Tensor:
        """Returns bool [B, A], True for anchors inside the window of an image.

        With ``keep_crossing``, anchors with some area in the window are usable. So anchors in the padding are never
        negative. Differs from the Object Detection API, which uses the border of the padded input.
        """
        low, high = tf.split(windows[:, tf.newaxis, :], 2, axis=-1)
        if self.keep_crossing:
            return tf.reduce_all((anchors_norm[:, :2] < high) & (anchors_norm[:, 2:] > low), axis=-1)
        inside = (anchors_norm[:, :2] >= low - _BORDER_TOLERANCE) & (anchors_norm[:, 2:] <= high + _BORDER_TOLERANCE)
        return tf.reduce_all(inside, axis=-1)
