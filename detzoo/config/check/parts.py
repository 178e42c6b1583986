"""Checks of the blocks that one-stage and two-stage detectors share: resizer, backbone, suppression, miner."""

from __future__ import annotations

from typing import Any, NamedTuple

from detzoo.config import pb, support
from detzoo.config.problems import Findings

_SOFTMAX_LOSSES = ("weighted_softmax", "weighted_logits_softmax")


class InputSize(NamedTuple):
    """Sides of the network's input in pixels, before it is padded to a multiple."""

    height: int
    width: int
    is_static: bool  # False: no image is larger


def check_resizer(resizer: Any, path: str, findings: Findings) -> None:
    """Adds what is wrong with a ``pb.ImageResizer``; one that chooses nothing is not this function's matter."""
    kind = resizer.WhichOneof("image_resizer_oneof")
    if kind is None:
        return
    path, chosen = f"{path}.{kind}", getattr(resizer, kind)
    if kind == "keep_aspect_ratio_resizer":
        for index, side in enumerate(chosen.training_min_dimensions):
            if side > chosen.max_dimension:
                text = f"is {side}; accepted: 1 to max_dimension ({chosen.max_dimension})"
                findings.error(f"{path}.training_min_dimensions[{index}]", text)
    elif kind == "conditional_shape_resizer" and chosen.condition == pb.ConditionalShapeResizer.INVALID:
        findings.error(f"{path}.condition", "is INVALID; accepted: GREATER, SMALLER")


def input_size(resizer: Any) -> InputSize | None:
    """The largest input of an ``image_resizer``; None if images have any size or the resizer is wrong."""
    kind = resizer.WhichOneof("image_resizer_oneof")
    if kind == "fixed_shape_resizer":
        chosen = resizer.fixed_shape_resizer
        return _positive(chosen.height, chosen.width, is_static=True)
    if kind == "keep_aspect_ratio_resizer":
        chosen = resizer.keep_aspect_ratio_resizer
        if chosen.pad_to_max_dimension:
            return _positive(chosen.max_dimension, chosen.max_dimension, is_static=True)
        return _positive(chosen.min_dimension, chosen.max_dimension, is_static=False)
    if kind == "conditional_shape_resizer":
        chosen = resizer.conditional_shape_resizer
        if chosen.condition == pb.ConditionalShapeResizer.GREATER:
            return _positive(chosen.size_threshold, chosen.size_threshold, is_static=False)
    return None


def _positive(height: int, width: int, *, is_static: bool) -> InputSize | None:
    return InputSize(height, width, is_static) if height > 0 and width > 0 else None


def check_backbone(
    message: Any,
    path: str,
    extractor: support.SsdExtractor | support.RegionExtractor,
    findings: Findings,
    files: bool,
) -> None:
    """Adds what is wrong with width, pyramid, padding and weights of a ``feature_extractor`` block."""
    if message.depth_multiplier != 1 and not extractor.has_depth_multiplier:
        text = f"is {message.depth_multiplier:g}, but {message.type} has one width only; accepted: 1"
        findings.error(f"{path}.depth_multiplier", text)
    if message.HasField("fpn") and not extractor.is_fpn:
        stem = message.type.removesuffix(support.KERAS_SUFFIX)
        suffix = message.type.removeprefix(stem)
        with_pyramid = stem + support.FPN_SUFFIX + suffix
        text = f"{message.type} builds no pyramid; use type: '{with_pyramid}' or leave the block out"
        if getattr(extractor, "is_bifpn", False):
            text = f"{message.type} builds a bidirectional pyramid; use the block bifpn"
        findings.error(f"{path}.fpn", text)
    if files or message.pretrained_weights == support.IMAGENET_WEIGHTS:
        problem = support.weights_problem(message.pretrained_weights, extractor)
        if problem:
            findings.error(f"{path}.pretrained_weights", problem)


def check_post_processing(post: Any, path: str, loss: str | None, findings: Findings) -> None:
    """Adds what is wrong with a ``pb.PostProcessing``.

    Args:
        post: the message.
        path: its path.
        loss: the classification loss whose logits it converts; None where that is not known, or where the head
            converts them itself.
        findings: where problems go.
    """
    if not post.HasField("batch_non_max_suppression"):
        findings.error(path, "batch_non_max_suppression is missing; an empty block takes its defaults")
        return
    if loss is None:
        return
    wanted = "SOFTMAX" if loss in _SOFTMAX_LOSSES else "SIGMOID"
    converter = pb.PostProcessing.ScoreConverter.Name(post.score_converter)
    if converter != wanted:
        text = f"is {converter}, but the loss {loss} trains logits for {wanted}; scores will not be probabilities"
        findings.warning(f"{path}.score_converter", text)


def check_hard_examples(miner: Any, path: str, findings: Findings) -> None:
    """Adds what is wrong with the numbers of a ``pb.HardExampleMiner``."""
    if miner.reserve_positives and not 0 < miner.max_negatives_per_positive < miner.num_hard_examples:
        text = (
            f"is true with max_negatives_per_positive {miner.max_negatives_per_positive} and num_hard_examples "
            f"{miner.num_hard_examples}; accepted: a ratio of 1 or more, and more examples than it"
        )
        findings.error(f"{path}.reserve_positives", text)
