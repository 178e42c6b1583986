"""The command ``detzoo <verb>``: finds the verb, reads its flags, runs it, and turns errors into messages and codes.

A verb is a module ``detzoo.cli.<verb>`` with

    SUMMARY: str            one line for the list of verbs
    DESCRIPTION: str        what it does and examples, for ``detzoo <verb> --help``
    POSITIONAL: tuple       names of positional arguments, () if none; their values are ``flag_values.positional``. One
                            or more where the last name ends with "..."
    define_flags(flag_values: absl.flags.FlagValues) -> None
    run(flag_values: absl.flags.FlagValues) -> None

or with ``SUBCOMMANDS``, a dict from name to an object with these five; with both, flags after the verb are for the
verb itself. A module is imported when its verb is asked for, and imports TensorFlow inside ``run`` only. Exit codes: 0
success, 1 the work failed, 2 a usage or config error, 130 interrupted. Results go to stdout, messages and logs to
stderr.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any

from absl import flags

from detzoo.cli.flags import flags_of
from detzoo.cli.help import REQUIRED_MESSAGE, overview, verb_help
from detzoo.cli.native_stderr import drop_import_notes
from detzoo.config.names import suggestion
from detzoo.errors import ConfigError, DetzooError, DiskFullError, UsageError
from detzoo.files.pixel_limit import FLAG, limited_to
from detzoo.folders import full_disk

VERBS = {
    "train": "detzoo.cli.train",
    "train_four_step": "detzoo.cli.train_four_step",
    "evaluate": "detzoo.cli.evaluate",
    "export": "detzoo.cli.export",
    "detect": "detzoo.cli.detect",
    "proposals": "detzoo.cli.proposals",
    "benchmark": "detzoo.cli.benchmark",
    "ensemble": "detzoo.cli.ensemble",
    "config": "detzoo.cli.config",
    "dataset": "detzoo.cli.dataset",
    "models": "detzoo.cli.models",
    "sweep": "detzoo.cli.sweep",
    "analyze": "detzoo.cli.analyze",
}
HELP_WORDS = ("--help", "-h", "-help", "--helpfull", "--helpshort", "help")
EXIT_FAILURE, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line (without the program's name) and returns its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    quiet_tensorflow()
    configure_logging(debug)
    try:
        _dispatch(words)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("detzoo: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        _drop_stdout()  # the reader of a pipe (head, less) has gone
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
    """Discards what is left in the buffer of stdout if it cannot be written, so that Python's exit cannot fail."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):  # a stand-in for stdout has no descriptor
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def console(arguments: Sequence[str] | None = None) -> None:
    """The entry point of the installed command, of ``python -m detzoo`` and of scripts/: the process is ours alone."""
    start_without_unused_packages()
    sys.exit(main(arguments))


def start_without_unused_packages() -> None:
    """Hides what Keras imports where it finds it and no command needs: 1.5 s of 4.5 s before the first word.

    For a process that ends with the command; where ``main`` is called from a program, all packages stay.
    """
    for name in ("sklearn", "pandas"):
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # importing it fails as if it were not installed


def quiet_tensorflow() -> None:
    """Keeps the chatter of TensorFlow and Pillow off the terminal; a variable that the user has set wins."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_CPP_MAX_VLOG_LEVEL", "0")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    drop_import_notes()
    # Pillow warns of odd tags in files that it reads well; what it cannot read is reported with the file's name.
    warnings.filterwarnings("ignore", module=r"PIL\.")


def configure_logging(debug: bool = False) -> None:
    """Python logs as ``12:03:59 message`` on stderr, warnings and errors with their level in front."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_ShortFormatter())
    package = logging.getLogger("detzoo")
    package.handlers[:] = [handler]
    package.setLevel(logging.DEBUG if debug else logging.INFO)
    package.propagate = False


class _ShortFormatter(logging.Formatter):
    """Time and message; the level only where it is not the ordinary one."""

    def format(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        text = f"{self.formatTime(record, '%H:%M:%S')} {level}{record.getMessage()}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


def _dispatch(words: list[str]) -> None:
    if not words or words[0] in HELP_WORDS:
        print(overview({verb: _load(module) for verb, module in VERBS.items()}))
        return
    if words[0] in ("--version", "version"):
        from detzoo import __version__

        print(f"detzoo {__version__}")
        return
    verb, rest = words[0], words[1:]
    if verb not in VERBS:
        raise UsageError(f"there is no command '{verb}'{suggestion(verb, VERBS)}\n`detzoo --help` lists the commands")
    command: Any = _load(VERBS[verb])
    name = verb
    if command is None:
        raise UsageError(f"the command '{verb}' is not part of this installation")
    subcommands = getattr(command, "SUBCOMMANDS", None)
    if subcommands and not (hasattr(command, "run") and rest and rest[0].startswith("-")):
        if not rest or rest[0] in HELP_WORDS:
            print(verb_help(name, command))
            if not rest:
                raise SystemExit(EXIT_USAGE)
            return
        if rest[0] not in subcommands:
            hint = suggestion(rest[0], subcommands)
            raise UsageError(f"`detzoo {verb}` has no '{rest[0]}'{hint}\n`detzoo {verb} --help` shows each")
        command, name, rest = subcommands[rest[0]], f"{verb} {rest[0]}", rest[1:]
    if any(word in HELP_WORDS[:-1] for word in rest):
        print(verb_help(name, command))
        return
    flag_values = parse_flags(name, command, rest)
    with limited_to(flag_values.flag_values_dict().get(FLAG.strip("-"))):
        command.run(flag_values)


def parse_flags(name: str, command: Any, words: Sequence[str]) -> flags.FlagValues:
    """Reads a verb's flags and positional arguments (in any order).

    Raises:
        UsageError: an unknown flag (with the nearest names), a bad value, or what is missing.
    """
    flag_values = flags_of(name, command)
    flag_values.set_gnu_getopt(True)
    usage = f"`detzoo {name} --help` shows the flags"
    try:
        remaining = flag_values(["detzoo", *words])[1:]
    except flags.UnrecognizedFlagError as problem:
        raise UsageError(
            f"unknown flag --{problem.flagname}{suggestion(problem.flagname, flag_values)}\n{usage}"
        ) from None
    except flags.Error as problem:
        missing = missing_flags(flag_values)
        # A bad value ends the reading of flags, so that those behind it only seem to be missing.
        if missing and REQUIRED_MESSAGE in str(problem):
            raise UsageError(f"`detzoo {name}` needs {', '.join('--' + flag for flag in missing)}\n{usage}") from None
        raise UsageError(f"{problem}\n{usage}") from None
    positional = tuple(getattr(command, "POSITIONAL", ()))
    takes_more = bool(positional) and positional[-1].endswith("...")
    if len(remaining) < len(positional) or (len(remaining) > len(positional) and not takes_more):
        wanted = " ".join(positional) if positional else "no arguments besides its flags"
        received = " ".join(remaining) if remaining else "nothing"
        raise UsageError(f"`detzoo {name}` takes {wanted}; received: {received}\n{usage}")
    # FlagValues turns attribute assignment into flag assignment; a plain attribute goes past it.
    flag_values.__dict__["positional"] = remaining
    return flag_values


def missing_flags(flag_values: flags.FlagValues) -> list[str]:
    """The required flags that got no value."""
    from detzoo.cli.help import is_required

    return [name for name in flag_values if is_required(flag_values[name]) and flag_values[name].value is None]


def _load(module: str) -> Any:
    """The module of a verb, or None where this version does not have it."""
    if importlib.util.find_spec(module) is None:
        return None
    return importlib.import_module(module)


if __name__ == "__main__":
    console()
