"""``detzoo config check|show|diff``."""

from __future__ import annotations

import sys
from typing import Any

from absl import flags

from detzoo.cli.flags import Definer, define_set_flag
from detzoo.errors import ConfigError

SUMMARY = "Check, show or compare pipeline.config files; every problem at once, with its line."
DESCRIPTION = """
Works on pipeline.config files, on folders with one, and on the configs that come with detzoo by their names, which
`detzoo models` lists. Loads no TensorFlow.

    detzoo config check pipeline.config
    detzoo config show ssd_mobilenet_v2_300
    detzoo config check pipeline.config --set train_config.batch_size=8
    detzoo config show pipeline.config --defaults
    detzoo config diff old.config new.config
"""


class Check:
    """``detzoo config check PATH``."""

    SUMMARY = "Print every problem of a config; exit 2 if there are errors, 0 if it is ok."
    DESCRIPTION = """
    Checks the text (unknown fields, wrong types), the files that it names (label maps, records), and that the parts fit
    together: anchors and feature levels, class counts and label map, steps and schedule, what this version supports.

        detzoo config check pipeline.config
        detzoo config check pipeline.config --set train_config.num_steps=2000 --strict
    """
    POSITIONAL = ("PATH",)

    @staticmethod
    def define_flags(flag_values: flags.FlagValues) -> None:
        """Defines --set and --strict."""
        define_set_flag(flag_values)
        text = "Treat warnings, and placeholders that are still to be set, as errors."
        Definer(flag_values).boolean("strict", text)

    @staticmethod
    def run(flag_values: flags.FlagValues) -> None:
        """Prints the findings; raises ConfigError if there are errors."""
        from detzoo.config.check.pipeline import check_file
        from detzoo.config.library import find_config
        from detzoo.config.problems import Severity, format_problems, summarize

        path = str(find_config(*flag_values.positional))
        problems = check_file(path, flag_values.set)
        to_set = [problem for problem in problems if problem.severity is Severity.TO_SET]
        others = [problem for problem in problems if problem.severity is not Severity.TO_SET]
        if others:
            print(format_problems(others, path))
        if to_set:
            print("Placeholders that are still to be set, before records are read:")
            print(format_problems(to_set, path))
        lowest_fatal = Severity.WARNING if flag_values.strict else Severity.ERROR
        if any(problem.severity >= lowest_fatal for problem in problems):
            sys.stdout.flush()
            raise ConfigError(f"{path}: {summarize(problems)}")
        print(f"{path}: {', '.join(filter(None, ('ok', summarize(problems))))}")


class Show:
    """``detzoo config show PATH``."""

    SUMMARY = "Print the config as it will be used, after --set; with --defaults also its unset fields."
    DESCRIPTION = """
    Prints protobuf text that is itself a config.

        detzoo config show pipeline.config --set 'train_config.optimizer.adam_optimizer{}' > new.config
        detzoo config show pipeline.config --path train_config.optimizer --defaults
    """
    POSITIONAL = ("PATH",)

    @staticmethod
    def define_flags(flag_values: flags.FlagValues) -> None:
        """Defines --set, --defaults and --path."""
        define_set_flag(flag_values)
        define = Definer(flag_values)
        define.boolean("defaults", "Show the fields that hold their default, too.")
        define.string("path", "Show only this block, e.g. model.ssd.loss.", "")

    @staticmethod
    def run(flag_values: flags.FlagValues) -> None:
        """Prints the resolved text."""
        from detzoo.config.load import load_pipeline
        from detzoo.config.show import show_config

        [path] = flag_values.positional
        loaded = load_pipeline(path, flag_values.set)
        print(show_config(loaded.message, defaults=flag_values.defaults, path=flag_values.path), end="")


class Diff:
    """``detzoo config diff A B``."""

    SUMMARY = "Print the fields in which two configs differ."
    DESCRIPTION = """
    Compares the meaning of two configs: the order of fields, comments and explicit defaults make no difference.

        detzoo config diff old.config new.config
    """
    POSITIONAL = ("A", "B")

    @staticmethod
    def define_flags(flag_values: flags.FlagValues) -> None:
        """Defines no flag."""

    @staticmethod
    def run(flag_values: flags.FlagValues) -> None:
        """Prints one line per field that differs."""
        from detzoo.config.diff import diff_configs
        from detzoo.config.load import load_pipeline

        first, second = flag_values.positional
        differences = diff_configs(load_pipeline(first).message, load_pipeline(second).message)
        print("\n".join(str(difference) for difference in differences) or "no differences")


SUBCOMMANDS: dict[str, Any] = {"check": Check, "show": Show, "diff": Diff}
