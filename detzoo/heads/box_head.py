"""The head of a two-stage detector: cropped regions to features, then classes, boxes and optionally masks.

crop [N, h, w, C] -> ``fully_connected_features`` or the rest of a backbone -> features [N, h', w', C']
                  -> ``box_predictor`` -> class logits [N, K + 1] and box deltas [N, Q, 4]
                  -> ``mask_predictor`` -> mask logits [N, H, W, 1 or K]

R-FCN has ``position_sensitive_maps`` instead: maps of scores and of boxes, one group of channels per part of an object.

References:
    Girshick, arXiv:1504.08083, section 2 (Fast R-CNN). Lin et al., arXiv:1612.03144, section 4.2 (two fully connected
    layers of 1024). He et al., arXiv:1703.06870, section 3 (masks). Huang et al., arXiv:1611.10012, section 3.3.
    Dai et al., arXiv:1605.06409, section 2 (position-sensitive score maps, and their sibling for boxes).
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

# Weights of the logarithms of classes and features in the mask head's automatic depth (Object Detection API).
_CLASS_WEIGHT = 3.0
_FEATURE_WEIGHT = 2.0


class BoxOutputs(NamedTuple):
    """The predictions for N regions, float32 under every dtype policy."""

    box_deltas: Tensor  # [N, Q, 4], Q = 1 if classes share a box, else K
    class_logits: Tensor  # [N, K + 1], background first


def fully_connected_features(
    x: Tensor,
    depth: int,
    batch_norm: BatchNormHyperparams | None = None,
    dropout_rate: float = 0.0,
    l2_weight: float = 0.0,
) -> Tensor:
    """Applies two fully connected layers with ReLU, ``fc1`` and ``fc2``: crops [N, h, w, C] -> [N, 1, 1, depth].

    The normalisation between the two is the Object Detection API's, the papers have none. ``l2_weight`` is a factor of
    the sum of squares of both kernels, as in Keras.
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
    """Averages the cells of features [N, h, w, C], then applies a fully connected layer each for classes and boxes."""
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


def position_sensitive_maps(
    features: Tensor,
    num_classes: int,
    num_bins: tuple[int, int],
    depth: int,
    hyperparams: ConvHyperparams,
    share_box_across_classes: bool = False,
) -> BoxOutputs:
    """Applies 1 x 1 convolutions: to ``depth`` channels (1024 in the paper), then to scores and boxes of every bin.

    The last two convolutions are not activated. In the paper all classes share one box.

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
    """Predicts masks by convolutions at the size of the mask (or before upsampling to it), as the Object Detection API.

    Args:
        features: [N, h, w, C].
        num_classes: Number K of classes.
        mask_size: (height, width) of the predicted mask, in cells.
        hyperparams: Hyperparameters of the 3 x 3 convolutions; the last has initializer and regularizer only.
        num_conv_layers: Number of 3 x 3 convolutions, including the last.
        depth: Channels of all convolutions except the last; 0 derives them from the numbers of classes and features.
        is_class_agnostic: Predicts one mask for all classes.
        convolve_then_upsample: Convolves the features at their size, repeats cells to the mask's size, convolves again.

    Returns:
        Logits float32 [N, *mask_size, 1 or K].

    Raises:
        ValueError: With ``convolve_then_upsample``, the mask's size is no multiple of the features' size.
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
    """Returns the automatic depth: a power of two near the weighted geometric mean of both numbers."""
    weighted = _CLASS_WEIGHT * math.log2(num_classes) + _FEATURE_WEIGHT * math.log2(num_features)
    return int(2 ** round(weighted / (_CLASS_WEIGHT + _FEATURE_WEIGHT)))
