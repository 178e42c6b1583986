"""R-FCN: every layer runs once per image, and a region only averages its part of score maps.

Dai et al., arXiv:1605.06409, in the form of Huang et al., "Speed/accuracy trade-offs", arXiv:1611.10012, section 3.

| section of the R-FCN paper | here |
|---|---|
| 2 backbone, reduced to 1024 channels | ``map_network``, with ``detzoo.heads.box_head`` |
| 2 position-sensitive score maps and RoI pooling | ``detzoo.ops.position_sensitive_crop`` |
| 2 training with online hard example mining | ``detzoo.losses.hard_examples`` |
| 2 dilation in conv5 | ``detzoo.features.rewrite.RegionStride.DILATED`` |

Differs from the R-FCN paper: bins are cropped bilinearly, not pooled (trade-offs paper, section 3.1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from detzoo.contracts import Tensor
from detzoo.detectors.two_stage import ClassifiedRegions, FirstStage, SecondStage, TwoStageDetector
from detzoo.heads.dense_head import BOX_CODE_SIZE
from detzoo.ops.position_sensitive_crop import position_sensitive_crop


class Rfcn(TwoStageDetector):
    """R-FCN.

    Args:
        network: Backbone and proposal head (``first_stage_network``).
        map_network: Model from the backbone's map to ``box_deltas`` [B, H, W, bins * Q * 4] and ``class_logits``
            [B, H, W, bins * (K + 1)].
        normalize: Function from RGB 0..255 to the values that the network expects.
        first_stage: First stage, or None if proposals are inputs.
        second_stage: Sampling, loss and detections.
        num_bins: Rows and columns of bins.
        crop_size: Samples (height, width) of a region, a multiple of the bins.
        num_classes: Number of classes, the background not counted.
    """

    def __init__(
        self,
        network: keras.Model,
        map_network: keras.Model,
        normalize: Callable[[Tensor], Tensor],
        first_stage: FirstStage | None,
        second_stage: SecondStage,
        num_bins: tuple[int, int],
        crop_size: tuple[int, int],
        num_classes: int,
    ) -> None:
        super().__init__(network, normalize, first_stage, second_stage, num_classes, name="rfcn")
        self.map_network = map_network
        self._num_bins = num_bins
        self._crop_size = crop_size

    def _classify(
        self,
        maps: Mapping[int, Tensor],
        regions_norm: Tensor,
        image_shape: tuple[Any, Any],
        training: bool,
        for_loss: bool,
        *memory: Tensor,
    ) -> ClassifiedRegions:
        """See ``TwoStageDetector._classify``."""
        del for_loss, memory
        (features,) = maps.values()
        score_maps = self.map_network(features, training=training)
        deltas, logits = (
            position_sensitive_crop(score_maps[name], regions_norm, self._crop_size, self._num_bins)
            for name in ("box_deltas", "class_logits")
        )
        shape = tf.shape(regions_norm)
        num_boxes = deltas.shape[-1] // BOX_CODE_SIZE
        return ClassifiedRegions(tf.reshape(deltas, [shape[0], shape[1], num_boxes, BOX_CODE_SIZE]), logits)
