"""image_resizer messages become the resizer they name, with every field arriving."""

from __future__ import annotations

import pytest
from google.protobuf import text_format

from detzoo.builders.resize import build_resizer
from detzoo.config import pb
from detzoo.data import resize


def build(text: str) -> resize.Resizer:
    return build_resizer(text_format.Parse(text, pb.ImageResizer()))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            """
            fixed_shape_resizer {
              height: 30 width: 40
              resize_method: AREA convert_to_grayscale: true
            }
            """,
            resize.FixedShapeResizer("area", True, 30, 40),
        ),
        ("fixed_shape_resizer {}", resize.FixedShapeResizer("bilinear", False, 300, 300)),
        (
            """
            keep_aspect_ratio_resizer {
              min_dimension: 20 max_dimension: 50
              pad_to_max_dimension: true resize_method: BICUBIC
              per_channel_pad_value: [1, 2, 3]
            }
            """,
            resize.KeepAspectRatioResizer("bicubic", False, 20, 50, True, pad_value=(1.0, 2.0, 3.0)),
        ),
        (
            """
            keep_aspect_ratio_resizer {
              min_dimension: 20 max_dimension: 50
              training_min_dimensions: [10, 20]
            }
            """,
            resize.KeepAspectRatioResizer("bilinear", False, 20, 50, training_min_dimensions=(10, 20)),
        ),
        ("identity_resizer {}", resize.IdentityResizer()),
        (
            """
            conditional_shape_resizer {
              condition: SMALLER size_threshold: 70
              resize_method: NEAREST_NEIGHBOR
            }
            """,
            resize.ConditionalShapeResizer("nearest", False, 70, False),
        ),
        ("pad_to_multiple_resizer { multiple: 32 }", resize.PadToMultipleResizer(multiple=32)),
    ],
)
def test_every_form(text, expected):
    assert build(text) == expected
