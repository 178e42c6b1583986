"""CenterNet, which detects objects as points: the centre of a box, its size, and the offset of the centre.

    images -> backbone, way up to stride 4 -> heads -> maps -> (training) targets -> loss
                                                            \\-> (inference) peaks -> detections

Zhou et al., "Objects as points", arXiv:1904.07850.

| section of the paper | here |
|---|---|
| 3: heatmap of centres, Gaussians, focal loss | ``detzoo.targets.center_targets``, ``detzoo.losses.center_loss`` |
| 3: local offset | the head ``box/offset`` |
| 4: size, one head for all classes, weight 0.1 | the head ``box/scale`` |
| 4: heads of 256 channels | ``detzoo.heads.center_head`` |
| 4: keypoints, training | ``detzoo.targets.keypoint_targets``, ``detzoo.losses.keypoint_loss`` |
| 4: keypoints, their search | ``detzoo.postprocess.keypoints`` |
| 4.1: peaks of 8 neighbours, the best 100 | ``detzoo.postprocess.center_detections`` |
| 5: Hourglass-104 | ``detzoo.features.hourglass`` |
| 5: transposed convolutions after ResNet | ``detzoo.necks.center_upsampling`` |

Masks, which the paper has not, are in ``detzoo.detectors.center_masks``.

The config is the Object Detection API's ``center_net``. Differs from the paper, 5: no flip, no scales at test time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from detzoo.contracts import (
    CENTER_STRIDE,
    CenterPredictions,
    CenterTargets,
    Detections,
    FeatureExtractor,
    Groundtruth,
    LossTerm,
    Proposals,
    Tensor,
)
from detzoo.detectors.base import Detector, ImageShape
from detzoo.detectors.center_masks import ClassMasks, DeepMasks, of_map
from detzoo.detectors.parts import part
from detzoo.heads.center_head import CenterHead, center_heads, head_at_cells, head_of_rows
from detzoo.layers.resample import PadToMultiple, spatial_shape
from detzoo.layers.stage_end import end_of_extractor
from detzoo.losses.keypoint_loss import KeypointLoss
from detzoo.postprocess.center_detections import CenterDetections
from detzoo.postprocess.dense_detections import image_windows
from detzoo.targets.keypoint_targets import KeypointAssigner

READ_AT_CELLS = ("/scale", "/offset", "/regression")  # last parts of the names of heads


class CenterNet(Detector):
    """Detector of objects by their centres, without anchors and without suppression.

    Args:
        network: Model of ``center_network``.
        normalize: Function from RGB 0..255 to the values that the network expects.
        targets: ``targets(groundtruth, map_shape, true_shapes, padded_shape) -> CenterTargets``.
        loss: ``loss(predictions, targets) -> dict[str, LossTerm]``.
        detections: The way from maps to detections.
        num_classes: Number of classes.
        keypoints: Targets and loss of each task of keypoints; empty for boxes alone.
        stride: Largest stride of the network, of which padded sides are multiples.
        masks: Way to the masks of the objects; None for boxes alone.
    """

    backbone = part("backbone")
    neck = part("neck")
    head = part("head")

    def __init__(
        self,
        network: keras.Model,
        normalize: Callable[[Tensor], Tensor],
        targets: Callable[..., CenterTargets],
        loss: Callable[[CenterPredictions, CenterTargets], dict[str, LossTerm]],
        detections: CenterDetections,
        num_classes: int,
        stride: int,
        keypoints: Sequence[tuple[KeypointAssigner, KeypointLoss]] = (),
        masks: DeepMasks | ClassMasks | None = None,
    ) -> None:
        _, height, width, _ = network.input_shape
        super().__init__(num_classes, (height, width), normalize, name="center_net")
        self.network = network
        self._targets = targets
        self._loss_terms = loss
        self._detections = detections
        self._stride = stride
        self._keypoints = tuple(keypoints)
        self._masks: Any = masks
        self.mask_network = masks.network if masks else None
        self.built = True

    @property
    def learns_masks(self) -> bool:
        """See ``Detector.learns_masks``."""
        return self._masks is not None

    @property
    def has_keypoints(self) -> bool:
        """True if the detections have keypoints."""
        return bool(self._keypoints)

    @property
    def cell_multiple_px(self) -> int:
        """See ``Detector.cell_multiple_px``."""
        return self._stride

    def forward(
        self,
        inputs: Tensor,
        training: bool = False,
        true_shapes: Tensor | None = None,
        groundtruth: Groundtruth | None = None,
        proposals: Proposals | None = None,
    ) -> CenterPredictions:
        """See ``Detector.forward``. For the loss the masks of the true boxes are predicted, too."""
        del proposals
        outputs = self.network(self.whole_cells(inputs, true_shapes), training=training)
        maps = outputs["maps"]
        if true_shapes is None:
            true_shapes = tf.tile(tf.shape(inputs)[tf.newaxis, 1:3], [tf.shape(inputs)[0], 1])
        predictions = CenterPredictions(maps, true_shapes, spatial_shape(inputs), features=outputs["features"])
        if self._masks is None or groundtruth is None:
            return predictions
        logits = self._masks.logits_of(maps, groundtruth, predictions.padded_shape, training)
        return predictions._replace(mask_logits=logits)

    def loss_terms(self, predictions: CenterPredictions, groundtruth: Groundtruth) -> dict[str, LossTerm]:
        """See ``Detector.loss_terms``."""
        shape = spatial_shape(predictions.maps["object_center"][-1])
        place = (groundtruth, shape, predictions.true_shapes, predictions.padded_shape)
        terms = self._loss_terms(predictions, self._targets(*place))
        for assign, loss in self._keypoints:
            terms.update(loss(predictions, assign(*place)))
        if self._masks is not None:
            terms.update(self._masks.loss_terms(predictions, groundtruth))
        return terms

    def boxes_of(
        self, predictions: CenterPredictions, true_shapes: Tensor, padded_shape: tuple[Tensor | int, Tensor | int]
    ) -> Detections:
        """Returns the detections without masks; arguments as for ``postprocess``."""
        return self._detections(self._only_what_is_read(predictions, true_shapes), true_shapes, padded_shape)

    def _only_what_is_read(self, predictions: CenterPredictions, true_shapes: Tensor) -> CenterPredictions:
        """Replaces whole maps, if the heads' input is known: a traced graph then does not compute them.

        Maps that are read at a few cells become functions of the cells. The map of centres loses rows of padding.
        """
        features = predictions.features
        if isinstance(features, tuple):
            return predictions
        maps = dict(predictions.maps)
        for name in maps:
            if name.endswith(READ_AT_CELLS):
                at_cells = head_at_cells(self.network, name, features)
                maps[name] = [at_cells] if at_cells else maps[name]
        num_rows = -(-tf.reduce_max(true_shapes[:, 0]) // CENTER_STRIDE) + self._detections.kernel_size // 2
        maps["object_center"] = [head_of_rows(self.network, "object_center", features, num_rows)]
        return predictions._replace(maps=maps)

    def postprocess(
        self, predictions: CenterPredictions, true_shapes: Tensor, padded_shape: tuple[Tensor | int, Tensor | int]
    ) -> Detections:
        """See ``Detector.postprocess``.

        Masks belong to the part of a box within the image. Differs from the Object Detection API, where it may reach
        into the padding.
        """
        found = self.boxes_of(predictions, true_shapes, padded_shape)
        if self._masks is None:
            return found
        windows = tf.tile(image_windows(true_shapes, padded_shape)[:, tf.newaxis, 2:], [1, 1, 2])
        regions = of_map(found.boxes_norm * windows, padded_shape, predictions.maps)
        masks = self._masks.predict(predictions.maps, regions, found.classes)
        is_filled = tf.range(tf.shape(masks)[1]) < found.num_valid[:, tf.newaxis]
        return found._replace(masks=tf.where(is_filled[..., tf.newaxis, tf.newaxis], masks, 0.0))


def center_network(
    image_shape_px: ImageShape,
    extractor: FeatureExtractor,
    neck: Callable[[Mapping[int, Tensor]], Sequence[Tensor]],
    heads: Mapping[str, CenterHead],
    use_depthwise: bool,
    stride: int,
) -> keras.Model:
    """Wires backbone, way up and heads.

    The variables' paths start with ``backbone/``, ``neck/`` and ``head/``.

    Args:
        image_shape_px: (height, width) of the padded input, None for any size.
        extractor: Backbone.
        neck: Function from the backbone's maps to a map of stride 4 per stack.
        heads: Name of each head -> its layers.
        use_depthwise: Uses separable convolutions in the heads.
        stride: Multiple in pixels to which images are padded before the backbone.

    Returns:
        A model from normalised images [B, H, W, 3] to a dict: ``maps`` has the maps float32 [B, h, w, C] of each head
        by its name, one per stack; ``features`` is the map that the heads of the last stack read.
    """
    images = keras.Input((*image_shape_px, 3), name="image", dtype="float32")
    x = images
    if None not in image_shape_px and any(side % stride for side in image_shape_px if side):
        x = PadToMultiple(stride, name="pad_to_multiple")(images)
    backbone_maps = extractor.model(x)
    with keras.name_scope("neck"):
        features = end_of_extractor(dict(enumerate(neck(backbone_maps))))
    with keras.name_scope("head"):
        maps = center_heads(list(features.values()), heads, use_depthwise)
    return keras.Model(images, {"maps": maps, "features": list(features.values())[-1]}, name="network")
