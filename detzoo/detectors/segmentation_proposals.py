"""Segmentation proposals: class-agnostic masks from a feature pyramid.

inputs -> backbone, pyramid -> heads -> scores everywhere -> the best locations -> their masks -> detections
                                    \\-> in training: a sample of locations ----> scores and masks' loss

Lin et al., "Feature pyramid networks for object detection", arXiv:1612.03144, section 6 and appendix A.

| section of the paper | here |
|---|---|
| 6, A: pyramid of 128 channels, P2 to P6 | ``detzoo.necks.feature_pyramid`` |
| A: 5 x 5 and 7 x 7 MLP, shared over the levels | ``detzoo.heads.mask_proposal_head`` |
| A: scales, half octaves, padding of 25 % | ``detzoo.ops.sliding_windows`` |
| A: assignment by centre and scale, sampling 1:3 | ``detzoo.targets.mask_proposal_targets`` |
| A: mask loss of weight 10 | ``detzoo.losses.region_loss`` |
| A: the 1000 best locations, no suppression | ``detzoo.postprocess.mask_proposals`` |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from detzoo.contracts import (
    Detections,
    FeatureExtractor,
    Groundtruth,
    LossTerm,
    MaskProposalPredictions,
    Proposals,
    Tensor,
)
from detzoo.detectors.base import Detector, ImageShape
from detzoo.detectors.parts import part
from detzoo.heads.mask_proposal_head import SlidingHeads
from detzoo.layers.stage_end import end_of_extractor
from detzoo.losses.region_loss import MaskProposalLoss
from detzoo.ops.sliding_windows import Locations, SlidingWindows, gather_locations
from detzoo.postprocess.mask_proposals import best_locations, mask_detections
from detzoo.targets.mask_proposal_targets import MaskProposalTargets


class SegmentationProposals(Detector):
    """Class-agnostic detector of masks.

    Args:
        network: Model of ``sliding_network``.
        mask_network: Model of ``heads.mask_proposal_head.mask_network``.
        normalize: Function from RGB 0..255 to the values that the network expects.
        windows: Windows of the network's locations.
        targets: Sampler of locations with objects.
        loss: Function from predictions, targets and ground truth to loss terms.
        max_proposals: Number of masks per image.
    """

    proposes_only = True
    proposes_masks = True
    backbone = part("backbone")
    neck = part("neck")
    head = part("head")
    mask_head = part("mask_head")

    def __init__(
        self,
        network: keras.Model,
        mask_network: keras.Model,
        normalize: Callable[[Tensor], Tensor],
        windows: SlidingWindows,
        targets: MaskProposalTargets,
        loss: MaskProposalLoss,
        max_proposals: int,
    ) -> None:
        _, height, width, _ = network.input_shape
        super().__init__(1, (height, width), normalize, name="segmentation_proposals")
        self.network = network
        self.mask_network = mask_network
        self._windows = windows
        self._targets = targets
        self._loss_terms = loss
        self._max_proposals = max_proposals
        self.built = True

    @property
    def cell_multiple_px(self) -> int:
        """See ``Detector.cell_multiple_px``."""
        return 2 ** max(self._windows.levels)

    def forward(
        self,
        inputs: Tensor,
        training: bool = False,
        true_shapes: Tensor | None = None,
        groundtruth: Groundtruth | None = None,
        proposals: Proposals | None = None,
    ) -> MaskProposalPredictions:
        """See ``Detector.forward``. With ground truth, masks are predicted at the positives of a labelled sample."""
        del proposals
        outputs = self.network(self.whole_cells(inputs, true_shapes), training=training)
        scores, maps = outputs["score_logits"][..., 0], outputs["features"]
        locations = self._locations(maps)
        padded_shape = tf.shape(inputs)[1:3]
        if true_shapes is None:
            true_shapes = tf.tile(padded_shape[tf.newaxis], [tf.shape(inputs)[0], 1])
        targets: Any = ()
        if groundtruth is not None:
            targets = self._targets(locations, groundtruth, true_shapes, padded_shape)
            chosen, is_filled = self._targets.positives(targets)
            found = tf.where(is_filled, tf.sigmoid(tf.gather(scores, chosen, batch_dims=1)), -1.0)
        else:
            chosen, found = best_locations(scores, locations.centers_px, true_shapes, self._max_proposals)
        sides = tf.tile(tf.cast(padded_shape, tf.float32), [2])
        return MaskProposalPredictions(
            score_logits=scores,
            windows_norm=locations.windows_px / sides,
            chosen=chosen,
            scores=found,
            mask_logits=self._masks_at(maps, chosen, locations.scales, training),
            targets=targets,
        )

    def loss_terms(self, predictions: MaskProposalPredictions, groundtruth: Groundtruth) -> dict[str, LossTerm]:
        """See ``Detector.loss_terms``."""
        return self._loss_terms(predictions, predictions.targets, groundtruth)

    def postprocess(
        self, predictions: MaskProposalPredictions, true_shapes: Tensor, padded_shape: tuple[Tensor | int, Tensor | int]
    ) -> Detections:
        """See ``Detector.postprocess``."""
        return mask_detections(predictions, true_shapes, padded_shape)

    def _locations(self, maps: list[Tensor]) -> Locations:
        """Returns the locations of the heads' maps; all heads have the same levels."""
        shapes = [tuple(x.shape[axis] or tf.shape(x)[axis] for axis in (1, 2)) for x in maps]
        return self._windows(shapes[: len(self._windows.levels)])

    def _masks_at(self, maps: list[Tensor], chosen: Tensor, scales: Tensor, training: bool) -> Tensor:
        """Returns logits float32 [B, R, h, w] of the chosen locations, each by the head of its scale."""
        by_head = self.mask_network(gather_locations(maps, chosen), training=training)
        heads = tf.gather(scales, chosen) // len(self._windows.levels)
        own = tf.one_hot(heads, by_head.shape[-1])[:, :, tf.newaxis, tf.newaxis]
        return tf.reduce_sum(by_head * own, axis=-1)


def sliding_network(
    image_shape_px: ImageShape,
    extractor: FeatureExtractor,
    neck: Callable[[Mapping[int, Tensor]], Mapping[int, Tensor]],
    heads: Callable[[Mapping[int, Tensor]], SlidingHeads],
) -> keras.Model:
    """Wires backbone, pyramid and heads.

    The variables' paths start with ``backbone/``, ``neck/`` and ``head/``.

    Args:
        image_shape_px: (height, width) of the padded input, None for any size.
        extractor: Backbone.
        neck: Function from the backbone's maps to the pyramid, both level to [B, H_l, W_l, C_l].
        heads: Function from the pyramid to features and scores of every location.

    Returns:
        A model from normalised images [B, H, W, 3] to a dict: ``features`` the list of the heads' maps [B, H_l, W_l,
        depth], ``score_logits`` float32 [B, A, 1].
    """
    images = keras.Input((*image_shape_px, 3), name="image", dtype="float32")
    backbone_maps = extractor.model(images)
    with keras.name_scope("neck"):
        pyramid = end_of_extractor(neck(backbone_maps))
    with keras.name_scope("head"):
        outputs = heads(pyramid)
    return keras.Model(images, outputs._asdict(), name="network")
