"""The contract of a detector: a Keras model that answers four verbs and declares what it reads and predicts.

Flow of an image through a detector::

    images --preprocess--> inputs --forward--> Predictions --loss_terms(groundtruth)--> LossTerms
                                                          \\--postprocess--> Detections

Ground truth is an argument and is never stored on the model. ``detzoo.detectors.keras_training`` adds Keras's methods.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from detzoo.contracts import Detections, Groundtruth, LossTerm, Proposals, Tensor
from detzoo.detectors.keras_training import KerasDetector
from detzoo.layers.resample import pad_to_multiple

ImageShape = tuple[int | None, int | None]


class Detector(KerasDetector):
    """Detector with the verbs preprocess, forward, loss_terms and postprocess.

    Attributes:
        num_classes: Number of classes, the background not counted.
        input_shape_px: (height, width) of the padded input, None for an axis of any size.
        wants_proposals: ``forward`` needs proposals from outside.
        wants_context: ``forward`` attends to a memory, which is empty by default.
        context_length: Values per feature of the memory; 0 without one.
        chooses_regions: The predictions depend on regions that the detector selects first (two stages).
        proposes_only: The detections are class-agnostic proposals.
        proposes_masks: The proposals are masks.
        classifies_images: The detections are class scores of whole images, without boxes.

    Args:
        num_classes: See above.
        input_shape_px: See above.
        normalize: Function from RGB 0..255 to the values that the network expects; None for a detector that
            overrides ``preprocess``.
        **kwargs: Arguments of ``keras.Model``.
    """

    wants_proposals: bool = False
    context_length: int = 0
    chooses_regions: bool = False
    proposes_only: bool = False
    proposes_masks: bool = False
    classifies_images: bool = False

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
    def wants_context(self) -> bool:
        """See ``Detector``."""
        return self.context_length > 0

    @property
    def learns_masks(self) -> bool:
        """True if the loss compares masks."""
        return self.proposes_masks

    @property
    def cell_multiple_px(self) -> int:
        """Multiple in pixels to which an input of free size is padded; 1 for no padding.

        A pyramid needs multiples of its coarsest stride. At other sizes the cells of the maps and the anchors do not
        match.
        """
        return 1

    def whole_cells(self, inputs: Tensor, true_shapes: Tensor | None) -> Tensor:
        """Crops a batch to its largest image and pads the result to multiples of ``cell_multiple_px``.

        So the network sees an image at the same size for any padding. An input of fixed size is not changed.

        Args:
            inputs: float32 [B, H, W, 3] from ``preprocess``.
            true_shapes: int32 [B, 2], pixels that each image covers; None for the whole input.

        Returns:
            float32 [B, H', W', 3], with the top left corner and the padding colour of ``inputs``.
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
        """Returns the padding of a resizer after ``preprocess``; before it, the padding is black."""
        return self.preprocess(tf.zeros([1, 1, 1, 3]))

    def preprocess(self, images: Tensor) -> Tensor:
        """Normalises pixels.

        Args:
            images: uint8 or float32 [B, H, W, 3], RGB, 0..255, resized and padded.

        Returns:
            float32 [B, H, W, 3], the input of ``forward``.
        """
        if self._normalize is None:
            raise NotImplementedError("preprocess is defined by each detector")
        return self._normalize(tf.cast(images, tf.float32))

    def forward(
        self,
        inputs: Tensor,
        training: bool = False,
        true_shapes: Tensor | None = None,
        groundtruth: Groundtruth | None = None,
        proposals: Proposals | None = None,
    ) -> Any:
        """Runs the network.

        A one-stage detector reads the inputs only. A two-stage detector selects regions first and then classifies them.

        Args:
            inputs: float32 [B, H, W, 3] from ``preprocess``.
            training: Use the training mode of batch normalisation and dropout.
            true_shapes: int32 [B, 2], pixels of the padded input that each image covers; None for the whole input.
            groundtruth: Ground truth for a loss; the regions of the second stage are sampled by it.
            proposals: Regions to classify, for a detector without a first stage.

        Returns:
            Raw predictions, float32: ``Predictions`` or ``RegionPredictions``.
        """
        raise NotImplementedError("forward is defined by each detector")

    def loss_terms(self, predictions: Any, groundtruth: Groundtruth) -> dict[str, LossTerm]:
        """Returns the parts of the loss, each as a sum over this replica's images with a normalizer."""
        raise NotImplementedError("loss_terms is defined by each detector")

    def postprocess(
        self, predictions: Any, true_shapes: Tensor, padded_shape: tuple[Tensor | int, Tensor | int]
    ) -> Detections:
        """Decodes boxes, computes scores and suppresses duplicates.

        Args:
            predictions: Result of ``forward``.
            true_shapes: int32 [B, 2], pixels of the padded input that each image covers.
            padded_shape: (height, width) of the padded input.

        Returns:
            Final detections with boxes in fractions of the true image.
        """
        raise NotImplementedError("postprocess is defined by each detector")

    def call(self, inputs: Tensor, training: bool = False) -> Any:
        """Calls ``forward``, under the name that Keras uses: ``detector(inputs)`` are raw predictions."""
        return self.forward(inputs, training=training)
