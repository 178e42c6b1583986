"""The one-stage detector: SSD, RetinaNet and EfficientDet, which differ by the parts that they are given.

    images -> backbone -> neck -> head -> deltas and logits of every anchor -> (training) targets -> loss
                                                                           \\-> (inference) detections

| part | SSD | RetinaNet | EfficientDet |
|---|---|---|---|
| paper | Liu et al., arXiv:1512.02325 | Lin et al., arXiv:1708.02002 | Tan et al., arXiv:1911.09070 |
| backbone | ``features``, 2.1 | ``features``, 4 | ``features.efficientnet``, 4.1 |
| neck | ``necks.ssd_levels``: extra levels, 2.1 | ``necks.fpn``: P3 to P7, 4 | ``necks.bifpn``, 3.2, 3.3 |
| head (``heads.dense_head``) | ``convolutional_head``, 2.1 | ``weight_shared_head``, 4 | the same, 4.1 |
| anchors (``ops.anchors``) | ``SsdAnchors``, 2.1 | ``MultiscaleAnchors``, 9 per location, 4 | the same, 5.1 |
| targets (``targets.anchor_targets``) | best anchor, and IoU 0.5, 2.2 | IoU 0.5 and 0.4, 4 | IoU 0.5 |
| loss (``losses``) | softmax, hard negatives 3:1, 2.2 | focal loss, 3 | focal loss, 5.1 |
| detections (``postprocess.dense_detections``) | 2.2 | 4.1, NMS 0.5 | |

SSD is described in Huang et al., arXiv:1611.10012 (trade-offs), too; the pyramid is that of Lin et al.,
arXiv:1612.03144. The Object Detection API calls its RetinaNet ``ssd_*_fpn``: normalised convolutions, P6 and P7 from
P5, a background column. The config chooses between both forms.

Differs from the SSD paper, 3.1: the last two extra maps are made with stride 2 and padding, because the trade-offs
paper and the Object Detection API make all extra maps in one way. Differs from RetinaNet's paper, 4.1: suppression
looks at all boxes, not at 1000 per level.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import keras
import tensorflow as tf

from detzoo.contracts import (
    Detections,
    FeatureExtractor,
    Groundtruth,
    LossTerm,
    Predictions,
    Proposals,
    Targets,
    Tensor,
)
from detzoo.detectors.base import Detector, ImageShape
from detzoo.detectors.parts import part
from detzoo.heads.dense_head import DenseOutputs
from detzoo.layers.resample import PadToMultiple, spatial_shape
from detzoo.layers.stage_end import end_of_extractor
from detzoo.ops import boxes


class AnchorGenerator(Protocol):
    """Generator of the anchors of a pyramid, in the order of the dense head's outputs."""

    @property
    def num_anchors_per_location(self) -> tuple[int, ...]:
        """Number of anchors per location, for each level."""

    def __call__(self, feature_shapes: Sequence[Any], image_shape_px: Any) -> Tensor:
        """Returns the anchors float32 [A, 4] in fractions of the image, as numpy if every size is an int."""


