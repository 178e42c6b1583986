"""The configs of the four steps, and which configs and folders are refused."""

from __future__ import annotations

import copy
import json

import pytest

from detzoo.config.diff import diff_configs
from detzoo.config.load import load_pipeline, save_pipeline
from detzoo.config.override import apply_override
from detzoo.errors import ConfigError, UsageError
from detzoo.recipes.four_step_plan import (
    RECIPE,
    STEPS,
    StageConfigs,
    check_folder,
    check_pipeline_for_recipe,
    config_of_proposals,
    config_of_step,
)

VARIABLES = {
    "backbone/conv1/kernel": True,
    "backbone/norm1/moving_mean": False,
    "neck/lateral/kernel": True,
    "rpn/conv/kernel": True,
    "box_backbone/fc1/kernel": True,
    "box_head/class_predictor/kernel": True,
}


@pytest.fixture(scope="module")
def four_step_toy(load_module):
    """The module four_step_toy.py."""
    return load_module("recipes/four_step_toy.py")


@pytest.fixture
def pipeline(four_step_toy, tmp_path):
    """The message of the config on a pyramid."""
    path = tmp_path / "toy.config"
    path.write_text(four_step_toy.config_text("pyramid"))
    return load_pipeline(str(path)).message


def changed(pipeline, *assignments):
    result = copy.deepcopy(pipeline)
    for assignment in assignments:
        assert apply_override(result, assignment) == []
    return result


def differences(pipeline, made):
    return {d.path: d.second for d in diff_configs(pipeline, made)}


def configs_of(pipeline, folder):
    return [config_of_step(step, StageConfigs(pipeline, pipeline), folder, VARIABLES) for step in STEPS]


def test_each_step_differs_from_the_whole_by_what_the_paper_says(pipeline, tmp_path):
    pipeline = changed(pipeline, "model.faster_rcnn.feature_extractor.pretrained_weights=imagenet")
    one, two, three, four = (differences(pipeline, made) for made in configs_of(pipeline, tmp_path))
    shared = {
        "model.faster_rcnn.feature_extractor.pretrained_weights": "''",
        "train_config.fine_tune_checkpoint": f"'{tmp_path}/2_fast_rcnn'",
        "train_config.freeze_variables": "['^(backbone|neck)/']",
    }

    def proposals_of(folder):
        return {
            "model.faster_rcnn.proposals_from_reader": "true",
            "train_input_reader.proposals_path": f"'{tmp_path}/{folder}/proposals.npz'",
            "train_input_reader.max_number_of_proposals": "9",  # first_stage_max_proposals_in_training
        }

    assert one == {"model.faster_rcnn.number_of_stages": "1"}
    assert two == proposals_of("1_rpn")
    assert three == {**one, **shared, "train_config.fine_tune_checkpoint_type": "'detection'"}
    assert four == {**proposals_of("3_rpn"), **shared, "train_config.fine_tune_checkpoint_type": "'full'"}


def test_stages_may_be_trained_differently(pipeline, tmp_path):
    stages = StageConfigs(changed(pipeline, "train_config.num_steps=7"), changed(pipeline, "train_config.num_steps=11"))
    counts = [config_of_step(step, stages, tmp_path, VARIABLES).train_config.num_steps for step in STEPS]
    assert counts == [7, 11, 7, 11]


def test_evaluation_while_training_is_left_out(pipeline, tmp_path):
    pipeline = changed(
        pipeline, "train_config.eval_every_n_steps=5", "train_config.early_stopping.patience_evaluations=2"
    )
    for made in configs_of(pipeline, tmp_path):
        assert made.train_config.eval_every_n_steps == 0
        assert not made.train_config.HasField("early_stopping")


def test_patterns_of_the_other_stage_are_left_out_of_a_step(pipeline, tmp_path):
    pipeline = changed(pipeline, "train_config.freeze_variables=[conv1, ^rpn/.*bias, ^box_head/, nowhere]")
    frozen = [
        list(
            config_of_step(
                step, StageConfigs(pipeline, pipeline), tmp_path, {**VARIABLES, "rpn/conv/bias": True}
            ).train_config.freeze_variables
        )
        for step in STEPS
    ]
    # "nowhere" finds no variable at all: the training says so.
    assert frozen == [
        ["conv1", "^rpn/.*bias", "nowhere"],
        ["conv1", "^box_head/", "nowhere"],
        ["conv1", "^rpn/.*bias", "nowhere", "^(backbone|neck)/"],
        ["conv1", "^box_head/", "nowhere", "^(backbone|neck)/"],
    ]


