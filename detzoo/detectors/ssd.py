"""SSD: single shot multibox detector.

Liu et al., arXiv:1512.02325, and its form in Huang et al., "Speed/accuracy trade-offs", arXiv:1611.10012.

| section of the SSD paper | here |
|---|---|
| 2.1 multi-scale feature maps | ``ssd_pyramid``, with ``detzoo.necks.ssd_levels`` |
| 2.1 convolutional predictors | ``detzoo.heads.dense_head.convolutional_head``: one convolution a map and output |
| 2.1 default boxes and aspect ratios | ``detzoo.ops.anchors.SsdAnchors`` |
| 2.2 matching strategy | ``detzoo.targets.anchor_targets``: best anchor of each box, and IoU over 0.5 |
| 2.2 training objective | ``detzoo.losses``: smooth L1 and softmax (or sigmoid, focal) over matched anchors |
| 2.2 hard negative mining | ``detzoo.losses``: 3 negatives for each positive |
| 2.2 data augmentation | ``detzoo.data``: ``ssd_random_crop`` and flips |
| 3.1 L2 normalisation of conv4_3 | ``ssd_pyramid`` |
| inference | ``detzoo.postprocess.dense_detections`` |

Differs from the SSD paper, 3.1: the last two extra maps are made with stride 2 and padding, not with unpadded stride
1, because the trade-offs paper and the Object Detection API make all extra maps alike.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from detzoo.contracts import ConvHyperparams, Tensor
from detzoo.detectors.base import OneStageDetector
from detzoo.necks.ssd_levels import add_extra_levels, normalize_levels


class Ssd(OneStageDetector):
    """SSD: predictions from a backbone's maps and extra levels, each map with predictors of its own.

    The four verbs are those of ``OneStageDetector``; the parts that it is given are in the table above.
    """


def ssd_pyramid(
    maps: Mapping[int, Tensor],
    extra_depths: Sequence[int],
    hyperparams: ConvHyperparams,
    normalized_levels: Collection[int] = (),
    depth_multiplier: float = 1.0,
    min_depth: int = 1,
    use_depthwise: bool = False,
    explicit_padding: bool = False,
    extra_kernel_sizes: Sequence[int] = (),
) -> dict[int, Tensor]:
    """The maps that SSD predicts from: the backbone's, then ever coarser ones.

    Args:
        maps: Level to the backbone's map [B, H_l, W_l, C_l].
        extra_depths: Nominal channels of each extra level.
        hyperparams: Of the extra levels' convolutions.
        normalized_levels: Levels of the backbone whose channels are L2-normalised (VGG's conv4_3).
        depth_multiplier: Factor of every extra depth.
        min_depth: Least channels of an extra level.
        use_depthwise: Separable convolutions in the extra levels ("SSDLite").
        explicit_padding: Pad every side before a strided convolution.
        extra_kernel_sizes: Side of each extra level's strided kernel, where it is not 3 everywhere.

    Returns:
        Level to map, the backbone's levels and one more for each extra depth.
    """
    maps = normalize_levels(maps, normalized_levels)
    return add_extra_levels(
        maps,
        extra_depths,
        hyperparams,
        depth_multiplier,
        min_depth,
        use_depthwise,
        explicit_padding,
        extra_kernel_sizes,
    )
