"""The plan of the 4-step training with shared features: its steps, and the config of each of them (no TensorFlow).

Ren et al., arXiv:1506.01497, section 3.2, "4-step alternating training"; Lin et al., arXiv:1612.03144, section 5.2 and
table 5, use it on a pyramid, which is shared along with the backbone.

    1_rpn          the first stage alone, from the weights that the config names
    2_fast_rcnn    the second stage on the proposals of 1, with a backbone of its own, from the same weights as 1
    3_rpn          the first stage again, on the backbone of 2, which no longer changes
    4_fast_rcnn    the second stage of 2, on the proposals of 3, while the backbone does not change

``detzoo.recipes.four_step`` runs them. What follows the crop of the regions is the second stage's own.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import pathlib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from detzoo.config.diff import diff_configs
from detzoo.config.load import load_pipeline
from detzoo.config.stages import has_second_stage
from detzoo.errors import ConfigError, UsageError
from detzoo.folders import write_atomically
from detzoo.train.run_record import read_finished

CONFIG_FILE = "pipeline.config"
RECIPE_FILE = "four_step.json"
PROPOSALS_FILE = "proposals.npz"
SHARED_PARTS = ("backbone", "neck")
FIRST_STAGE_PART = "rpn"
SHARED_PATTERN = f"^({'|'.join(SHARED_PARTS)})/"  # a regular expression of freeze_variables

_RUN_MARKS = ("ckpt-*.index", "checkpoint", "run.json")


@dataclasses.dataclass(frozen=True)
class Step:
    """One of the four trainings.

    Attributes:
        folder: its folder in the run's; begins with its number.
        what: what it does, for the log.
        why: what that is for.
        is_first_stage: whether it trains the proposal network; else Fast R-CNN.
        reads_proposals_of: folder of the step that proposes the regions, "" for none.
        starts_from: folder of the step whose weights it starts from, and whose backbone it keeps; "" for those that
            the config names.
    """

    folder: str
    what: str
    why: str
    is_first_stage: bool
    reads_proposals_of: str = ""
    starts_from: str = ""

    @property
    def number(self) -> int:
        """1 to 4."""
        return int(self.folder[0])

    def trains_on(self, path: str) -> bool:
        """Whether its model has the variable ``path`` of the whole model."""
        part = path.split("/", 1)[0]
        return part in SHARED_PARTS or (part == FIRST_STAGE_PART) == self.is_first_stage


STEPS = (
    Step("1_rpn", "train the first stage alone", "it proposes the regions that step 2 learns from", True),
    Step(
        "2_fast_rcnn",
        "train the second stage on the proposals of step 1, with a backbone of its own",
        "its backbone, made for classifying regions, is the one that both stages will share",
        False,
        reads_proposals_of="1_rpn",
    ),
    Step(
        "3_rpn",
        "train the first stage on the backbone of step 2, which stays as it is",
        "from here on both stages share it",
        True,
        starts_from="2_fast_rcnn",
    ),
    Step(
        "4_fast_rcnn",
        "train the second stage on the proposals of step 3, while the backbone stays as it is",
        "it gets used to the proposals that it will meet",
        False,
        reads_proposals_of="3_rpn",
        starts_from="2_fast_rcnn",
    ),
)


@dataclasses.dataclass(frozen=True)
class StageConfigs:
    """The whole detector's ``TrainEvalPipelineConfig`` for the trainings of each stage; train_config may differ.

    Attributes:
        rpn: for steps 1 and 3.
        box: for steps 2 and 4.
    """

    rpn: Any
    box: Any

    def of(self, step: Step) -> Any:
        """The one for a step."""
        return self.rpn if step.is_first_stage else self.box


def check_pipeline_for_recipe(pipeline: Any, path: str) -> None:
    """Whether a config has two stages that can share a backbone.

    Args:
        pipeline: a ``TrainEvalPipelineConfig``.
        path: its file, for the messages.

    Raises:
        ConfigError: it has not.
    """
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
    """Whether a run of this config may begin or go on in a folder.

    Returns:
        What in the config differs from that of the run so far, as text; nothing of the model.

    Raises:
        UsageError: the folder has another run, one of another model, or one with a gap.
    """
    if not (folder / RECIPE_FILE).is_file():
        found = [entry.name for mark in _RUN_MARKS for entry in sorted(folder.glob(mark))]
        if found:
            raise UsageError(
                f"--model_dir {folder} has another run in it ({', '.join(found[:3])}), not one of the 4-step training; "
                "name another folder"
            )
    started = [step for step in STEPS if any((folder / step.folder).glob("ckpt-*.index"))]
    for step in STEPS:
        later = [other.folder for other in started if other.number > step.number]
        if later and read_finished(folder / step.folder) is None:
            raise UsageError(
                f"{folder / step.folder} is not finished, but {' and '.join(later)} had begun, on another one. To "
                f"repeat it, delete {' and '.join(later)} as well"
            )
    if not started or not (folder / CONFIG_FILE).is_file():
        return []
    earlier = load_pipeline(str(folder / CONFIG_FILE)).message
    different = diff_configs(earlier, pipeline)
    of_model = [str(difference) for difference in different if difference.path.split(".")[0] == "model"]
    if of_model:
        raise UsageError(
            f"--model_dir {folder} has a run of another model: {'; '.join(of_model[:5])}. Name another folder, or the "
            f"config of that run, {folder / CONFIG_FILE}"
        )
    return [str(difference) for difference in different]


def config_of_step(step: Step, stages: StageConfigs, folder: pathlib.Path, variables: Mapping[str, bool]) -> Any:
    """The config that ``detzoo train`` would take to do one of the steps.

    Args:
        step: which one.
        stages: the whole detector's configs; not changed.
        folder: of the run.
        variables: the whole detector's: path -> whether it can train.

    Raises:
        ConfigError: freeze_variables and update_trainable_variables leave nothing to train in it.
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
    """Proposals of a training image: those that the whole detector would train on."""
    model = pipeline.model.faster_rcnn
    return model.first_stage_max_proposals_in_training or model.first_stage_max_proposals


