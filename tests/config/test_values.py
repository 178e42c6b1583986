"""The set fields of a message as plain values."""

from __future__ import annotations

from google.protobuf import text_format

from detzoo.config import pb
from detzoo.config.values import set_scalars

TEXT = """
batch_size: 4
mixed_precision: BFLOAT16
optimizer { momentum_optimizer { learning_rate { constant_learning_rate { learning_rate: 0.1 } } } }
data_augmentation_options { random_horizontal_flip { } }
data_augmentation_options { random_adjust_brightness { max_delta: 0.25 } }
freeze_variables: "backbone/.*"
freeze_variables: "neck"
"""


def test_set_fields_have_the_paths_of_set():
    fields = set_scalars(text_format.Parse(TEXT, pb.TrainConfig()), "train_config")
    rate = "train_config.optimizer.momentum_optimizer.learning_rate.constant_learning_rate.learning_rate"
    assert fields == {
        "train_config.batch_size": 4,
        "train_config.mixed_precision": "BFLOAT16",
        rate: 0.1,  # not the float32's 0.100000001
        "train_config.data_augmentation_options[0].random_horizontal_flip": True,
        "train_config.data_augmentation_options[1].random_adjust_brightness.max_delta": 0.25,
        "train_config.freeze_variables": "[backbone/.*, neck]",
    }
    assert set_scalars(pb.TrainConfig(), "train_config") == {}
