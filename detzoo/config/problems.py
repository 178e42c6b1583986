"""What is wrong with a config: one Problem a finding, so that all of them can be shown at once."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from typing import NamedTuple


class Severity(enum.IntEnum):
    """How much a finding matters."""

    NOTE = 0  # accepted, no effect
    WARNING = 1  # works, but probably not as meant
    TO_SET = 2  # a placeholder of a published config: good, but not started before its owner gives the path
    ERROR = 3  # cannot be used


MOST_PROBLEMS = 100  # that are listed; more have one cause, or the file is no config
_MOST_SHOWN = 2000  # characters of a message
_NO_EFFECT = "accepted, no effect: "
_PLACEHOLDER = "PATH_TO_BE"  # PATH_TO_BE_CONFIGURED; one published config misspells the rest


class Problem(NamedTuple):
    """One finding: where (field path and line of the text; 0 where no line says it) and what."""

    severity: Severity
    path: str
    line: int
    message: str

    def format(self, file: str) -> str:
        """``file:line: error: path: message``; an override's problem names the override in its message."""
        where = f"{file}:{self.line}" if self.line else file
        path = f"{self.path}: " if self.path else ""
        text = f"{where}: {self.severity.name.lower().replace('_', ' ')}: {path}{self.message[:_MOST_SHOWN]}"
        return text.encode("utf-8", "backslashreplace").decode("utf-8")  # a terminal refuses lone surrogates

    @property
    def is_without_effect(self) -> bool:
        """Whether this is a field that is accepted and has no effect here."""
        return self.severity is Severity.NOTE and self.message.startswith(_NO_EFFECT)


def error(path: str, line: int, message: str) -> Problem:
    """A finding that makes the config unusable."""
    return Problem(Severity.ERROR, path, line, message)


class Findings:
    """Collects what the checks of one config find; the line of each comes from its field path.

    Attributes:
        problems: what was found, in the order of finding.
    """

    def __init__(self, line_of: Callable[[str], int]) -> None:
        self.problems: list[Problem] = []
        self._line_of = line_of

    def error(self, path: str, message: str) -> None:
        """Adds what makes the config unusable."""
        self._add(Severity.ERROR, path, message)

    def warning(self, path: str, message: str) -> None:
        """Adds what works, but probably not as meant."""
        self._add(Severity.WARNING, path, message)

    def note(self, path: str, message: str) -> None:
        """Adds what is worth knowing of what works."""
        self._add(Severity.NOTE, path, message)

    def no_effect(self, path: str, why: str) -> None:
        """Adds a field that is accepted and has no effect."""
        self.note(path, f"{_NO_EFFECT}{why}")

    def to_set(self, path: str, give: str) -> None:
        """Adds a path that is still a placeholder. ``give``: what its owner has to name there."""
        assignment = f"{path}=PATH"
        quoted = f"'{assignment}'" if "[" in path else assignment
        self._add(Severity.TO_SET, path, f"give {give}: --set {quoted}")

    def _add(self, severity: Severity, path: str, message: str) -> None:
        self.problems.append(Problem(severity, path, self._line_of(path), message))


def is_placeholder(path: str) -> bool:
    """Whether a path is what published configs have where their user's belongs: ``PATH_TO_BE_CONFIGURED/...``."""
    return _PLACEHOLDER in path


def has_errors(problems: Iterable[Problem]) -> bool:
    """Whether any finding is an error."""
    return any(problem.severity is Severity.ERROR for problem in problems)


def cannot_start(problems: Iterable[Problem]) -> bool:
    """Whether any finding stops a command that reads records: an error, or a path that is still to be set."""
    return any(problem.severity >= Severity.TO_SET for problem in problems)


def summarize(problems: Iterable[Problem]) -> str:
    """How many findings of each kind there are, those first that matter most; "" without any."""
    counted = list(problems)
    without_effect = sum(problem.is_without_effect for problem in counted)
    parts = []
    for severity, one, several in (
        (Severity.ERROR, "error", "errors"),
        (Severity.WARNING, "warning", "warnings"),
        (Severity.TO_SET, "path to set", "paths to set"),
        (Severity.NOTE, "note", "notes"),
    ):
        count = sum(problem.severity is severity for problem in counted)
        if severity is Severity.NOTE:
            count -= without_effect
        if count:
            parts.append(f"{count} {one if count == 1 else several}")
    if without_effect:
        parts.append(f"{without_effect} accepted field{' has' if without_effect == 1 else 's have'} no effect")
    return ", ".join(parts)


def format_problems(problems: Iterable[Problem], file: str) -> str:
    """Returns one line per finding in the order of the text. Of many it lists the most severe and counts the rest."""
    ordered = sorted(problems, key=lambda problem: (problem.line == 0, problem.line))
    worst = sorted(range(len(ordered)), key=lambda index: -ordered[index].severity)
    lines = [ordered[index].format(file) for index in sorted(worst[:MOST_PROBLEMS])]
    if rest := summarize(ordered[index] for index in worst[MOST_PROBLEMS:]):
        lines.append(f"{file}: not listed: {rest}")
    return "\n".join(lines)