@pytest.mark.parametrize(
    ("assignment", "step"),
    [
        ("train_config.freeze_variables=[^rpn/]", "step 3, 3_rpn"),
        ("train_config.freeze_variables=[^box_]", "step 4, 4_fast_rcnn"),
        ("train_config.update_trainable_variables=[^box_head/]", "step 1, 1_rpn"),
        ("train_config.update_trainable_variables=[^backbone/]", "step 3, 3_rpn"),
    ],
)
def test_a_step_with_nothing_to_train_is_refused(pipeline, tmp_path, assignment, step):
    with pytest.raises(ConfigError, match=f"leave nothing to train in {step}"):
        configs_of(changed(pipeline, assignment), tmp_path)


def test_proposals_are_of_every_training_image_as_it_is(pipeline):
    made = config_of_proposals(changed(pipeline, "train_input_reader.sample_1_of_n_examples=2"))
    assert differences(pipeline, made) == {
        "model.faster_rcnn.number_of_stages": "1",
        "model.faster_rcnn.first_stage_max_proposals": "9",
        "train_input_reader.shuffle": "false",
        "train_input_reader.sample_1_of_n_examples": "2",
    }
    weighted = changed(
        pipeline, "train_input_reader.sample_from_datasets_weights=[1]", "train_input_reader.sample_1_of_n_examples=2"
    )
    reader = config_of_proposals(weighted).train_input_reader
    assert (list(reader.sample_from_datasets_weights), reader.sample_1_of_n_examples) == ([], 1)


def test_the_number_of_proposals_is_that_of_testing_where_training_has_none(pipeline, tmp_path):
    pipeline = changed(pipeline, "model.faster_rcnn.first_stage_max_proposals_in_training=0")
    assert config_of_proposals(pipeline).model.faster_rcnn.first_stage_max_proposals == 6
    assert configs_of(pipeline, tmp_path)[1].train_input_reader.max_number_of_proposals == 6


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("model.ssd.num_classes=3", "my.config: model.ssd has no two stages.*takes model.faster_rcnn"),
        ("model.faster_rcnn.number_of_stages=1", "number_of_stages is 1, a first stage alone"),
        ("model.faster_rcnn.proposals_from_reader=true", "proposals_from_reader is true.*a second stage alone"),
    ],
)
def test_configs_without_two_stages_are_refused(pipeline, assignment, message):
    check_pipeline_for_recipe(pipeline, "my.config")
    check_pipeline_for_recipe(changed(pipeline, "model.faster_rcnn.number_of_stages=3"), "my.config")
    with pytest.raises(ConfigError, match=message):
        check_pipeline_for_recipe(changed(pipeline, assignment), "my.config")


@pytest.mark.parametrize("name", ["ckpt-5.index", "run.json"])
def test_a_folder_of_another_run_is_refused(pipeline, tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(UsageError, match=f"has another run in it \\({name}\\)"):
        check_folder(tmp_path, pipeline)


def begin(folder, pipeline, *steps, finished=()):
    """Writes the files of a run that began ``steps`` and finished those of ``finished``."""
    RECIPE.write(folder, {})
    save_pipeline(pipeline, folder / "pipeline.config")
    for step in steps:
        (folder / step).mkdir()
        (folder / step / "ckpt-3.index").touch()
        (folder / step / "checkpoint").touch()
    for step in finished:
        (folder / step / "finished").write_text(json.dumps({"step": 3, "num_train_steps": 3, "reason": "reached"}))


def test_a_run_goes_on_with_another_training_but_not_with_another_model(pipeline, tmp_path):
    assert check_folder(tmp_path / "new", pipeline) == []
    begin(tmp_path, pipeline, "1_rpn")
    assert check_folder(tmp_path, pipeline) == []
    assert check_folder(tmp_path, changed(pipeline, "train_config.batch_size=4")) == ["train_config.batch_size: 2 -> 4"]
    with pytest.raises(UsageError, match=r"another model: model.faster_rcnn.fc_depth: 16 -> 32"):
        check_folder(tmp_path, changed(pipeline, "model.faster_rcnn.fc_depth=32"))


def test_before_the_first_checkpoint_everything_may_change(pipeline, tmp_path):
    begin(tmp_path, pipeline)
    assert check_folder(tmp_path, changed(pipeline, "model.faster_rcnn.fc_depth=32")) == []


def test_a_step_that_is_repeated_wants_those_after_it_repeated(pipeline, tmp_path):
    begin(tmp_path, pipeline, "1_rpn", "2_fast_rcnn", "3_rpn", finished=["1_rpn", "3_rpn"])
    with pytest.raises(UsageError, match=r"2_fast_rcnn is not finished, but 3_rpn had begun.*delete 3_rpn as well"):
        check_folder(tmp_path, pipeline)
