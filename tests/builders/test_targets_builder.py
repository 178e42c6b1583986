"""box_coder, matcher, similarity_calculator: every field reaches its part."""

import pytest
from google.protobuf import text_format

from detzoo.builders.targets import build_anchor_targets
from detzoo.config import pb
from detzoo.ops import matching
from detzoo.ops.box_coder import FasterRcnnBoxCoder, MeanStddevBoxCoder, SquareBoxCoder

PARTS = {
    "box_coder": "faster_rcnn_box_coder {}",
    "matcher": "argmax_matcher {}",
    "similarity_calculator": "iou_similarity {}",
}


def _build(extra="", **parts):
    text = " ".join(f"{name} {{ {body} }}" for name, body in (PARTS | parts).items())
    return build_anchor_targets(text_format.Parse(text + extra, pb.Ssd()))


def test_defaults():
    part = _build()
    assert part.box_coder == FasterRcnnBoxCoder((10.0, 10.0, 5.0, 5.0))
    assert part.matcher == matching.ArgmaxMatcher(0.5, 0.5)
    assert part.similarity is matching.iou_similarity
    assert part.negative_class_weight == 1.0
    assert _build("negative_class_weight: 0.5").negative_class_weight == 0.5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            """
            faster_rcnn_box_coder {
              y_scale: 1 x_scale: 2
              height_scale: 3 width_scale: 4
            }
            """,
            FasterRcnnBoxCoder((1.0, 2.0, 3.0, 4.0)),
        ),
        ("keypoint_box_coder { y_scale: 1 }", FasterRcnnBoxCoder((1.0, 10.0, 5.0, 5.0))),
        ("mean_stddev_box_coder { stddev: 0.5 }", MeanStddevBoxCoder(0.5)),
        ("square_box_coder { length_scale: 2 }", SquareBoxCoder((10.0, 10.0, 2.0))),
    ],
)
def test_box_coders(text, expected):
    assert _build(box_coder=text).box_coder == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            """
            argmax_matcher {
              matched_threshold: 0.75 unmatched_threshold: 0.25
              negatives_lower_than_unmatched: false
            }
            """,
            matching.ArgmaxMatcher(0.75, 0.25, negatives_lower_than_unmatched=False),
        ),
        (
            "argmax_matcher { ignore_thresholds: true force_match_for_each_row: true }",
            matching.ArgmaxMatcher(None, force_match_for_each_row=True),
        ),
        (
            "argmax_matcher { force_match_for_each_row: true }",
            matching.ArgmaxMatcher(0.5, 0.5, force_match_for_each_row=True),
        ),
        ("bipartite_matcher {}", matching.BipartiteMatcher()),
    ],
)
def test_matchers(text, expected):
    assert _build(matcher=text).matcher == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ioa_similarity {}", matching.ioa_similarity),
        ("neg_sq_dist_similarity {}", matching.negative_squared_distance),
        ("thresholded_iou_similarity { iou_threshold: 0.25 }", matching.ThresholdedIou(0.25)),
    ],
)
def test_similarities(text, expected):
    assert _build(similarity_calculator=text).similarity == expected