def config_of_proposals(pipeline: Any) -> Any:
    """A config whose detector proposes, and whose ``train_input_reader`` yields every training image once, as it is.

    Args:
        pipeline: the whole detector's ``TrainEvalPipelineConfig``; not changed.
    """
    made = copy.deepcopy(pipeline)
    model, reader = made.model.faster_rcnn, made.train_input_reader
    model.number_of_stages = 1
    model.first_stage_max_proposals = num_proposals(pipeline)
    reader.shuffle = False
    reader.load_instance_masks = False
    reader.ClearField("proposals_path")
    if reader.sample_from_datasets_weights:
        # Drawn by weights, an image may come twice or not at all; which of a file's records are sampled changes, too.
        reader.ClearField("sample_from_datasets_weights")
        reader.sample_1_of_n_examples = 1
    return made


def write_recipe(folder: pathlib.Path, facts: Mapping[str, Any]) -> None:
    """Marks a folder as a run of the 4-step training; ``facts`` say what it made."""
    recipe = "4-step alternating training, arXiv:1506.01497, section 3.2"
    write_atomically(folder / RECIPE_FILE, json.dumps({"recipe": recipe, **facts}, indent=2) + "\n")


def _keep_patterns_that_find(step: Step, train: Any, variables: Mapping[str, bool]) -> None:
    """Drops what a stage alone would refuse: patterns of variables that only the other stage has."""
    paths = [path for path in variables if step.trains_on(path)]
    update, freeze = list(train.update_trainable_variables), list(train.freeze_variables)
    kept = [path for path in paths if variables[path] and (not update or _finds(update, path))]
    if all(_finds(freeze, path) for path in kept):
        raise ConfigError(
            f"train_config.freeze_variables [{', '.join(freeze)}] and update_trainable_variables "
            f"[{', '.join(update)}] leave nothing to train in step {step.number}, {step.folder}"
        )
    for patterns in (train.update_trainable_variables, train.freeze_variables):
        finding = [p for p in patterns if _found(p, paths) or not _found(p, variables)]  # a wrong one is told later
        del patterns[:]
        patterns.extend(finding)


def _finds(patterns: Sequence[str], path: str) -> bool:
    return any(re.search(pattern, path) for pattern in filter(None, patterns))


def _found(pattern: str, paths: Collection[str]) -> bool:
    return any(_finds([pattern], path) for path in paths)
