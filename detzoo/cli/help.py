"""The texts of ``detzoo --help`` and ``detzoo <verb> --help``."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from typing import Any

from absl import flags

from detzoo.cli.flags import flags_of

WIDTH = 100
REQUIRED_MESSAGE = "must have a value other than None"  # What absl's mark_flag_as_required writes.
ENUM_PREFIX = re.compile(r"^<[^>]*>: ")  # What absl puts before the help of such a flag.
MULTI_SUFFIX = "; repeat this option to specify a list of values"  # What absl adds to the help of such a flag.


# What the help of a flag begins with that is there for the scripts of the Object Detection API's users.
API_PREFIX = "Object Detection API: "


def overview(commands: Mapping[str, Any]) -> str:
    """The list of commands with their one-line summaries; a command without a module is left out."""
    present = {verb: command for verb, command in commands.items() if command is not None}
    width = max(len(verb) for verb in present) if present else 0
    lines = [
        "detzoo: object detectors on TensorFlow and Keras, from a pipeline.config to a SavedModel",
        "",
        "usage: detzoo COMMAND [FLAGS]",
        "",
    ]
    lines += [f"  {verb:<{width}}  {command.SUMMARY}" for verb, command in present.items()]
    lines += ["", "detzoo COMMAND --help shows a command's flags and examples; --debug shows tracebacks."]
    return "\n".join(lines)


def verb_help(name: str, command: Any) -> str:
    """What a command does, its subcommands or its flags: required ones first, the others with their defaults."""
    subcommands = getattr(command, "SUBCOMMANDS", None)
    if subcommands:
        width = max(len(sub) for sub in subcommands)
        rows = [f"  {sub:<{width}}  {part.SUMMARY}" for sub, part in subcommands.items()]
        usage = f"usage: detzoo {name} {{{','.join(subcommands)}}} ..."
        if not hasattr(command, "run"):
            return "\n".join([usage, "", textwrap.dedent(command.DESCRIPTION).strip(), "", *rows, "", _more(name)])
        return "\n".join([_own_help(name, command), "", "subcommands:", *rows, "", _more(name)])
    return _own_help(name, command)


def _own_help(name: str, command: Any) -> str:
    flag_values = flags_of(name, command)
    own = [flag_values[flag] for flag in _in_order_of_definition(flag_values)]
    required = [flag for flag in own if is_required(flag)]
    borrowed = [flag for flag in own if (flag.help or "").startswith(API_PREFIX)]
    optional = [flag for flag in own if not is_required(flag) and flag not in borrowed]
    usage = " ".join(
        [f"usage: detzoo {name}", *getattr(command, "POSITIONAL", ())]
        + [f"--{flag.name} {flag.name.upper()}" for flag in required]
        + (["[FLAGS]"] if optional else [])
    )
    lines = [usage, "", textwrap.dedent(command.DESCRIPTION).strip()]
    titled = (("required flags", required), ("flags", optional), ("flags of the Object Detection API", borrowed))
    for title, group in titled:
        if group:
            lines += ["", f"{title}:"]
            for flag in group:
                lines += _flag_lines(flag)
    return "\n".join(lines)


def is_required(flag: flags.Flag) -> bool:
    """Whether the command refuses to run without the flag."""
    return any(REQUIRED_MESSAGE in (validator.message or "") for validator in flag.validators)


def _more(name: str) -> str:
    return f"detzoo {name} SUBCOMMAND --help shows the flags of each."


def _in_order_of_definition(flag_values: flags.FlagValues) -> list[str]:
    """Names of flags as the command defined them; absl itself iterates in the order of the alphabet."""
    return [name for name, flag in flag_values._flags().items() if name == flag.name]


def _flag_lines(flag: flags.Flag) -> list[str]:
    head = f"  --{flag.name}"
    if flag.boolean:
        head = f"  --[no]{flag.name}"
    elif isinstance(flag.parser, flags.EnumParser):
        head += f" {{{','.join(flag.parser.enum_values)}}}"
    text = " ".join((flag.help or "").split()).removeprefix(API_PREFIX).removesuffix(MULTI_SUFFIX)
    text = ENUM_PREFIX.sub("", text)
    repeats = isinstance(flag, flags.MultiFlag)
    if not is_required(flag):
        if repeats:
            text += " (repeatable)"
        elif flag.default not in (None, ""):
            text += f" (default {str(flag.default).lower() if flag.boolean else flag.default})"
    return [head, *textwrap.wrap(text, WIDTH - 8, initial_indent=" " * 8, subsequent_indent=" " * 8)]
