"""Checks of segmentation proposals (``model.segmentation_proposals``), and of the masks that they need."""

from __future__ import annotations

from typing import Any

from detzoo.config import support
from detzoo.config.check.inputs import named_readers
from detzoo.config.check.parts import check_backbone, check_resizer
from detzoo.config.check.pyramid import check_pyramid
from detzoo.config.effects import supported_branches
from detzoo.config.problems import Findings
from detzoo.config.segmentation_proposals import problem_of_numbers

_PATH = "model.segmentation_proposals"


def check_segmentation_proposals(model: Any, findings: Findings, files: bool) -> None:
    """Adds what is wrong with a ``pb.SegmentationProposals``. ``files``: whether paths must exist."""
    if model.image_resizer.WhichOneof("image_resizer_oneof") is None:
        branches = ", ".join(supported_branches(model.image_resizer, "image_resizer_oneof"))
        findings.error(f"{_PATH}.image_resizer", f"is missing or empty; choose one of {branches}")
    check_resizer(model.image_resizer, f"{_PATH}.image_resizer", findings)
    _check_extractor(model.feature_extractor, findings, files)
    for field, text in problem_of_numbers(model):
        findings.error(f"{_PATH}.{field}", text)


def check_mask_readers(config: Any, findings: Findings) -> None:
    """Adds what a ``pb.TrainEvalPipelineConfig`` of segmentation proposals reads too little of, or measures in vain."""
    if config.model.WhichOneof("model") != "segmentation_proposals":
        return
    for path, reader in named_readers(config):
        if not reader.load_instance_masks:
            what = "trained on" if path == "train_input_reader" else "measured by"
            text = f"is false, but segmentation proposals are {what} the records' masks; accepted: true"
            findings.error(f"{path}.load_instance_masks", text)
    for index in range(len(config.eval_config.metrics_set)):
        text = "segmentation proposals know no classes: they are always measured by the recall of their masks"
        findings.no_effect(f"eval_config.metrics_set[{index}]", text)


def _check_extractor(message: Any, findings: Findings, files: bool) -> None:
    path = f"{_PATH}.feature_extractor"
    extractor = support.REGION_EXTRACTORS.get(message.type)
    if extractor is None:
        findings.error(f"{path}.type", support.region_refusal(message.type))
        return
    check_backbone(message, path, extractor, findings, files)
    if not extractor.is_fpn:
        text = f"is '{message.type}', which has no pyramid; accepted: the types that end in {support.FPN_SUFFIX}"
        findings.error(f"{path}.type", text)
        return
    if message.fpn.finest_level_only:
        text = "is true, but masks of other sizes are predicted on other levels than the finest; accepted: false"
        findings.error(f"{path}.fpn.finest_level_only", text)
    check_pyramid(message, path, findings)
