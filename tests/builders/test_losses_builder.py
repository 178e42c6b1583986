"""loss: every field reaches its part."""

import pytest
from google.protobuf import text_format

from detzoo.builders.losses import build_dense_loss
from detzoo.config import pb
from detzoo.losses import classification, localization
from detzoo.losses.hard_examples import HardExampleMiner
from detzoo.ops.box_coder import FasterRcnnBoxCoder


def _build(
    classification_loss="weighted_sigmoid {}", localization_loss="weighted_smooth_l1 {}", loss="", extra="", classes=3
):
    text = f"""box_coder {{ faster_rcnn_box_coder {{}} }} {extra}
        loss {{ classification_loss {{ {classification_loss} }} localization_loss {{ {localization_loss} }} {loss} }}"""
    return build_dense_loss(text_format.Parse(text, pb.Ssd()))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("weighted_sigmoid {}", classification.sigmoid_cross_entropy),
        ("weighted_sigmoid_focal { gamma: 1.5 alpha: 0.75 }", classification.SigmoidFocal(1.5, 0.75)),
        ("weighted_sigmoid_focal {}", classification.SigmoidFocal(2.0, None)),
        ("focal_star { gamma: 3 beta: 0.5 }", classification.FocalStar(3.0, 0.5)),
        ("focal_star {}", classification.FocalStar(2.0, 1.0)),
        ("focal_star { alpha: 0.25 }", classification.FocalStar(2.0, 1.0, 0.25)),
        ("alpha_balanced_sigmoid { alpha: 0.75 }", classification.AlphaBalancedSigmoidCrossEntropy(0.75)),
        ("weighted_softmax { logit_scale: 2 }", classification.SoftmaxCrossEntropy(2.0)),
        (
            "bootstrapped_sigmoid { alpha: 0.5 hard_bootstrap: true }",
            classification.BootstrappedSigmoidCrossEntropy(0.5, True),
        ),
    ],
)
def test_classification_losses(text, expected):
    assert _build(text).classification == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("weighted_smooth_l1 { delta: 0.5 }", localization.SmoothL1(0.5)),
        ("weighted_l2 {}", localization.weighted_l2),
        ("l1_localization_loss {}", localization.l1),
        ("weighted_iou {}", localization.OneMinusIou(FasterRcnnBoxCoder())),
        ("weighted_giou {}", localization.OneMinusIou(FasterRcnnBoxCoder(), is_generalized=True)),
    ],
)
def test_localization_losses(text, expected):
    assert _build(localization_loss=text).localization == expected


def test_defaults():
    loss = _build()
    assert (loss.classification_weight, loss.localization_weight) == (1.0, 1.0)
    assert loss.normalize_by_num_matches
    assert not loss.normalize_localization_by_code_size
    assert loss.has_background_column
    assert not loss.encode_background_as_zeros
    assert loss.miner is None
    assert loss.positive_sample_fraction is None


def test_weights_and_switches():
    loss = _build(
        loss="""classification_weight: 2 localization_weight: 3
            random_example_sampler { positive_sample_fraction: 0.25 }""",
        extra="""normalize_loss_by_num_matches: false normalize_loc_loss_by_codesize: true
            add_background_class: false
            encode_background_as_zeros: true""",
    )
    assert (loss.classification_weight, loss.localization_weight) == (2.0, 3.0)
    assert not loss.normalize_by_num_matches
    assert loss.normalize_localization_by_code_size
    assert not loss.has_background_column
    assert loss.encode_background_as_zeros
    assert loss.positive_sample_fraction == 0.25


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", HardExampleMiner(64, pytest.approx(0.7), 2.0, 3.0)),
        ("loss_type: CLASSIFICATION iou_threshold: 0.5", HardExampleMiner(64, 0.5, 1.0, 0.0)),
        ("loss_type: LOCALIZATION iou_threshold: 0.5", HardExampleMiner(64, 0.5, 0.0, 1.0)),
        (
            """
            num_hard_examples: 0 iou_threshold: 1
            max_negatives_per_positive: 3 min_negatives_per_image: 5
            """,
            HardExampleMiner(None, 1.0, 2.0, 3.0, 3, 5),
        ),
        (
            """
            num_hard_examples: 128 iou_threshold: 0.5
            max_negatives_per_positive: 3 reserve_positives: true
            """,
            HardExampleMiner(128, 0.5, 2.0, 3.0, 3, reserve_positives=True),
        ),
    ],
)
def test_hard_example_miner(text, expected):
    weights = "classification_weight: 2 localization_weight: 3"
    assert _build(loss=f"{weights} hard_example_miner {{ {text} }}").miner == expected
