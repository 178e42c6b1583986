"""``detzoo config check|show|diff``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from detzoo.cli.flags import Definer, define_json_flag, define_set_flag, print_json
from detzoo.config.check.pipeline import check_file
from detzoo.config.diff import diff_configs
from detzoo.config.library import find_config
from detzoo.config.load import load_pipeline
from detzoo.config.problems import Problem, Severity, cannot_start, format_problems, summarize
from detzoo.config.show import show_config
from detzoo.errors import ConfigError, NotReadyError

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

    SUMMARY = "Print every problem of a config, and whether it is ready to train."
    DESCRIPTION = """
    Checks the text (unknown fields, wrong types), the files that it names (label maps, records), and that the parts fit
    together: anchors and feature levels, class counts and label map, steps and schedule, what this version supports.

        detzoo config check pipeline.config
        detzoo config check pipeline.config --set train_config.num_steps=2000 --strict

    A config that comes with detzoo is not ready before its PATH_TO_BE_CONFIGURED are set: the last line counts them.

    Exit codes: 2 if there are errors, else 0. With --strict also 2 if there are warnings, else 3 if there are paths to
    set. docs/command_line.md lists the fields of --json.
    """
    POSITIONAL = ("PATH",)

    @staticmethod
    def define_flags(flag_values: flags.FlagValues) -> None:
        """Defines --set, --strict and --json."""
        define_set_flag(flag_values)
        text = "Treat warnings as errors, and end with code 3 if placeholders are still to be set."
        Definer(flag_values).boolean("strict", text)
        define_json_flag(flag_values)

    @staticmethod
    def run(flag_values: flags.FlagValues) -> None:
        """Prints the findings; raises ConfigError if there are errors."""
        path = str(find_config(*flag_values.positional))
        problems = check_file(path, flag_values.set)
        unready = [problem for problem in problems if problem.severity is Severity.TO_SET]
        lowest_fatal = Severity.WARNING if flag_values.strict else Severity.ERROR
        is_wrong = any(p.severity >= lowest_fatal for p in problems if p.severity is not Severity.TO_SET)
        verdict = f"{path}: {summarize(problems) if is_wrong else _verdict(problems, unready)}"
        if flag_values.json:
            print_json(_document(path, problems))
        else:
            _print_problems(path, problems, unready)
        if is_wrong or (unready and flag_values.strict):
            sys.stdout.flush()
            raise ConfigError(verdict) if is_wrong else NotReadyError(verdict)
        if not flag_values.json:
            print(verdict)


def _verdict(problems: Sequence[Problem], unready: Sequence[Problem]) -> str:
    others = summarize(problem for problem in problems if problem not in unready)
    if not unready:
        return ", ".join(filter(None, ("ok", others)))
    only_evaluation = all(problem.path.startswith("eval_input_reader") for problem in unready)
    verb = "evaluate" if only_evaluation else "train"
    return f"not ready to {verb}: {', '.join(filter(None, (summarize(unready), others)))}"


def _print_problems(path: str, problems: Sequence[Problem], unready: Sequence[Problem]) -> None:
    if others := [problem for problem in problems if problem not in unready]:
        print(format_problems(others, path))
    if unready:
        print("Placeholders that are still to be set, before records are read:")
        print(format_problems(unready, path))


def _document(path: str, problems: Sequence[Problem]) -> dict[str, Any]:
    counts = {level: sum(problem.severity is level for problem in problems) for level in reversed(Severity)}
    return {
        "config": path,
        "ready": not cannot_start(problems),
        "counts": {level.name.lower(): count for level, count in counts.items()},
        "problems": [
            {**problem._asdict(), "severity": problem.severity.name.lower(), "line": problem.line or None}
            for problem in problems
        ],
    }


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
    def run(flag_values: flags.FlagValues) -> None:
        """Prints one line per field that differs."""
        first, second = flag_values.positional
        differences = diff_configs(load_pipeline(first).message, load_pipeline(second).message)
        print("\n".join(str(difference) for difference in differences) or "no differences")


SUBCOMMANDS: dict[str, Any] = {"check": Check, "show": Show, "diff": Diff}
