"""Tests of the conversion of a TrainConfig to the settings of the loop."""

from __future__ import annotations

import pytest
from google.protobuf import text_format

from detzoo.config import pb
from detzoo.train.settings import dtype_policy_of, fine_tune_type_of, precision_warning


def train_config(text):
    return text_format.Parse(text, pb.TrainConfig())


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("", "float32"),
        ("mixed_precision: BFLOAT16", "mixed_bfloat16"),
        ("mixed_precision: FLOAT16", "mixed_float16"),
        ("use_bfloat16: true", "mixed_bfloat16"),
        ("use_bfloat16: true mixed_precision: FLOAT16", "mixed_float16"),
    ],
)
def test_precision(text, policy):
    assert dtype_policy_of(train_config(text)) == policy


def test_only_float16_without_a_gpu_is_warned_of():
    assert "FLOAT16" in precision_warning("mixed_float16", has_gpu=False)
    assert precision_warning("mixed_float16", has_gpu=True) is None
    assert precision_warning("mixed_bfloat16", has_gpu=False) is None
    assert precision_warning("float32", has_gpu=False) is None


def test_the_parts_of_a_warm_start():
    assert fine_tune_type_of(train_config("fine_tune_checkpoint_type: 'classification'")) == "classification"
    assert fine_tune_type_of(train_config("from_detection_checkpoint: true")) == "detection"
    both = "from_detection_checkpoint: true load_all_detection_checkpoint_vars: true"
    assert fine_tune_type_of(train_config(both)) == "full"
