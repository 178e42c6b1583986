"""EfficientDet: one-stage detection on a bidirectional feature pyramid, all parts scaled together.

Tan, Pang and Le, "EfficientDet: scalable and efficient object detection", arXiv:1911.09070, in the form of the Object
Detection API.

| section of the EfficientDet paper | here |
|---|---|
| 3.2 cross-scale connections; 3.3 weighted feature fusion | ``detzoo.necks.bifpn``; ``detzoo.layers.fusion`` |
| 4.1 EfficientDet architecture: EfficientNet, levels 3 to 7 | ``detzoo.features.efficientnet`` |
| 4.1 class and box networks, shared over the levels | ``detzoo.heads.dense_head.weight_shared_head`` |
| 4.2 compound scaling, table 1 (D0 to D7) | ``model_configs/efficientdet_d*.config`` |
| 5.1 focal loss of alpha 0.25, gamma 1.5; anchors | ``detzoo.losses``; ``detzoo.ops.anchors.MultiscaleAnchors`` |
| inference | ``detzoo.postprocess.dense_detections`` |

Differs from the authors' code, as the Object Detection API does: deeper EfficientNets are read where B0 ends its
stages (``detzoo.features.efficientnet``).
"""

from __future__ import annotations

from detzoo.detectors.base import OneStageDetector


class EfficientDet(OneStageDetector):
    """EfficientDet: predictions from a BiFPN by a head that is shared over its levels.

    The four verbs are those of ``OneStageDetector``; the parts that it is given are in the table above.
    """
