"""Batch normalization of a config: the parts whose statistics train, their momentum, and how far they get.

After n steps a moving statistic with momentum m is still m ** n initial value: mean 0 and variance 1 from scratch, the
statistics of other images after a warm start.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from detzoo.config import pb, values
from detzoo.config.support import CENTER_EXTRACTORS, FIXED_FAMILIES, REGION_EXTRACTORS, SSD_EXTRACTORS
from detzoo.config.values import PATTERN_ERRORS

# Of the moving statistics, at the end of a training. 5 % are too many for deep networks: EfficientDet-D0, whose 108
# normalizations each keep 4.9 % after 300 steps, detects nothing.
MAX_INITIAL_SHARE = 0.01
# Momentum of each backbone family's own batch normalization, as in the Object Detection API; VGG-16 has none.
BACKBONE_MOMENTUM = {
    "mobilenet_v1": 0.9997,
    "mobilenet_v2": 0.9997,
    "mobilenet_v2_mnasfpn": 0.99,
    "mobilenet_v3": 0.9997,
    "mobiledet": 0.99,
    "inception_v2": 0.9997,
    "inception_v3": 0.9997,
    "inception_resnet_v2": 0.9997,
    "resnet": 0.997,
    "resnext": 0.997,
    "efficientnet": 0.99,
    "nasnet": 0.9997,
    "pnasnet": 0.9997,
}
# The same for CenterNet's backbones; what follows them has 0.99 everywhere.
CENTER_MOMENTUM = {"hourglass": 0.9, "resnet_v1_caffe": 0.99, "resnet_v2": 0.99, "mobilenet_v2": 0.97}
OVERRIDE = "override_base_feature_extractor_hyperparams"
HYPERPARAMS = "conv_hyperparams"
HOW_TO_RECOMPUTE = (
    "`detzoo evaluate` and `detzoo export` recompute them from training batches with --recompute_batch_norm 100, and "
    "training does with train_config.recompute_batch_norm { num_batches: 100 }"
)
_NORMALIZERS = ("batch_norm", "sync_batch_norm")
# Paths of the kind that freeze_variables is matched with.
BACKBONE_STATISTICS, BACKBONE_KERNEL = "backbone/conv1_bn/moving_mean", "backbone/conv1/kernel"
_ADDED_STATISTICS = "_batch_norm/moving_mean"


class TrainedStatistics(NamedTuple):
    """Batch normalization of one part of a model, whose statistics training moves."""

    path: str  # of the field to change
    where: str  # "the backbone", or the field path of the part's hyperparameters
    momentum: float


def initial_share(momentum: float, num_steps: int) -> float:
    """Returns the share of the initial value in a moving statistic after ``num_steps``, 0 to 1."""
    return min(max(momentum, 0.0), 1.0) ** num_steps


def steps_to_arrive(momentum: float) -> float:
    """Returns the steps after which ``MAX_INITIAL_SHARE`` of the initial value is left, infinite for momentum 1."""
    if momentum <= 0:
        return 1
    return math.ceil(math.log(MAX_INITIAL_SHARE) / math.log(momentum)) if momentum < 1 else math.inf


def recomputed_batches(train_config: pb.TrainConfig) -> int:
    """Returns the batches of ``recompute_batch_norm`` in a ``pb.TrainConfig``, 0 if it is off."""
    return train_config.recompute_batch_norm.num_batches if train_config.HasField("recompute_batch_norm") else 0


def arrival_warning(momenta: Iterable[float], num_steps: int) -> str:
    """Reports moving statistics that are still their initial values after ``num_steps``; "" if there are none."""
    slowest = max(momenta, default=0.0)
    share = initial_share(slowest, num_steps)
    if share <= MAX_INITIAL_SHARE:
        return ""
    return (
        f"after {num_steps} steps the moving statistics of batch normalization are still {share:.0%} their initial "
        f"values (momentum {slowest:g}: {MAX_INITIAL_SHARE:.0%} is left after {steps_to_arrive(slowest)} steps), so "
        "that detections may be far worse than the training loss"
    )


def batch_norm_of(hyperparams: pb.Hyperparams) -> pb.BatchNorm | None:
    """Returns the ``pb.BatchNorm`` of a ``pb.Hyperparams``; None without batch normalization."""
    name = hyperparams.WhichOneof("normalizer_oneof")
    return getattr(hyperparams, name) if name in _NORMALIZERS else None


def decay_path(path: str, hyperparams: pb.Hyperparams) -> str:
    """Returns the field path of the momentum in the ``pb.Hyperparams`` at ``path``."""
    return f"{path}.{hyperparams.WhichOneof('normalizer_oneof')}.decay"


def extractor_of(model: pb.DetectionModel) -> tuple[str, Any, str] | None:
    """Returns (field path, message, family) of a ``pb.DetectionModel``'s feature extractor; None without one."""
    kind = model.WhichOneof("model") or ""
    message = getattr(getattr(model, kind, None), "feature_extractor", None)
    rows: Any = SSD_EXTRACTORS if kind == "ssd" else REGION_EXTRACTORS
    row = rows.get(getattr(message, "type", None))
    return (f"model.{kind}.feature_extractor", message, row.family) if row and hasattr(message, OVERRIDE) else None


