"""From a ``BoxPredictor`` message to a dense head (floor 4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from detzoo.builders.hyperparams import build_hyperparams
from detzoo.config import pb
from detzoo.contracts import Tensor
from detzoo.errors import ConfigError
from detzoo.heads.dense_head import (
    BOX_CODE_SIZE,
    DenseHeadOptions,
    DenseOutputs,
    convolutional_head,
    weight_shared_head,
)

DenseHead = Callable[[Mapping[int, Tensor]], DenseOutputs]


def build_dense_head(
    message: pb.BoxPredictor, num_anchors_per_location: Sequence[int], num_columns: int, freeze_batchnorm: bool = False
) -> DenseHead:
    """The head that a ``box_predictor`` block describes.

    Args:
        message: pb.BoxPredictor.
        num_anchors_per_location: Anchors of each level, in ascending order of level.
        num_columns: Columns of the class logits: the classes, and one more where there is a background column.
        freeze_batchnorm: The detector's ``freeze_batchnorm``.

    Returns:
        A function from the pyramid (level to map) to deltas and logits.

    Raises:
        ConfigError: A predictor of a two-stage detector, or a value that this predictor cannot have.
    """
    branch = message.WhichOneof("box_predictor_oneof")
    if branch not in _HEADS:
        raise ConfigError(
            f"box_predictor: {branch or 'nothing'} is set, but a one-stage detector needs one of {', '.join(_HEADS)}."
        )
    predictor = getattr(message, branch)
    if predictor.box_code_size != BOX_CODE_SIZE:
        raise ConfigError(
            f"box_predictor.{branch}.box_code_size is {predictor.box_code_size}; the box coders of a one-stage "
            f"detector need {BOX_CODE_SIZE}."
        )
    if predictor.use_depthwise and predictor.kernel_size == 1:
        raise ConfigError(
            f"box_predictor.{branch}: use_depthwise with kernel_size 1 has no spatial reach. Set kernel_size: 3."
        )
    return _HEADS[branch](predictor, num_anchors_per_location, num_columns, freeze_batchnorm)


def _options(
    predictor: pb.ConvolutionalBoxPredictor | pb.WeightSharedConvolutionalBoxPredictor, sigmoid_class_outputs: bool
) -> DenseHeadOptions:
    clip_range = predictor.box_encodings_clip_range if predictor.HasField("box_encodings_clip_range") else None
    return DenseHeadOptions(
        kernel_size=predictor.kernel_size,
        num_layers_before_predictor=predictor.num_layers_before_predictor,
        class_bias_init=predictor.class_prediction_bias_init,
        dropout_rate=1.0 - predictor.dropout_keep_probability if predictor.use_dropout else 0.0,
        use_depthwise=predictor.use_depthwise,
        box_deltas_clip_range=(clip_range.min, clip_range.max) if clip_range is not None else None,
        sigmoid_class_outputs=sigmoid_class_outputs,
    )


def _convolutional(
    predictor: pb.ConvolutionalBoxPredictor,
    num_anchors_per_location: Sequence[int],
    num_columns: int,
    freeze_batchnorm: bool,
) -> DenseHead:
    if predictor.min_depth > predictor.max_depth:
        raise ConfigError(
            f"box_predictor.convolutional_box_predictor: min_depth {predictor.min_depth} is above max_depth "
            f"{predictor.max_depth}; it must be at most max_depth."
        )
    hyperparams = build_hyperparams(predictor.conv_hyperparams, freeze_batchnorm)
    options = _options(predictor, predictor.apply_sigmoid_to_scores)

    def head(maps: Mapping[int, Tensor]) -> DenseOutputs:
        return convolutional_head(
            maps,
            num_anchors_per_location,
            num_columns,
            hyperparams,
            options,
            min_depth=predictor.min_depth,
            max_depth=predictor.max_depth,
        )

    return head


def _weight_shared(
    predictor: pb.WeightSharedConvolutionalBoxPredictor,
    num_anchors_per_location: Sequence[int],
    num_columns: int,
    freeze_batchnorm: bool,
) -> DenseHead:
    if len(set(num_anchors_per_location)) != 1:
        raise ConfigError(
            "box_predictor.weight_shared_convolutional_box_predictor needs the same number of anchors on each level, "
            f"but anchor_generator gives {list(num_anchors_per_location)}. With ssd_anchor_generator set "
            "reduce_boxes_in_lowest_layer: false, or use convolutional_box_predictor."
        )
    hyperparams = build_hyperparams(predictor.conv_hyperparams, freeze_batchnorm)
    options = _options(predictor, predictor.score_converter == predictor.SIGMOID)

    def head(maps: Mapping[int, Tensor]) -> DenseOutputs:
        return weight_shared_head(
            maps,
            num_anchors_per_location,
            num_columns,
            predictor.depth,
            hyperparams,
            options,
            share_tower=predictor.share_prediction_tower,
            configure_pointwise=predictor.apply_conv_hyperparams_pointwise,
            configure_predictors=predictor.apply_conv_hyperparams_to_heads,
        )

    return head


_HEADS: dict[str, Callable[[Any, Sequence[int], int, bool], DenseHead]] = {
    "convolutional_box_predictor": _convolutional,
    "weight_shared_convolutional_box_predictor": _weight_shared,
}
