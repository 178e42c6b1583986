"""``loss`` of a config -> the loss of a dense head (floor 5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from detzoo.builders.targets import build_box_coder
from detzoo.config import pb
from detzoo.losses import classification, localization
from detzoo.losses.classification import ClassificationLoss
from detzoo.losses.dense_loss import DenseLoss
from detzoo.losses.hard_examples import HardExampleMiner
from detzoo.losses.localization import LocalizationLoss
from detzoo.ops.box_coder import BoxCoder


def build_dense_loss(config: pb.Ssd) -> DenseLoss:
    """Builds the loss of a checked ``model.ssd`` block: a callable from predictions and targets to loss terms."""
    box_coder = build_box_coder(config.box_coder)
    loss = config.loss
    miner = None
    if loss.HasField("hard_example_miner"):
        miner = build_miner(loss.hard_example_miner, loss.classification_weight, loss.localization_weight)
    has_sampler = loss.HasField("random_example_sampler")
    return DenseLoss(
        classification=build_classification_loss(loss.classification_loss),
        localization=build_localization_loss(loss.localization_loss, box_coder),
        box_coder=box_coder,
        has_background_column=config.add_background_class,
        encode_background_as_zeros=config.encode_background_as_zeros,
        classification_weight=loss.classification_weight,
        localization_weight=loss.localization_weight,
        normalize_by_num_matches=config.normalize_loss_by_num_matches,
        normalize_localization_by_code_size=config.normalize_loc_loss_by_codesize,
        miner=miner,
        positive_sample_fraction=loss.random_example_sampler.positive_sample_fraction if has_sampler else None,
    )


def build_classification_loss(config: pb.ClassificationLoss) -> ClassificationLoss:
    """Builds the loss of a checked ``pb.ClassificationLoss``."""
    kind = config.WhichOneof("classification_loss")
    return _CLASSIFICATION[kind](getattr(config, kind))


def build_localization_loss(config: pb.LocalizationLoss, box_coder: BoxCoder | None = None) -> LocalizationLoss:
    """Builds the loss of a checked ``pb.LocalizationLoss``; only losses of boxes need the coder."""
    kind = config.WhichOneof("localization_loss")
    return _LOCALIZATION[kind](getattr(config, kind), box_coder)


def build_miner(
    miner: pb.HardExampleMiner, classification_weight: float, localization_weight: float
) -> HardExampleMiner:
    """Builds the miner of a ``pb.HardExampleMiner``. The weights are those of the losses that it adds up."""
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


def _alpha(config: pb.SigmoidFocalClassificationLoss | pb.FocalStarClassificationLoss) -> float | None:
    return config.alpha if config.HasField("alpha") else None


_CLASSIFICATION: dict[str | None, Callable[[Any], ClassificationLoss]] = {
    "weighted_sigmoid": lambda config: classification.sigmoid_cross_entropy,
    "weighted_sigmoid_focal": lambda config: classification.SigmoidFocal(config.gamma, _alpha(config)),
    "focal_star": lambda config: classification.FocalStar(config.gamma, config.beta, _alpha(config)),
    "alpha_balanced_sigmoid": lambda config: classification.AlphaBalancedSigmoidCrossEntropy(config.alpha),
    "weighted_softmax": lambda config: classification.SoftmaxCrossEntropy(config.logit_scale),
    "penalty_reduced_logistic_focal_loss": lambda config: classification.PenaltyReducedFocal(config.alpha, config.beta),
    "bootstrapped_sigmoid": lambda config: classification.BootstrappedSigmoidCrossEntropy(
        config.alpha, config.hard_bootstrap
    ),
}

_LOCALIZATION: dict[str | None, Callable[[Any, Any], LocalizationLoss]] = {
    "weighted_smooth_l1": lambda config, box_coder: localization.SmoothL1(config.delta),
    "weighted_l2": lambda config, box_coder: localization.weighted_l2,
    "l1_localization_loss": lambda config, box_coder: localization.l1,
    "weighted_iou": lambda config, box_coder: localization.OneMinusIou(box_coder),
    "weighted_giou": lambda config, box_coder: localization.OneMinusIou(box_coder, is_generalized=True),
    "sum": lambda config, box_coder: localization.SumOfLosses(
        tuple((term.weight, build_localization_loss(term.loss, box_coder)) for term in config.term)
    ),
}
