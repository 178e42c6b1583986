"""R-FCN's head: maps of scores and of boxes, one group of channels per part of an object.

References:
    Dai et al., arXiv:1605.06409, section 2 (position-sensitive score maps, and their sibling for boxes).
"""

from __future__ import annotations

import keras

from detzoo.contracts import ConvHyperparams, Tensor
from detzoo.heads.box_head import BoxOutputs
from detzoo.heads.dense_head import BOX_CODE_SIZE
from detzoo.layers.conv import conv_block


def position_sensitive_maps(
    features: Tensor,
    num_classes: int,
    num_bins: tuple[int, int],
    depth: int,
    hyperparams: ConvHyperparams,
    share_box_across_classes: bool = False,
) -> BoxOutputs:
    """Applies 1 x 1 convolutions: to ``depth`` channels, then to scores and boxes of every bin.

    Args:
        features: [B, H, W, C], of the whole image.
        num_classes: Number K of classes.
        num_bins: Rows and columns of parts of an object.
        depth: Channels in between; 1024 in the paper.
        hyperparams: Hyperparameters of all three convolutions; the last two are not activated.
        share_box_across_classes: Predicts one box for all classes, as in the paper, instead of one per class.

    Returns:
        Maps [B, H, W, bins * Q * 4] and [B, H, W, bins * (K + 1)], the bin varying slowest.
    """
    bins = num_bins[0] * num_bins[1]
    num_boxes = 1 if share_box_across_classes else num_classes
    x = conv_block(features, depth, 1, hyperparams, name="reduce")
    boxes = conv_block(x, bins * num_boxes * BOX_CODE_SIZE, 1, hyperparams, name="box_maps", use_activation=False)
    scores = conv_block(x, bins * (num_classes + 1), 1, hyperparams, name="class_maps", use_activation=False)
    return BoxOutputs(
        keras.layers.Activation("linear", name="region_box_maps", dtype="float32")(boxes),
        keras.layers.Activation("linear", name="region_class_maps", dtype="float32")(scores),
    )
