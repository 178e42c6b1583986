"""Defining flags, and the flags that several commands share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from absl import flags

from detzoo.config.load import LoadedPipeline
from detzoo.errors import UsageError
from detzoo.extras import require_extras
from detzoo.files.pixel_limit import DEFAULT_MEGAPIXELS, FLAG, VARIABLE

SET_HELP = (
    "PATH=VALUE changes one field of the config, e.g. --set train_config.batch_size=8, "
    "--set 'eval_input_reader[0].shuffle=false' or, to choose a block, --set 'train_config.optimizer.adam_optimizer{}'"
)
RECORDS_HELP = "TFRecord files: a path, a quoted glob, stem@10, or several, separated by commas."
CHECKPOINT_HELP = (
    "Folder with checkpoints, of which the newest is used, or the prefix of one, e.g. model/ckpt-1000, or zoo://NAME, "
    "see `detzoo weights`."
)
SAVED_MODEL_HELP = (
    "Folder with saved_model.pb, the output_directory of `detzoo export`, a .tflite, .onnx or .pb file, or zoo://NAME."
)
RUNNERS = ("DirectRunner", "FlinkRunner", "SparkRunner", "DataflowRunner", "PortableRunner")  # of Apache Beam
_WITHOUT_IMAGES = ("completion", "config", "models", "weights")  # commands that open no image


class _NumberOrWord(flags.FloatParser):
    """Parser of a number in [0, maximum], or of a word."""

    def __init__(self, word: str, maximum: float) -> None:
        super().__init__(0.0, maximum)
        self._word = word

    def parse(self, argument: Any) -> Any:
        """Returns the number, or the word."""
        if argument == self._word:
            return argument
        try:
            return super().parse(argument)
        except ValueError:
            raise ValueError(f"accepted: 0 to {self.upper_bound:g}, or {self._word}") from None


class Definer:
    """Defines the flags of one command.

    Args:
        flag_values: Gets the flags.
        prefix: Prefix of every help text.
    """

    def __init__(self, flag_values: flags.FlagValues, prefix: str = "") -> None:
        self._prefix, self._to = prefix, {"flag_values": flag_values}

    def string(self, name: str, text: str, default: str | None = None, *, required: bool = False) -> None:
        """A text or a path."""
        flags.DEFINE_string(name, default, self._prefix + text, required=required, **self._to)

    def strings(self, name: str, text: str, default: Sequence[str] = (), *, required: bool = False) -> None:
        """A repeatable text."""
        initial = None if required else list(default)
        flags.DEFINE_multi_string(name, initial, self._prefix + text, required=required, **self._to)

    def integer(self, name: str, text: str, default: int | None = None, *, minimum: int | None = None) -> None:
        """A whole number."""
        flags.DEFINE_integer(name, default, self._prefix + text, lower_bound=minimum, **self._to)

    def number(
        self, name: str, text: str, default: float | None = None, minimum: float = 0.0, maximum: float | None = None
    ) -> None:
        """A number."""
        flags.DEFINE_float(name, default, self._prefix + text, minimum, maximum, **self._to)

    def number_or_word(self, name: str, text: str, word: str, default: float, maximum: float) -> None:
        """A number from 0 to ``maximum``, or a word in its place."""
        flags.DEFINE(_NumberOrWord(word, maximum), name, default, self._prefix + text, **self._to)

    def boolean(self, name: str, text: str, default: bool | None = False) -> None:
        """``--name`` or ``--noname``."""
        flags.DEFINE_bool(name, default, self._prefix + text, **self._to)

    def alias(self, name: str, known: str) -> None:
        """Another name of a flag that is defined already."""
        flags.DEFINE_alias(name, known, **self._to)
        self._to["flag_values"][name].help = f"{self._prefix}--{known} under its old name."

    def choice(self, name: str, text: str, choices: Sequence[str], default: str | None = None) -> None:
        """One of several words."""
        flags.DEFINE_enum(name, default, list(choices), self._prefix + text, **self._to)


def flags_of(name: str, command: Any) -> flags.FlagValues:
    """Returns the flags of a command without values: its own, and the limit on images if it opens some."""
    flag_values = flags.FlagValues()
    if hasattr(command, "define_flags"):
        command.define_flags(flag_values)
    if name.split()[0] not in _WITHOUT_IMAGES:
        text = (
            "Skip images of more pixels: million, height times width. They are refused before they are decoded. "
            f"Default: {DEFAULT_MEGAPIXELS:g}, or the environment variable {VARIABLE}."
        )
        Definer(flag_values).number(FLAG.strip("-"), text, minimum=1e-6)
    return flag_values


def define_json_flag(flag_values: flags.FlagValues) -> None:
    """Defines ``--json``, for commands that print results."""
    text = "Print the result as one JSON document; docs/command_line.md lists its fields."
    Definer(flag_values).boolean("json", text)


def print_json(document: Any, *, indent: int | None = 2) -> None:
    """Prints a JSON document; numbers that are not finite, which JSON lacks, become null."""
    plain = json.loads(json.dumps(document), parse_constant=lambda name: None)
    print(json.dumps(plain, indent=indent, ensure_ascii=False), flush=True)


def define_font_flag(flag_values: flags.FlagValues) -> None:
    """Defines ``--font FILE``, for commands that draw class names."""
    text = "A .ttf, .otf or .ttc file for class names in scripts that DejaVu Sans lacks, such as Chinese or Thai."
    Definer(flag_values).string("font", text)


def define_tile_flags(flag_values: flags.FlagValues) -> None:
    """Defines ``--tile`` and ``--tile_overlap``, for commands that run a detector on images."""
    from detzoo.ensemble.views import MIN_TILE_PX, MOST_OVERLAP  # needs numpy, which other commands do not

    define = Definer(flag_values)
    text = (
        "Run the model on square tiles of this many pixels, cut from the image at its original size, and merge what it "
        "finds: for objects that are small in a large image. About the input size of the model, such as 640."
    )
    define.integer("tile", text, minimum=MIN_TILE_PX)
    text = (
        "With --tile: least overlap of neighbouring tiles, as a share of their side; 0.2 if it is not given. Best at "
        "least as large as most objects."
    )
    define.number("tile_overlap", text, maximum=MOST_OVERLAP)


def define_runner_flags(flag_values: flags.FlagValues) -> None:
    """Defines ``--runner`` and ``--beam_options``, for commands that can run as an Apache Beam pipeline."""
    define = Definer(flag_values)
    text = "Run as an Apache Beam pipeline (needs the extra detzoo[beam]); by default in this process."
    define.choice("runner", text, RUNNERS)
    define.string("beam_options", "With --runner: options of Beam, such as '--flink_master=host:8081 --parallelism=8'.")


def beam_options_of(flag_values: flags.FlagValues) -> Any:
    """Returns Beam's options for ``--runner``; None without it.

    Raises:
        UsageError: The extra is missing, or the options cannot be read.
    """
    if not flag_values.runner:
        if flag_values.beam_options:
            raise UsageError("--beam_options has no effect without --runner")
        return None
    require_extras("--runner", "beam")
    from detzoo.tasks.beam_pipelines import options_of

    return options_of(flag_values.runner, flag_values.beam_options)


def define_set_flag(flag_values: flags.FlagValues) -> None:
    """Defines ``--set PATH=VALUE``, repeatable: changes to the config before it is used."""
    Definer(flag_values).strings("set", SET_HELP)


def define_pipeline_flags(flag_values: flags.FlagValues, required: bool = True) -> None:
    """Defines ``--pipeline_config_path`` and ``--set``, for every command that reads a config."""
    text = "The pipeline.config to use: its path, the folder that has it, or a name that `detzoo models` lists."
    Definer(flag_values).string("pipeline_config_path", text, required=required)
    define_set_flag(flag_values)


def define_random_weights_flag(flag_values: flags.FlagValues) -> None:
    """Defines ``--allow_random_weights``, for every command that trains."""
    text = "If ImageNet's weights (pretrained_weights) are not available, train from random ones; run.json records it."
    Definer(flag_values).boolean("allow_random_weights", text)


def define_recompute_flag(flag_values: flags.FlagValues) -> None:
    """Defines ``--recompute_batch_norm N``, for commands that restore a checkpoint."""
    text = (
        "Compute the moving statistics of batch normalization from this many training batches (train_input_reader, "
        "train_config.batch_size), instead of those in the checkpoint. For short trainings; 100 is plenty."
    )
    Definer(flag_values).integer("recompute_batch_norm", text, minimum=1)


def values_of(flag_values: flags.FlagValues, *names: str) -> dict[str, Any]:
    """Returns the values of flags by their names, as keyword arguments of a task."""
    return {name: flag_values[name].value for name in names}


def load_pipeline_from_flags(flag_values: flags.FlagValues) -> LoadedPipeline:
    """Loads the config of ``--pipeline_config_path`` and ``--set``, see ``load_checked``."""
    from detzoo.tasks.models import load_checked

    return load_checked(flag_values.pipeline_config_path, flag_values.set)