class OneStageDetector(Detector):
    """Detector that classifies and refines every anchor in one pass.

    Args:
        network: Model of ``one_stage_network``.
        normalize: Function from RGB 0..255 to the values that the network expects.
        anchors: Generator of the anchors of the network's maps.
        targets: ``targets(anchors_norm, groundtruth) -> Targets``.
        loss: ``loss(predictions, targets) -> dict[str, LossTerm]``.
        detections: ``detections(predictions, true_shapes, padded_shape) -> Detections``.
        num_classes: Number of classes, the background not counted.
        name: Name of the model in logs.
    """

    backbone = part("backbone")
    neck = part("neck")
    head = part("head")

    def __init__(
        self,
        network: keras.Model,
        normalize: Callable[[Tensor], Tensor],
        anchors: AnchorGenerator,
        targets: Callable[[Tensor, Groundtruth], Targets],
        loss: Callable[[Predictions, Targets], dict[str, LossTerm]],
        detections: Callable[[Predictions, Tensor, Any], Detections],
        num_classes: int,
        name: str,
    ) -> None:
        _, height, width, _ = network.input_shape
        super().__init__(num_classes, (height, width), normalize, name=name)
        self.network = network
        self._anchors = anchors
        self._targets = targets
        self._loss_terms = loss
        self._detections = detections
        self._static_anchors_norm = self._make_static_anchors()
        self.built = True

    @property
    def dense_detections(self) -> Any:
        """Post-processing with its numbers, for exports that write it in another form."""
        return self._detections

    @property
    def dense_loss(self) -> Any:
        """Loss with its parts, for analyses of single anchors."""
        return self._loss_terms

    @property
    def static_anchors_norm(self) -> Any:
        """Anchors as numpy float32 [A, 4], or None if the input has no fixed size."""
        return self._static_anchors_norm

    def forward(
        self,
        inputs: Tensor,
        training: bool = False,
        true_shapes: Tensor | None = None,
        groundtruth: Groundtruth | None = None,
        proposals: Proposals | None = None,
    ) -> Predictions:
        """See ``Detector.forward``."""
        del groundtruth, proposals
        canvas = self.whole_cells(inputs, true_shapes)
        outputs = self.network(canvas, training=training)
        anchors = self._anchors_of(canvas, outputs["maps"])
        return Predictions(
            box_deltas=outputs["box_deltas"],
            class_logits=outputs["class_logits"],
            anchors_norm=boxes.of_canvas(anchors, spatial_shape(canvas), spatial_shape(inputs)),
        )

    @property
    def cell_multiple_px(self) -> int:
        """See ``Detector.cell_multiple_px``."""
        return 2 ** max(self.network.output["maps"])

    def _padding_colour(self) -> float:
        """Returns 0: one-stage detectors are padded after the normalisation (``detzoo.builders.resize``)."""
        return 0.0

    def anchor_targets(self, predictions: Predictions, groundtruth: Groundtruth) -> Targets:
        """Returns the targets of every anchor."""
        return self._targets(predictions.anchors_norm, groundtruth)

    def loss_terms(self, predictions: Predictions, groundtruth: Groundtruth) -> dict[str, LossTerm]:
        """See ``Detector.loss_terms``."""
        return self._loss_terms(predictions, self.anchor_targets(predictions, groundtruth))

    def postprocess(
        self, predictions: Predictions, true_shapes: Tensor, padded_shape: tuple[Tensor | int, Tensor | int]
    ) -> Detections:
        """See ``Detector.postprocess``."""
        return self._detections(predictions, true_shapes, padded_shape)

    def _make_static_anchors(self) -> Any:
        shapes = [tuple(x.shape[1:3]) for x in self.network.output["maps"].values()]
        if None in self.input_shape_px or any(None in shape for shape in shapes):
            return None
        return self._anchors(shapes, self.input_shape_px)

    def _anchors_of(self, canvas: Tensor, maps: Mapping[int, Tensor]) -> Tensor:
        if self._static_anchors_norm is not None:
            return tf.constant(self._static_anchors_norm, tf.float32)
        return self._anchors([spatial_shape(x) for x in maps.values()], spatial_shape(canvas))


def one_stage_network(
    image_shape_px: ImageShape,
    extractor: FeatureExtractor,
    neck: Callable[[Mapping[int, Tensor]], Mapping[int, Tensor]],
    head: Callable[[Mapping[int, Tensor]], DenseOutputs],
    pad_to_multiple: int = 1,
) -> keras.Model:
    """Wires backbone, neck and head.

    The variables' paths start with ``backbone/``, ``neck/`` and ``head/``.

    Args:
        image_shape_px: (height, width) of the padded input, None for any size.
        extractor: Backbone.
        neck: Function from the backbone's maps to the pyramid, both level to [B, H_l, W_l, C_l].
        head: Function from the pyramid to deltas and logits of every anchor.
        pad_to_multiple: Multiple in pixels to which the image is padded with zeros before the backbone.

    Returns:
        A model from normalised images [B, H, W, 3] to a dict: ``box_deltas`` float32 [B, A, 4], ``class_logits``
        float32 [B, A, C], ``maps`` level to map of the pyramid.
    """
    images = keras.Input((*image_shape_px, 3), name="image", dtype="float32")
    x = images if pad_to_multiple <= 1 else PadToMultiple(pad_to_multiple, name="pad_to_multiple")(images)
    backbone_maps = extractor.model(x)
    with keras.name_scope("neck"):
        pyramid = end_of_extractor(neck(backbone_maps))
    with keras.name_scope("head"):
        outputs = head(pyramid)
    return keras.Model(
        images,
        {"box_deltas": outputs.box_deltas, "class_logits": outputs.class_logits, "maps": dict(pyramid)},
        name="network",
    )
