"""``detzoo train_four_step``."""

from __future__ import annotations

from absl import flags

from detzoo.cli.flags import Definer, define_pipeline_flags, define_random_weights_flag, values_of
from detzoo.cli.recipes import print_run
from detzoo.tasks.recipes import ONE_MACHINE_STRATEGIES, train_four_step

SUMMARY = "Train a two-stage detector in the four steps of the Faster R-CNN paper."
DESCRIPTION = """
The 4-step alternating training of Ren et al., arXiv:1506.01497, section 3.2: the two stages are trained one after the
other and end with one backbone. It takes the config of a whole two-stage detector (model.faster_rcnn: Faster R-CNN on
one map or on a pyramid, with masks, R-FCN) and makes the configs of the steps itself, each in a folder of --model_dir:

    1_rpn          the first stage alone; then its proposals for every training image
    2_fast_rcnn    the second stage on these proposals, with its own backbone
    3_rpn          the first stage again, on the backbone of 2, which no longer changes; its proposals
    4_fast_rcnn    the second stage of 2 on these, while the backbone does not change

Last, 3 and 4 are merged into one checkpoint of the whole detector in --model_dir, an ordinary one:

    detzoo train_four_step --pipeline_config_path my.config --model_dir runs/my
    detzoo evaluate --pipeline_config_path runs/my/pipeline.config --checkpoint_dir runs/my --output_dir runs/my/eval

train_config applies to each of the four steps, with num_steps and the learning-rate schedule: four times num_steps in
all. Each stage can have its own number of steps and its own settings:

    detzoo train_four_step --pipeline_config_path my.config --model_dir runs/my --rpn_steps 40000 --box_steps 80000 \\
        --rpn_set train_config.optimizer.momentum_optimizer.learning_rate.cosine_decay_learning_rate.total_steps=40000

Ctrl-C or SIGTERM saves; the same command resumes in the step that was interrupted. To repeat a step, delete its folder,
those with a higher number, and model_dir/finished. `detzoo train` trains both stages at once, in a quarter of the
steps; docs/four_step_training.md compares the two.
"""


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines the flags of ``detzoo train``, and those for each stage."""
    define_pipeline_flags(flag_values)
    define = Definer(flag_values)
    define.string("model_dir", "Folder of the run.", required=True)
    define.integer("num_train_steps", "Steps of each of the four, instead of train_config.num_steps.", minimum=1)
    define.integer("rpn_steps", "Steps of 1 and of 3, the first stage, instead.", minimum=1)
    define.integer("box_steps", "Steps of 2 and of 4, the second stage, instead.", minimum=1)
    text = "Steps between checkpoints, instead of train_config.checkpoint_every_n_steps."
    define.integer("checkpoint_every_n", text, minimum=1)
    define.strings("rpn_set", "Like --set, for the steps 1 and 3 alone; fields of train_config.")
    define.strings("box_set", "Like --set, for the steps 2 and 4 alone; fields of train_config.")
    text = "Train on one device, or on all devices of this machine; auto detects."
    define.choice("strategy", text, ONE_MACHINE_STRATEGIES, "auto")
    define_random_weights_flag(flag_values)


def run(flag_values: flags.FlagValues) -> None:
    """Trains, and prints the results."""
    names = ("num_train_steps", "rpn_steps", "box_steps", "checkpoint_every_n", "rpn_set", "box_set", "strategy")
    run_of_steps = train_four_step(
        flag_values.pipeline_config_path,
        flag_values.model_dir,
        overrides=flag_values.set,
        **values_of(flag_values, *names, "allow_random_weights"),
    )
    print_run(run_of_steps, "the four steps are merged", "its folder, those with a higher number,")