def statistics_are_frozen(model: pb.DetectionModel) -> bool:
    """Returns True if a ``pb.DetectionModel`` keeps all moving statistics as they are."""
    if model.HasField("ssd"):
        return model.ssd.freeze_batchnorm
    extractor = extractor_of(model)
    return extractor is not None and not extractor[1].batch_norm_trainable


def freezes(train_config: pb.TrainConfig, path: str) -> bool:
    """Returns True if a pattern of ``freeze_variables`` finds a variable's path."""
    return any(finds(pattern, path) for pattern in train_config.freeze_variables)


def finds(pattern: str, path: str) -> bool:
    """Returns True if a pattern finds a path; never for "" and for invalid regular expressions."""
    try:
        return bool(pattern) and re.search(pattern, path) is not None
    except PATTERN_ERRORS:
        return False


def backbone_moves_statistics(config: pb.TrainEvalPipelineConfig) -> bool:
    """Returns True if training moves the statistics of a backbone, with the momentum of its family."""
    extractor = extractor_of(config.model)
    if extractor is None or statistics_are_frozen(config.model):
        return False
    _, message, family = extractor
    is_frozen = message.freeze_backbone or freezes(config.train_config, BACKBONE_STATISTICS)
    is_overridden = getattr(message, OVERRIDE) and family not in FIXED_FAMILIES
    return family in BACKBONE_MOMENTUM and not is_frozen and not is_overridden


def trained_statistics(config: pb.TrainEvalPipelineConfig) -> list[TrainedStatistics]:
    """Returns the parts of a ``pb.TrainEvalPipelineConfig`` whose statistics training moves, the backbone first."""
    if config.model.HasField("center_net"):
        row = CENTER_EXTRACTORS.get(config.model.center_net.feature_extractor.type)
        path = "model.center_net.feature_extractor.type"
        return [TrainedStatistics(path, "the backbone", CENTER_MOMENTUM[row.family])] if row is not None else []
    if statistics_are_frozen(config.model):
        return []
    found = []
    extractor = extractor_of(config.model)
    if extractor is not None and backbone_moves_statistics(config):
        path, _, family = extractor
        found.append(TrainedStatistics(f"{path}.type", "the backbone", BACKBONE_MOMENTUM[family]))
    for path, hyperparams in _all_hyperparams(config.model, "model"):
        batch_norm = batch_norm_of(hyperparams)
        if batch_norm is not None and batch_norm.train and not freezes(config.train_config, _ADDED_STATISTICS):
            found.append(TrainedStatistics(decay_path(path, hyperparams), path, batch_norm.decay))
    return found


def _all_hyperparams(message: Any, path: str) -> Iterator[tuple[str, pb.Hyperparams]]:
    """Yields field path and message of every ``pb.Hyperparams`` that is set below a message."""
    for field, value in message.ListFields():
        for block, here in values.blocks_in(field, value, f"{path}.{field.name}"):
            if block.DESCRIPTOR.name == "Hyperparams":
                yield here, block
            else:
                yield from _all_hyperparams(block, here)
