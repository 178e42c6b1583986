"""``detzoo train_four_step``."""

from __future__ import annotations

import pathlib
from typing import Any

from absl import flags

from detzoo.cli.flags import define_pipeline_flags, define_random_weights_flag, load_pipeline_from_flags
from detzoo.cli.recipes import print_end, report_finished
from detzoo.errors import UsageError
from detzoo.extras import require_extras
from detzoo.tasks.propose import write_training_proposals
from detzoo.tasks.recipes import run_recipe
from detzoo.tasks.train import check_training

SUMMARY = "Train a two-stage detector in the four steps of the Faster R-CNN paper."
DESCRIPTION = """
The 4-step alternating training of Ren et al., arXiv:1506.01497, section 3.2: the two stages are trained one after the
other and end with one backbone. It takes the config of a whole two-stage detector (model.faster_rcnn: Faster R-CNN on
one map or on a pyramid, with masks, R-FCN) and makes the configs of the steps itself, each in a folder of --model_dir:

    1_rpn          the first stage alone; then its proposals for every training image
    2_fast_rcnn    the second stage on these proposals, with a backbone of its own
    3_rpn          the first stage again, on the backbone of 2, which no longer changes; its proposals
    4_fast_rcnn    the second stage of 2 on these, while the backbone does not change

Last, 3 and 4 become one checkpoint of the whole detector in --model_dir, to be used as any other:

    detzoo train_four_step --pipeline_config_path my.config --model_dir runs/my
    detzoo evaluate --pipeline_config_path runs/my/pipeline.config --checkpoint_dir runs/my --output_dir runs/my/eval

train_config holds for each step, num_steps and the learning rate's schedule too: four times num_steps in all. To train
one stage for another time or otherwise:

    detzoo train_four_step --pipeline_config_path my.config --model_dir runs/my --rpn_steps 40000 --box_steps 80000 \\
        --rpn_set train_config.optimizer.momentum_optimizer.learning_rate.cosine_decay_learning_rate.total_steps=40000

Ctrl-C or SIGTERM saves; the same command goes on in the step where it was. To repeat a step, delete its folder, those
with a higher number, and model_dir/finished. `detzoo train` trains both stages at once, in a quarter of the steps:
docs/four_step_training.md says what this one is for.
"""
POSITIONAL = ()

STRATEGIES = ("auto", "one_device", "mirrored")


def define_flags(flag_values: flags.FlagValues) -> None:
    """Those of ``detzoo train``, and the steps of each stage."""
    define_pipeline_flags(flag_values)
    flags.DEFINE_string("model_dir", None, "Folder of the run.", flag_values=flag_values, required=True)
    for name, text in (
        ("num_train_steps", "Steps of each of the four, instead of train_config.num_steps."),
        ("rpn_steps", "Steps of 1 and of 3, the first stage, instead."),
        ("box_steps", "Steps of 2 and of 4, the second stage, instead."),
        ("checkpoint_every_n", "Steps between checkpoints, instead of train_config.checkpoint_every_n_steps."),
    ):
        flags.DEFINE_integer(name, None, text, lower_bound=1, flag_values=flag_values)
    for name, text in (
        ("rpn_set", "Like --set, for the steps 1 and 3 alone; fields of train_config."),
        ("box_set", "Like --set, for the steps 2 and 4 alone; fields of train_config."),
    ):
        flags.DEFINE_multi_string(name, [], text, flag_values=flag_values)
    flags.DEFINE_enum(
        "strategy",
        "auto",
        list(STRATEGIES),
        "Which devices: one, or all of this machine; auto looks.",
        flag_values=flag_values,
    )
    define_random_weights_flag(flag_values)


def run(flag_values: flags.FlagValues) -> None:
    """Checks the config and the folder, then runs the remaining steps."""
    from detzoo.recipes.four_step_plan import RECIPE, check_folder, check_pipeline_for_recipe

    loaded = load_pipeline_from_flags(flag_values)
    require_extras("training", "train")
    check_pipeline_for_recipe(loaded.message, loaded.path)
    folder = pathlib.Path(flag_values.model_dir)
    repeat = "its folder, those with a higher number,"
    if report_finished(RECIPE, folder, "the four steps are merged", repeat):
        return
    stages = checked_stages(loaded, flag_values)

    def train(stop: Any) -> Any:
        from detzoo.recipes.four_step import train_four_step

        return train_four_step(
            loaded.message,
            folder,
            flag_values.strategy,
            stages,
            write_training_proposals,
            stop,
            flag_values.allow_random_weights,
        )

    print_end(run_recipe(folder, check_folder(folder, loaded.message), train), folder)


def checked_stages(loaded: Any, flag_values: flags.FlagValues) -> Any:
    """The config for the trainings of each stage, as the flags change it; both are checked.

    Args:
        loaded: The whole detector's; gets what the flags change for both.
        flag_values: Of the command.

    Raises:
        ConfigError: With every error, one a line.
        UsageError: A number of steps is missing, or a flag changes more than the training.
    """
    from detzoo.config.load import load_pipeline
    from detzoo.recipes.four_step_plan import StageConfigs

    num_steps, made = flag_values.num_train_steps, []
    for stage in ("rpn", "box"):
        own = getattr(flag_values, f"{stage}_set")
        wrong = [assignment for assignment in own if not assignment.strip().startswith("train_config.")]
        if wrong:
            raise UsageError(f"--{stage}_set {wrong[0]}: only fields of train_config can differ between the stages")
        of_stage = load_pipeline(loaded.path, [*flag_values.set, *own])
        _set_counts(of_stage, flag_values, getattr(flag_values, f"{stage}_steps") or num_steps)
        if of_stage.message not in made:  # each warning is said once
            check_training(of_stage)
        made.append(of_stage.message)
    _set_counts(loaded, flag_values, num_steps)
    return StageConfigs(*made)


def _set_counts(loaded: Any, flag_values: flags.FlagValues, num_steps: int | None) -> None:
    config = loaded.message.train_config
    if num_steps is not None:
        config.num_steps = num_steps
    if flag_values.checkpoint_every_n is not None:
        config.checkpoint_every_n_steps = flag_values.checkpoint_every_n
