"""``loss`` of a configuration -> the loss of a dense head (floor 4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from detzoo.builders.targets import build_box_coder
from detzoo.config import pb
from detzoo.errors import ConfigError
from detzoo.losses import classification, localization
from detzoo.losses.classification import ClassificationLoss
from detzoo.losses.dense_loss import DenseLoss
from detzoo.losses.hard_examples import HardExampleMiner
from detzoo.losses.localization import LocalizationLoss
from detzoo.ops.box_coder import BoxCoder


def build_dense_loss(config: pb.Ssd, num_classes: int) -> DenseLoss:
    """The loss of a ``pb.Ssd``.

    Args:
        config: the ``model.ssd`` block.
        num_classes: without the background.

    Returns:
        A callable from predictions and targets to loss terms.

    Raises:
        ConfigError: a part is missing, contradicts another or is not supported.
    """
    if num_classes < 1:
        raise ConfigError(f"model.ssd.num_classes is {num_classes}; it must be at least 1, the background not counted.")
    check_background(config)
    box_coder = build_box_coder(config.box_coder)
    loss = config.loss
    return DenseLoss(
        classification=_classification_of_ssd(config),
        localization=build_localization_loss(loss.localization_loss, box_coder),
        box_coder=box_coder,
        has_background_column=config.add_background_class,
        encode_background_as_zeros=config.encode_background_as_zeros,
        classification_weight=loss.classification_weight,
        localization_weight=loss.localization_weight,
        normalize_by_num_matches=config.normalize_loss_by_num_matches,
        normalize_localization_by_code_size=config.normalize_loc_loss_by_codesize,
        miner=_ssd_miner(loss),
        positive_sample_fraction=_positive_sample_fraction(loss),
    )


def check_background(config: pb.Ssd) -> None:
    """Refuses what a ``pb.Ssd`` may say about the background and is not supported.

    Raises:
        ConfigError: ``explicit_background_class``.
    """
    if config.explicit_background_class:
        raise ConfigError(
            "model.ssd.explicit_background_class is not supported: ground truth has no background objects. Use "
            "add_background_class: true for a background column."
        )


def build_classification_loss(config: pb.ClassificationLoss) -> ClassificationLoss:
    """The loss of a ``pb.ClassificationLoss``.

    Raises:
        ConfigError: no loss is chosen, or one of another kind of detector.
    """
    kind = config.WhichOneof("classification_loss")
    if kind not in _CLASSIFICATION:
        raise ConfigError(
            f"classification_loss is {kind or 'empty'}; a dense head accepts one of {', '.join(_CLASSIFICATION)}."
        )
    return _CLASSIFICATION[kind](getattr(config, kind))


def build_localization_loss(config: pb.LocalizationLoss, box_coder: BoxCoder) -> LocalizationLoss:
    """The loss of a ``pb.LocalizationLoss``.

    Raises:
        ConfigError: no loss is chosen.
    """
    kind = config.WhichOneof("localization_loss")
    if kind is None:
        raise ConfigError(f"localization_loss is empty; give it one of {', '.join(_LOCALIZATION)}.")
    return _LOCALIZATION[kind](getattr(config, kind), box_coder)


def _classification_of_ssd(config: pb.Ssd) -> ClassificationLoss:
    message = config.loss.classification_loss
    if message.WhichOneof("classification_loss") == "weighted_softmax":
        if not config.add_background_class:
            raise ConfigError(
                "loss.classification_loss.weighted_softmax needs a background column for anchors without an object. "
                "Set add_background_class: true, or use a sigmoid loss."
            )
        if config.encode_background_as_zeros:
            raise ConfigError(
                "loss.classification_loss.weighted_softmax with encode_background_as_zeros: true gives negatives no "
                "loss. Set encode_background_as_zeros: false, or use a sigmoid loss."
            )
    return build_classification_loss(message)


def _bootstrapped(config: pb.BootstrappedSigmoidClassificationLoss) -> ClassificationLoss:
    if not config.HasField("alpha"):
        raise ConfigError(
            "classification_loss.bootstrapped_sigmoid.alpha is not set; give the share of the label in the target, "
            "above 0 and at most 1."
        )
    return classification.BootstrappedSigmoidCrossEntropy(config.alpha, config.hard_bootstrap)


def _focal(config: pb.SigmoidFocalClassificationLoss) -> ClassificationLoss:
    return classification.SigmoidFocal(config.gamma, config.alpha if config.HasField("alpha") else None)


def _focal_star(config: pb.FocalStarClassificationLoss) -> ClassificationLoss:
    if config.gamma <= 0:
        raise ConfigError(f"classification_loss.focal_star.gamma is {config.gamma:g}; it must be above 0.")
    return classification.FocalStar(config.gamma, config.beta, config.alpha if config.HasField("alpha") else None)


_CLASSIFICATION: dict[str, Callable[[Any], ClassificationLoss]] = {
    "weighted_sigmoid": lambda config: classification.sigmoid_cross_entropy,
    "weighted_sigmoid_focal": _focal,
    "focal_star": _focal_star,
    "alpha_balanced_sigmoid": lambda config: classification.AlphaBalancedSigmoidCrossEntropy(config.alpha),
    "weighted_softmax": lambda config: classification.SoftmaxCrossEntropy(config.logit_scale),
    "bootstrapped_sigmoid": _bootstrapped,
}

_LOCALIZATION: dict[str, Callable[[Any, BoxCoder], LocalizationLoss]] = {
    "weighted_smooth_l1": lambda config, box_coder: localization.SmoothL1(config.delta),
    "weighted_l2": lambda config, box_coder: localization.weighted_l2,
    "l1_localization_loss": lambda config, box_coder: localization.l1,
    "weighted_iou": lambda config, box_coder: localization.OneMinusIou(box_coder),
    "weighted_giou": lambda config, box_coder: localization.OneMinusIou(box_coder, is_generalized=True),
}


def _ssd_miner(loss: pb.Loss) -> HardExampleMiner | None:
    if not loss.HasField("hard_example_miner"):
        return None
    if loss.classification_loss.WhichOneof("classification_loss") == "weighted_sigmoid_focal":
        raise ConfigError(
            "loss.hard_example_miner together with weighted_sigmoid_focal chooses hard examples twice. Remove the "
            "miner, or use weighted_sigmoid."
        )
    return build_miner(loss.hard_example_miner, loss.classification_weight, loss.localization_weight)


def build_miner(
    miner: pb.HardExampleMiner, classification_weight: float, localization_weight: float
) -> HardExampleMiner:
    """The miner of a ``pb.HardExampleMiner``; the weights are those of the losses that it adds up."""
    factors = {
        pb.HardExampleMiner.BOTH: (classification_weight, localization_weight),
        pb.HardExampleMiner.CLASSIFICATION: (1.0, 0.0),
        pb.HardExampleMiner.LOCALIZATION: (0.0, 1.0),
    }
    classification_factor, localization_factor = factors[miner.loss_type]
    return HardExampleMiner(
        num_hard_examples=miner.num_hard_examples if miner.num_hard_examples > 0 else None,
        iou_threshold=miner.iou_threshold,
        classification_weight=classification_factor,
        localization_weight=localization_factor,
        max_negatives_per_positive=miner.max_negatives_per_positive if miner.max_negatives_per_positive > 0 else None,
        min_negatives_per_image=miner.min_negatives_per_image,
        reserve_positives=miner.reserve_positives,
    )


def _positive_sample_fraction(loss: pb.Loss) -> float | None:
    for name in ("expected_loss_weights", "equalization_loss"):
        if loss.HasField(name) and (name != "expected_loss_weights" or loss.expected_loss_weights != loss.NONE):
            raise ConfigError(f"loss.{name} is not supported. Remove it, or use hard_example_miner or a focal loss.")
    if not loss.HasField("random_example_sampler"):
        return None
    fraction = loss.random_example_sampler.positive_sample_fraction
    if not 0 < fraction <= 1:
        raise ConfigError(
            f"loss.random_example_sampler.positive_sample_fraction is {fraction:g}; it must be above 0 and at most 1."
        )
    return fraction
