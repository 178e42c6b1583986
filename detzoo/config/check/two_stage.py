"""Rules of a two-stage detector (``model.faster_rcnn``): Faster R-CNN, R-FCN, Mask R-CNN, Fast R-CNN, a first stage.

``number_of_stages`` and ``proposals_from_reader`` decide which blocks must be there. The rules of maps and anchors are
in ``first_stage``, those of crops and heads in ``second_stage``, those of the input readers in ``readers``.
"""

from __future__ import annotations

from detzoo.config import pb, stages
from detzoo.config.check.first_stage import check_first_stage
from detzoo.config.check.parts import (
    BOX_LOSSES,
    MAP_LOSSES,
    check_hard_examples,
    check_localization_loss,
    check_matcher,
    check_post_processing,
    check_region_extractor,
    check_resizer,
)
from detzoo.config.check.second_stage import check_second_stage
from detzoo.config.problems import Findings


def check_two_stage(model: pb.FasterRcnn, findings: Findings) -> None:
    """Checks a ``faster_rcnn`` block."""
    _check_stages(model, findings)
    check_resizer(model.image_resizer, findings.at("image_resizer"))
    extractor = check_region_extractor(model.feature_extractor, findings.at("feature_extractor"))
    if not model.proposals_from_reader and model.clip_anchors_to_image and model.keep_anchors_outside_image:
        text = "is true, without effect: clip_anchors_to_image leaves no anchor that crosses the image's border"
        findings.warning("keep_anchors_outside_image", "no-anchors-outside", text)
    if stages.has_second_stage(model):
        check_second_stage(model, extractor, findings)
        _check_training(model, findings)
    if model.HasField("context_config"):
        _check_context(model, findings)
    if model.output_final_box_features and (
        stages.is_position_sensitive(model) or not stages.has_second_stage(model) or model.HasField("context_config")
    ):
        text = (
            "is true, but only a Faster R-CNN or Mask R-CNN has features of boxes before any context; accepted: false"
        )
        findings.error("output_final_box_features", "no-box-features", text)
    for stage in ("first_stage", "second_stage"):
        check_matcher(getattr(model, f"{stage}_matcher"), findings.at(f"{stage}_matcher"))
        name = f"{stage}_localization_loss"
        check_localization_loss(getattr(model, name), findings.at(name))
    if extractor is not None:
        check_first_stage(model, extractor, findings)


def _check_stages(model: pb.FasterRcnn, findings: Findings) -> None:
    number = model.number_of_stages
    if stages.has_second_stage(model) and not model.num_classes:  # A first stage alone has none.
        findings.error("num_classes", "no-class", "is 0; accepted: 1 or more, the background not counted")
    if number == 1 and model.proposals_from_reader:
        text = "is 1, the first stage alone, but proposals_from_reader removes the first stage; accepted with it: 2, 3"
        findings.error("number_of_stages", "no-stage", text)
    masks = model.second_stage_box_predictor.mask_rcnn_box_predictor.predict_instance_masks
    if number == stages.NUMBER_WITH_MASKS and not masks:
        text = (
            "is 3, but nothing predicts masks; set second_stage_box_predictor.mask_rcnn_box_predictor."
            "predict_instance_masks: true, or accepted without it: 1, 2"
        )
        findings.error("number_of_stages", "no-mask-head", text)
    elif number == 2 and masks:
        text = "is 2: masks are predicted in the third stage only, so predict_instance_masks has no effect; set it to 3"
        findings.warning("number_of_stages", "unused-mask-head", text)


def _check_context(model: pb.FasterRcnn, findings: Findings) -> None:
    """Checks the attention of a Context R-CNN, and the fields that have no effect on it."""
    context, findings = model.context_config, findings.at("context_config")
    other = {
        "an R-FCN": stages.is_position_sensitive(model),
        "a first stage alone (number_of_stages: 1)": not stages.has_second_stage(model),
        "masks (number_of_stages: 3)": model.number_of_stages == stages.NUMBER_WITH_MASKS,
        "proposals_from_reader": model.proposals_from_reader,
    }
    for name in (name for name, is_there in other.items() if is_there):
        text = f"gives context to the boxes of a Faster R-CNN; it cannot be combined with {name}"
        findings.error("", "context-of-other-model", text)
    if context.attention_position not in (pb.POST_BOX_CLASSIFIER, pb.POST_RPN):
        text = "is ATTENTION_DEFAULT, which is no place; accepted: POST_BOX_CLASSIFIER, POST_RPN"
        findings.error("attention_position", "attention-position", text)
    if not context.use_long_term_attention:
        if not context.use_self_attention:
            text = "is false, as use_self_attention is, so nothing is attended to; accepted: true for one of them"
            findings.error("use_long_term_attention", "no-attention", text)
        names = ("max_num_context_features", "context_feature_length", "num_attention_heads", "num_attention_layers")
        for name in (*names, "self_attention_in_sequence"):
            if context.HasField(name):
                findings.no_effect(name, "use_long_term_attention is false, so no memory is read")
    elif context.self_attention_in_sequence and not context.use_self_attention:
        findings.no_effect("self_attention_in_sequence", "use_self_attention is false")


def _check_training(model: pb.FasterRcnn, findings: Findings) -> None:
    """Checks sampling, losses and post-processing of the second stage."""
    has_miner = model.HasField("hard_example_miner")
    proposals = model.first_stage_max_proposals_in_training or model.first_stage_max_proposals
    # A miner looks at all proposals. Without it, a batch is sampled, which the proposals must fill.
    if not model.proposals_from_reader and not has_miner and model.second_stage_batch_size > proposals > 0:
        text = (
            f"is {model.second_stage_batch_size}, but training has {proposals} proposals per image, so that batches "
            "are never full; set first_stage_max_proposals_in_training, which does not slow inference down"
        )
        reads = ["first_stage_max_proposals_in_training"]
        findings.warning("second_stage_batch_size", "few-proposals", text, reads)
    if has_miner:
        check_hard_examples(model.hard_example_miner, findings.at("hard_example_miner"))
    message = model.second_stage_classification_loss
    loss = message.WhichOneof("classification_loss") or BOX_LOSSES[0]
    if loss == MAP_LOSSES[0]:
        text = f"is not supported in a second stage; accepted: {', '.join(BOX_LOSSES)}"
        findings.error(f"second_stage_classification_loss.{loss}", "not-supported", text)
    elif loss == "weighted_sigmoid_focal" and has_miner:
        text = "chooses hard examples, and so does weighted_sigmoid_focal; keep one of them"
        findings.warning("hard_example_miner", "miner-with-focal-loss", text)
    trained = None if loss in MAP_LOSSES else loss
    check_post_processing(model.second_stage_post_processing, trained, findings.at("second_stage_post_processing"))
