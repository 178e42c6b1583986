"""Checks of a two-stage detector (``model.faster_rcnn``): Faster R-CNN, R-FCN, Mask R-CNN, Fast R-CNN, a first stage.

Which blocks must be there follows from ``number_of_stages`` and ``proposals_from_reader``. What concerns maps and
anchors is in ``check_region_maps``, what concerns the input readers in ``check_region_inputs``.
"""

from __future__ import annotations

from typing import Any

from detzoo.config import stages, support
from detzoo.config.check.parts import (
    check_backbone,
    check_hard_examples,
    check_post_processing,
    check_resizer,
)
from detzoo.config.check.region_head import check_region_head
from detzoo.config.check.region_maps import check_region_maps
from detzoo.config.effects import supported_branches
from detzoo.config.problems import Findings

_PATH = "model.faster_rcnn"
_CLASSIFICATION_LOSSES = ("weighted_softmax", "weighted_sigmoid", "weighted_sigmoid_focal")


def check_region_model(model: Any, findings: Findings, files: bool) -> None:
    """Adds what is wrong with a ``pb.FasterRcnn``. ``files``: whether paths must exist."""
    _check_stages(model, findings)
    if model.image_resizer.WhichOneof("image_resizer_oneof") is None:
        branches = ", ".join(supported_branches(model.image_resizer, "image_resizer_oneof"))
        findings.error(f"{_PATH}.image_resizer", f"is missing or empty; choose one of {branches}")
    check_resizer(model.image_resizer, f"{_PATH}.image_resizer", findings)
    extractor = _check_extractor(model.feature_extractor, findings, files)
    if not model.proposals_from_reader and model.clip_anchors_to_image and model.keep_anchors_outside_image:
        text = "is true, without effect: clip_anchors_to_image leaves no anchor that crosses the image's border"
        findings.warning(f"{_PATH}.keep_anchors_outside_image", text)
    if stages.has_second_stage(model):
        check_region_head(model, _PATH, extractor, findings)
        _check_second_stage(model, findings)
    if extractor is not None:
        check_region_maps(model, _PATH, extractor, findings)


def _check_stages(model: Any, findings: Findings) -> None:
    number, path = model.number_of_stages, f"{_PATH}.number_of_stages"
    if stages.has_second_stage(model) and not model.num_classes:  # A first stage alone has none.
        findings.error(f"{_PATH}.num_classes", "is 0; accepted: 1 or more, the background not counted")
    if number == 1 and model.proposals_from_reader:
        text = (
            "is 1, the first stage alone, but proposals_from_reader leaves the first stage out; accepted with it: 2, 3"
        )
        findings.error(path, text)
    masks = model.second_stage_box_predictor.mask_rcnn_box_predictor.predict_instance_masks
    if number == stages.NUMBER_WITH_MASKS and not masks:
        text = (
            "is 3, but nothing predicts masks; set second_stage_box_predictor.mask_rcnn_box_predictor."
            "predict_instance_masks: true, or accepted without it: 1, 2"
        )
        findings.error(path, text)
    elif number == 2 and masks:
        text = "is 2: masks are predicted in the third stage only, so predict_instance_masks has no effect; set it to 3"
        findings.warning(path, text)


def _check_extractor(message: Any, findings: Findings, files: bool) -> support.RegionExtractor | None:
    """The extractor's entry in the table, None where there is none."""
    path = f"{_PATH}.feature_extractor"
    extractor = support.REGION_EXTRACTORS.get(message.type)
    if extractor is None:
        findings.error(f"{path}.type", support.region_refusal(message.type))
        return None
    check_backbone(message, path, extractor, findings, files)
    return extractor


def _check_second_stage(model: Any, findings: Findings) -> None:
    """Its sampling, losses and post-processing."""
    if not model.proposals_from_reader:
        _check_batch_against_proposals(model, findings)
    if model.HasField("hard_example_miner"):
        check_hard_examples(model.hard_example_miner, f"{_PATH}.hard_example_miner", findings)
    message, path = model.second_stage_classification_loss, f"{_PATH}.second_stage_classification_loss"
    loss = message.WhichOneof("classification_loss") or _CLASSIFICATION_LOSSES[0]
    if loss not in _CLASSIFICATION_LOSSES and loss in supported_branches(message, "classification_loss"):
        text = f"is not supported in a second stage; accepted: {', '.join(_CLASSIFICATION_LOSSES)}"
        findings.error(f"{path}.{loss}", text)
    elif loss == "weighted_sigmoid_focal" and model.HasField("hard_example_miner"):
        text = "chooses hard examples, and so does weighted_sigmoid_focal; keep one of them"
        findings.warning(f"{_PATH}.hard_example_miner", text)
    trained = loss if loss in _CLASSIFICATION_LOSSES else None
    check_post_processing(
        model.second_stage_post_processing, f"{_PATH}.second_stage_post_processing", trained, findings
    )


def _check_batch_against_proposals(model: Any, findings: Findings) -> None:
    """A second stage with a miner looks at all proposals; else it samples a batch, which proposals must fill."""
    proposals = model.first_stage_max_proposals_in_training or model.first_stage_max_proposals
    if model.second_stage_batch_size > proposals > 0 and not model.HasField("hard_example_miner"):
        text = (
            f"is {model.second_stage_batch_size}, but training has {proposals} proposals an image, so that batches are "
            "never full; set first_stage_max_proposals_in_training, which does not slow inference down"
        )
        findings.warning(f"{_PATH}.second_stage_batch_size", text)
