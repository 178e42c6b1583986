"""``detzoo train``."""

from __future__ import annotations

import sys

from absl import flags

from detzoo.cli.api_flags import check_trainer_flags, define_trainer_flags
from detzoo.cli.flags import (
    Definer,
    define_pipeline_flags,
    define_random_weights_flag,
    load_pipeline_from_flags,
    values_of,
)
from detzoo.cli.recipes import print_run
from detzoo.tasks.recipes import train_spp_net
from detzoo.tasks.train import STRATEGIES, train

SUMMARY = "Train the detector of a pipeline.config; a second call resumes."
DESCRIPTION = """
Writes checkpoints, TensorBoard events, the resolved pipeline.config and run.json into --model_dir. Started again with
the same --model_dir, it resumes from the newest checkpoint; Ctrl-C or SIGTERM saves one first.

    detzoo train --pipeline_config_path my.config --model_dir runs/my
    detzoo train --pipeline_config_path my.config --model_dir runs/my --num_train_steps 5000 --checkpoint_every_n 500
    detzoo train --pipeline_config_path my.config --model_dir runs/my --set train_config.batch_size=16
    tensorboard --logdir runs/my

TensorBoard shows losses and metrics, the first training images as augmented, detections next to ground truth and
precision-recall curves of every evaluation, the hyperparameters of all runs below --logdir, and the config;
--norecord_summaries writes none of this.

A config with model.spp_net runs a chain of steps instead: feature maps on disk, fine-tuning, SVMs, box regression. Each
step has a folder in --model_dir; started again, the chain resumes in the step that was interrupted.

train_config has the other options: eval_every_n_steps, best_checkpoint_metric (kept in model_dir/best), early_stopping,
mixed_precision, fine_tune_checkpoint, freeze_variables. To train on several machines, run the same command on each,
with TF_CONFIG set and a --model_dir that all of them share. Workers whose config, step or weights differ from those of
the first worker refuse to start. --strategy=parameter_server trains asynchronously, on a TF_CONFIG with the roles
chief, ps and worker, see docs/scale.md.

An evaluation that fails is reported, the weights are saved, and training continues; if the last one fails, the exit
code is 1, and the same command evaluates again. A --model_dir that another training uses is refused.
"""


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines the flags of the Object Detection API's trainer that have a meaning here, and --strategy, --set."""
    define_pipeline_flags(flag_values)
    define = Definer(flag_values)
    define.string("model_dir", "Folder of the run.", required=True)
    define.integer("num_train_steps", "Steps in total, instead of train_config.num_steps.", minimum=1)
    text = "Steps between checkpoints, instead of train_config.checkpoint_every_n_steps."
    define.integer("checkpoint_every_n", text, minimum=1)
    text = "Train on one device, on all devices of this machine, or on the cluster in TF_CONFIG; auto detects."
    define.choice("strategy", text, STRATEGIES, "auto")
    define_random_weights_flag(flag_values)
    define_trainer_flags(flag_values)


def run(flag_values: flags.FlagValues) -> None:
    """Trains, or prints that nothing is left to do."""
    check_trainer_flags(flag_values)
    loaded, model_dir = load_pipeline_from_flags(flag_values), flag_values.model_dir
    counts = values_of(flag_values, "num_train_steps", "checkpoint_every_n")
    if loaded.message.model.HasField("spp_net"):
        run_of_chain = train_spp_net(loaded, model_dir, strategy=flag_values.strategy, **counts)
        print_run(run_of_chain, "all steps of SPP-net are done", "its folder")
        return
    several = (flag_values.num_workers or 1) > 1 and flag_values.strategy == "auto"
    training = train(
        loaded,
        model_dir,
        strategy="multi_worker" if several else flag_values.strategy,
        **counts,
        **values_of(flag_values, "record_summaries", "allow_random_weights"),
    )
    if training.was_finished:
        print(
            f"{model_dir} is finished: step {training.step}, {training.reason}. To train on, raise --num_train_steps "
            f"(now {training.num_train_steps}); to start again, use another --model_dir",
            file=sys.stderr,
        )
