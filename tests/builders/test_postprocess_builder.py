"""post_processing: every field reaches its part."""

import pytest
from google.protobuf import text_format

from detzoo.builders.anchors import build_anchor_generator
from detzoo.builders.losses import build_dense_loss
from detzoo.builders.postprocess import build_dense_detections
from detzoo.builders.targets import build_anchor_targets
from detzoo.config import pb
from detzoo.config.load import load_pipeline
from detzoo.ops.box_coder import FasterRcnnBoxCoder
from detzoo.ops.nms import NmsLimits
from detzoo.postprocess.scores import ScoreConverter, ScoreFunction


def _build(nms="", post_processing="", extra=""):
    text = f"""box_coder {{ faster_rcnn_box_coder {{}} }} {extra}
        post_processing {{ batch_non_max_suppression {{ {nms} }} {post_processing} }}"""
    return build_dense_detections(text_format.Parse(text, pb.Ssd()))


def test_defaults():
    part = _build()
    assert part.box_coder == FasterRcnnBoxCoder()
    assert part.score_converter == ScoreConverter(ScoreFunction.IDENTITY, 1.0)
    assert part.limits == NmsLimits(0.0, pytest.approx(0.6), 100, 100, 0.0)
    assert part.has_background_column
    assert not part.is_class_agnostic


def test_fields():
    part = _build(
        """score_threshold: 0.25 iou_threshold: 0.5
        max_detections_per_class: 7 max_total_detections: 8
        soft_nms_sigma: 0.5 use_class_agnostic_nms: true""",
        "score_converter: SOFTMAX logit_scale: 2",
        "add_background_class: false",
    )
    assert part.limits == NmsLimits(0.25, 0.5, 7, 8, 0.5)
    assert part.score_converter == ScoreConverter(ScoreFunction.SOFTMAX, 2.0)
    assert not part.has_background_column
    assert part.is_class_agnostic


def test_sigmoid_and_hard_suppression_by_force():
    part = _build("soft_nms_sigma: 0.5 use_hard_nms: true", "score_converter: SIGMOID")
    assert part.score_converter.function == ScoreFunction.SIGMOID
    assert part.limits.soft_nms_sigma == 0.0


def test_every_published_ssd_builds_all_its_parts(shared):
    built = 0
    for path in sorted((shared / "configs/published").rglob("*.config")):
        model = load_pipeline(path).message.model
        if model.WhichOneof("model") != "ssd":
            continue
        build_anchor_generator(model.ssd.anchor_generator)
        build_anchor_targets(model.ssd)
        build_dense_loss(model.ssd)
        build_dense_detections(model.ssd)
        built += 1
    assert built > 40
