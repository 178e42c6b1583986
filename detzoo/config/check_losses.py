"""Checks of an SSD's ``loss``: its parts, their numbers, and which of them go together."""

from __future__ import annotations

import math
from typing import Any

from detzoo.config.check_parts import check_hard_examples
from detzoo.config.effects import supported_branches
from detzoo.config.problems import Findings

_PATH = "model.ssd.loss"


def check_losses(ssd: Any, findings: Findings) -> None:
    """Adds what is wrong with the losses of a ``pb.Ssd``."""
    loss = ssd.loss
    for part in ("localization_loss", "classification_loss"):
        chosen = getattr(loss, part)
        if chosen.WhichOneof(part) is None:
            branches = ", ".join(supported_branches(chosen, part))
            findings.error(f"{_PATH}.{part}", f"is missing or empty; choose one of {branches}")
    for weight in ("classification_weight", "localization_weight"):
        value = getattr(loss, weight)
        if not 0 <= value < math.inf:
            findings.error(f"{_PATH}.{weight}", f"is {value:g}; accepted: 0 or more")
    _check_classification(ssd, findings)
    check_hard_examples(loss.hard_example_miner, f"{_PATH}.hard_example_miner", findings)
    sampler = loss.random_example_sampler
    if loss.HasField("random_example_sampler") and not 0 < sampler.positive_sample_fraction <= 1:
        text = f"is {sampler.positive_sample_fraction:g}; accepted: above 0, at most 1"
        findings.error(f"{_PATH}.random_example_sampler.positive_sample_fraction", text)


def _check_classification(ssd: Any, findings: Findings) -> None:
    classification = ssd.loss.classification_loss
    kind = classification.WhichOneof("classification_loss")
    path = f"{_PATH}.classification_loss.{kind}"
    if kind == "weighted_softmax":
        if not ssd.add_background_class:
            text = "is false, but weighted_softmax needs a background column for anchors without an object"
            findings.error("model.ssd.add_background_class", text)
        elif ssd.encode_background_as_zeros:
            text = "is true, but then weighted_softmax learns nothing from the background; accepted with it: false"
            findings.error("model.ssd.encode_background_as_zeros", text)
    elif kind == "bootstrapped_sigmoid" and not classification.bootstrapped_sigmoid.HasField("alpha"):
        findings.error(f"{path}.alpha", "is missing; give the label's share of the target, above 0 and at most 1")
    elif kind == "focal_star" and not classification.focal_star.gamma > 0:
        findings.error(f"{path}.gamma", f"is {classification.focal_star.gamma:g}; accepted: above 0")
    elif kind == "weighted_sigmoid_focal" and ssd.loss.HasField("hard_example_miner"):
        text = "chooses hard examples, and so does weighted_sigmoid_focal; keep one of them"
        findings.error(f"{_PATH}.hard_example_miner", text)
