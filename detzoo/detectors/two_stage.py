"""The two-stage detector behind Faster R-CNN, R-FCN and Fast R-CNN: regions first, then their classes.

inputs -> backbone, neck -> proposal head -> proposals -> (in training: a labelled sample of them)
                        \\-> regions of the maps ------> classes, boxes (and masks) -> detections

Ren et al., arXiv:1506.01497. The common interface is that of Huang et al., arXiv:1611.10012, section 3.

| section of the Faster R-CNN paper | here |
|---|---|
| 3.1 region proposal network | ``detzoo.heads.proposal_head``, ``detzoo.ops.anchors`` |
| 3.1.2, 3.1.3 loss and minibatch of anchors | ``detzoo.targets.proposal_targets``, ``detzoo.losses.region_loss`` |
| 3.2 sharing of features | one backbone for both stages |
| 3.3 anchors at the border, suppression of proposals | ``TwoStageDetector``, ``detzoo.postprocess.proposals`` |

Differs from the papers' code: anchors and proposals are fractions of the padded input throughout.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from detzoo.contracts import (
    Context,
    Detections,
    FeatureExtractor,
    Groundtruth,
    LossTerm,
    Predictions,
    Proposals,
    RegionPredictions,
    Tensor,
)
from detzoo.detectors.base import Detector, ImageShape
from detzoo.detectors.one_stage import AnchorGenerator
from detzoo.detectors.parts import part
from detzoo.heads.dense_head import DenseOutputs
from detzoo.layers.resample import spatial_shape
from detzoo.layers.stage_end import end_of_extractor
from detzoo.losses.region_loss import MaskLoss, ProposalLoss, RegionLoss
from detzoo.ops import boxes
from detzoo.ops.anchors import GridAnchors
from detzoo.postprocess.dense_detections import image_windows, whole_image_windows
from detzoo.postprocess.proposals import ProposalSelection
from detzoo.postprocess.region_detections import RegionDetections, proposals_as_detections
from detzoo.targets.proposal_targets import ProposalTargets
from detzoo.targets.region_targets import RegionSampler


@dataclasses.dataclass(frozen=True)
class FirstStage:
    """Parts of a proposal network other than layers."""

    anchors: AnchorGenerator  # generator of the anchors
    targets: ProposalTargets  # sampler of anchors with targets
    loss: ProposalLoss  # function from predictions and targets to loss terms
    select: ProposalSelection  # function from predictions to proposals
    # Clip anchors to the padded input in training, too. At inference anchors are clipped unless the targets keep
    # anchors that cross the border, because those were trained unclipped.
    clips_anchors: bool = False


@dataclasses.dataclass(frozen=True)
class SecondStage:
    """Parts of the second stage other than layers."""

    sample: RegionSampler  # sampler of regions with targets
    loss: RegionLoss  # function from predictions, regions and targets to loss terms
    detections: RegionDetections  # function from predictions to detections
    mask_loss: MaskLoss | None = None  # loss of masks, or None


class ClassifiedRegions(NamedTuple):
    """Predictions of a second stage for R regions per image."""

    box_deltas: Tensor  # float32 [B, R, Q, 4], Q = 1 or K
    class_logits: Tensor  # float32 [B, R, K + 1]
    mask_logits: Any = ()  # float32 [B, R, h, w, 1 or K], or ()
    maps: Any = ()  # level to map, if regions are cropped for the detections


class TwoStageDetector(Detector):
    """Detector that proposes regions and classifies them; either stage may be missing.

    Args:
        network: Model of ``first_stage_network``.
        normalize: Function from RGB 0..255 to the values that the network expects.
        first_stage: First stage, or None if proposals are inputs (Fast R-CNN).
        second_stage: Second stage, or None for a proposal network alone.
        num_classes: Number of classes, the background not counted.
        name: Name of the model in logs.
    """

    chooses_regions = True
    backbone = part("backbone")
    neck = part("neck")
    rpn = part("rpn")
    box_backbone = part("box_backbone")
    box_head = part("box_head")
    mask_head = part("mask_head")

    def __init__(
        self,
        network: keras.Model,
        normalize: Callable[[Tensor], Tensor],
        first_stage: FirstStage | None,
        second_stage: SecondStage | None,
        num_classes: int,
        name: str,
    ) -> None:
        _, height, width, _ = network.input_shape
        super().__init__(num_classes, (height, width), normalize, name=name)
        self.network = network
        self._first = first_stage
        self._second = second_stage
        self.wants_proposals = first_stage is None
        self.proposes_only = second_stage is None
        self._static_anchors = self._make_static_anchors()
        self.built = True

    @property
    def cell_multiple_px(self) -> int:
        """See ``Detector.cell_multiple_px``. It is 1 for one map with anchors in pixels, as in the original API."""
        maps = {**self.network.output["maps"], **self.network.output["crop_maps"]}
        if len(maps) == 1 and (self._first is None or isinstance(self._first.anchors, GridAnchors)):
            return 1
        return 2 ** max(maps)

    def forward(
        self,
        inputs: Tensor,
        training: bool = False,
        true_shapes: Tensor | None = None,
        groundtruth: Groundtruth | None = None,
        proposals: Proposals | None = None,
        context: Context | None = None,
    ) -> RegionPredictions:
        """See ``Detector.forward``. With ground truth, the regions are a labelled sample.

        ``context`` is the memory of a detector with ``wants_context``.
        """
        canvas = self.whole_cells(inputs, true_shapes)
        input_shape, canvas_shape = spatial_shape(inputs), spatial_shape(canvas)
        outputs = self.network(canvas, training=training)
        windows = _windows(inputs, true_shapes)
        for_loss = training or groundtruth is not None
        first: Any = ()
        if self._first is not None:
            first, proposals = self._propose(self._first, outputs, input_shape, canvas_shape, windows, for_loss)
        if proposals is None:
            raise ValueError("this detector has no first stage: predict needs proposals")
        if self._second is None:
            return RegionPredictions(first, proposals, box_deltas=(), class_logits=(), windows=windows)
        targets: Any = ()
        if groundtruth is not None:
            proposals, targets = self._second.sample(proposals, groundtruth)
        regions_norm = boxes.of_canvas(proposals.boxes_norm, input_shape, canvas_shape)
        memory = self._memory(context, proposals)
        regions = self._classify(outputs["crop_maps"], regions_norm, canvas_shape, training, for_loss, *memory)
        return RegionPredictions(
            first,
            proposals,
            box_deltas=regions.box_deltas,
            class_logits=regions.class_logits,
            windows=windows,
            targets=targets,
            mask_logits=regions.mask_logits,
            maps=regions.maps,
            canvas_shape=tf.stack(canvas_shape),
        )

    def loss_terms(self, predictions: RegionPredictions, groundtruth: Groundtruth) -> dict[str, LossTerm]:
        """See ``Detector.loss_terms``."""
        terms: dict[str, LossTerm] = {}
        if self._first is not None:
            targets = self._first.targets(predictions.first_stage.anchors_norm, groundtruth, predictions.windows)
            terms |= self._first.loss(predictions.first_stage, targets)
        if self._second is not None:
            deltas, logits = predictions.box_deltas, predictions.class_logits
            terms |= self._second.loss(deltas, logits, predictions.proposals, predictions.targets)
            if self._second.mask_loss is not None:
                terms |= self._second.mask_loss(
                    predictions.mask_logits, predictions.proposals, predictions.targets, groundtruth
                )
        return terms

    def postprocess(
        self, predictions: RegionPredictions, true_shapes: Tensor, padded_shape: tuple[Tensor | int, Tensor | int]
    ) -> Detections:
        """See ``Detector.postprocess``."""
        if self._second is None:
            return proposals_as_detections(predictions, true_shapes, padded_shape)
        return self._second.detections(predictions, true_shapes, padded_shape)

    def _classify(
        self,
        maps: Mapping[int, Tensor],
        regions_norm: Tensor,
        image_shape: tuple[Any, Any],
        training: bool,
        for_loss: bool,
        *memory: Tensor,
    ) -> ClassifiedRegions:
        """Classifies regions and refines their boxes.

        Args:
            maps: Level to [B, H_l, W_l, C], the maps from which regions are cropped.
            regions_norm: float32 [B, R, 4], fractions of the area that the maps cover.
            image_shape: (height, width) in pixels of the area that the maps cover.
            training: Use the training mode of batch normalisation and dropout.
            for_loss: Predict everything that the loss compares, for every region.
            *memory: Fields of ``heads.context_attention.Memory``, for a detector with ``wants_context``.
        """
        raise NotImplementedError("_classify is defined by each two-stage detector")

    def _memory(self, context: Context | None, proposals: Proposals) -> tuple[Tensor, ...]:
        """Returns the inputs of the attention; without a memory that of one row of padding."""
        if not self.wants_context:
            return ()
        if context is None:
            num_images = tf.shape(proposals.num_valid)[0]
            context = Context(tf.zeros([num_images, 1, self.context_length]), tf.zeros([num_images], tf.int32))
        return context.features, context.num_valid, proposals.num_valid

    def _propose(
        self,
        stage: FirstStage,
        outputs: Mapping[str, Any],
        input_shape: tuple[Any, Any],
        canvas_shape: tuple[Any, Any],
        windows: Tensor,
        for_loss: bool,
    ) -> tuple[Predictions, Proposals]:
        """Returns the proposal head's predictions over the anchors, and the proposals."""
        anchors, level_sizes = self._anchors_of(stage, outputs["maps"], canvas_shape)
        if stage.clips_anchors or not (for_loss or stage.targets.keep_crossing):
            anchors = boxes.clip(anchors, tf.constant([0.0, 0.0, 1.0, 1.0]))
        anchors = boxes.of_canvas(anchors, canvas_shape, input_shape)
        usable = None
        if for_loss and not stage.targets.keep_crossing:
            usable = stage.targets.usable(anchors, windows)
        first = Predictions(outputs["box_deltas"], outputs["class_logits"], anchors)
        return first, stage.select(first, windows, level_sizes, for_loss, usable)

    def _anchors_of(
        self, stage: FirstStage, maps: Mapping[int, Tensor], image_shape: tuple[Any, Any]
    ) -> tuple[Tensor, list[Any]]:
        """Returns anchors float32 [A, 4] and their number per level."""
        sizes = [spatial_shape(x) for x in maps.values()]
        counts = stage.anchors.num_anchors_per_location
        level_sizes = [height * width * count for (height, width), count in zip(sizes, counts, strict=True)]
        if self._static_anchors is not None:
            return tf.constant(self._static_anchors, tf.float32), level_sizes
        return stage.anchors(sizes, image_shape), level_sizes

    def _make_static_anchors(self) -> Any:
        """Returns the anchors as numpy, or None if the input has no fixed size."""
        if self._first is None or None in self.input_shape_px:
            return None
        shapes = [tuple(x.shape[1:3]) for x in self.network.output["maps"].values()]
        return None if any(None in shape for shape in shapes) else self._first.anchors(shapes, self.input_shape_px)


