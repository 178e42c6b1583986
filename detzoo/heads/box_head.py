"""What a two-stage detector makes of a cropped region: features, then classes and a box, and perhaps a mask.

crop [N, h, w, C] -> ``fully_connected_features`` or the rest of a backbone -> features [N, h', w', C']
                  -> ``box_predictor`` -> class logits [N, K + 1] and box deltas [N, Q, 4]
                  -> ``mask_predictor`` -> mask logits [N, H, W, 1 or K]

References:
    Girshick, arXiv:1504.08083, section 2 (Fast R-CNN); Lin et al., arXiv:1612.03144, section 4.2 (two fully connected
    layers of 1024); He et al., arXiv:1703.06870, section 3 (masks); Huang et al., arXiv:1611.10012, section 3.3.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import keras

from detzoo.contracts import BatchNormHyperparams, ConvHyperparams, Tensor
from detzoo.heads.dense_head import BOX_CODE_SIZE
from detzoo.layers.conv import conv_block, convolution, kernel_regularizer
from detzoo.layers.normalization import batch_norm_from
from detzoo.layers.resample import ResizeBilinear

# Of the automatic depth of the mask head: the Object Detection API weighs the logarithms of classes and features so.
_CLASS_WEIGHT = 3.0
_FEATURE_WEIGHT = 2.0


class BoxOutputs(NamedTuple):
    """What is predicted for each of N regions, float32 under every dtype policy."""

    box_deltas: Tensor  # [N, Q, 4], Q = 1 where classes share a box, else K
    class_logits: Tensor  # [N, K + 1], background first


def fully_connected_features(
    x: Tensor,
    depth: int,
    batch_norm: BatchNormHyperparams | None = None,
    dropout_rate: float = 0.0,
    l2_weight: float = 0.0,
) -> Tensor:
    """Two fully connected layers with ReLU, ``fc1`` and ``fc2``.

    Args:
        x: Crops [N, h, w, C], their size known.
        depth: Channels of both.
        batch_norm: Between the two, as in the Object Detection API; None for none, as in the papers.
        dropout_rate: After each, in training; VGG's is 0.5.
        l2_weight: Keras's: both kernels add this times the sum of their squares to the loss.

    Returns:
        [N, 1, 1, depth].
    """
    regularizer = keras.regularizers.L2(l2_weight) if l2_weight else None
    x = keras.layers.Flatten(name="flat")(x)
    x = keras.layers.Dense(depth, activation="relu", kernel_regularizer=regularizer, name="fc1")(x)
    if batch_norm is not None:
        x = batch_norm_from(batch_norm, name="fc1_batch_norm")(x)
    if dropout_rate:
        x = keras.layers.Dropout(dropout_rate, name="fc1_dropout")(x)
    x = keras.layers.Dense(depth, activation="relu", kernel_regularizer=regularizer, name="fc2")(x)
    if dropout_rate:
        x = keras.layers.Dropout(dropout_rate, name="fc2_dropout")(x)
    return keras.layers.Reshape((1, 1, depth), name="fc_features")(x)


def box_predictor(
    features: Tensor,
    num_classes: int,
    hyperparams: ConvHyperparams,
    dropout_rate: float = 0.0,
    share_box_across_classes: bool = False,
) -> BoxOutputs:
    """Mean over the cells, then one fully connected layer for the classes and one for the boxes.

    Args:
        features: [N, h, w, C].
        num_classes: K, the background not counted.
        hyperparams: Initializer and regularizer of both layers.
        dropout_rate: Before both, in training.
        share_box_across_classes: One box for all classes instead of one for each.
    """
    x = keras.layers.GlobalAveragePooling2D(name="mean")(features)
    if dropout_rate:
        x = keras.layers.Dropout(dropout_rate, name="dropout")(x)
    num_boxes = 1 if share_box_across_classes else num_classes
    deltas = _dense(x, num_boxes * BOX_CODE_SIZE, hyperparams, "box_predictor")
    deltas = keras.layers.Reshape((num_boxes, BOX_CODE_SIZE), name="box_predictor_boxes")(deltas)
    logits = _dense(x, num_classes + 1, hyperparams, "class_predictor")
    return BoxOutputs(
        keras.layers.Activation("linear", name="region_box_deltas", dtype="float32")(deltas),
        keras.layers.Activation("linear", name="region_class_logits", dtype="float32")(logits),
    )


def _dense(x: Tensor, units: int, hyperparams: ConvHyperparams, name: str) -> Tensor:
    return keras.layers.Dense(
        units,
        kernel_initializer=hyperparams.kernel_initializer(),
        kernel_regularizer=kernel_regularizer(hyperparams),
        name=name,
    )(x)


def mask_predictor(
    features: Tensor,
    num_classes: int,
    mask_size: tuple[int, int],
    hyperparams: ConvHyperparams,
    num_conv_layers: int = 2,
    depth: int = 256,
    is_class_agnostic: bool = False,
    convolve_then_upsample: bool = False,
) -> Tensor:
    """Convolutions at the size of the mask (or before enlarging to it), the Object Detection API's mask head.

    Args:
        features: [N, h, w, C].
        num_classes: K.
        mask_size: (height, width) of the predicted mask, in cells.
        hyperparams: Of the 3 x 3 convolutions; the last takes initializer and regularizer.
        num_conv_layers: 3 x 3 convolutions, the last one included.
        depth: Channels of all but the last; 0 derives them from the numbers of classes and features.
        is_class_agnostic: One mask for all classes.
        convolve_then_upsample: Convolve the features at their own size, repeat cells to the mask's size, convolve.

    Returns:
        Logits float32 [N, *mask_size, 1 or K].

    Raises:
        ValueError: With ``convolve_then_upsample`` the mask's size is no multiple of the features'.
    """
    depth = depth or mask_depth(features.shape[-1], num_classes)
    x = features if convolve_then_upsample else ResizeBilinear(mask_size, name="mask_resize")(features)
    for number in range(num_conv_layers - 1):
        x = conv_block(x, depth, 3, hyperparams, f"mask_{number}")
    if convolve_then_upsample:
        factors = tuple(wanted // given for wanted, given in zip(mask_size, x.shape[1:3], strict=True))
        if tuple(factor * given for factor, given in zip(factors, x.shape[1:3], strict=True)) != tuple(mask_size):
            raise ValueError(
                f"convolve_then_upsample repeats the cells of features of {tuple(x.shape[1:3])}; a mask of "
                f"{tuple(mask_size)} is no multiple of that"
            )
        x = keras.layers.UpSampling2D(factors, name="mask_upsample")(x)
        x = conv_block(x, depth, 3, hyperparams, "mask_upsampled")
    num_masks = 1 if is_class_agnostic else num_classes
    x = convolution(num_masks, 3, hyperparams, "mask_predictor", use_bias=True)(x)
    return keras.layers.Activation("linear", name="mask_logits", dtype="float32")(x)


def mask_depth(num_features: int, num_classes: int) -> int:
    """The automatic depth: a weighted mean of the logarithms of both numbers, rounded to a power of two."""
    weighted = _CLASS_WEIGHT * math.log2(num_classes) + _FEATURE_WEIGHT * math.log2(num_features)
    return int(2 ** round(weighted / (_CLASS_WEIGHT + _FEATURE_WEIGHT)))
