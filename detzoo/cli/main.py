"""The command ``detzoo <verb>``: finds the verb, reads its flags, runs it, and turns errors into messages and codes.

A verb is a module ``detzoo.cli.<verb>`` with

    SUMMARY: str            one line for the list of verbs
    DESCRIPTION: str        effect and examples, for ``detzoo <verb> --help``
    POSITIONAL: tuple       names of positional arguments, if any; their values are ``flag_values.positional``. A last
                            name that ends with "..." takes one or more, one in brackets may be left out
    define_flags(flag_values: absl.flags.FlagValues) -> None        if it has flags
    run(flag_values: absl.flags.FlagValues) -> None

or with ``SUBCOMMANDS``, a dict from name to an object with these five; with both, flags directly after the verb belong
to the verb itself, which also runs without any if it requires none. A module is imported when its verb is called, and
imports TensorFlow only inside ``run``. Exit codes: 0 success, 1 the work failed, 2 a usage or config error, 3 a
config that is not ready, 130 interrupted. Results go to stdout, messages and logs to stderr.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from absl import flags

from detzoo.cli.api_flags import instead_of
from detzoo.cli.flags import flags_of
from detzoo.cli.help import is_required, overview, verb_help
from detzoo.cli.project import GIVEN, take_project
from detzoo.config.names import suggestion
from detzoo.errors import ConfigError, DetzooError, DiskFullError, UsageError
from detzoo.files.pixel_limit import FLAG, limited_to
from detzoo.folders import full_disk
from detzoo.provenance import versions
from detzoo.tasks.start import configure_logging, quiet_tensorflow, start_without_unused_packages

VERBS = (
    "new",
    "train",
    "train_four_step",
    "evaluate",
    "export",
    "detect",
    "proposals",
    "features",
    "benchmark",
    "ensemble",
    "config",
    "dataset",
    "models",
    "weights",
    "sweep",
    "analyze",
    "completion",
)
HELP_WORDS = ("--help", "-h", "-help", "--helpfull", "--helpshort", "help")
EXIT_FAILURE, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line (without the program's name) and returns its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug, quiet = "--debug" in words, "--quiet" in words
    words = [word for word in words if word not in ("--debug", "--quiet")]
    quiet_tensorflow()
    configure_logging(debug, quiet)
    try:
        _dispatch(words)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("detzoo: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        _drop_stdout()  # the reader of a pipe (head, less) has ended
        return EXIT_FAILURE
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else EXIT_FAILURE if stop.code else 0
    except Exception as problem:
        if debug:
            traceback.print_exc()
        shown = problem if isinstance(problem, UsageError | ConfigError) else full_disk(problem) or problem
        if isinstance(shown, DiskFullError):
            _drop_stdout()  # it may be a file on that disk
        if isinstance(shown, DetzooError):
            print(f"detzoo: {shown}", file=sys.stderr)
            return shown.exit_code
        hint = "" if debug else " (--debug shows where)"
        print(f"detzoo: {type(problem).__name__}: {problem}{hint}", file=sys.stderr)
        return EXIT_FAILURE
    return 0


def _drop_stdout() -> None:
    """Discards the buffer of stdout if it cannot be written, so that Python's exit cannot fail."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):  # a replacement of stdout has no descriptor
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def console(arguments: Sequence[str] | None = None) -> None:
    """Runs the installed command, ``python -m detzoo`` and scripts/, each in a separate process."""
    start_without_unused_packages()
    sys.exit(main(arguments))


def _dispatch(words: list[str]) -> None:
    if not words or words[0] in HELP_WORDS:
        print(overview({verb: _load(verb) for verb in VERBS}))
        return
    if words[0] in ("--version", "version"):
        print(_version())
        return
    name, rest = words[0], words[1:]
    if name not in VERBS:
        raise UsageError(f"there is no command '{name}'{suggestion(name, VERBS)}\n`detzoo --help` lists the commands")
    command = _load(name)
    subcommands = getattr(command, "SUBCOMMANDS", None)
    if subcommands and not (hasattr(command, "run") and _is_for_itself(name, command, rest)):
        if not rest or rest[0] in HELP_WORDS:
            print(verb_help(name, command))
            if not rest:
                raise SystemExit(EXIT_USAGE)
            return
        if rest[0] not in subcommands:
            hint = suggestion(rest[0], subcommands)
            raise UsageError(f"`detzoo {name}` has no '{rest[0]}'{hint}\n`detzoo {name} --help` shows each")
        command, name, rest = subcommands[rest[0]], f"{name} {rest[0]}", rest[1:]
    if any(word in HELP_WORDS[:-1] for word in rest):
        print(verb_help(name, command))
        return
    flag_values = parse_flags(name, command, rest)
    with limited_to(flag_values.flag_values_dict().get(FLAG.strip("-"))):
        command.run(flag_values)


def _version() -> str:
    """Returns the versions of detzoo and of what it runs on, without importing it."""
    from detzoo import __version__

    found = {"tensorflow": "not installed", "keras": "not installed"} | versions()
    parts = [f"{name} {found[name.lower()]}" for name in ("TensorFlow", "Keras", "Python")]
    return f"detzoo {__version__} ({', '.join(parts)})"


def _is_for_itself(name: str, command: Any, words: Sequence[str]) -> bool:
    """Returns whether the words after a verb are for the verb itself, not for a subcommand."""
    if words:
        return words[0].startswith("-")
    flag_values = flags_of(name, command)
    return not any(is_required(flag_values[flag]) for flag in flag_values)


def parse_flags(name: str, command: Any, words: Sequence[str]) -> flags.FlagValues:
    """Reads a verb's flags and positional arguments (in any order).

    Raises:
        UsageError: A flag is unknown (the nearest names are shown), has a bad value, or is missing.
    """
    flag_values = flags_of(name, command)
    flag_values.set_gnu_getopt(True)
    usage = f"`detzoo {name} --help` shows the flags"
    required = [flag for flag in flag_values if is_required(flag_values[flag])]
    for flag in required:
        flag_values[flag].value = ""  # for absl; a missing flag may be given by a project
    try:
        remaining = flag_values(["detzoo", *words])[1:]
    except flags.UnrecognizedFlagError as problem:
        hint = instead_of(problem.flagname) or suggestion(problem.flagname, flag_values)
        raise UsageError(f"unknown flag --{problem.flagname}{hint}\n{usage}") from None
    except flags.Error as problem:
        raise UsageError(f"{problem}\n{usage}") from None
    remaining = take_project(name, flag_values, remaining)
    missing = [flag for flag in required if not (flag_values[flag].present or flag_values[flag].value)]
    if missing:
        project = ", or the folder of a project" if name in GIVEN else ""
        raise UsageError(f"`detzoo {name}` needs {', '.join('--' + flag for flag in missing)}{project}\n{usage}")
    positional = tuple(getattr(command, "POSITIONAL", ()))
    takes_more = bool(positional) and positional[-1].endswith("...")
    fewest = sum(not each.startswith("[") for each in positional)
    if len(remaining) < fewest or (len(remaining) > len(positional) and not takes_more):
        expected = " ".join(positional) if positional else "no arguments besides its flags"
        received = " ".join(remaining) if remaining else "nothing"
        raise UsageError(f"`detzoo {name}` takes {expected}; received: {received}\n{usage}")
    # FlagValues turns the assignment of an attribute into that of a flag, so __dict__ is set directly.
    flag_values.__dict__["positional"] = remaining
    return flag_values


def _load(verb: str) -> Any:
    return importlib.import_module(f"detzoo.cli.{verb}")


if __name__ == "__main__":
    console()
