"""What every detector is: a Keras model that answers four verbs, and the one-stage detector behind SSD and RetinaNet.

Flow of an image through a detector::

    images --preprocess--> inputs --predict--> Predictions --loss_terms(groundtruth)--> LossTerms
                                                          \\--postprocess--> Detections

Ground truth is an argument and is never stored on the model.
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
from detzoo.heads.dense_head import DenseOutputs
from detzoo.layers.resample import PadToMultiple, pad_to_multiple, spatial_shape
from detzoo.layers.stage_end import end_of_extractor
from detzoo.ops import boxes

ImageShape = tuple[int | None, int | None]


class Detector(keras.Model):
    """A detector: preprocess, predict, loss_terms, postprocess.

    Attributes:
        num_classes: Number of classes, the background not counted.
        input_shape_px: (height, width) of the padded input, None where any size is accepted.

    Args:
        num_classes: See above.
        input_shape_px: See above.
        normalize: RGB 0..255 to what the network expects; None where ``preprocess`` is the detector's own.
        **kwargs: Of ``keras.Model``.
    """

    def __init__(
        self,
        num_classes: int,
        input_shape_px: ImageShape,
        normalize: Callable[[Tensor], Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.input_shape_px = input_shape_px
        self._normalize = normalize

    @property
    def cell_multiple_px(self) -> int:
        """The network's input of free size is padded to multiples of this; 1 pads nothing.

        A pyramid needs multiples of its coarsest stride. At other sizes the cells of its maps and the anchors lie
        elsewhere in the image.
        """
        return 1

    def whole_cells(self, inputs: Tensor, true_shapes: Tensor | None) -> Tensor:
        """Cuts a batch to its largest image and pads that to multiples of ``cell_multiple_px``.

        So the network sees a single image at one size, whatever padding came with the image. An input of fixed size
        stays as it is.

        Args:
            inputs: float32 [B, H, W, 3] from ``preprocess``.
            true_shapes: int32 [B, 2], pixels that each image covers; None for all of them.

        Returns:
            float32 [B, H', W', 3], with the top left corner of ``inputs`` and its colour of padding.
        """
        if None not in self.input_shape_px:
            return inputs
        if true_shapes is not None:
            height, width = tf.unstack(tf.reduce_max(true_shapes, axis=0))
            inputs = inputs[:, :height, :width]
        if self.cell_multiple_px == 1:
            return inputs
        outside = 1.0 - pad_to_multiple(tf.ones_like(inputs[:1, :, :, :1]), self.cell_multiple_px)
        return pad_to_multiple(inputs, self.cell_multiple_px) + self._padding_colour() * outside

    def _padding_colour(self) -> Any:
        """The padding of a resizer after ``preprocess``: black for all but one-stage detectors."""
        return self.preprocess(tf.zeros([1, 1, 1, 3]))

    def preprocess(self, images: Tensor) -> Tensor:
        """Normalises pixels.

        Args:
            images: uint8 or float32 [B, H, W, 3], RGB, 0..255, resized and padded.

        Returns:
            float32 [B, H, W, 3], what ``predict`` expects.
        """
        if self._normalize is None:
            raise NotImplementedError("preprocess is defined by each detector")
        return self._normalize(tf.cast(images, tf.float32))

    def predict(  # type: ignore[override]
        self,
        inputs: Tensor,
        training: bool = False,
        true_shapes: Tensor | None = None,
        groundtruth: Groundtruth | None = None,
        proposals: Proposals | None = None,
    ) -> Any:
        """Runs the network.

        A one-stage detector needs the inputs only. A detector of two stages chooses regions before it looks at them.

        Args:
            inputs: float32 [B, H, W, 3] from ``preprocess``.
            training: Whether batch normalisation and dropout are in training mode.
            true_shapes: int32 [B, 2], pixels of the padded input that each image covers; None for all of it.
            groundtruth: In training, what the regions of the second stage are chosen by.
            proposals: Regions to classify, for a detector without a first stage.

        Returns:
            Raw predictions, float32: ``Predictions`` or ``RegionPredictions``.
        """
        raise NotImplementedError("predict is defined by each detector")

    def loss_terms(self, predictions: Any, groundtruth: Groundtruth) -> dict[str, LossTerm]:
        """The parts of the loss, each as a sum over this replica's images and its normalizer."""
        raise NotImplementedError("loss_terms is defined by each detector")

    def postprocess(
        self, predictions: Any, true_shapes: Tensor, padded_shape: tuple[Tensor | int, Tensor | int]
    ) -> Detections:
        """Decodes, scores and suppresses.

        Args:
            predictions: From ``predict``.
            true_shapes: int32 [B, 2], pixels of the padded input that each image covers.
            padded_shape: (height, width) of the padded input.

        Returns:
            Final detections, boxes in fractions of the true image.
        """
        raise NotImplementedError("postprocess is defined by each detector")

    def call(self, inputs: Tensor, training: bool = False) -> Any:
        """Keras's name for ``predict``."""
        return self.predict(inputs, training=training)


class AnchorGenerator(Protocol):
    """Makes the anchors of a pyramid, in the order of the dense head's outputs."""

    @property
    def num_anchors_per_location(self) -> tuple[int, ...]:
        """Anchors of a location, for each level."""

    def __call__(self, feature_shapes: Sequence[Any], image_shape_px: Any) -> Tensor:
        """Anchors float32 [A, 4], fractions of the image; numpy where every size is an int."""


class OneStageDetector(Detector):
    """A detector that classifies and refines every anchor in one pass.

    Args:
        network: Functional model from normalised images to ``one_stage_network``'s outputs.
        normalize: RGB 0..255 to what the network expects.
        anchors: Makes the anchors of the network's maps.
        targets: ``targets(anchors_norm, groundtruth) -> Targets``.
        loss: ``loss(predictions, targets) -> dict[str, LossTerm]``.
        detections: ``detections(predictions, true_shapes, padded_shape) -> Detections``.
        num_classes: Number of classes, the background not counted.
        name: Of the model.
    """

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
        """The post-processing with its numbers, for exports that write it in another form."""
        return self._detections

    @property
    def dense_loss(self) -> Any:
        """The loss with its parts, for analyses of single anchors."""
        return self._loss_terms

    @property
    def static_anchors_norm(self) -> Any:
        """The anchors as numpy float32 [A, 4], None where the size of the input is not known before the image."""
        return self._static_anchors_norm

    def predict(  # type: ignore[override]
        self,
        inputs: Tensor,
        training: bool = False,
        true_shapes: Tensor | None = None,
        groundtruth: Groundtruth | None = None,
        proposals: Proposals | None = None,
    ) -> Predictions:
        """See ``Detector.predict``."""
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
        """One-stage detectors are padded after the normalisation (``detzoo.builders.resize``)."""
        return 0.0

    def anchor_targets(self, predictions: Predictions, groundtruth: Groundtruth) -> Targets:
        """What training wants of every anchor."""
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
        """The anchors as numpy, or None where the size of the input is not known before the image."""
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
        image_shape_px: (height, width) of the padded input, None where unknown.
        extractor: The backbone.
        neck: Backbone maps to the pyramid, both level to [B, H_l, W_l, C_l].
        head: Pyramid to deltas and logits of every anchor.
        pad_to_multiple: The backbone sees the image padded with zeros to a multiple of this.

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
