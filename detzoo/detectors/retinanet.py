"""RetinaNet: one-stage detection on a feature pyramid, trained by the focal loss.

Lin et al., "Focal loss for dense object detection", arXiv:1708.02002; the pyramid of Lin et al., arXiv:1612.03144.

| section of the RetinaNet paper | here |
|---|---|
| 3 focal loss; 3.3 initialisation by a prior | ``detzoo.losses``; ``class_bias_init`` of ``detzoo.heads.dense_head`` |
| 4 feature pyramid backbone, P3 to P7 | ``retinanet_pyramid``, with ``detzoo.necks.fpn`` |
| 4 anchors, 9 a location | ``detzoo.ops.anchors.MultiscaleAnchors`` |
| 4 assignment at IoU 0.5 and 0.4 | ``detzoo.targets.anchor_targets`` |
| 4 classification and box regression subnets | ``detzoo.heads.dense_head.weight_shared_head`` |
| 4.1 inference, NMS 0.5 (of all boxes, not of 1000 a level) | ``detzoo.postprocess.dense_detections`` |

The Object Detection API calls its variant ``ssd_*_fpn``: normalised convolutions, P6 and P7 from P5, a background
column; "FPN-lite" is the same with separable convolutions. The configuration chooses between both forms.
"""

from __future__ import annotations

from collections.abc import Mapping

from detzoo.contracts import ConvHyperparams, Tensor
from detzoo.detectors.base import OneStageDetector
from detzoo.necks.fpn import (
    coarse_from_backbone,
    coarse_from_pyramid,
    plain_top_down,
    smoothed_top_down,
    without_nonlinearity,
)


class RetinaNet(OneStageDetector):
    """RetinaNet: predictions from a feature pyramid by a head that is shared over its levels.

    The four verbs are those of ``OneStageDetector``; the parts that it is given are in the table above.
    """


def retinanet_pyramid(
    maps: Mapping[int, Tensor],
    depth: int,
    max_level: int,
    hyperparams: ConvHyperparams,
    coarse_from_c5: bool = False,
    normalized: bool = True,
    use_depthwise: bool = False,
    explicit_padding: bool = False,
) -> dict[int, Tensor]:
    """The maps that RetinaNet predicts from.

    Args:
        maps: Level to C_l of the backbone [B, H_l, W_l, C_l], consecutive levels.
        depth: Channels of every P_l; 256 in the paper.
        max_level: The coarsest level; 7 in the paper.
        hyperparams: Of the 3 x 3 convolutions.
        coarse_from_c5: Make the levels past the backbone's from its last map, with a ReLU between them (the paper),
            not from the last map of the pyramid (the Object Detection API).
        normalized: Normalise and activate as ``hyperparams`` say (the Object Detection API), not plain convolutions
            (the paper).
        use_depthwise: Separable 3 x 3 convolutions ("FPN-lite").
        explicit_padding: Pad every side before a 3 x 3.

    Returns:
        Level to P_l [B, H_l, W_l, depth], ascending, from the finest of ``maps`` to ``max_level``.
    """
    top_down = smoothed_top_down if normalized else plain_top_down
    hyperparams = hyperparams if normalized else without_nonlinearity(hyperparams)
    pyramid = top_down(maps, depth, hyperparams, use_depthwise, explicit_padding)
    if coarse_from_c5:
        coarse = coarse_from_backbone(maps, depth, max_level, hyperparams, use_depthwise, explicit_padding)
    else:
        coarse = coarse_from_pyramid(pyramid, depth, max_level, hyperparams, use_depthwise, explicit_padding)
    return {**pyramid, **coarse}
