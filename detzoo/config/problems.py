"""What is wrong with a config: one Problem a finding, so that all of them can be shown at once."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from typing import NamedTuple


class Severity(enum.IntEnum):
    """How much a finding matters."""

    NOTE = 0  # accepted, no effect
    WARNING = 1  # works, but probably not as meant
    ERROR = 2  # cannot be used


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
        return f"{where}: {self.severity.name.lower()}: {path}{self.message}"


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
        """Adds what is accepted and has no effect."""
        self._add(Severity.NOTE, path, message)

    def _add(self, severity: Severity, path: str, message: str) -> None:
        self.problems.append(Problem(severity, path, self._line_of(path), message))


def has_errors(problems: Iterable[Problem]) -> bool:
    """Whether any finding is an error."""
    return any(problem.severity is Severity.ERROR for problem in problems)


def format_problems(problems: Iterable[Problem], file: str) -> str:
    """Every finding on a line of its own, in the order of the text."""
    ordered = sorted(problems, key=lambda problem: (problem.line == 0, problem.line))
    return "\n".join(problem.format(file) for problem in ordered)
