"""``detzoo train PROJECT``: the folder of `detzoo new` as the default of a command's flags."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from typing import NamedTuple

from absl import flags

from detzoo.errors import UsageError
from detzoo.folders import CONFIG_FILE, METRICS_FILE, PROJECT_BEST, PROJECT_TRAINING

EVALUATION, EXPORT, DETECTIONS = "evaluation", "export", "detections"
PROJECT = "PROJECT"  # in texts of help


class Given(NamedTuple):
    """A flag that a project gives."""

    flag: str  # name of the flag
    path: str  # path below the project
    made_by: str = ""  # verb that writes the path, which must exist; "" if `detzoo new` or the command itself writes it
    unless: tuple[str, ...] = ()  # flags that replace this one


_CONFIG = Given("pipeline_config_path", CONFIG_FILE)
# Of two entries of one flag, the first applies whose path exists.
GIVEN = {
    "train": (_CONFIG, Given("model_dir", PROJECT_TRAINING)),
    "evaluate": (
        _CONFIG,
        Given("checkpoint_dir", PROJECT_BEST, "train", unless=("saved_model", "continuous", "detections")),
        Given("checkpoint_dir", PROJECT_TRAINING, "train", unless=("saved_model", "detections")),
        Given("output_dir", EVALUATION),
    ),
    "export": (
        _CONFIG,
        Given("trained_checkpoint_dir", PROJECT_BEST, "train"),
        Given("trained_checkpoint_dir", PROJECT_TRAINING, "train"),
        Given("output_directory", EXPORT),
    ),
    "detect": (
        Given("saved_model", EXPORT, "export", unless=("ensemble",)),
        Given("output_dir", DETECTIONS),
        Given("metrics", f"{EVALUATION}/{METRICS_FILE}", unless=("saved_model", "ensemble")),
    ),
    "benchmark": (Given("saved_model", EXPORT, "export", unless=("pipeline_config_path",)),),
}


def usage_of(name: str, required: Sequence[str]) -> list[str]:
    """Returns the words of a usage line for the required flags of a command, and the project that replaces them."""
    given = {each.flag for each in GIVEN.get(name, ())}
    shown = {flag: f"--{flag} {flag.upper()}" for flag in required}
    replaced = [text for flag, text in shown.items() if flag in given]
    project = [f"{{{PROJECT} | {' '.join(replaced)}}}"] if replaced else [f"[{PROJECT}]"] if given else []
    return project + [text for flag, text in shown.items() if flag not in given]


def project_help(name: str) -> list[str]:
    """Returns the lines of ``--help`` about the folder of a project; none for commands that take none."""
    if name not in GIVEN:
        return []
    lines = [f"    --{each.flag} {PROJECT}/{each.path}" for each in GIVEN[name]]
    text = (
        f"{PROJECT} is a folder of `detzoo new`. It gives these flags (of two, the first that exists), unless you do:"
    )
    return ["", text, "", *lines]


def take_project(name: str, flag_values: flags.FlagValues, words: list[str]) -> list[str]:
    """Sets the flags of a command that a project gives and the command line does not.

    Args:
        name: Name of the command.
        flag_values: Its flags, parsed.
        words: Positional arguments, of which the first is the folder if the command takes one.

    Returns:
        The other positional arguments.

    Raises:
        UsageError: The folder is no project, or lacks what an earlier command writes.
    """
    if name not in GIVEN or not words:
        return words
    folder, *others = words
    if not os.path.isfile(os.path.join(folder, CONFIG_FILE)):
        if os.path.isfile(folder):
            raise UsageError(f"{folder} is a file, not the folder of a project; a config goes after --{_CONFIG.flag}")
        why = f"it has no {CONFIG_FILE}" if os.path.isdir(folder) else "there is no such folder"
        raise UsageError(f"{folder} is no project: {why}; `detzoo new {shlex.quote(folder)} --data DIR` makes one")
    lacking: dict[str, Given] = {}
    for each in GIVEN[name]:
        flag = flag_values[each.flag]
        if flag.value or any(flag_values[other].present for other in (each.flag, *each.unless)):
            continue
        path = os.path.join(folder, each.path)
        if each.made_by and not os.path.isdir(path):
            lacking[each.flag] = each
        else:
            flag.value = path
            lacking.pop(each.flag, None)
    for each in lacking.values():
        path = os.path.join(folder, each.path)
        raise UsageError(f"there is no {path} yet; `detzoo {each.made_by} {shlex.quote(folder)}` writes it")
    return others
