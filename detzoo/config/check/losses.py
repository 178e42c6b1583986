"""Checks of an SSD's ``loss``: its parts, their numbers, and which of them go together."""

from __future__ import annotations

from typing import Any

from detzoo.config.check.parts import check_hard_examples
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
    _check_classification(ssd, findings)
    check_hard_examples(loss.hard_example_miner, f"{_PATH}.hard_example_miner", findings)


def _check_classification(ssd: Any, findings: Findings) -> None:
    classification = ssd.loss.classification_loss
    kind = classification.WhichOneof("classification_loss")
    if kind == "weighted_softmax":
        if not ssd.add_background_class:
            text = "is false, but weighted_softmax needs a background column for anchors without an object"
            findings.error("model.ssd.add_background_class", text)
        elif ssd.encode_background_as_zeros:
            text = "is true, but then weighted_softmax learns nothing from the background; accepted with it: false"
            findings.error("model.ssd.encode_background_as_zeros", text)
    elif kind == "weighted_sigmoid_focal" and ssd.loss.HasField("hard_example_miner"):
        text = "chooses hard examples, and so does weighted_sigmoid_focal; keep one of them"
        findings.error(f"{_PATH}.hard_example_miner", text)
