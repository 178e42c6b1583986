"""The plan of the 4-step training with shared features: the steps and the config of each step (no TensorFlow).

Ren et al., arXiv:1506.01497, section 3.2, "4-step alternating training". Lin et al., arXiv:1612.03144, section 5.2 and
table 5, use it with a pyramid, which is shared together with the backbone.

    1_rpn          the first stage alone, from the weights that the config names
    2_fast_rcnn    the second stage on the proposals of 1, with a separate backbone from the same weights as 1
    3_rpn          the first stage again, on the backbone of 2, which no longer changes
    4_fast_rcnn    the second stage of 2, on the proposals of 3, while the backbone does not change

``detzoo.recipes.four_step`` runs them. The layers after the crop of the regions belong to the second stage alone.
"""

from __future__ import annotations

import copy
import dataclasses
import pathlib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from detzoo.config.stages import has_second_stage
from detzoo.errors import ConfigError, UsageError
from detzoo.folders import CONFIG_FILE, PROPOSALS_FILE
from detzoo.recipes.recipe import Recipe
from detzoo.train.run_record import read_finished

RECIPE = Recipe(
    name="4-step training",
    article="the ",
    source="4-step alternating training, arXiv:1506.01497, section 3.2",
    file="four_step.json",
    end="merged",
)
SHARED_PARTS = ("backbone", "neck")
FIRST_STAGE_PART = "rpn"
SHARED_PATTERN = f"^({'|'.join(SHARED_PARTS)})/"  # a regular expression of freeze_variables


@dataclasses.dataclass(frozen=True)
class Step:
    """One of the four trainings."""

    folder: str  # name of the step's folder, which begins with the step's number
    what: str  # description for the log
    why: str  # purpose for the log
    is_first_stage: bool  # the step trains the proposal network; otherwise Fast R-CNN
    reads_proposals_of: str = ""  # folder of the step that proposes the regions, or ""
    # Folder of the step that provides the initial weights and the frozen backbone; "" for the weights that the config
    # names.
    starts_from: str = ""

    @property
    def number(self) -> int:
        """Number of the step, 1 to 4."""
        return int(self.folder[0])

    def trains_on(self, path: str) -> bool:
        """Returns whether the step's model has the variable ``path`` of the whole model."""
        part = path.split("/", 1)[0]
        return part in SHARED_PARTS or (part == FIRST_STAGE_PART) == self.is_first_stage


STEPS = (
    Step("1_rpn", "train the first stage alone", "it proposes the regions that step 2 learns from", True),
    Step(
        "2_fast_rcnn",
        "train the second stage on the proposals of step 1, with a separate backbone",
        "its backbone, made for classifying regions, is the one that both stages will share",
        False,
        reads_proposals_of="1_rpn",
    ),
    Step(
        "3_rpn",
        "train the first stage on the backbone of step 2, which is frozen",
        "from here on both stages share it",
        True,
        starts_from="2_fast_rcnn",
    ),
    Step(
        "4_fast_rcnn",
        "train the second stage on the proposals of step 3, while the backbone is frozen",
        "the second stage adapts to the proposals of the final first stage",
        False,
        reads_proposals_of="3_rpn",
        starts_from="2_fast_rcnn",
    ),
)


@dataclasses.dataclass(frozen=True)
class StageConfigs:
    """The whole detector's ``TrainEvalPipelineConfig`` for the trainings of each stage; only train_config differs."""

    rpn: Any  # config for steps 1 and 3
    box: Any  # config for steps 2 and 4

    def of(self, step: Step) -> Any:
        """Returns the config for a step."""
        return self.rpn if step.is_first_stage else self.box


def check_pipeline_for_recipe(pipeline: Any, path: str) -> None:
    """Raises a ConfigError if a config, from the file ``path``, has not two stages that can share a backbone."""
    kind = pipeline.model.WhichOneof("model")
    if kind != "faster_rcnn":
        raise ConfigError(
            f"{path}: model.{kind or '(none)'} has no two stages that could share a backbone; the 4-step training "
            "takes model.faster_rcnn. `detzoo train` trains this one"
        )
    model = pipeline.model.faster_rcnn
    if model.proposals_from_reader:
        raise ConfigError(
            f"{path}: model.faster_rcnn.proposals_from_reader is true, which makes it a second stage alone. Give the "
            "config of the whole detector: the 4-step training makes those of its stages itself"
        )
    if not has_second_stage(model):
        raise ConfigError(
            f"{path}: model.faster_rcnn.number_of_stages is {model.number_of_stages}, a first stage alone. Give the "
            "config of the whole detector (2, or 3 with masks): the 4-step training makes those of its stages itself"
        )


