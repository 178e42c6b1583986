"""The texts of ``detzoo --help`` and ``detzoo <verb> --help``."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from typing import Any

from absl import flags

from detzoo.cli.flags import flags_of
from detzoo.cli.project import project_help, usage_of
from detzoo.config.library import shipped

WIDTH = 100
REQUIRED_MESSAGE = "must have a value other than None"  # in the message of absl's mark_flag_as_required
ENUM_PREFIX = re.compile(r"^<[^>]*>: ")  # before the help of such a flag, by absl
MULTI_SUFFIX = "; repeat this option to specify a list of values"  # after the help of such a flag, by absl
# Prefix of the help of flags that exist for the scripts of the Object Detection API's users.
API_PREFIX = "Object Detection API: "


def overview(commands: Mapping[str, Any]) -> str:
    """Returns the list of commands with their one-line summaries."""
    width = max(map(len, commands))
    lines = [
        "detzoo: object detectors on TensorFlow and Keras, from a pipeline.config to a SavedModel",
        "",
        "usage: detzoo COMMAND [FLAGS]",
        "",
        *(f"  {verb:<{width}}  {command.SUMMARY}" for verb, command in commands.items()),
        "",
        "detzoo COMMAND --help shows a command's flags and examples. All commands take --quiet, for warnings",
        "and errors only, and --debug, for tracebacks. detzoo --version shows versions.",
        "",
        "Exit codes: 0 success, 1 the work failed, 2 a usage or config error, 3 a config with paths still to set",
        "(only of config check --strict), 130 interrupted.",
        "",
        f"The documents are in {shipped('docs')}.",
    ]
    return "\n".join(lines)


def verb_help(name: str, command: Any) -> str:
    """Returns a command's description and its flags (required ones first, others with defaults) or subcommands."""
    subcommands = getattr(command, "SUBCOMMANDS", None)
    if not subcommands:
        return _own_help(name, command)
    width = max(map(len, subcommands))
    rows = [f"  {sub:<{width}}  {part.SUMMARY}" for sub, part in subcommands.items()]
    if hasattr(command, "run"):
        head = [_own_help(name, command), "", "subcommands:"]
    else:
        usage = f"usage: detzoo {name} {{{','.join(subcommands)}}} ..."
        head = [usage, "", textwrap.dedent(command.DESCRIPTION).strip(), ""]
    return "\n".join([*head, *rows, "", f"detzoo {name} SUBCOMMAND --help shows the flags of each."])


def _own_help(name: str, command: Any) -> str:
    flag_values = flags_of(name, command)
    # In the order of definition; absl's own iteration is alphabetical.
    own = [flag for flag_name, flag in flag_values._flags().items() if flag_name == flag.name]
    required = [flag for flag in own if is_required(flag)]
    borrowed = [flag for flag in own if (flag.help or "").startswith(API_PREFIX)]
    optional = [flag for flag in own if not is_required(flag) and flag not in borrowed]
    usage = " ".join(
        [f"usage: detzoo {name}", *getattr(command, "POSITIONAL", ())]
        + usage_of(name, [flag.name for flag in required])
        + (["[FLAGS]"] if optional else [])
    )
    lines = [usage, "", textwrap.dedent(command.DESCRIPTION).strip(), *project_help(name)]
    titled = (("required flags", required), ("flags", optional), ("flags of the Object Detection API", borrowed))
    for title, group in titled:
        if group:
            lines += ["", f"{title}:", *(line for flag in group for line in _flag_lines(flag))]
    lines += ["", "All commands take --quiet and --debug, see `detzoo --help`."]
    if any("docs/" in line for line in lines):
        lines.append(f"docs/ is {shipped('docs')}")
    return "\n".join(lines)


def is_required(flag: flags.Flag) -> bool:
    """Returns whether the command refuses to run without the flag."""
    return any(REQUIRED_MESSAGE in (validator.message or "") for validator in flag.validators)


def _flag_lines(flag: flags.Flag) -> list[str]:
    head = f"  --{flag.name}"
    if flag.boolean:
        head = f"  --[no]{flag.name}"
    elif isinstance(flag.parser, flags.EnumParser):
        head += f" {{{','.join(flag.parser.enum_values)}}}"
    text = " ".join((flag.help or "").split()).removeprefix(API_PREFIX).removesuffix(MULTI_SUFFIX)
    text = ENUM_PREFIX.sub("", text)
    if not is_required(flag):
        if isinstance(flag, flags.MultiFlag):
            text += " (repeatable)"
        elif flag.default not in (None, ""):
            text += f" (default {str(flag.default).lower() if flag.boolean else flag.default})"
    return [head, *textwrap.wrap(text, WIDTH - 8, initial_indent=" " * 8, subsequent_indent=" " * 8)]
