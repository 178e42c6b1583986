"""Faster R-CNN: regions of a map are cropped to one size, and a small network classifies each crop.

Ren et al., arXiv:1506.01497. The feature pyramid is that of Lin et al., arXiv:1612.03144, crop_and_resize that of Huang
et al., "Speed/accuracy trade-offs", arXiv:1611.10012, and masks are those of He et al., arXiv:1703.06870. Without its
first stage the detector is Fast R-CNN, Girshick, arXiv:1504.08083. With a memory of other images it is Context R-CNN,
Beery et al., arXiv:1912.03538, whose attention is in ``detzoo.heads.context_attention``.

| section of the pyramid's paper | here |
|---|---|
| 3 top-down pathway, lateral connections | ``detzoo.necks.feature_pyramid`` |
| 4.1 proposals from P2 to P6 | ``detzoo.heads.proposal_head``, ``detzoo.targets.proposal_targets`` |
| 4.2 equation 1, the level of a region | ``RegionCrop`` |
| 4.2 two fully connected layers | ``detzoo.heads.box_head.fully_connected_features`` |
| 5.1.2, tables 1 to 3: what each part gains | ``necks.feature_pyramid.PyramidParts`` |

Of the trade-offs paper: 3.1 crop instead of pooling, without a gradient to the boxes, in ``detzoo.ops.roi_crop``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from detzoo.contracts import Detections, RegionPredictions, Tensor
from detzoo.detectors.two_stage import ClassifiedRegions, FirstStage, SecondStage, TwoStageDetector
from detzoo.ops import boxes
from detzoo.ops.roi_crop import Crop, assign_levels, multilevel_crop, single_level_crop
from detzoo.postprocess.dense_detections import image_windows


@dataclasses.dataclass(frozen=True)
class RegionCrop:
    """Function that crops every region from the map of its level."""

    crop: Crop  # crop of one level
    canonical_level: int = 4  # level of a region of 224 x 224 pixels (equation 1 of the pyramid's paper)

    def __call__(self, maps: Mapping[int, Tensor], regions_norm: Tensor, image_shape: tuple[Any, Any]) -> Tensor:
        """Returns crops [B * R, h, w, C] of regions [B, R, 4]; no gradient flows to the regions."""
        if len(maps) == 1:
            crops = single_level_crop(next(iter(maps.values())), regions_norm, self.crop)
        else:
            regions_px = boxes.to_px(regions_norm, tf.stack(image_shape))
            levels = assign_levels(regions_px, min(maps), max(maps), self.canonical_level)
            crops = multilevel_crop(maps, regions_norm, levels, self.crop)
        return tf.reshape(crops, [-1, *crops.shape[2:]])


@dataclasses.dataclass(frozen=True)
class MaskStage:
    """Mask head of a Mask R-CNN."""

    network: keras.Model  # model from box features, or separate crops, [N, h, w, C] to logits [N, H, W, 1 or K]
    crop: RegionCrop | None = None  # separate crops for masks; None to read the box features


class FasterRcnn(TwoStageDetector):
    """Faster R-CNN, on one map or on a pyramid, with or without masks.

    Args:
        network: Backbone, neck and proposal head (``first_stage_network``).
        normalize: Function from RGB 0..255 to the values that the network expects.
        first_stage: First stage, or None if proposals are inputs.
        second_stage: Second stage, or None for a proposal network alone.
        crop: Crop of regions; None for a proposal network alone.
        box_network: Model from crops [N, h, w, C] to ``features``, ``box_deltas`` [N, Q, 4] and ``class_logits``
            [N, K + 1]. A Context R-CNN's has the fields of ``heads.context_attention.Memory`` as further inputs.
        mask_stage: Mask head, or None.
        num_classes: Number of classes, the background not counted.
        gives_features: Add the features of the final boxes to the detections.
    """

    def __init__(
        self,
        network: keras.Model,
        normalize: Callable[[Tensor], Tensor],
        first_stage: FirstStage | None,
        second_stage: SecondStage | None,
        crop: RegionCrop | None,
        box_network: keras.Model | None,
        mask_stage: MaskStage | None,
        num_classes: int,
        gives_features: bool = False,
    ) -> None:
        super().__init__(network, normalize, first_stage, second_stage, num_classes, name="faster_rcnn")
        self._crop: Any = crop
        self._gives_features = gives_features
        self.box_network: Any = box_network
        if box_network is not None and len(box_network.inputs) > 1:
            self.context_length = box_network.inputs[1].shape[-1]
        self.mask_network: Any = mask_stage.network if mask_stage else None
        self._mask_crop = mask_stage.crop if mask_stage else None

    @property
    def learns_masks(self) -> bool:
        """See ``Detector.learns_masks``."""
        return self.mask_network is not None

    def postprocess(
        self, predictions: RegionPredictions, true_shapes: Tensor, padded_shape: tuple[Tensor | int, Tensor | int]
    ) -> Detections:
        """See ``Detector.postprocess``. Masks are predicted for the detections, not for every region."""
        detections = super().postprocess(predictions, true_shapes, padded_shape)
        if not predictions.maps:
            return detections
        window_sizes = tf.tile(image_windows(true_shapes, padded_shape)[:, tf.newaxis, 2:], [1, 1, 2])
        canvas_shape = tuple(tf.unstack(predictions.canvas_shape))
        regions_norm = boxes.of_canvas(detections.boxes_norm * window_sizes, padded_shape, canvas_shape)
        if self._gives_features:
            features = self._detection_features(predictions.maps, regions_norm, canvas_shape)
            detections = detections._replace(features=_by_image(features, regions_norm))
        if self.mask_network is None:
            return detections
        logits = self._mask_logits(predictions.maps, regions_norm, canvas_shape)
        num_masks = logits.shape[-1]
        of_class = tf.one_hot(detections.classes if num_masks > 1 else tf.zeros_like(detections.classes), num_masks)
        chosen = tf.reduce_sum(logits * of_class[:, :, tf.newaxis, tf.newaxis], axis=-1)
        is_filled = tf.range(tf.shape(chosen)[1]) < detections.num_valid[:, tf.newaxis]
        return detections._replace(masks=tf.where(is_filled[..., tf.newaxis, tf.newaxis], tf.sigmoid(chosen), 0.0))

    def _classify(
        self,
        maps: Mapping[int, Tensor],
        regions_norm: Tensor,
        image_shape: tuple[Any, Any],
        training: bool,
        for_loss: bool,
        *memory: Tensor,
    ) -> ClassifiedRegions:
        """See ``TwoStageDetector._classify``. For the loss the masks of all regions are predicted, too."""
        crops = self._crop(maps, regions_norm, image_shape)
        outputs = self.box_network([crops, *memory] if memory else crops, training=training)
        deltas, logits = (_by_image(outputs[name], regions_norm) for name in ("box_deltas", "class_logits"))
        if not for_loss:
            is_cropped_again = self._gives_features or self.mask_network is not None
            return ClassifiedRegions(deltas, logits, maps=maps if is_cropped_again else ())
        if self.mask_network is None:
            return ClassifiedRegions(deltas, logits)
        features = outputs["features"]
        if self._mask_crop is not None:
            features = self._mask_crop(maps, regions_norm, image_shape)
        masks = _by_image(self.mask_network(features, training=training), regions_norm)
        return ClassifiedRegions(deltas, logits, mask_logits=masks)

    def _mask_logits(self, maps: Mapping[int, Tensor], regions_norm: Tensor, image_shape: tuple[Any, Any]) -> Tensor:
        """Returns mask logits [B, R, h, w, 1 or K] of regions [B, R, 4] at inference."""
        if self._mask_crop is not None:
            features = self._mask_crop(maps, regions_norm, image_shape)
        else:
            features = self._detection_features(maps, regions_norm, image_shape)
        return _by_image(self.mask_network(features, training=False), regions_norm)

    def _detection_features(
        self, maps: Mapping[int, Tensor], regions_norm: Tensor, image_shape: tuple[Any, Any]
    ) -> Any:
        """Returns the features [B * R, h, w, C] of regions [B, R, 4] at inference, from which boxes are predicted."""
        return self.box_network(self._crop(maps, regions_norm, image_shape), training=False)["features"]


def _by_image(rows: Tensor, regions_norm: Tensor) -> Tensor:
    """Reshapes [B * R, ...] to [B, R, ...]."""
    shape = tf.shape(regions_norm)
    num_regions = regions_norm.shape[1] if regions_norm.shape[1] is not None else shape[1]
    return tf.reshape(rows, [shape[0], num_regions, *rows.shape[1:]])