def first_stage_network(
    image_shape_px: ImageShape,
    extractor: FeatureExtractor,
    neck: Callable[[Mapping[int, Tensor]], Mapping[int, Tensor]],
    head: Callable[[Mapping[int, Tensor]], DenseOutputs] | None,
    max_crop_level: int | None = None,
) -> keras.Model:
    """Wires backbone, neck and proposal head.

    The variables' paths start with ``backbone/``, ``neck/`` and ``rpn/``.

    Args:
        image_shape_px: (height, width) of the padded input, None for any size.
        extractor: Backbone.
        neck: Function from the backbone's maps to the maps of the detector, both level to [B, H_l, W_l, C_l].
        head: Function from these maps to deltas and objectness of every anchor; None without a first stage.
        max_crop_level: Coarsest level from which regions are cropped; None for all levels.

    Returns:
        A model from normalised images [B, H, W, 3] to a dict: ``crop_maps`` level to map, ``maps`` level to map with
        anchors, and with a head ``box_deltas`` [B, A, 4] and ``class_logits`` [B, A, 2].
    """
    images = keras.Input((*image_shape_px, 3), name="image", dtype="float32")
    backbone_maps = extractor.model(images)
    with keras.name_scope("neck"):
        pyramid = end_of_extractor(neck(backbone_maps))
    coarsest = max(pyramid) if max_crop_level is None else max_crop_level
    outputs: dict[str, Any] = {
        "maps": dict(pyramid),
        "crop_maps": {level: x for level, x in pyramid.items() if level <= coarsest},
    }
    if head is not None:
        with keras.name_scope("rpn"):
            outputs |= head(pyramid)._asdict()
    return keras.Model(images, outputs, name="network")


def _windows(inputs: Tensor, true_shapes: Tensor | None) -> Tensor:
    """Returns the part of the padded input that each image covers, float32 [B, 4]."""
    if true_shapes is None:
        return whole_image_windows(tf.shape(inputs)[0])
    return image_windows(true_shapes, spatial_shape(inputs))
