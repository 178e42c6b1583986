"""Dense heads: box deltas and class logits for every anchor of every level.

Two heads have the signature ``head(maps) -> DenseOutputs``:

* ``convolutional_head`` (SSD): separate predictors per level.
* ``weight_shared_head`` (RetinaNet): two towers and their predictors, shared over the levels; only the batch
  normalisation is separate per level, because the statistics of the levels differ.

The anchors of the output are ordered by level (ascending), then row, column, and anchor of the location, which is the
order of ``detzoo.ops.anchors``. Outputs are float32 under every dtype policy.

References:
    Liu et al., arXiv:1512.02325, section 2.1. Lin et al., arXiv:1708.02002, section 4 (subnets) and 4.1 (initial bias).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import keras

from detzoo.contracts import ConvHyperparams, Tensor
from detzoo.layers.conv import (
    conv_block,
    convolution,
    depthwise_block,
    normalize_and_activate,
    separable_convolution,
)

BOX_CODE_SIZE = 4


class DenseOutputs(NamedTuple):
    """The predictions of a dense head over all levels."""

    box_deltas: Tensor  # float32 [B, A, 4]
    class_logits: Tensor  # float32 [B, A, C]


@dataclasses.dataclass(frozen=True)
class DenseHeadOptions:
    """Options of both heads. ``kernel_size`` applies to the last convolution and to shared towers."""

    kernel_size: int = 3
    num_layers_before_predictor: int = 0
    class_bias_init: float = 0.0  # initial bias of every class logit; -log((1 - p) / p) starts every score at p
    dropout_rate: float = 0.0  # of the class predictor's features
    use_depthwise: bool = False
    box_deltas_clip_range: tuple[float, float] | None = None
    sigmoid_class_outputs: bool = False  # the "logits" are already scores in 0..1


def convolutional_head(
    maps: Mapping[int, Tensor],
    num_anchors_per_location: Sequence[int],
    num_columns: int,
    hyperparams: ConvHyperparams,
    options: DenseHeadOptions,
    min_depth: int = 0,
    max_depth: int = 0,
) -> DenseOutputs:
    """Predicts from each level with separate convolutions.

    Args:
        maps: Level to [B, H_l, W_l, C_l].
        num_anchors_per_location: Anchors per location of each level, in ascending order of level.
        num_columns: Columns C of the class logits.
        hyperparams: Hyperparameters of the 1 x 1 convolutions before the predictors and of a depthwise predictor;
            other predictors have its initializer and regularizer only.
        options: See ``DenseHeadOptions``.
        min_depth: Smallest number of channels of the 1 x 1 convolutions before the predictors.
        max_depth: Largest number of their channels; 0 omits them unless ``min_depth`` is positive.

    Returns:
        Deltas and logits of all A = sum of H_l * W_l * anchors_l anchors.
    """
    boxes, logits = [], []
    for (level, x), num_anchors in zip(sorted(maps.items()), num_anchors_per_location, strict=True):
        depth = max(min(x.shape[-1], max_depth), min_depth)
        for layer in range(options.num_layers_before_predictor if depth > 0 else 0):
            x = conv_block(x, depth, 1, hyperparams, name=f"head_{level}_shared_{layer}")
        box_map = _level_predictor(x, num_anchors * BOX_CODE_SIZE, hyperparams, options, f"box_predictor_{level}")
        class_map = _level_predictor(
            _dropout(x, options, level),
            num_anchors * num_columns,
            hyperparams,
            options,
            f"class_predictor_{level}",
            bias_init=options.class_bias_init,
        )
        boxes.append(flatten_map(box_map, BOX_CODE_SIZE, f"box_predictor_{level}"))
        logits.append(flatten_map(class_map, num_columns, f"class_predictor_{level}"))
    return _gather_levels(boxes, logits, options)


def weight_shared_head(
    maps: Mapping[int, Tensor],
    num_anchors_per_location: Sequence[int],
    num_columns: int,
    depth: int,
    hyperparams: ConvHyperparams,
    options: DenseHeadOptions,
    share_tower: bool = False,
    configure_pointwise: bool = False,
    configure_predictors: bool = False,
) -> DenseOutputs:
    """Predicts from every level with the same convolutions and separate batch normalisation.

    Args:
        maps: Level to [B, H_l, W_l, C_l]. If the C_l differ, a 1 x 1 convolution per level changes all of them to the
            most frequent one.
        num_anchors_per_location: Anchors per location of each level, in ascending order of level; equal for all.
        num_columns: Columns C of the class logits.
        depth: Channels of the towers.
        hyperparams: Hyperparameters of the towers; the predictors have its initializer and regularizer only.
        options: See ``DenseHeadOptions``.
        share_tower: Uses one tower for boxes and classes instead of two.
        configure_pointwise: Applies ``hyperparams`` to the 1 x 1 kernels of depthwise towers, too.
        configure_predictors: Applies ``hyperparams`` to the kernels of depthwise predictors.

    Returns:
        Deltas and logits of all A = sum of H_l * W_l * anchors anchors.

    Raises:
        ValueError: The levels have different numbers of anchors.
    """
    if len(set(num_anchors_per_location)) != 1:
        raise ValueError(
            "A head shared over the levels needs the same number of anchors per location on each level; "
            f"received {tuple(num_anchors_per_location)}. Use convolutional_box_predictor for such anchors."
        )
    num_anchors = num_anchors_per_location[0]
    maps = _equalize_channels(maps, hyperparams)
    build_tower = _Tower(depth, hyperparams, options, configure_pointwise)
    box_tower = build_tower.over(maps, "tower" if share_tower else "box_tower")
    class_tower = box_tower if share_tower else build_tower.over(maps, "class_tower")
    predict_boxes = _shared_predictor(
        num_anchors * BOX_CODE_SIZE, hyperparams, options, "box_predictor", configure_predictors
    )
    predict_classes = _shared_predictor(
        num_anchors * num_columns,
        hyperparams,
        options,
        "class_predictor",
        configure_predictors,
        bias_init=options.class_bias_init,
    )
    boxes, logits = [], []
    for level in sorted(maps):
        class_features = _dropout(class_tower[level], options, level)
        boxes.append(flatten_map(predict_boxes(box_tower[level]), BOX_CODE_SIZE, f"box_predictor_{level}"))
        logits.append(flatten_map(predict_classes(class_features), num_columns, f"class_predictor_{level}"))
    return _gather_levels(boxes, logits, options)


class _Tower(NamedTuple):
    """A stack of convolutions shared over the levels."""

    depth: int
    hyperparams: ConvHyperparams
    options: DenseHeadOptions
    configure_pointwise: bool

    def over(self, maps: Mapping[int, Tensor], name: str) -> dict[int, Tensor]:
        """Runs the stack over each level; convolution ``i`` is named ``<name>_<i>``."""
        maps = dict(maps)
        for layer in range(self.options.num_layers_before_predictor):
            layer_name = f"{name}_{layer}"
            shared = self._convolution(layer_name)
            for level, x in maps.items():
                maps[level] = normalize_and_activate(shared(x), self.hyperparams, f"{layer_name}_level_{level}")
        return maps

    def _convolution(self, name: str) -> keras.layers.Layer:
        # Differs from a plain block: the Object Detection API has no bias before any batch normalisation, with or
        # without center.
        use_bias = self.hyperparams.force_use_bias or self.hyperparams.batch_norm is None
        kernel_size = self.options.kernel_size
        if not self.options.use_depthwise:
            return convolution(self.depth, kernel_size, self.hyperparams, name, use_bias=use_bias)
        return separable_convolution(
            self.depth,
            kernel_size,
            self.hyperparams,
            name,
            configure_pointwise=self.configure_pointwise,
            use_bias=use_bias,
        )


def _equalize_channels(maps: Mapping[int, Tensor], hyperparams: ConvHyperparams) -> Mapping[int, Tensor]:
    channels = [x.shape[-1] for _, x in sorted(maps.items())]
    if len(set(channels)) == 1:
        return maps
    commonest = max(set(channels), key=channels.count)
    return {
        level: conv_block(x, commonest, 1, hyperparams, name=f"head_{level}_projection", use_activation=False)
        for level, x in maps.items()
    }


def _shared_predictor(
    filters: int,
    hyperparams: ConvHyperparams,
    options: DenseHeadOptions,
    name: str,
    configured: bool,
    bias_init: float = 0.0,
) -> keras.layers.Layer:
    bias_initializer = keras.initializers.Constant(bias_init)
    if not options.use_depthwise:
        return convolution(filters, options.kernel_size, hyperparams, name, bias_initializer=bias_initializer)
    return separable_convolution(
        filters,
        options.kernel_size,
        hyperparams,
        name,
        configure_depthwise=configured,
        configure_pointwise=configured,
        bias_initializer=bias_initializer,
    )


def _level_predictor(
    x: Tensor,
    filters: int,
    hyperparams: ConvHyperparams,
    options: DenseHeadOptions,
    name: str,
    bias_init: float = 0.0,
) -> Tensor:
    kernel_size = options.kernel_size
    if options.use_depthwise:
        x = depthwise_block(x, kernel_size, hyperparams, name)
        kernel_size = 1
    bias_initializer = keras.initializers.Constant(bias_init)
    return convolution(filters, kernel_size, hyperparams, name, bias_initializer=bias_initializer)(x)


def _dropout(x: Tensor, options: DenseHeadOptions, level: int) -> Tensor:
    if not options.dropout_rate:
        return x
    return keras.layers.Dropout(options.dropout_rate, name=f"head_{level}_dropout")(x)


def flatten_map(x: Tensor, last: int, name: str) -> Tensor:
    """Adds a layer ``<name>_flat`` from [B, H, W, anchors * last] to [B, H * W * anchors, last]."""
    return keras.layers.Reshape((-1, last), name=f"{name}_flat")(x)


def _gather_levels(boxes: list[Tensor], logits: list[Tensor], options: DenseHeadOptions) -> DenseOutputs:
    box_deltas = join_levels(boxes, "box_deltas")
    class_logits = join_levels(logits, "class_logits")
    if options.box_deltas_clip_range is not None:
        low, high = options.box_deltas_clip_range
        box_deltas = keras.ops.clip(box_deltas, low, high)
    if options.sigmoid_class_outputs:
        class_logits = keras.layers.Activation("sigmoid", name="class_scores", dtype="float32")(class_logits)
    return DenseOutputs(box_deltas, class_logits)


def join_levels(parts: list[Tensor], name: str) -> Tensor:
    """Concatenates the levels' anchors and returns float32."""
    joined = parts[0] if len(parts) == 1 else keras.layers.Concatenate(axis=1, name=f"{name}_levels")(parts)
    return keras.layers.Activation("linear", name=name, dtype="float32")(joined)
