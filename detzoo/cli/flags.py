"""Flags that several commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from absl import flags

from detzoo.files.pixel_limit import DEFAULT_MEGAPIXELS, FLAG, VARIABLE

if TYPE_CHECKING:
    from detzoo.config.load import LoadedPipeline

SET_HELP = (
    "PATH=VALUE changes one field of the config, e.g. --set train_config.batch_size=8, "
    "--set 'eval_input_reader[0].shuffle=false' or, to choose a block, --set 'train_config.optimizer.adam_optimizer{}'"
)


# Commands that open no image.
_WITHOUT_IMAGES = ("config", "models")


def flags_of(name: str, command: Any) -> flags.FlagValues:
    """Returns the flags of a command, without values: its own, and the limit on images where it opens some."""
    flag_values = flags.FlagValues()
    command.define_flags(flag_values)
    if name.split()[0] not in _WITHOUT_IMAGES:
        text = (
            "Skip images of more pixels: million, height times width. They are refused before they are decoded. "
            f"Default: {DEFAULT_MEGAPIXELS:g}, or the environment variable {VARIABLE}."
        )
        flags.DEFINE_float(FLAG.strip("-"), None, text, lower_bound=1e-6, flag_values=flag_values)
    return flag_values


def define_font_flag(flag_values: flags.FlagValues) -> None:
    """``--font FILE``, for commands that draw class names."""
    text = "A .ttf, .otf or .ttc file for class names in scripts that DejaVu Sans lacks, such as Chinese or Thai."
    flags.DEFINE_string("font", None, text, flag_values=flag_values)


def define_set_flag(flag_values: flags.FlagValues) -> None:
    """``--set PATH=VALUE``, repeatable: changes to the config before it is used."""
    flags.DEFINE_multi_string("set", [], SET_HELP, flag_values=flag_values)


def define_pipeline_flags(flag_values: flags.FlagValues, required: bool = True) -> None:
    """``--pipeline_config_path`` and ``--set``, for every command that reads a config."""
    flags.DEFINE_string(
        "pipeline_config_path", None, "The pipeline.config to use.", flag_values=flag_values, required=required
    )
    define_set_flag(flag_values)


def define_random_weights_flag(flag_values: flags.FlagValues) -> None:
    """``--allow_random_weights``, for every command that trains."""
    text = "If ImageNet's weights (pretrained_weights) are not available, train from random ones; run.json records it."
    flags.DEFINE_bool("allow_random_weights", False, text, flag_values=flag_values)


def load_pipeline_from_flags(flag_values: flags.FlagValues) -> LoadedPipeline:
    """Loads the config of ``--pipeline_config_path`` and ``--set``, see ``load_checked``."""
    from detzoo.tasks.models import load_checked

    return load_checked(flag_values.pipeline_config_path, flag_values.set)


def define_recompute_flag(flag_values: flags.FlagValues) -> None:
    """``--recompute_batch_norm N``, for commands that restore a checkpoint."""
    text = (
        "Compute the moving statistics of batch normalization from this many training batches (train_input_reader, "
        "train_config.batch_size), instead of those in the checkpoint. For short trainings; 100 is plenty."
    )
    flags.DEFINE_integer("recompute_batch_norm", None, text, lower_bound=1, flag_values=flag_values)
