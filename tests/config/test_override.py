"""``--set path=value``."""

from __future__ import annotations

import pytest
from google.protobuf import text_format

from detzoo.config import pb
from detzoo.config.override import apply_override


@pytest.fixture
def message():
    text = """
    model { ssd { num_classes: 3 anchor_generator { ssd_anchor_generator { aspect_ratios: [1, 2, 0.5] } } } }
    train_config {
      batch_size: 8
      optimizer { momentum_optimizer { momentum_optimizer_value: 0.8 } }
      data_augmentation_options { random_horizontal_flip {} }
      data_augmentation_options { ssd_random_crop {} }
    }
    eval_input_reader { shuffle: true }
    """
    return text_format.Parse(text, pb.TrainEvalPipelineConfig())


def test_scalars_are_typed_by_the_schema(message):
    for assignment in (
        "train_config.batch_size=16",
        "model.ssd.num_classes = 90",
        "train_config.fine_tune_checkpoint=a=b c",
        "train_config.use_bfloat16=true",
        "train_config.mixed_precision=BFLOAT16",
        "model.ssd.loss.localization_weight=1e-3",
    ):
        assert apply_override(message, assignment) == []
    assert message.train_config.batch_size == 16
    assert message.model.ssd.num_classes == 90
    assert message.train_config.fine_tune_checkpoint == "a=b c"
    assert message.train_config.use_bfloat16
    assert message.train_config.mixed_precision == pb.TrainConfig.BFLOAT16
    assert message.model.ssd.loss.localization_weight == pytest.approx(1e-3)


def aspect_ratios(message):
    return list(message.model.ssd.anchor_generator.ssd_anchor_generator.aspect_ratios)


def test_repeated_fields(message):
    ratios = "model.ssd.anchor_generator.ssd_anchor_generator.aspect_ratios"
    assert apply_override(message, f"{ratios}[1]=4") == []
    assert apply_override(message, f"{ratios}[+]=5") == []
    assert aspect_ratios(message) == [1, 4, 0.5, 5]
    assert apply_override(message, f"{ratios}[0]=") == []
    assert aspect_ratios(message) == [4, 0.5, 5]
    assert apply_override(message, f"{ratios}=[1, 2]") == []
    assert aspect_ratios(message) == [1, 2]
    assert apply_override(message, "eval_input_reader[1].shuffle=false") == []  # one past the end adds
    assert [reader.shuffle for reader in message.eval_input_reader] == [True, False]
    assert apply_override(message, "train_config.data_augmentation_options[+].random_vertical_flip{}") == []
    assert message.train_config.data_augmentation_options[2].WhichOneof("preprocessing_step") == "random_vertical_flip"


def test_the_only_item_needs_no_index_but_one_of_several_does(message):
    assert apply_override(message, "eval_input_reader.shuffle=false") == []
    assert not message.eval_input_reader[0].shuffle
    [problem] = apply_override(message, "train_config.data_augmentation_options.random_crop_image.min_area=0.5")
    assert "has 2 items: name one as train_config.data_augmentation_options[0] to [1]" in problem.message


def test_naming_a_branch_chooses_it(message):
    assert apply_override(message, "train_config.optimizer.adam_optimizer.epsilon=1e-4") == []
    assert message.train_config.optimizer.WhichOneof("optimizer") == "adam_optimizer"
    assert apply_override(message, "train_config.optimizer.momentum_optimizer{}") == []
    assert message.train_config.optimizer.WhichOneof("optimizer") == "momentum_optimizer"
    assert message.train_config.optimizer.momentum_optimizer.momentum_optimizer_value == pytest.approx(
        0.9
    )  # the old block is gone


def test_an_empty_value_clears(message):
    assert apply_override(message, "train_config.batch_size=") == []
    assert apply_override(message, "model.ssd.anchor_generator=") == []
    assert not message.train_config.HasField("batch_size")
    assert not message.model.ssd.HasField("anchor_generator")


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ("train_config.batch_siz=3", "train_config (TrainConfig) has no field 'batch_siz'; did you mean 'batch_size'?"),
        ("train_config.batch_size=many", "train_config.batch_size: expected an integer of at least 0, found many"),
        ("train_config.batch_size[0]=3", "occurs once: leave out [0]"),
        ("train_config.optimizer.optimizer=adam", "name one of its branches instead: rms_prop_optimizer, "),
        ("train_config.batch_size.x=3", "takes an integer of at least 0 and has no fields"),
        ("train_config", "expected PATH=VALUE, or PATH{} for an empty block"),
        ("model.ssd.loss=3", "is a block (Loss); set one of its fields"),
        ("eval_input_reader[5].shuffle=true", "has 1 items; accepted: [0] to [1]"),
        ("train_config.data_augmentation_options[7]=", "cannot be cleared; it has 2 items"),
        ("model.ssd.classification_loss{}", "did you mean loss.classification_loss?"),
        ("a..b=3", "has no field 'a'"),
        ("train_config.mixed_precision=FLOAT8", "not a value of MixedPrecision"),
    ],
)
def test_a_wrong_override_says_why_and_changes_nothing(message, assignment, says):
    before = message.SerializeToString()
    [problem] = apply_override(message, assignment)
    assert problem.message.startswith(f"--set {assignment}: ")
    assert says in problem.message
    assert message.SerializeToString() == before


def test_lines_of_replaced_fields_are_forgotten(message):
    lines = {"train_config": 1, "train_config.optimizer": 2, "train_config.optimizer.adam_optimizer": 3, "model": 4}
    assert apply_override(message, "train_config.optimizer{}", lines) == []
    assert lines == {"train_config": 1, "model": 4}
