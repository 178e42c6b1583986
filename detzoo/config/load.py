"""pipeline.config -> message, with the line of every field, overrides applied, and every problem at once."""

from __future__ import annotations

import codecs
import dataclasses
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from google.protobuf import text_format

from detzoo.config import override, pb
from detzoo.config.library import find_config
from detzoo.config.names import clip
from detzoo.config.paths import path_hint, resolve_beside
from detzoo.config.problems import Problem, format_problems
from detzoo.config.text import parse_text
from detzoo.errors import ConfigError, UsageError
from detzoo.folders import check_regular, write_atomically

MOST_BYTES = 64 * 2**20  # of a text; the largest published config has 10 KB


@dataclasses.dataclass
class LoadedPipeline:
    """A config with its overrides applied."""

    message: Any  # TrainEvalPipelineConfig
    path: str  # path of its file, as the user named it; the whole path of a config that comes with detzoo
    text: str  # text of that file
    lines: dict[str, int]  # line (from 1) of every field path that the text sets
    overrides: tuple[str, ...] = ()  # the ``path=value`` strings that were applied, in order
    braces_match: bool = True  # see ``ParsedText``

    def line_of(self, field_path: str) -> int:
        """Returns the line of a field, or of the nearest enclosing block in the text; 0 for none."""
        parts = field_path.split(".")
        while parts:
            candidate = ".".join(parts)
            for known in (candidate, re.sub(r"\[\d+\]$", "", candidate)):
                if known in self.lines:
                    return self.lines[known]
            parts.pop()
        return 0


def read_pipeline(path: str, overrides: Sequence[str] = (), merged: str = "") -> tuple[LoadedPipeline, list[Problem]]:
    """Reads a config and applies overrides. Returns the fields that could be read, and every problem.

    Args:
        path: Path of the file, or name of a config that comes with detzoo, see ``library.find_config``. Paths in the
            text are relative to the current folder or, failing that, to the file's.
        overrides: ``path=value``, applied last.
        merged: Protobuf text that is merged into the file's: its scalars replace, its lists are appended.

    Raises:
        UsageError: The file cannot be read at all.
    """
    file = find_config(path)
    text = read_text(file, "pipeline config")
    parsed = parse_text(text, pb.TrainEvalPipelineConfig)
    loaded = LoadedPipeline(parsed.message, str(file), text, parsed.lines, tuple(overrides), parsed.braces_match)
    resolve_beside(loaded.message, file.parent)
    problems = list(parsed.problems)
    if merged:
        more = parse_text(merged, pb.TrainEvalPipelineConfig)
        loaded.message.MergeFrom(more.message)
        problems += [
            problem._replace(line=0, message=f"--config_override: {problem.message}") for problem in more.problems
        ]
    for assignment in overrides:
        problems += override.apply_override(loaded.message, assignment, loaded.lines)
    return loaded, problems


def load_pipeline(path: str, overrides: Sequence[str] = (), merged: str = "") -> LoadedPipeline:
    """Reads a config, merges text into it and applies ``path=value`` overrides, see ``read_pipeline``.

    Raises:
        UsageError: The file cannot be read at all.
        ConfigError: The text or an override has problems; the message lists all of them, one per line.
    """
    loaded, problems = read_pipeline(path, overrides, merged)
    if problems:
        raise ConfigError(format_problems(problems, loaded.path))
    return loaded


def load_message(message: Any) -> LoadedPipeline:
    """Reads a config that a program holds as a message, also one of the Object Detection API's class.

    Raises:
        UsageError: The message is of another type.
        ConfigError: It has fields that detzoo does not support.
    """
    name = message.DESCRIPTOR.full_name
    if name.rpartition(".")[2] != "TrainEvalPipelineConfig":
        raise UsageError(f"the message is a {name}; a config is a TrainEvalPipelineConfig")
    return load_text(to_text(message), "message")


def load_text(text: str, path: str) -> LoadedPipeline:
    """Reads the text of a config; ``path`` is its file in messages.

    Raises:
        ConfigError: The text has problems; the message lists all of them, one per line.
    """
    parsed = parse_text(text, pb.TrainEvalPipelineConfig)
    if parsed.problems:
        raise ConfigError(format_problems(parsed.problems, path))
    return LoadedPipeline(parsed.message, path, text, parsed.lines)


def save_pipeline(message: Any, path: str | pathlib.Path) -> None:
    """Writes a config as text, which ``load_pipeline`` reads as an equal message."""
    write_atomically(path, to_text(message))


def to_text(message: Any) -> str:
    """Returns a message as protobuf text, in the order of the schema's field numbers."""
    return text_format.MessageToString(message, as_utf8=True)


def read_text(path: str | pathlib.Path, what: str) -> str:
    """Returns the text of a file. ``what``: the role of the file, for messages.

    Raises:
        UsageError: Missing, a folder, a device or pipe, too large, not readable, or not text.
    """
    file = pathlib.Path(path)
    if not str(path):
        raise UsageError(f"the path of the {what} is empty")
    try:
        if file.is_dir():
            inside = sorted(entry.name for entry in file.iterdir() if entry.suffix in (".config", ".pbtxt"))
            hint = f"; it contains {', '.join(inside[:5])}" if inside else ""
            raise UsageError(f"{path} is a folder, not a {what}{hint}")
        size = check_regular(file).st_size
        if size > MOST_BYTES:
            raise UsageError(f"{path} has {size} bytes; a {what} has {MOST_BYTES} at most")
        data = file.read_bytes()
        return data.decode("utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8")
    except FileNotFoundError:
        raise UsageError(f"there is no {what} at {clip(str(path))}{path_hint(path)}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not a text file; a {what} is protobuf text") from None
    except OSError as problem:
        raise UsageError(f"the {what} {clip(str(path))} cannot be read: {problem.strerror}") from None
    except ValueError as problem:  # a NUL in the path
        raise UsageError(f"the path {clip(str(path))!r} of the {what} is none: {problem}") from None
