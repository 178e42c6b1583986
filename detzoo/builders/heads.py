"""``BoxPredictor`` messages -> a dense head (floor 5)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

from detzoo.builders.hyperparams import build_hyperparams
from detzoo.config import pb
from detzoo.contracts import Tensor
from detzoo.heads.dense_head import DenseHeadOptions, DenseOutputs, convolutional_head, weight_shared_head

DenseHead = Callable[[Mapping[int, Tensor]], DenseOutputs]


def build_dense_head(
    message: pb.BoxPredictor, num_anchors_per_location: Sequence[int], num_columns: int, freeze_batchnorm: bool = False
) -> DenseHead:
    """Builds the head of a checked ``box_predictor``: a function from the pyramid (level to map) to deltas and logits.

    ``num_anchors_per_location`` ascends by level; ``num_columns`` are the classes, plus 1 with a background column.
    """
    if message.WhichOneof("box_predictor_oneof") == "convolutional_box_predictor":
        plain = message.convolutional_box_predictor
        return functools.partial(
            convolutional_head,
            num_anchors_per_location=num_anchors_per_location,
            num_columns=num_columns,
            hyperparams=build_hyperparams(plain.conv_hyperparams, freeze_batchnorm),
            options=_options(plain, plain.apply_sigmoid_to_scores),
            min_depth=plain.min_depth,
            max_depth=plain.max_depth,
        )
    predictor = message.weight_shared_convolutional_box_predictor
    return functools.partial(
        weight_shared_head,
        num_anchors_per_location=num_anchors_per_location,
        num_columns=num_columns,
        depth=predictor.depth,
        hyperparams=build_hyperparams(predictor.conv_hyperparams, freeze_batchnorm),
        options=_options(predictor, predictor.score_converter == predictor.SIGMOID),
        share_tower=predictor.share_prediction_tower,
        configure_pointwise=predictor.apply_conv_hyperparams_pointwise,
        configure_predictors=predictor.apply_conv_hyperparams_to_heads,
    )


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