def check_folder(folder: pathlib.Path, pipeline: Any) -> list[str]:
    """Checks that a run of this config may start or continue in a folder.

    Returns:
        Differences of the config from that of the run so far, as text; none concerns the model.

    Raises:
        UsageError: The folder has another run, one of another model, or an unfinished step before others.
    """
    different = RECIPE.differences(folder, pipeline)
    started = [step for step in STEPS if any((folder / step.folder).glob("ckpt-*.index"))]
    for step in STEPS:
        later = [other.folder for other in started if other.number > step.number]
        if later and read_finished(folder / step.folder) is None:
            raise UsageError(
                f"{folder / step.folder} is not finished, but {' and '.join(later)} had begun, on another one. To "
                f"repeat it, delete {' and '.join(later)} as well"
            )
    if not started:
        return []
    of_model = [str(difference) for difference in different if difference.path.split(".")[0] == "model"]
    if of_model:
        raise UsageError(
            f"--model_dir {folder} has another model: {'; '.join(of_model[:5])}. Name another folder, or the "
            f"config of that run, {folder / CONFIG_FILE}"
        )
    return [str(difference) for difference in different]


def config_of_step(step: Step, stages: StageConfigs, folder: pathlib.Path, variables: Mapping[str, bool]) -> Any:
    """Returns the config with which ``detzoo train`` performs one of the steps of a run in ``folder``.

    ``variables`` are paths of the whole detector's variables -> True if trainable.

    Raises:
        ConfigError: freeze_variables and update_trainable_variables leave nothing to train in the step.
    """
    made = copy.deepcopy(stages.of(step))
    model, train = made.model.faster_rcnn, made.train_config
    train.eval_every_n_steps = 0
    train.ClearField("early_stopping")
    if step.is_first_stage:
        model.number_of_stages = 1
    else:
        reader = made.train_input_reader
        model.proposals_from_reader = True
        reader.proposals_path = str(folder / step.reads_proposals_of / PROPOSALS_FILE)
        reader.max_number_of_proposals = num_proposals(made)
    if step.starts_from:
        model.feature_extractor.ClearField("pretrained_weights")
        train.fine_tune_checkpoint = str(folder / step.starts_from)
        train.fine_tune_checkpoint_type = "detection" if step.is_first_stage else "full"
        train.freeze_variables.append(SHARED_PATTERN)
    _keep_patterns_that_find(step, train, variables)
    return made


def num_proposals(pipeline: Any) -> int:
    """Returns the number of proposals per training image, which is that of the whole detector in training."""
    model = pipeline.model.faster_rcnn
    return model.first_stage_max_proposals_in_training or model.first_stage_max_proposals


def config_of_proposals(pipeline: Any) -> Any:
    """Returns the config of the first stage alone whose ``train_input_reader`` yields every training image once."""
    made = copy.deepcopy(pipeline)
    model, reader = made.model.faster_rcnn, made.train_input_reader
    model.number_of_stages = 1
    model.first_stage_max_proposals = num_proposals(pipeline)
    reader.shuffle = False
    reader.load_instance_masks = False
    reader.ClearField("proposals_path")
    if reader.sample_from_datasets_weights:
        # Sampling by weights can draw an image twice or never, and changes which records of a file are read.
        reader.ClearField("sample_from_datasets_weights")
        reader.sample_1_of_n_examples = 1
    return made


def _keep_patterns_that_find(step: Step, train: Any, variables: Mapping[str, bool]) -> None:
    """Removes patterns of variables that only the other stage has, because a stage alone would refuse them."""
    paths = [path for path in variables if step.trains_on(path)]
    update, freeze = list(train.update_trainable_variables), list(train.freeze_variables)
    kept = [path for path in paths if variables[path] and (not update or _finds(update, path))]
    if all(_finds(freeze, path) for path in kept):
        raise ConfigError(
            f"train_config.freeze_variables [{', '.join(freeze)}] and update_trainable_variables "
            f"[{', '.join(update)}] leave nothing to train in step {step.number}, {step.folder}"
        )
    for patterns in (train.update_trainable_variables, train.freeze_variables):
        finding = [
            p for p in patterns if _found(p, paths) or not _found(p, variables)
        ]  # a pattern without any variable is reported by the training
        del patterns[:]
        patterns.extend(finding)


def _finds(patterns: Sequence[str], path: str) -> bool:
    return any(re.search(pattern, path) for pattern in filter(None, patterns))


def _found(pattern: str, paths: Collection[str]) -> bool:
    return any(_finds([pattern], path) for path in paths)
