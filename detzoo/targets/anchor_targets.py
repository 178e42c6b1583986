"""Training targets of anchors, from ground truth (floor 2).

Between the batch and the losses of every dense head (SSD, RetinaNet, a region proposal network).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import tensorflow as tf

from detzoo.contracts import AnchorState, Assignment, Groundtruth, Targets
from detzoo.ops import boxes
from detzoo.ops.box_coder import BoxCoder
from detzoo.ops.matching import Matcher, Similarity, ignore_crowd

# Below any similarity, so that objects claim usable anchors only.
_UNUSABLE = -1e6


@dataclasses.dataclass(frozen=True)
class AnchorTargets:
    """Assigns ground truth to anchors, with the semantics of the Object Detection API's target assigner.

    An object of weight 0 matches as any other, has weight 0 in both losses and claims no anchor by force. Differs from
    the Object Detection API: degenerate boxes match nothing (there they claim the first anchor), and anchors in a crowd
    region are ignored (there crowds are ordinary objects), because both only add wrong targets.
    """

    matcher: Matcher  # function of a similarity that returns an assignment
    similarity: Similarity  # similarity of ground truth and anchors
    box_coder: BoxCoder  # encoder of the regression targets
    negative_class_weight: float = 1.0  # weight of a negative anchor in the classification loss

    def __call__(self, anchors_norm: tf.Tensor, groundtruth: Groundtruth, usable: tf.Tensor | None = None) -> Targets:
        """Returns the targets of a batch, [B, A] and [B, A, code size]. No gradient flows through them.

        Anchors are float32 [A, 4], or [B, A, 4] for separate ones (proposals) per image. Those that are not ``usable``,
        bool [B, A], match nothing and are ignored.
        """
        anchors_norm = tf.convert_to_tensor(anchors_norm)
        # One image after the other, because the similarities of a whole batch (51150 anchors x 100 boxes x 8 images is
        # 164 MB, several times) would determine the memory of the training step.
        known = (groundtruth.boxes_norm, groundtruth.classes, groundtruth.weights, groundtruth.is_crowd)
        own_anchors = () if anchors_norm.shape.rank == 2 else anchors_norm

        @tf.autograph.experimental.do_not_convert  # the conversion would take a third of an eager training step
        def assign(image: tuple[Any, ...]) -> Assignment:
            return self._assign(anchors_norm if isinstance(image[0], tuple) else image[0], *image[1:])

        assignment = tf.map_fn(
            assign,
            (own_anchors, () if usable is None else usable, *known),
            fn_output_signature=Assignment(*[tf.TensorSpec(anchors_norm.shape[-2:-1], tf.int32)] * 2),
            parallel_iterations=2,
        )
        positive = assignment.state == AnchorState.POSITIVE
        matched = _gather_rows(groundtruth.boxes_norm, assignment.gt_index)
        deltas = self.box_coder.encode(matched, anchors_norm)
        box_weights = tf.where(positive, _gather_rows(groundtruth.weights, assignment.gt_index), 0.0)
        negative = tf.cast(assignment.state == AnchorState.NEGATIVE, tf.float32)
        return Targets(
            box_deltas=tf.where(positive[..., tf.newaxis], deltas, 0.0),
            classes=tf.where(positive, _gather_rows(groundtruth.classes, assignment.gt_index), -1),
            state=assignment.state,
            class_weights=box_weights + self.negative_class_weight * negative,
            box_weights=box_weights,
            gt_index=assignment.gt_index,
            label_sets=groundtruth.label_sets,
        )

    def _assign(
        self,
        anchors_norm: tf.Tensor,
        usable: tf.Tensor | tuple[()],
        gt_boxes: tf.Tensor,
        gt_classes: tf.Tensor,
        gt_weights: tf.Tensor,
        is_crowd: tf.Tensor,
    ) -> Assignment:
        """Assigns the anchors of one image. Rows of padding behind the last object are removed first, for speed."""
        is_object = (gt_classes >= 0) & boxes.is_valid(gt_boxes)
        num_rows = count_to_last(is_object)
        gt_boxes, is_object = gt_boxes[:num_rows], is_object[:num_rows]
        crowd, weights = is_crowd[:num_rows] & is_object, gt_weights[:num_rows]
        similarity = self.similarity(gt_boxes, anchors_norm)
        if not isinstance(usable, tuple):
            similarity = tf.where(usable, similarity, _UNUSABLE)
        assignment = self.matcher(similarity, is_object & ~crowd, weights > 0)
        if not isinstance(usable, tuple):
            state = tf.where(usable, assignment.state, int(AnchorState.IGNORE))
            assignment = Assignment(state, tf.where(usable, assignment.gt_index, 0))
        return ignore_crowd(assignment, anchors_norm, gt_boxes, crowd)


def count_to_last(mask: tf.Tensor) -> tf.Tensor:
    """Returns the number of entries of ``mask`` bool [N] up to its last true one: int32 scalar, 0 for none."""
    last = tf.reduce_max(tf.where(mask, tf.range(1, tf.size(mask) + 1), 0))
    return tf.maximum(last, 0)  # the maximum of an empty tensor is the smallest int


def _gather_rows(values: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Gathers rows [B, A] of values [B, N, ...]. A row of zeros is added, because N may be 0 and row 0 must exist."""
    padding = [[0, 0], [0, 1]] + [[0, 0]] * (len(values.shape) - 2)
    return tf.gather(tf.pad(values, padding), rows, batch_dims=1)
